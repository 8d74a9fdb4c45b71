"""Explain the clips of a corpus with whatever explains, and keep each answer as soon as it is there.

`Models` names what explains: an AffectGPT checkpoint, another model of transformers, an endpoint, two of them and a text model, or
files of what was said. `collect` writes the answers to a .jsonl file, whose first line says how they were asked for; a run that was
stopped, however hard, goes on there and gives what one run gives.
"""

import dataclasses
import hashlib
import json
import os
import queue
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers.utils import cached_file, extract_commit_hash

from affectgpt import AffectGPTCollator
from affectgpt.chat import ChatError, is_endpoint, load_chat_model
from affectgpt.collator import MODALITIES
from affectgpt.corpus import media_path
from affectgpt.explainers import (
    AUDIO_CLUE_PROMPT,
    CONCLUDE,
    CONCLUDE_ZH,
    DIRECT_QUESTION,
    VIDEO_CLUE_PROMPT,
    AffectGPTExplainer,
    ChatExplainer,
    TwoStepExplainer,
    load_explainer,
    merge_prompt,
)
from affectgpt.explanation import MAX_NEW_TOKENS, Explanation, begin
from affectgpt.media import Clip, MediaError
from affectgpt.parts import find_weights
from affectgpt.predictions import PREDICTION_SUFFIXES, clip_name, read_predictions
from training.cache_features import FeatureCache, precision_of
from training.growing_cache import growing_cache
from training.runs import in_order, sha256_of

LETTERS = {"text": "L", "video": "V", "audio": "A"}
# The authors' (Video-LLaMA's conversation code). They leave top_k alone, which was 50 in the transformers of their day.
REFERENCE_DECODING = {"do_sample": True, "top_p": 0.9, "temperature": 1.0, "top_k": 50, "max_new_tokens": 300}
DECODINGS = ("greedy", "reference")
# What one clip may fail of while others go on.
_FAILURES = (MediaError, FileNotFoundError, LookupError, ChatError)


class UnansweredError(RuntimeError):
    """Clips without an answer; the message lists them with reasons.

    Attributes:
        failures (`dict[str, str]`): name of the clip -> why.
    """

    def __init__(self, message: str, failures: Mapping[str, str]):
        super().__init__(message)
        self.failures = dict(failures)


@dataclass(frozen=True)
class Models:
    """What explains, by folder, Hub id, endpoint (https://HOST/v1#MODEL) or file of predictions; see `load_explainer`.

    In the two-step protocol, `video_model` and `audio_model` may be files of clues (.jsonl, .csv, .npz) that such models gave.
    """

    model: str | None = None
    video_model: str | None = None
    audio_model: str | None = None
    merge_model: str | None = None
    device: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    send_clip: bool = False

    def __post_init__(self):
        if (self.model is None) == (self.video_model is None and self.audio_model is None):
            raise ValueError(
                "Expected either one model, or a video model, an audio model or both; got " + (self.name or "neither.")
            )
        clues = [is_predictions(name) for name in (self.video_model, self.audio_model) if name is not None]
        if any(clues) and not all(clues):
            raise ValueError(
                "Expected models or files of clues for both picture and sound, got one of each. Write the other's file."
            )
        if any(clues) and self.merge_model is None:
            raise ValueError("Expected a merge model beside files of clues, got none.")

    @property
    def name(self) -> str:
        if self.model is not None:
            return self.model
        parts = {"video": self.video_model, "audio": self.audio_model, "merge": self.merging}
        return " + ".join(f"{part} {name}" for part, name in parts.items() if name is not None)

    @property
    def protocol(self) -> str:
        return "direct" if self.model is not None else "two-step"

    @property
    def merging(self) -> str | None:
        """The model that merges, in the two-step protocol."""
        return None if self.model is not None else self.merge_model or self.video_model or self.audio_model

    @property
    def has_clues(self) -> bool:
        """Whether the clues come from files."""
        return any(is_predictions(name) for name in (self.video_model, self.audio_model) if name is not None)

    @property
    def named(self) -> list[str]:
        """Each model once."""
        names = (self.model, self.video_model, self.audio_model, self.merge_model)
        return list(dict.fromkeys(name for name in names if name is not None))

    @property
    def is_remote(self) -> bool:
        """Whether nothing of it runs here, so that clips may be asked about side by side."""
        return all(is_endpoint(name) for name in self.named if not is_predictions(name))

    @property
    def repeats(self) -> bool:
        """Whether a second run can differ from the first: an endpoint answers, or merges."""
        return is_endpoint(self.model if self.model is not None else self.merging)


def is_predictions(name: str) -> bool:
    return name.lower().endswith(PREDICTION_SUFFIXES)


@dataclass(frozen=True)
class Asking:
    """How clips are asked about.

    Attributes:
        modalities: what the model may have of a clip. Picture and sound can be kept from AffectGPT checkpoints only.
        shuffled: each clip's row has the clip of another one; see `shuffle_media`.
        language: of the answers, "en" or "zh".
        question: by default, the model's own.
        decoding: of AffectGPT checkpoints: "greedy", or "reference" (`REFERENCE_DECODING`). Others decode as they are built to.
        max_new_tokens: by default, what the checkpoint or the decoding says.
        faces: folder of precomputed face crops, for checkpoints that look at faces.
        features: folder of `training.cache_features`, for AffectGPT checkpoints: no clip is opened, and answers stay what they are.
        batch_size: of AffectGPT checkpoints. Greedy answers do not depend on it; sampled ones do.
        concurrency: clips asked about at a time, of endpoints.
        seed: of shuffling and sampling.
    """

    modalities: Sequence[str] = MODALITIES
    shuffled: bool = False
    language: str = "en"
    question: str | None = None
    decoding: str = "greedy"
    max_new_tokens: int | None = None
    faces: str | None = None
    features: str | None = None
    batch_size: int = 32
    concurrency: int = 8
    seed: int = 0

    def __post_init__(self):
        if self.decoding not in DECODINGS:
            raise ValueError(f"Expected a decoding among {', '.join(DECODINGS)}, got {self.decoding!r}.")
        if self.batch_size < 1 or self.concurrency < 1:
            raise ValueError(f"Expected at least one clip at a time, got {self.batch_size} and {self.concurrency}.")


@dataclass(frozen=True)
class Answers:
    """What `collect` found: the file, its first line, and per clip its row (`text`, and `labels` or `clues` where it has them)."""

    path: Path
    header: dict
    rows: dict[str, dict]
    failures: dict[str, str]


def shuffle_media(rows: Dataset, seed: int) -> Dataset:
    """Give each row the clip of another one, drawn once for the whole corpus; words and truth stay."""
    order = np.random.default_rng(seed).permutation(len(rows))
    other = np.empty(len(rows), dtype=int)
    other[order] = np.roll(order, 1)  # one cycle: nobody keeps their own clip
    videos = rows.select_columns("video").select(other)
    return rows.remove_columns("video").add_column("video", videos["video"][:], feature=rows.features["video"])


def collect(
    models: Models,
    rows: Dataset,
    path: Path,
    asking: Asking,
    *,
    run: int = 0,
    fresh: Mapping[str, object] | None = None,
    first: Answers | None = None,
    explain_anyway: bool = False,
) -> Answers:
    """An answer to each of `rows`, from `path` where it has them and otherwise from the models.

    Args:
        models: what explains; a file of predictions is read as it is, and nothing is written.
        rows: of a corpus (`affectgpt.corpus.FEATURES`).
        path: the .jsonl file of the answers.
        run: number of the run.
        fresh: what endpoints are made with in a later run (options of `ChatModel`), so that it asks anew.
        first: the first run, whose clues a later run of the two-step protocol merges once more.
        explain_anyway: let a model that knows drawings only answer about other clips.

    Raises:
        ValueError: if `path` holds answers to other rows or of another run, or the models cannot be asked like that.
        ChatError: if an endpoint refuses every request.
    """
    if models.model is not None and is_predictions(models.model):
        return _given_answers(models.model, rows, asking)
    names = rows["name"][:]
    asked = _asked(models, asking, run)
    header, done = _read_answers(path, asked, names)
    failures: dict[str, str] = {}
    if len(done) < len(names):
        todo = [index for index, name in enumerate(names) if name not in done]
        explainer = _load(models, asking, fresh or {}, first)
        made_of = {"revision": revisions(models), "prompts": prompts(models, asking, explainer)}
        changed = sorted(key for key in made_of if key in header and header[key] != made_of[key])
        if changed:
            raise ValueError(
                f"Expected {path} to hold answers of the same weights and prompts, got another {' and '.join(changed)}. Delete or "
                "rename it."
            )
        media = shuffle_media(rows, asking.seed) if asking.shuffled else rows
        if isinstance(explainer, AffectGPTExplainer):
            _check_drawings(explainer, rows, explain_anyway)
            found = generated(explainer, media, todo, asking, run)
        elif asking.features is not None:
            raise ValueError(f"Expected no cached features for {models.name}, got some: only AffectGPT checkpoints take them.")
        else:
            found = explained(explainer, media, todo, asking, concurrency=asking.concurrency if models.is_remote else 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file, tqdm(total=len(names), initial=len(done), unit="clip") as progress:
            if not header:
                header = {**asked, **made_of}
                _write_line(file, header)
            for row, error in found:
                if error is None:
                    done[row["name"]] = row
                    _write_line(file, row)
                else:
                    failures[row["name"]] = str(error)
                    if isinstance(error, ChatError) and error.is_fatal:
                        raise error
                progress.update()
    return Answers(path, header, {name: done[name] for name in names if name in done}, failures)


def _write_line(file, row: dict) -> None:
    line = json.dumps(row, ensure_ascii=False)
    for character in "\x85\u2028\u2029":  # ends of lines to `str.splitlines`, though not to JSON
        line = line.replace(character, f"\\u{ord(character):04x}")
    file.write(f"{line}\n")
    file.flush()


def _asked(models: Models, asking: Asking, run: int) -> dict:
    """What a stopped run must have in common with the one that goes on, known before anything is loaded."""
    asked = {
        "model": models.name,
        "modalities": list(asking.modalities),
        "shuffled": asking.shuffled,
        "seed": asking.seed,
        "protocol": models.protocol,
        "language": asking.language,
        "question": asking.question,
        "decoding": asking.decoding,
        "max_new_tokens": asking.max_new_tokens,
        "run": run,
    }
    if asking.decoding == "reference":
        asked["batch_size"] = asking.batch_size
    return asked


def _read_answers(path: Path, asked: dict, names: list[str]) -> tuple[dict, dict[str, dict]]:
    """First line and answers of an earlier, stopped run; a last line cut in two is dropped."""
    if not path.exists():
        return {}, {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        path.write_text("".join(lines[:-1]), encoding="utf-8")
        lines = lines[:-1]
    if not lines:
        return {}, {}
    try:
        header, *rows = (json.loads(line) for line in lines)
        found = {row["name"]: row for row in rows}
        unknown = len(found) < len(rows) or not found.keys() <= set(names)
        # Earlier versions wrote fewer settings; those they had must agree.
        differs = any(header[key] != asked[key] for key in header.keys() & asked.keys()) or "model" not in header
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"Expected the answers of a run in {path}, could not read them ({error!r}). Delete or rename it."
        ) from error
    if differs or unknown:
        raise ValueError(
            f"Expected {path} to hold the answers of this very run, {asked}, got those of {header}. Delete or rename it."
        )
    return header, found


def _given_answers(file: str, rows: Dataset, asking: Asking) -> Answers:
    """The predictions of a file, for the clips of `rows`."""
    predictions = read_predictions(file)
    found, failures = {}, {}
    for name in rows["name"]:
        prediction = predictions.get(clip_name(name))
        if prediction is None:
            failures[name] = f"{file} has no prediction for it"
            continue
        found[name] = {key: value for key, value in dataclasses.asdict(prediction).items() if value is not None} | {"name": name}
    protocols = {row["protocol"] for row in found.values() if "protocol" in row}
    if len(protocols) > 1:
        raise ValueError(f"Expected answers of one protocol in {file}, got {' and '.join(sorted(protocols))}. Split the file.")
    header = {
        "model": file,
        "modalities": list(asking.modalities),
        "language": asking.language,
        "revision": {file: sha256_of(file)},
    }
    return Answers(Path(file), header | {"protocol": next(iter(protocols), None)}, found, failures)


def _load(models: Models, asking: Asking, fresh: Mapping[str, object], first: Answers | None):
    """The explainer; in a later run with its endpoints made anew."""
    if models.has_clues or (first is not None and models.protocol == "two-step"):
        clues = _clues_of_files(models) if models.has_clues else {name: row["clues"] for name, row in first.rows.items()}
        options = fresh if is_endpoint(models.merging) else {"device": models.device, "quantization": models.quantization}
        return MergeExplainer(clues, load_chat_model(models.merging, **options), models)
    if fresh and models.model is not None and is_endpoint(models.model):
        return ChatExplainer(load_chat_model(models.model, **fresh), send_clip=models.send_clip)
    if asking.features is not None and models.dtype is None:
        models = dataclasses.replace(models, dtype=precision_of(asking.features))
    explainer = load_explainer(**dataclasses.asdict(models))
    if not isinstance(explainer, AffectGPTExplainer):
        if not {"video", "audio"} <= set(asking.modalities):
            raise ValueError(
                f"Expected picture and sound for {models.name}, got {', '.join(asking.modalities)} alone: only AffectGPT "
                "checkpoints can be kept from one of them here. In two steps, name the video or the audio model alone."
            )
        if asking.decoding != "greedy":
            raise ValueError(f"Expected greedy decoding for {models.name}, got {asking.decoding}, which is AffectGPT's.")
    return explainer


def _clues_of_files(models: Models) -> dict[str, dict[str, str]]:
    clues: dict[str, dict[str, str]] = {}
    for medium, file in (("video", models.video_model), ("audio", models.audio_model)):
        for name, prediction in read_predictions(file).items() if file is not None else ():
            clues.setdefault(name, {})[medium] = prediction.text
    return clues


class MergeExplainer(TwoStepExplainer):
    """The second step alone: clues that are known, merged with the subtitle. No clip is opened.

    Args:
        clues (`Mapping`): clip -> its clues by "video" and "audio".
        merge: a chat model.
        models ([`Models`]): for the name.
    """

    def __init__(self, clues: Mapping[str, Mapping[str, str]], merge, models: Models):
        self._clues = clues
        self.merge_model = merge
        self.name = models.name
        self.host = merge.host

    def stream(self, path, *, subtitle=None, question=None, language="en", **ignored) -> Iterator[Explanation]:
        """The merged explanation of the clip named `path`. Raises `LookupError` if there are no clues for it."""
        name = clip_name(path)
        if name not in self._clues:
            raise LookupError(f"Expected clues for {name!r}, got none.")
        clip = Clip(path=os.fspath(path), frames=None, frame_times=[], waveform=None, duration=0.0)
        base = begin(
            clip,
            subtitle=subtitle,
            model=self.name,
            sound_spans=[],
            language=language,
            protocol=self.protocol,
            host=self.host,
        )
        clues = {medium: self._clues[name][medium] for medium in ("video", "audio") if self._clues[name].get(medium)}
        yield self.merged(dataclasses.replace(base, clues=clues), question)


def _check_drawings(explainer: AffectGPTExplainer, rows: Dataset, explain_anyway: bool) -> None:
    if not explainer.drawings_only or explain_anyway:
        return
    sources = {(provenance or {}).get("source") for provenance in rows["provenance"]}
    if sources != {"EMER-Sketch"}:
        raise ValueError(
            f"Expected drawings of EMER-Sketch for {explainer.name}, which knows nothing else, got other clips: whatever it said "
            "of people would be made up. Evaluate another model, or insist with --explain-anyway."
        )


class _Reader:
    """Collates rows; those whose clip cannot be read are named instead."""

    def __init__(self, collate: AffectGPTCollator):
        self.collate = collate

    def __call__(self, rows: list[dict]) -> tuple[list[str], dict, dict[str, Exception]]:
        failures: dict[str, Exception] = {}
        try:
            batch = self.collate(rows)
        except _FAILURES:
            for row in rows:
                try:
                    self.collate([row])
                except _FAILURES as error:
                    failures[row["name"]] = error
            rows = [row for row in rows if row["name"] not in failures]
            batch = self.collate(rows) if rows else {}
        return [row["name"] for row in rows], batch, failures


@torch.inference_mode()
def generated(
    explainer: AffectGPTExplainer, rows: Dataset, todo: Sequence[int], asking: Asking, run: int = 0
) -> Iterator[tuple[dict, Exception | None]]:
    """The answers of an AffectGPT checkpoint to the rows numbered `todo`, in batches; a clip that cannot be read has an error."""
    model, processor = explainer.model, explainer.processor
    features = None if asking.features is None else FeatureCache(asking.features, model, processor, faces=asking.faces)
    collate = AffectGPTCollator(
        processor,
        modalities=tuple(asking.modalities),
        with_answers=False,
        language=asking.language,
        questions=() if asking.question is None else (asking.question,),
        faces_folder=asking.faces,
        features=None if features is None else features.read,
    )
    samples = asking.decoding == "reference"
    if samples:
        # What is drawn depends on the rows beside a row: the batches are those of an unbroken run.
        starts = sorted({index // asking.batch_size * asking.batch_size for index in todo})
        batches = [list(range(start, min(start + asking.batch_size, len(rows)))) for start in starts]
    else:
        batches = [list(todo[start : start + asking.batch_size]) for start in range(0, len(todo), asking.batch_size)]
    options = _generation_options(model, asking)
    wanted = {rows[index]["name"] for index in todo} if samples else None
    loader = DataLoader(rows, batch_sampler=batches, collate_fn=_Reader(collate), num_workers=1)
    for numbers, (names, batch, failures) in zip(batches, loader, strict=True):
        yield from (({"name": name}, error) for name, error in failures.items())
        if not names:
            continue
        inputs = {
            key: value.to(model.device, dtype=model.dtype if value.is_floating_point() else None) for key, value in batch.items()
        }
        if samples:
            torch.manual_seed(int(np.random.SeedSequence([asking.seed, run, numbers[0]]).generate_state(1)[0]))
        cache = growing_cache(model.config)
        written = model.generate(**inputs, **options, past_key_values=cache, tokenizer=processor.tokenizer)
        written = written[:, inputs["input_ids"].shape[1] :].cpu()
        texts = processor.batch_decode(written, skip_special_tokens=True)
        for name, text, ids in zip(names, texts, written, strict=True):
            if wanted is None or name in wanted:
                answer, stop, _ = text.partition(processor.stop_string)
                row = {"name": name, "text": answer.strip(), "protocol": "direct"}
                yield row if stop or processor.tokenizer.eos_token_id in ids else row | {"is_cut": True}, None


def _generation_options(model, asking: Asking) -> dict:
    if asking.decoding == "reference":
        options = dict(REFERENCE_DECODING)
    else:
        # Of the checkpoint's own sampling settings, which greedy decoding would warn about.
        options = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        options["max_new_tokens"] = model.generation_config.max_new_tokens or MAX_NEW_TOKENS
    return options | ({} if asking.max_new_tokens is None else {"max_new_tokens": asking.max_new_tokens})


def explained(
    explainer, rows: Dataset, todo: Sequence[int], asking: Asking, *, concurrency: int = 1
) -> Iterator[tuple[dict, Exception | None]]:
    """The answers of any explainer to the rows numbered `todo`, as they come; of a clip that cannot be explained, the error."""
    languages = ("subtitle_zh", "subtitle") if asking.language == "zh" else ("subtitle", "subtitle_zh")

    def answer(index: int) -> tuple[dict, Exception | None]:
        row = rows[index]
        subtitle = next((row[column] for column in languages if row[column]), None) if "text" in asking.modalities else None
        try:
            with tempfile.TemporaryDirectory() as folder:  # for a clip that is embedded in the corpus
                path = row["name"] if isinstance(explainer, MergeExplainer) else media_path(row["video"], folder)
                found = explainer.explain(
                    path,
                    subtitle=subtitle,
                    question=asking.question,
                    language=asking.language,
                    max_new_tokens=asking.max_new_tokens,
                )
        except _FAILURES as error:
            return {"name": row["name"]}, error
        return _answer_row(row["name"], found, explainer), None

    yield from (answer(index) for index in todo) if concurrency == 1 else _side_by_side(answer, todo, concurrency)


def _answer_row(name: str, found: Explanation, explainer) -> dict:
    given = {"video": bool(found.frame_times), "audio": bool(found.sound_spans), "text": bool(found.subtitle)}
    row = {"name": name, "text": found.text, "protocol": found.protocol}
    if found.protocol == "two-step":
        row["clues"] = found.clues
        given |= {medium: medium in found.clues for medium in ("video", "audio")}
    row["given"] = in_order("".join(letter for medium, letter in LETTERS.items() if given[medium]))
    return row | ({"notes": found.notes} if found.notes else {})


def _side_by_side(work, items: Iterable, concurrency: int) -> Iterator:
    """What `work` makes of each item, as it comes. Stopped (Ctrl-C), nothing is waited for."""
    jobs: queue.SimpleQueue = queue.SimpleQueue()
    results: queue.SimpleQueue = queue.SimpleQueue()
    items = list(items)
    for item in items:
        jobs.put(item)
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            try:
                item = jobs.get_nowait()
            except queue.Empty:
                return
            try:
                results.put((work(item), None))
            except Exception as error:  # handed to the thread that waits for it, and raised there
                results.put((None, error))

    # Daemons: a request under way must not hold up the interpreter's end after an interrupt.
    for _ in range(min(concurrency, len(items))):
        threading.Thread(target=run, daemon=True).start()
    try:
        for _ in items:
            result, error = results.get()
            if error is not None:
                raise error
            yield result
    finally:
        stop.set()


def revisions(models: Models) -> dict[str, str | None]:
    """Of each model its version: the hash of a local folder's or file's content, the commit of a Hub repository.

    `None` for an endpoint, which does not tell.
    """
    return {name: _revision(name) for name in models.named}


def _revision(name: str) -> str | None:
    if is_endpoint(name):
        return None
    path = Path(name).expanduser()
    if path.is_file():
        return sha256_of(path)
    if not path.is_dir():
        return extract_commit_hash(cached_file(name, "config.json"), None)
    files = [*find_weights(path), *path.glob("adapter/*.safetensors"), *path.glob("*.json"), *path.glob("*.jinja")]
    # Logs of the training are not what answers.
    kept = sorted(file for file in files if file.name not in ("trainer_state.json", "README.md"))
    digest = hashlib.sha256("".join(f"{file.name} {sha256_of(file)}\n" for file in kept).encode())
    return digest.hexdigest()


def prompts(models: Models, asking: Asking, explainer) -> dict[str, str]:
    """Hashes of what the models are asked, with gaps where a clip's own words go."""
    if isinstance(explainer, AffectGPTExplainer):
        question = asking.question or explainer.processor.default_question
        texts = {"direct": explainer.processor.chat_template + question}
    elif models.protocol == "direct":
        conclude = CONCLUDE if asking.language == "en" else CONCLUDE_ZH
        texts = {"direct": f"{asking.question or DIRECT_QUESTION} {conclude}"}
    else:
        gaps = {medium: f"<{medium}>" for medium in ("video", "audio") if getattr(models, f"{medium}_model") is not None}
        asked = {"video": VIDEO_CLUE_PROMPT, "audio": AUDIO_CLUE_PROMPT} if not models.has_clues else {}
        texts = {medium: prompt for medium, prompt in asked.items() if medium in gaps}
        texts["merge"] = merge_prompt(gaps, "<subtitle>", asking.language) + (asking.question or "")
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
