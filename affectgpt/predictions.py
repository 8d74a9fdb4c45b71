"""Files of predictions: what other systems said about clips, as baselines and as material to look at. Needs no torch."""

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .npz import read_npz

PREDICTION_SUFFIXES = (".csv", ".jsonl", ".npz")
# Files of a folder that are taken for clips.
_VIDEO_SUFFIXES = (
    ".3gp",
    ".avi",
    ".flv",
    ".gif",
    ".m4v",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpeg",
    ".mpg",
    ".mts",
    ".ogv",
    ".ts",
    ".webm",
    ".wmv",
)
SOUND_SUFFIXES = (".aac", ".aiff", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav")
MEDIA_SUFFIXES = frozenset(_VIDEO_SUFFIXES + SOUND_SUFFIXES)
_NAME_COLUMNS = ("name", "clip", "video", "filename", "file_name", "names", "filenames")
_TEXT_COLUMNS = ("text", "description", "reason", "explanation", "answer", "prediction", "output", "response", "fileitems", "texts")
_LABEL_COLUMNS = ("labels", "openset", "predicted_labels")


@dataclass(frozen=True)
class Prediction:
    """What a file says about one clip.

    Attributes:
        text (`str`): the explanation; empty if only labels are given.
        labels (`list[str]`, *optional*): in lower case.
        subtitle, language, protocol (`str`, *optional*): as in `Explanation`, where the file has them.
    """

    text: str
    labels: list[str] | None = None
    subtitle: str | None = None
    language: str | None = None
    protocol: str | None = None


def read_predictions(path: str | os.PathLike) -> dict[str, Prediction]:
    """Read predictions by the name of the clip, without folder and suffix.

    Args:
        path (`str` or `os.PathLike`): `.csv` with a header or `.jsonl`, one row per clip with a name and a text, labels or both
            (`affectgpt explain --output` writes such files); `.npz` as the authors save it (`name2reason`, a dict), or with an
            array of names and one of texts.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is of another kind, a row has no name or nothing to say, or two rows of one clip differ.
    """
    path = Path(path)
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".npz": _read_npz}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: expected predictions as {', '.join(readers)}, got another kind of file.")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file of predictions, got no file of this name. Check the path.")
    predictions: dict[str, Prediction] = {}
    for name, prediction in readers[path.suffix.lower()](path):
        if predictions.setdefault(clip_name(name), prediction) != prediction:
            raise ValueError(f"{path}: expected one prediction per clip, got two for {name!r}. Remove one.")
    if not predictions:
        raise ValueError(f"{path}: expected predictions, got none.")
    return predictions


def clip_name(path: str | os.PathLike) -> str:
    """The name of a clip without folder and media suffix: what predictions and subtitle files are looked up by."""
    path = Path(path)
    return path.stem if path.suffix.lower() in MEDIA_SUFFIXES else path.name


def _read_csv(path: Path) -> Iterator[tuple[str, Prediction]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        for number, row in enumerate(rows, start=2):
            yield _prediction(path, number, row)


def _read_jsonl(path: Path) -> Iterator[tuple[str, Prediction]]:
    lines = path.read_text(encoding="utf-8").split("\n")  # `splitlines` also splits at characters that JSON allows in a text
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: expected a JSON object, got something else ({error}).") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: expected a JSON object, got {type(row).__name__}.")
        if number == 1 and not set(row) & set(_NAME_COLUMNS):
            continue  # settings of a run, which evaluations write first
        yield _prediction(path, number, row)


def _read_npz(path: Path) -> Iterator[tuple[str, Prediction]]:
    arrays = read_npz(path)
    for array in arrays.values():
        mapping = array.item() if array.ndim == 0 and array.dtype == object else None
        if isinstance(mapping, dict):
            for number, (name, text) in enumerate(mapping.items(), start=1):
                yield _prediction(path, number, {"name": name, "text": text})
            return
    names, texts = _first(arrays, _NAME_COLUMNS), _first(arrays, _TEXT_COLUMNS)
    if names is None or texts is None or len(names) != len(texts):
        raise ValueError(
            f"{path}: expected `name2reason` (a dict of names and texts), or an array of names ({', '.join(_NAME_COLUMNS)}) and "
            f"one of as many texts ({', '.join(_TEXT_COLUMNS)}), got {', '.join(arrays) or 'nothing'}."
        )
    for number, (name, text) in enumerate(zip(names.tolist(), texts.tolist(), strict=True), start=1):
        yield _prediction(path, number, {"name": name, "text": text})


def _prediction(path: Path, number: int, row: dict) -> tuple[str, Prediction]:
    name, text = _first(row, _NAME_COLUMNS), _first(row, _TEXT_COLUMNS)
    labels = _first(row, _LABEL_COLUMNS)
    if name is None or (text is None and labels is None):
        raise ValueError(
            f"{path}, row {number}: expected a name ({', '.join(_NAME_COLUMNS)}) and a text ({', '.join(_TEXT_COLUMNS)}), got "
            f"{', '.join(str(key) for key in row)}."
        )
    if isinstance(labels, str) and not labels.strip():
        labels = None  # an empty cell
    elif isinstance(labels, str):
        labels = [label.strip(" \t'\"").lower() for label in labels.strip().strip("[]").split(",")]
    if isinstance(text, list):
        text = f"[{', '.join(str(label) for label in text)}]"
    return str(name), Prediction(
        text="" if text is None else str(text),
        labels=None if labels is None else [str(label) for label in labels if label],
        subtitle=row.get("subtitle"),
        language=row.get("language"),
        protocol=row.get("protocol"),
    )


def _first(row: dict, columns: tuple[str, ...]):
    return next((row[column] for column in columns if row.get(column) is not None), None)
