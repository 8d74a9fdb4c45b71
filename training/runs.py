"""What systems said about clips, read from files and scored: several systems, languages and runs, on the same clips.

All that the figures were made from is one JSON, the same whether `training.evaluate` or `training.reproduce` wrote it: see
`make_record`.
"""

import hashlib
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import pyarrow.parquet as pq

import affectgpt
from affectgpt import lexicon
from affectgpt.labels import extract_labels, group_labels
from affectgpt.metrics import SetScore, mean_and_std, normalised, set_score
from affectgpt.predictions import clip_name, read_predictions
from training.losses import training_loss

LANGUAGES = {"en": "English", "zh": "Chinese"}
MODALITIES = {"L": "words", "V": "picture", "A": "voice"}
PROTOCOLS = ("two-step", "direct")
# How a system was made, where a table or a claim compares ways of making it.
VARIANTS = ("translator", "disambiguator", "initialisation", "stage1", "stage2")


@dataclass(frozen=True)
class System:
    """A row of a table: what was run, on which modalities ("LVA"), and the files of its runs by language.

    `facts` is what else is known of how its answers came about (revision, prompts, training loss, ...), as plain JSON.
    """

    model: str
    modalities: str
    protocol: str
    files: dict[str, list[Path]]
    variant: dict[str, str] = field(default_factory=dict)
    facts: dict = field(default_factory=dict)

    @property
    def title(self) -> str:
        made = ", ".join(f"{key} {value}" for key, value in self.variant.items())
        return f"{self.model} ({made})" if made else self.model

    @property
    def key(self) -> tuple[str, str]:
        """Tells systems apart: a model may stand in a table twice, with other modalities."""
        return self.title, self.modalities


@dataclass(frozen=True)
class Run:
    """One scored run: what was said, how it was grouped, and what it is worth. `groups` is `None` for exact labels.

    `facts` (seed, other scores, ...) and `per_clip` (the answer, other values of a clip) are what else is known of it, as
    plain JSON.
    """

    file: str
    sha256: str
    labels: dict[str, list[str]]
    groups: dict[str, list[list[str]]] | None
    score: SetScore
    facts: dict = field(default_factory=dict)
    per_clip: dict[str, dict] = field(default_factory=dict)

    @property
    def texts(self) -> dict[str, str]:
        """Clip -> its answer, where the record has it."""
        return {name: values["text"] for name, values in self.per_clip.items() if "text" in values}


@dataclass(frozen=True)
class Result:
    """The runs of one system in one language. Figures are in [0, 1]."""

    runs: list[Run]

    def figure(self, name: str) -> tuple[float, float]:
        """Mean and standard deviation over runs of "avg", "accuracy" or "recall"."""
        return mean_and_std([getattr(run.score, name) for run in self.runs])

    @property
    def per_clip(self) -> dict[str, float]:
        """Clip -> its Avg, mean over runs."""
        runs = [run.score.per_clip_avg for run in self.runs]
        return {name: sum(run[name] for run in runs) / len(runs) for name in runs[0]}


def read_truth(path: str | Path) -> dict[str, list[str]]:
    """Annotated labels by clip, from a file as `read_predictions` takes it or a corpus's .parquet.

    Raises:
        FileNotFoundError, ValueError: naming the file, if it is missing, of another kind or without labels.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        rows = pq.read_table(path, columns=["name", "labels"]).to_pylist()
        return {clip_name(row["name"]): row["labels"] or [] for row in rows}
    truth = {name: prediction.labels for name, prediction in read_predictions(path).items()}
    unlabelled = [name for name, labels in truth.items() if labels is None]
    if unlabelled:
        raise ValueError(f"Expected annotated labels of every clip in {path}, got none for {', '.join(unlabelled[:5])}.")
    return truth


def read_labels(
    path: str | Path, *, language: str = "en", protocol: str | None = None, backend: object = "lexicon"
) -> dict[str, list[str]]:
    """Predicted labels by clip; where the file has a description alone, they are extracted from it.

    Args:
        language: that of the descriptions, "en" or "zh".
        protocol: where the file states another, it is an error.
        backend: extracts; see `affectgpt.labels.extract_labels`.

    Raises:
        FileNotFoundError, ValueError: as `read_predictions`, and if the protocols differ.
    """
    predictions = read_predictions(path)
    stated = {prediction.protocol for prediction in predictions.values()} - {None, protocol}
    if protocol and stated:
        raise ValueError(f"Expected answers of the protocol {protocol} in {path}, got {', '.join(sorted(stated))}.")
    described = [name for name, prediction in predictions.items() if prediction.labels is None]
    extracted = extract_labels([predictions[name].text for name in described], language=language, backend=backend)
    return {name: predictions[name].labels for name in predictions} | dict(zip(described, extracted, strict=True))


def read_systems(path: str | Path) -> list[System]:
    """Read the list of what was run; paths in it are relative to it.

    Raises:
        ValueError: naming the file and the entry, if a key is missing, unknown or of another kind, or a system stands twice.
        FileNotFoundError: if a run's file is missing; all that miss are named.
    """
    path = Path(path)
    systems = [_system(entry, f"entry {number} of {path}", path.parent) for number, entry in enumerate(_json_list(path), start=1)]
    keys = [system.key for system in systems]
    twice = sorted({f"{title} ({modalities})" for title, modalities in keys if keys.count((title, modalities)) > 1})
    if twice:
        raise ValueError(f"Expected each system once in {path}, got twice: {', '.join(twice)}. List its runs in one entry.")
    absent = [str(file) for system in systems for files in system.files.values() for file in files if not file.exists()]
    if absent:
        raise FileNotFoundError(f"Expected the files of all runs that {path} lists, did not find {', '.join(absent)}.")
    return systems


def _json_list(path: Path) -> list:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"Expected a JSON list of systems in {path}, could not read it ({error}).") from error
    if not isinstance(entries, list):
        raise ValueError(f"Expected a JSON list of systems in {path}, got {type(entries).__name__}.")
    return entries


def _system(entry: dict, where: str, folder: Path) -> System:
    needed = {"model", "modalities", "protocol"}
    known = {*needed, "checkpoint", *LANGUAGES, *VARIANTS}
    missing, unknown = sorted(needed - set(entry)), sorted(set(entry) - known)
    if missing or unknown:
        raise ValueError(
            f"Expected the keys model, modalities, protocol, en, zh in {where}, and of checkpoint, {', '.join(VARIANTS)} what "
            f"applies, got {', '.join(missing) or 'nothing'} missing and {', '.join(unknown) or 'nothing'} unknown."
        )
    if not entry["modalities"] or set(entry["modalities"]) - set(MODALITIES):
        raise ValueError(f'Expected modalities of "L", "V" and "A" in {where}, got {entry["modalities"]!r}.')
    if entry["protocol"] not in PROTOCOLS:
        raise ValueError(f"Expected the protocol two-step or direct in {where}, got {entry['protocol']!r}.")
    files = {language: [folder / name for name in entry.get(language, [])] for language in LANGUAGES}
    variant = {key: str(entry[key]) for key in VARIANTS if entry.get(key) is not None}
    training = training_loss(folder / entry["checkpoint"]) if "checkpoint" in entry else None
    facts = {} if training is None else {"training": training}
    return System(entry["model"], in_order(entry["modalities"]), entry["protocol"], files, variant, facts)


def in_order(modalities: str) -> str:
    """The letters in the order of `MODALITIES`, each once."""
    return "".join(letter for letter in MODALITIES if letter in modalities)


def group_clips(
    truth: Mapping[str, Sequence[str]], predicted: Mapping[str, Sequence[str]], backend: object
) -> dict[str, list[list[str]]]:
    """Groups of the annotated and predicted labels of each clip together, as the paper has them."""
    labels = [list(dict.fromkeys(normalised(truth[name], name) + normalised(predicted[name], name))) for name in truth]
    return dict(zip(truth, group_labels(labels, backend=backend), strict=True))


def score_systems(
    truth: Mapping[str, Sequence[str]], systems: Sequence[System], *, backend: object = "lexicon", exact: bool = False
) -> dict[tuple[str, str], dict[str, Result]]:
    """`System.key` -> language -> scored runs, on the clips of `truth`; a file may have more clips.

    Args:
        backend: what extracts and groups labels; see `affectgpt.labels`.
        exact: compare labels as they stand, without groups.

    Raises:
        ValueError: naming the file, if it lacks clips of `truth`.
    """
    results = {}
    for system in systems:
        results[system.key] = {}
        for language, files in system.files.items():
            runs = []
            for file in files:
                labels = read_labels(file, language=language, protocol=system.protocol, backend=backend)
                labels = for_clips(labels, truth, file)
                groups = None if exact else group_clips(truth, labels, backend)
                runs.append(Run(str(file), sha256_of(file), labels, groups, set_score(truth, labels, groups)))
            if runs:
                results[system.key][language] = Result(runs)
    return results


def for_clips(labels: Mapping[str, list[str]], truth: Mapping[str, Sequence[str]], file: str | Path) -> dict[str, list[str]]:
    """The labels of the clips of `truth` alone; `ValueError` naming `file` and the clips that it lacks."""
    lacking = [name for name in truth if name not in labels]
    if lacking:
        raise ValueError(
            f"Expected labels for each of {len(truth)} clips in {file}, got none for {len(lacking)} ({', '.join(lacking[:5])}). "
            "Give an empty list for a clip without an answer."
        )
    return {name: labels[name] for name in truth}


def sha256_of(path: str | Path) -> str:
    """Hash of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_record(
    truth: Mapping[str, Sequence[str]],
    systems: Sequence[System],
    results: Mapping[tuple[str, str], Mapping[str, Result]],
    backend_name: str,
) -> dict:
    """All that the figures were made from, as plain JSON: `read_record` makes them again without asking any model.

    Beside the truth, the backend that made the groups and the versions of the software: for each system its name, modalities,
    protocol, variant and facts, and for each of its runs the file of answers with its hash, the figures, the facts, and per clip
    the labels, groups, values and whatever `Run.per_clip` has.
    """
    entries = []
    for system in systems:
        runs = {language: [_run_record(run, truth) for run in result.runs] for language, result in results[system.key].items()}
        made = {"model": system.model, "modalities": system.modalities, "protocol": system.protocol, **system.variant}
        entries.append({**made, "facts": system.facts, "runs": runs})
    return {
        "backend": backend_name,
        "versions": versions(),
        "truth": {name: list(labels) for name, labels in truth.items()},
        "systems": entries,
    }


def versions() -> dict[str, str]:
    """Of the software that figures depend on, and a hash of the lexicon's words."""
    found = {"affectgpt": affectgpt.__version__, "python": platform.python_version()}
    for package in ("torch", "transformers"):
        if package in sys.modules:  # loaded: it may have had a part in the answers
            found[package] = metadata.version(package)
    words = [path.read_bytes() for path in sorted(Path(lexicon.__file__).parent.glob("*.tsv"))]
    return {**found, "lexicon": hashlib.sha256(b"".join(words)).hexdigest()}


def _run_record(run: Run, truth: Mapping[str, Sequence[str]]) -> dict:
    score = run.score
    figures = {"avg": score.avg, "accuracy": score.accuracy, "recall": score.recall, "n": score.n, "skipped": score.skipped}
    clips = {
        name: {
            "labels": run.labels[name],
            "groups": None if run.groups is None else run.groups[name],
            "accuracy": score.per_clip.get(name, (None, None))[0],
            "recall": score.per_clip.get(name, (None, None))[1],
            **run.per_clip.get(name, {}),
        }
        for name in truth
    }
    return {
        "file": run.file,
        "sha256": run.sha256,
        **figures,
        "empty": sum(not labels for labels in run.labels.values()),
        "facts": run.facts,
        "clips": clips,
    }


def read_record(path: str | Path) -> tuple[dict[str, list[str]], list[System], dict[tuple[str, str], dict[str, Result]], str]:
    """Truth, systems, results and the backend's name from what `make_record` made; scored again, nothing asked again.

    Raises:
        ValueError: if the file is no such record.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        truth, systems, results = record["truth"], [], {}
        for entry in record["systems"]:
            variant = {key: entry[key] for key in VARIANTS if key in entry}
            files = {language: [Path(run["file"]) for run in entry["runs"].get(language, [])] for language in LANGUAGES}
            system = System(entry["model"], entry["modalities"], entry["protocol"], files, variant, entry.get("facts", {}))
            systems.append(system)
            results[system.key] = {
                language: Result([_recorded_run(run, truth) for run in runs]) for language, runs in entry["runs"].items()
            }
        return truth, systems, results, record["backend"]
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"Expected a record of scored runs in {path}, could not read it as one ({error!r}).") from error


def _recorded_run(run: Mapping, truth: Mapping[str, Sequence[str]]) -> Run:
    labels = {name: run["clips"][name]["labels"] for name in truth}
    groups = {name: run["clips"][name]["groups"] for name in truth}
    groups = None if None in groups.values() else groups
    known = ("labels", "groups", "accuracy", "recall")
    per_clip = {name: {key: value for key, value in run["clips"][name].items() if key not in known} for name in truth}
    return Run(run["file"], run["sha256"], labels, groups, set_score(truth, labels, groups), run.get("facts", {}), per_clip)


def read_records(paths: Sequence[str | Path]) -> tuple[dict[str, list[str]], list[System], dict, str]:
    """As `read_record`, of several records of the same clips: their systems together, languages of one system as one row.

    Raises:
        ValueError: if one is no record, if they differ in truth or backend, or if two have runs of one system in one language.
    """
    truth, systems, results, backend_name = read_record(paths[0])
    for path in paths[1:]:
        other_truth, other_systems, other_results, other_backend = read_record(path)
        if other_truth != truth:
            raise ValueError(f"Expected records of the same clips and annotated labels, got others in {path} than in {paths[0]}.")
        if other_backend != backend_name:
            raise ValueError(f"Expected the groups of {backend_name} in {path}, as in {paths[0]}, got those of {other_backend}.")
        for system in other_systems:
            twice = results.get(system.key, {}).keys() & other_results[system.key].keys()
            if twice:
                raise ValueError(
                    f"Expected each system once, got {system.title} ({system.modalities}) in {LANGUAGES[min(twice)]} a second time "
                    f"in {path}. Give it another name (--name)."
                )
            if system.key not in results:
                systems.append(system)
            results.setdefault(system.key, {}).update(other_results[system.key])
    return truth, systems, results, backend_name


BACKEND_HELP = (
    "Who extracts labels from descriptions and groups those of one meaning: lexicon (offline), or a chat model as "
    "https://HOST/v1#MODEL, a folder or a Hub id."
)


def load_backend(name: str, **options) -> object:
    """What `affectgpt.labels` takes for a backend, from a command line; `options` are those of a chat model."""
    if name == "lexicon":
        return name
    from affectgpt.chat import load_chat_model  # a local chat model needs torch

    return load_chat_model(name, **options)
