"""Explain a corpus's clips with whatever explains, and score the explanations.

    python -m training.evaluate --model DIR --dataset runs/sketch/corpus --dataset-config EMER-Sketch-Test --output results/test
    python -m training.evaluate --model https://HOST/v1#MODEL --clips FOLDER --truth truth.csv --runs 2 --output results/endpoint
    python -m training.evaluate --video-model llava-hf/LLaVA-NeXT-Video-7B-hf --audio-model Qwen/Qwen2-Audio-7B-Instruct \\
        --merge-model https://HOST/v1#MODEL --dataset DIR --dataset-config EMER-Fine --output results/two-step
    python -m training.evaluate --model predictions.csv --truth truth.csv --output results/given
    python -m training.evaluate --record results/test.json --exact --output results/test-exact

Written are <output>.jsonl, each answer as soon as it is there (a run that was stopped goes on when the same command is given
again), <output>.json, all that the figures were made from, and <output>.html, the clips one by one. --record scores the second anew
without asking anything; `training.reproduce --record` makes tables of several, `training.report --record` pages.

Labels are read off the explanations, and labels of one meaning count as one; both are done by the offline lexicon or by a chat
model. Rows of EMER-Sketch have their clues scored, too: what is said of face, voice and words against what the drawing shows.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from datasets import Dataset, load_dataset

from affectgpt.chat import ChatError, is_endpoint
from affectgpt.collator import MODALITIES
from affectgpt.corpus import FEATURES, attach_media
from affectgpt.labels import extract_labels
from affectgpt.metrics import best_constant_labels, bootstrap_interval, set_score
from affectgpt.predictions import read_predictions
from affectgpt.wheels import EmotionWheels, read_emotion_wheels, wheel_score
from training.answers import (
    DECODINGS,
    LETTERS,
    Answers,
    Asking,
    Models,
    UnansweredError,
    collect,
    is_predictions,
    shuffle_media,
)
from training.losses import training_loss
from training.report import record_html
from training.runs import (
    BACKEND_HELP,
    LANGUAGES,
    PROTOCOLS,
    VARIANTS,
    Result,
    Run,
    System,
    group_clips,
    in_order,
    load_backend,
    make_record,
    read_record,
    read_truth,
    sha256_of,
)

__all__ = ["Asking", "Models", "Scoring", "describe", "evaluate", "rescore", "rows_of_clips", "shuffle_media"]

EXACT = "none, exact labels"


@dataclass(frozen=True)
class Scoring:
    """How answers become figures.

    Attributes:
        labels_backend, groups_backend: "lexicon", or a chat model as `affectgpt.chat.load_chat_model` takes it.
        exact: compare labels as they stand, without groups.
        wheels: folder of the authors' emotion wheels, for the metrics of 2025 and 2026 as well.
        encoder: folder or Hub id of a sentence encoder, for the likeness of explanations to the corpus's own as well.
    """

    labels_backend: str = "lexicon"
    groups_backend: str = "lexicon"
    exact: bool = False
    wheels: str | None = None
    encoder: str | None = None

    @property
    def name(self) -> str:
        return EXACT if self.exact else self.groups_backend

    @property
    def repeats(self) -> bool:
        """Whether a second run can differ from the first: an endpoint extracts or groups."""
        return is_endpoint(self.labels_backend) or (not self.exact and is_endpoint(self.groups_backend))


def evaluate(
    model: str | Path | Models,
    rows: Dataset,
    output: str | Path,
    *,
    scoring: Scoring | None = None,
    num_runs: int = 1,
    name: str | None = None,
    variant: Mapping[str, str] | None = None,
    protocol: str | None = None,
    failures_as_empty: bool = False,
    explain_anyway: bool = False,
    **asking,
) -> dict:
    """Explain `rows`, score the explanations, write both beside `output`, and return the figures.

    Args:
        model: what explains; a string is that of `Models.model`.
        rows: of a corpus (`affectgpt.corpus.FEATURES`); see `rows_of_clips` for clips in a folder.
        output: where things go, without the suffix.
        scoring ([`Scoring`], *optional*): by default the lexicon.
        num_runs: what can differ is done so often, with a seed of its own each; in the two-step protocol the clues are the first
            run's, and merging, extraction and grouping are repeated.
        name: of the system in tables; by default the model's.
        variant: how the system was made, by the keys of `VARIANTS`, for `training.reproduce claims`.
        protocol: of a file of predictions that does not say ("direct" or "two-step").
        failures_as_empty: score clips without an answer as empty ones, instead of raising. They are named in the record.
        explain_anyway: as in `collect`.
        asking: fields of [`Asking`].

    Raises:
        UnansweredError: if clips have no answer; all others were asked first, and their answers are kept.
        ValueError: if `<output>.jsonl` holds answers to other rows or of another run, or an argument makes no sense.
        ChatError: if an endpoint refuses every request, or gives labels or groups that cannot be read.
    """
    output, scoring, asking = Path(output), scoring or Scoring(), Asking(**asking)
    models = model if isinstance(model, Models) else Models(model=str(model))
    answers_repeat = models.repeats or asking.decoding == "reference"
    if num_runs < 1 or (num_runs > 1 and not answers_repeat and not scoring.repeats):
        raise ValueError(
            f"Expected one run where each gives the same (greedy decoding on this machine, the lexicon), got {num_runs}. Ask for "
            "--decoding reference or an endpoint, or for one run."
        )
    truth = _truth_of(rows)
    # Before hours of answers: a wrong path shows at once.
    wheels = None if scoring.wheels is None else read_emotion_wheels(scoring.wheels)
    encoder = None if scoring.encoder is None else _encoder(scoring.encoder)
    runs: list[Run] = []
    first = answers = None
    for number in range(num_runs):
        # Of later runs, nothing comes from the cache of other evaluations; a stopped run keeps what it has asked.
        fresh = {"seed": asking.seed + number, "cache_dir": output.with_name(f"{output.name}.chat")} if number else {}
        if number == 0 or answers_repeat:
            path = output.with_name(f"{output.name}{f'-run{number}' if number else ''}.jsonl")
            answers = collect(models, rows, path, asking, run=number, fresh=fresh, first=first, explain_anyway=explain_anyway)
            _check_complete(answers, len(rows), failures_as_empty)
            first = first or answers
        # An endpoint is told none in the first run, which is the one that a single evaluation has.
        first_seed = None if models.repeats or scoring.repeats else asking.seed
        facts = {"seed": fresh.get("seed", first_seed)}
        runs.append(_scored(answers, rows, truth, scoring, asking, fresh, facts, wheels, encoder))
    system = _system(models, answers, asking, name, variant, protocol)
    results = {system.key: {asking.language: Result(runs)}}
    figures = _figures(truth, results[system.key][asking.language], scoring, asking.seed)
    record = {
        "what": "evaluation",
        **make_record(truth, [system], results, scoring.name),
        "labels_backend": scoring.labels_backend,
        "figures": figures,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    _write(output.with_name(f"{output.name}.json"), json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    return {"model": models.name, "modalities": list(asking.modalities), "protocol": system.protocol, **figures}


def rows_of_clips(truth: str | Path, clips: str | Path | None = None) -> Dataset:
    """Rows of a corpus from a file of annotated labels and a folder of clips.

    Args:
        truth: as `read_truth` takes it; subtitles and descriptions in it are used.
        clips: folder in which, or below which, each clip has a file of its name; `None` where no clip will be opened.

    Raises:
        FileNotFoundError, ValueError: if a file is missing or has no labels, or the folder lacks clips, which are named.
    """
    labels = read_truth(truth)
    described = {} if str(truth).endswith(".parquet") else read_predictions(truth)
    empty = dict.fromkeys(FEATURES)
    rows = []
    for name, found in labels.items():
        row = {**empty, "name": name, "labels": found}
        if name in described:
            row |= {"subtitle": described[name].subtitle, "description": described[name].text or None}
        rows.append(row)
    dataset = Dataset.from_list(rows, features=FEATURES)
    return dataset if clips is None else attach_media(dataset, clips)


def _truth_of(rows: Dataset) -> dict[str, list[str]]:
    unlabelled = [name for name, labels in zip(rows["name"], rows["labels"], strict=True) if labels is None]
    if unlabelled:
        raise ValueError(f"Expected annotated labels in every row, got none for {', '.join(unlabelled[:5])}. Leave such rows out.")
    truth = dict(zip(rows["name"], rows["labels"], strict=True))
    if len(truth) < len(rows):
        raise ValueError(f"Expected one row per clip, got {len(rows)} rows of {len(truth)} names.")
    return truth


def _check_complete(answers: Answers, num_rows: int, failures_as_empty: bool) -> None:
    if not answers.failures:
        return
    if failures_as_empty and answers.rows:
        return
    listed = "".join(f"\n  {name}: {reason}" for name, reason in list(answers.failures.items())[:10])
    more = "" if len(answers.failures) <= 10 else f"\n  and {len(answers.failures) - 10} more"
    raise UnansweredError(
        f"{len(answers.failures)} of {num_rows} clips have no answer:{listed}{more}\nThe other answers are kept in {answers.path}; "
        "the same command asks for these again. To score them as empty answers, add --failures-as-empty.",
        answers.failures,
    )


def _encoder(name: str):
    from training.similarity import SentenceEncoder

    return SentenceEncoder(name)


def _scored(
    answers: Answers,
    rows: Dataset,
    truth: dict,
    scoring: Scoring,
    asking: Asking,
    fresh: dict,
    facts: dict,
    wheels: EmotionWheels | None,
    encoder,
) -> Run:
    labels = _labels(answers, truth, scoring, asking.language, fresh)
    groups = None if scoring.exact else group_clips(truth, labels, _backend(scoring.groups_backend, fresh))
    texts = {name: row["text"] for name, row in answers.rows.items()}
    facts["num_failed"] = len(answers.failures)
    facts["num_cut"] = sum(row.get("is_cut", False) for row in answers.rows.values())
    per_clip = {name: {"text": texts[name]} if name in texts else {"failed": answers.failures[name]} for name in truth}
    clues = _clues(rows, texts)
    if clues is not None:
        facts["clues"], wrong = clues
        for name, found in wrong.items():
            per_clip[name]["wrong_clues"] = found
    if encoder is not None:
        from training.similarity import similarity

        column = "description_zh" if asking.language == "zh" else "description"
        references = dict(zip(rows["name"], rows[column], strict=True))
        facts["similarity"], cosines = similarity(encoder, texts, references, seed=asking.seed)
        for name, cosine in cosines.items():
            per_clip[name]["similarity"] = cosine
    if wheels is not None:
        facts["wheels"] = wheel_score(truth, labels, wheels).to_dict()
    score = set_score(truth, labels, groups)
    return Run(str(answers.path), sha256_of(answers.path), labels, groups, score, facts, per_clip)


def _labels(answers: Answers, truth: dict, scoring: Scoring, language: str, fresh: dict) -> dict[str, list[str]]:
    """Labels by clip: those that a file of predictions gives, otherwise those that the answer states."""
    given = {
        name: row["labels"] for name, row in answers.rows.items() if "labels" in row and is_predictions(answers.header["model"])
    }
    described = [name for name in answers.rows if name not in given]
    backend = _backend(scoring.labels_backend, fresh)
    found = given | _extracted({name: answers.rows[name]["text"] for name in described}, language, backend)
    return {name: found.get(name, []) for name in truth}


_CHINESE = re.compile(r"[\u3400-\u9fff]")
_LATIN_WORD = re.compile(r"[A-Za-z]{2,}")


def _extracted(texts: Mapping[str, str], language: str, backend: object) -> dict[str, list[str]]:
    """Labels by clip; of an answer in the other language than the one asked for, by its own."""
    found: dict[str, list[str]] = {}
    for own in LANGUAGES:
        names = [name for name, text in texts.items() if _language_of(text, language) == own]
        found |= zip(names, extract_labels([texts[name] for name in names], language=own, backend=backend), strict=True)
    return found


def _language_of(text: str, asked: str) -> str:
    chinese, latin = len(_CHINESE.findall(text)), len(_LATIN_WORD.findall(text))
    if chinese == latin:
        return asked
    return "zh" if chinese > latin else "en"


def _backend(name: str, fresh: dict) -> object:
    return load_backend(name, **(fresh if is_endpoint(name) else {}))


def _clues(rows: Dataset, texts: Mapping[str, str]) -> tuple[dict, dict[str, list[str]]] | None:
    """Clue scores by modality, and per clip the statements that are wrong; `None` for corpora whose clues are not known."""
    sources = [(provenance or {}).get("source") for provenance in rows["provenance"]]
    if set(sources) != {"EMER-Sketch"}:
        return None
    from training.clues import RIGHT, clue_scores, judge_clues, scene_truth  # needs the synthetic voices' package

    provenances = dict(zip(rows["name"], rows["provenance"], strict=True))
    judged = {name: judge_clues(text, scene_truth(provenances[name])) for name, text in texts.items()}
    scores = {modality: asdict(score) for modality, score in clue_scores(judged).items()}
    wrong = {name: [str(found) for found in clip.statements if found.verdict != RIGHT] for name, clip in judged.items()}
    return scores, {name: found for name, found in wrong.items() if found}


def _system(
    models: Models, answers: Answers, asking: Asking, name: str | None, variant: Mapping[str, str] | None, protocol: str | None
) -> System:
    stated = answers.header.get("protocol")
    if protocol is not None and stated not in (None, protocol):
        raise ValueError(f"Expected answers of the protocol {protocol}, got {stated}, as {answers.path} says.")
    given = "".join(sorted({letter for row in answers.rows.values() for letter in row.get("given", "")}))
    letters = in_order(given or "".join(LETTERS[modality] for modality in asking.modalities))
    made = {key: answers.header.get(key) for key in ("revision", "prompts")}
    facts = {**made, **asdict(asking), "modalities": list(asking.modalities), "models": asdict(models)}
    training = None if models.model is None else training_loss(models.model)
    if training is not None:
        facts["training"] = training
    title = (name or models.name) + (", media of another clip" if asking.shuffled else "")
    return System(title, letters, protocol or stated or "direct", {}, dict(variant or {}), facts)


def _figures(truth: Mapping[str, Sequence[str]], result: Result, scoring: Scoring, seed: int) -> dict:
    """Percent, but for `similarity`."""
    score = result.runs[0].score
    low, high = bootstrap_interval([100 * value for value in result.per_clip.values()], seed=seed)
    figures = {
        "num_clips": score.n,
        "num_runs": len(result.runs),
        "groups": scoring.name,
        "avg": 100 * result.figure("avg")[0],
        "avg_interval_95": [low, high],
        "accuracy": 100 * result.figure("accuracy")[0],
        "recall": 100 * result.figure("recall")[0],
        "std": {name: 100 * result.figure(name)[1] for name in ("avg", "accuracy", "recall")},
    }
    for key in ("clues", "similarity", "wheels", "num_failed", "num_cut"):
        if result.runs[0].facts.get(key):
            figures[key] = result.runs[0].facts[key]
    if not scoring.exact and scoring.groups_backend != "lexicon":
        return figures  # to group the two answers below would be asked and paid for
    constant = best_constant_labels(truth)
    every_label = sorted({label for labels in truth.values() for label in labels})
    for key, labels in (("best_constant", constant), ("every_label", every_label)):
        answer = dict.fromkeys(truth, labels)
        groups = None if scoring.exact else group_clips(truth, answer, "lexicon")
        figures[f"{key}_avg"] = 100 * set_score(truth, answer, groups).avg
    return {**figures, "best_constant_labels": constant}


def rescore(
    record: str | Path,
    output: str | Path,
    *,
    labels_backend: str | None = None,
    groups_backend: str | None = None,
    exact: bool = False,
    wheels: str | None = None,
) -> dict[str, dict]:
    """Score a record's answers anew; nothing is asked unless a chat model is named.

    Args:
        record: what `evaluate` or `training.reproduce` wrote.
        output: where the new record goes, without the suffix.
        labels_backend, groups_backend: by default, labels and groups stay as they were recorded.
        exact, wheels: as in [`Scoring`].

    Returns:
        Figures by system and language.

    Raises:
        ValueError: if the file is no record, or labels are to be extracted and it lacks the answers.
    """
    truth, systems, results, backend_name = read_record(record)
    is_exact = exact or (backend_name == EXACT and groups_backend is None)
    scoring = Scoring(labels_backend or "lexicon", "lexicon" if is_exact else groups_backend or backend_name, is_exact, wheels)
    tables = None if wheels is None else read_emotion_wheels(wheels)
    labeller = None if labels_backend is None else load_backend(labels_backend)
    groups_anew = not is_exact and (labeller is not None or groups_backend is not None)
    grouper = load_backend(scoring.groups_backend) if groups_anew else None
    figures = {}
    for system in systems:
        for language, result in results[system.key].items():
            runs = []
            for run in result.runs:
                labels = run.labels if labeller is None else _labels_again(run, truth, language, labeller, record)
                groups = None if is_exact else group_clips(truth, labels, grouper) if groups_anew else run.groups
                facts = dict(run.facts) if tables is None else run.facts | {"wheels": wheel_score(truth, labels, tables).to_dict()}
                score = set_score(truth, labels, groups)
                runs.append(replace(run, labels=labels, groups=groups, score=score, facts=facts))
            results[system.key][language] = Result(runs)
            figures[f"{system.title}, {LANGUAGES[language]}"] = _figures(truth, Result(runs), scoring, seed=0)
    new = {"what": "evaluation", **make_record(truth, systems, results, scoring.name), "figures": figures}
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    _write(output.with_name(f"{output.name}.json"), json.dumps(new, ensure_ascii=False, indent=1) + "\n")
    return figures


def _labels_again(run: Run, truth: dict, language: str, labeller, record) -> dict[str, list[str]]:
    lacking = [name for name in truth if name not in run.texts and "failed" not in run.per_clip.get(name, {})]
    if lacking:
        raise ValueError(f"Expected the answers to extract labels from in {record}, got none for {', '.join(lacking[:5])}.")
    found = _extracted(run.texts, language, labeller)
    return {name: found.get(name, []) for name in truth}


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f"{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def describe(figures: Mapping) -> str:
    """One line of a table: Avg with its interval, accuracy and recall; with several runs, their standard deviations."""
    low, high = figures["avg_interval_95"]
    spread = {name: f" ± {value:.1f}" if figures["num_runs"] > 1 else "" for name, value in figures["std"].items()}
    return (
        f"{figures['avg']:.1f}{spread['avg']} [{low:.1f}, {high:.1f}] | {figures['accuracy']:.1f}{spread['accuracy']} | "
        f"{figures['recall']:.1f}{spread['recall']}"
    )


def _summary(figures: Mapping) -> str:
    """What a user sees in the end."""
    lines = [
        f"{figures['num_clips']} clips, groups: {figures['groups']}, 95 % bootstrap interval over clips"
        + (f", {figures['num_runs']} runs ± standard deviation" if figures["num_runs"] > 1 else ""),
        "Avg | Accuracy_s | Recall_s",
        describe(figures),
    ]
    if "best_constant_avg" in figures:
        best = ", ".join(figures["best_constant_labels"])
        lines += [
            f"best constant answer ({best}): {figures['best_constant_avg']:.1f}",
            f"every label at once, which the metric rewards: {figures['every_label_avg']:.1f}",
        ]
    if "wheels" in figures:
        wheels = figures["wheels"]
        named = {"level1_mean_f": "level 1", "level2_mean_f": "level 2", "m_avg": "all twelve measures"}
        lines.append("emotion wheels, mean F: " + ", ".join(f"{title} {100 * wheels[key]:.1f}" for key, title in named.items()))
    if "similarity" in figures:
        found = figures["similarity"]
        low, high = found["interval_95"]
        lines.append(
            f"likeness to the corpus's explanations ({found['encoder']}): {found['mean']:.3f} [{low:.3f}, {high:.3f}], to those of "
            f"other clips {found['of_another']:.3f}"
        )
    if "clues" in figures:
        from training.clues import ClueScore, describe_clues

        lines += ["", describe_clues({modality: ClueScore(**score) for modality, score in figures["clues"].items()})]
    for key, what in (("num_failed", "clips without an answer, scored as empty"), ("num_cut", "answers cut off")):
        if key in figures:
            lines.append(f"{what}: {figures[key]}")
    return "\n".join(lines)


def _variant(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or key not in VARIANTS or not value:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE with a key among {', '.join(VARIANTS)}, got {text!r}")
    return key, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="Where .jsonl, .json and .html go, without the suffix.")
    models = parser.add_argument_group("what explains", "A folder, a Hub id, or an endpoint as https://HOST/v1#MODEL.")
    models.add_argument("--model", help="An AffectGPT checkpoint, another model that sees or hears, or a file of predictions.")
    models.add_argument("--video-model", help="In two steps: gives the clue from the picture; or a file of such clues.")
    models.add_argument("--audio-model", help="In two steps: gives the clue from the sound; or a file of such clues.")
    models.add_argument("--merge-model", help="In two steps: merges clues and subtitle. Default: the video or audio model.")
    models.add_argument("--device", help='Such as "cpu" or "cuda:1". Default: the GPU if there is one.')
    models.add_argument("--dtype", help='Such as "bfloat16".')
    models.add_argument("--quantization", choices=("4bit", "8bit"))
    models.add_argument("--send-clip", action="store_true", help="Send endpoints the file instead of frames and sound.")
    models.add_argument("--explain-anyway", action="store_true", help="Let a model of drawings answer about other clips.")

    corpus = parser.add_argument_group("what is explained")
    corpus.add_argument("--dataset", help="Hub id or local folder of a corpus.")
    corpus.add_argument("--dataset-config", help="Configuration of the corpus, e.g. EMER-Fine.")
    corpus.add_argument("--split", default="test", help="Default: test.")
    corpus.add_argument("--clips", help="In place of a corpus: a folder of clips ...")
    corpus.add_argument("--truth", help="... and their annotated labels: .jsonl, .csv, .npz or .parquet, by the clips' names.")

    asking = parser.add_argument_group("how it is asked for")
    asking.add_argument(
        "--modalities", nargs="+", default=MODALITIES, choices=MODALITIES, help="What the model may have of a clip."
    )
    asking.add_argument("--shuffle-media", action="store_true", help="Give each row another row's clip: what is left is chance.")
    asking.add_argument("--language", default="en", choices=LANGUAGES, help="Of the answers. Default: en.")
    asking.add_argument("--question", help="Default: the model's own.")
    asking.add_argument("--decoding", default="greedy", choices=DECODINGS, help="reference: sampled, as in the authors' code.")
    asking.add_argument("--max-new-tokens", type=int, help="Default: the checkpoint's, or the decoding's.")
    asking.add_argument("--faces", help="Folder of face crops (.npy), for models that look at faces. Default: they are cut out.")
    asking.add_argument(
        "--features", metavar="FOLDER", help="Of training.cache_features: for AffectGPT checkpoints, opens no clip."
    )
    asking.add_argument("--batch-size", type=int, default=32, help="Of AffectGPT checkpoints. Default: 32.")
    asking.add_argument("--concurrency", type=int, default=8, help="Clips asked about at a time, of endpoints. Default: 8.")
    asking.add_argument("--runs", type=int, default=1, help="Do what can differ so often, with a seed of its own each.")
    asking.add_argument("--seed", type=int, default=0)
    asking.add_argument("--failures-as-empty", action="store_true", help="Score clips without an answer as empty ones.")

    scoring = parser.add_argument_group("how it is scored")
    scoring.add_argument("--record", help="Score this .json of an earlier call anew, in place of all of the above.")
    scoring.add_argument("--labels-backend", help=f"{BACKEND_HELP} This one extracts. Default: lexicon.")
    scoring.add_argument("--groups-backend", help="This one groups. Default: lexicon.")
    scoring.add_argument("--exact", action="store_true", help="Compare labels as they stand, without groups.")
    scoring.add_argument("--wheels", metavar="FOLDER", help="The authors' emotion wheels: score by them, too.")
    scoring.add_argument("--encoder", metavar="ID", help="Sentence encoder: score likeness to the corpus's explanations, too.")
    scoring.add_argument("--name", help="Of the system in tables. Default: the model's.")
    scoring.add_argument("--protocol", choices=PROTOCOLS, help="Of a file of predictions that does not say.")
    scoring.add_argument(
        "--variant", nargs="+", type=_variant, default=[], metavar="KEY=VALUE", help=f"How it was made: {', '.join(VARIANTS)}."
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 scored, 1 clips without an answer, 2 a mistake in the call, 130 interrupted."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if not args.record:
        if bool(args.dataset) == bool(args.truth):
            parser.error("give --dataset, or --truth (with --clips, unless --model is a file of predictions)")
        if args.dataset and not args.dataset_config:
            parser.error("give --dataset-config, too")
    try:
        if args.record:
            backends = {"labels_backend": args.labels_backend, "groups_backend": args.groups_backend}
            found = rescore(args.record, args.output, **backends, exact=args.exact, wheels=args.wheels)
            for title, figures in found.items():
                print(f"{title}: {_summary(figures)}\n")
            return 0
        print(_summary(_evaluated(args)))
    except KeyboardInterrupt:
        print(f"\nInterrupted. The answers so far are kept in {args.output}.jsonl; the same command goes on.", file=sys.stderr)
        return 130
    except (UnansweredError, ChatError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _evaluated(args: argparse.Namespace) -> dict:
    named = ("model", "video_model", "audio_model", "merge_model", "device", "dtype", "quantization", "send_clip")
    models = Models(**{name: getattr(args, name) for name in named})
    if args.truth:
        rows = rows_of_clips(args.truth, args.clips)
    else:
        rows = load_dataset(args.dataset, args.dataset_config, split=args.split)
    asking = ("language", "question", "decoding", "max_new_tokens", "faces", "features", "batch_size", "concurrency", "seed")
    figures = evaluate(
        models,
        rows,
        args.output,
        scoring=Scoring(args.labels_backend or "lexicon", args.groups_backend or "lexicon", args.exact, args.wheels, args.encoder),
        num_runs=args.runs,
        name=args.name,
        variant=dict(args.variant),
        protocol=args.protocol,
        failures_as_empty=args.failures_as_empty,
        explain_anyway=args.explain_anyway,
        modalities=tuple(args.modalities),
        shuffled=args.shuffle_media,
        **{name: getattr(args, name) for name in asking},
    )
    truth, (system,), results, _ = read_record(f"{args.output}.json")
    run = results[system.key][args.language].runs[0]
    _write(Path(f"{args.output}.html"), record_html(truth, run, system.title))
    return figures


if __name__ == "__main__":
    sys.exit(main())
