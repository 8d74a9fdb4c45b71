"""Checks corpora before anything is trained on them: bad rows, missing clips, and clips of a test split among those to train on."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .corpus import has_clip, read_rows, split_files
from .corpus_stats import open_clips

_COLUMNS = ("name", "description", "description_zh", "labels")


@dataclass
class CheckReport:
    """What a check found.

    Attributes:
        leaks (`list[str]`): clips of a test split that a training split has too, one a line.
        problems (`list[str]`): rows that cannot be used, one a line.
        notes (`list[str]`): what to know, as sentences.
    """

    leaks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.leaks and not self.problems


def check_corpora(folders: Sequence[str | Path], *, with_media: bool = True, opening: bool = False) -> CheckReport:
    """Check corpora, each by itself and all against each other: what one tests on, none may train on.

    A clip is known by its name and by its bytes: a training clip whose size is that of a test clip is read and hashed.

    Args:
        folders (`Sequence`): of corpora.
        with_media (`bool`): look at the clips.
        opening (`bool`): also open every clip, as far as its header.

    Raises:
        FileNotFoundError, ValueError: if a folder is no corpus.
    """
    report = CheckReport()
    splits = [
        (f"{folder}: {configuration}, {split}" if len(folders) > 1 else f"{configuration}, {split}", split, paths)
        for folder in folders
        for (configuration, split), paths in split_files(folder).items()
    ]
    for where, _, paths in splits:
        _check_rows(report, where, paths, with_media)
        if opening:
            report.problems += [f"{where}: {error}" for _, _, error in open_clips(paths) if error]
    tests = {where: paths for where, split, paths in splits if split == "test"}
    names, clips = _test_clips(tests, with_media)
    for where, split, paths in splits:
        if split == "test":
            continue
        leaks = list(_leaks(where, paths, names, clips))
        if split == "train":
            report.leaks += leaks
        elif leaks:
            report.notes.append(f"{where}: {len(leaks)} of its clips are tested on elsewhere; do not train on it.")
    if not tests:
        report.notes.append("No test split is among them; nothing can leak.")
    return report


def _check_rows(report: CheckReport, where: str, paths: list[Path], with_media: bool) -> None:
    seen: set[str] = set()
    num_rows = num_bare = 0
    columns = [*_COLUMNS, "video"] if with_media else _COLUMNS
    for number, row in enumerate(read_rows(paths, columns)):
        num_rows += 1
        name = row["name"]
        problems = []
        if not name:
            problems.append("no name")
        elif name in seen:
            problems.append("the name of an earlier row")
        seen.add(name)
        if not (row["description"] or row["description_zh"] or row["labels"]):
            problems.append("neither a description nor labels")
        if with_media:
            num_bare += not has_clip(row["video"])
            problems += _clip_problems(row["video"])
        report.problems += [f"{where}: row {number} ({name}): {problem}" for problem in problems]
    if num_bare:
        report.notes.append(f"{where}: {num_bare} of {num_rows} rows have no clip.")
    if not num_rows:
        report.problems.append(f"{where}: no rows")


def _clip_problems(video: dict | None) -> list[str]:
    if not has_clip(video):
        return []
    if video["bytes"] is not None:
        return [] if video["bytes"] else ["an empty clip"]
    path = video["path"]
    if not os.path.isfile(path):
        return [f"no clip at {path}"]
    if not os.path.getsize(path):
        return [f"an empty file at {path}"]
    return [] if os.access(path, os.R_OK) else [f"no permission to read {path}"]


def _test_clips(tests: dict[str, list[Path]], with_media: bool) -> tuple[dict[str, str], dict[int, dict[str, str]]]:
    """Where each name is tested on; and by size and hash, where each clip is."""
    names: dict[str, str] = {}
    clips: dict[int, dict[str, str]] = {}
    for where, paths in tests.items():
        for row in read_rows(paths, ["name", "video"] if with_media else ["name"]):
            names.setdefault(row["name"], where)
            size = _size(row["video"]) if with_media else None
            if size is not None:
                clips.setdefault(size, {}).setdefault(_hash(row["video"]), f"{where}: {row['name']}")
    return names, clips


def _leaks(where: str, paths: Iterable[Path], names: dict[str, str], clips: dict[int, dict[str, str]]) -> Iterator[str]:
    for row in read_rows(paths, ["name", "video"] if clips else ["name"]):
        if row["name"] in names:
            yield f"{where}: {row['name']} is tested on in {names[row['name']]}"
            continue
        same_size = clips.get(_size(row["video"])) if clips else None
        if same_size and (twin := same_size.get(_hash(row["video"]))) is not None:
            yield f"{where}: {row['name']} has the same clip as {twin}"


def _size(video: dict | None) -> int | None:
    """Bytes of a clip; `None` if there is none to read."""
    if not has_clip(video) or _clip_problems(video):
        return None
    return len(video["bytes"]) if video["bytes"] is not None else os.path.getsize(video["path"])


def _hash(video: dict) -> str:
    if video["bytes"] is not None:
        return hashlib.sha256(video["bytes"]).hexdigest()
    with open(video["path"], "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
