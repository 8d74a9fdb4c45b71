"""Builds corpora from the authors' annotation files: joins them by the names of clips and writes the folder that `datasets` reads.

Files are joined in a temporary database on disk, so that memory does not grow with their size. A build writes below
`<output>/.building` and puts the whole in place at the end; one that was stopped leaves its finished files there, and the same
command takes them over.
"""

import errno
import json
import logging
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from . import __version__
from .corpus import MAX_SHARD_BYTES, find_clips, read_card, shards_by_origin, write_card, write_shards
from .mer_files import CorpusError, MerFile, Problem, choose_test_names, names_digest, quoted_subtitles, read_names, read_rows

logger = logging.getLogger(__name__)

# EMER-V1 is what came before EMER-Fine, and shares clips with its test split: no training split.
_SPLITS = {"EMER-Coarse": ("train",), "EMER-Fine": ("train", "test"), "Human-OV": ("train",), "EMER-V1": ("whole",)}
_COUNTED = ("description", "description_zh", "subtitle", "subtitle_zh", "labels", "video")
_BUILT_BY = "affectgpt corpus build"
# Parquet's own, and the database.
_SPARE_BYTES = 64 * 1024 * 1024
_NUM_LISTED = 10

_CARD = """\
# {title}

Clips of people with explanations of what they seem to feel, built by `{built_by}` {version} from:

{files}

| configuration | split | clips | description en | zh | subtitle en | zh | labels | clip |
|---|---|---|---|---|---|---|---|---|
{table}

{split_rule}{media}

What a source lacks is empty. `provenance` names the files that a row was made from and, in `recovered`, the columns that were found
in the text of another: EMER-Fine came without subtitles, but most of its descriptions quote them.

{notes}{terms}What is written about the people in these clips is what viewers or models read from outward signs, not what the people
felt. Not for use at work, in education, or for decisions about people.
"""
_MER_TERMS = """\
## Not to be passed on

`redistributable: false`. Clips and annotations of the MER corpora come under an end user licence agreement that forbids passing
them on, as they are or changed. This folder stays on the disk, or in the private repository, of those who signed it.

"""
_NAMES_RULE = (
    "the first {number} of {total} names in the order of their SHA-256 (the authors never published their split of 66 and 266)"
)


@dataclass
class BuildReport:
    """What a build found and wrote.

    Attributes:
        counts (`dict[tuple[str, str], Counter]`): of each configuration and split: `rows`, how many have each column, and how many
            subtitles were `recovered` from descriptions.
        notes (`list[str]`): what is missing on which side, left out or in conflict, as sentences.
        problems (`list[Problem]`): bad rows that were left out.
    """

    counts: dict[tuple[str, str], Counter] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def build_corpus(
    files: Sequence[MerFile],
    output: str | Path,
    *,
    media: Sequence[str | Path] = (),
    with_media: bool = False,
    test_names: str | Path | None = None,
    licence: str | None = None,
    skip_bad_rows: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> BuildReport:
    """Build a corpus from recognised files.

    The rows of a configuration are those of its files of descriptions or, without any, of its files of labels; whatever else the
    files know of a name is joined. Where two files differ, the earlier one counts. Clips of EMER-Fine's test split are left out of
    every split named "train".

    Args:
        files (`Sequence[MerFile]`): from `mer_files.recognise`.
        output (`str` or `Path`): folder of the corpus. What an earlier build wrote there is replaced.
        media (`Sequence`): folders of clips, joined by name.
        with_media (`bool`): embed the clips instead of referring to them.
        test_names (`str` or `Path`, *optional*): file with the names of EMER-Fine's test split, one a line; by default the rule of
            `mer_files.choose_test_names`.
        licence (`str`, *optional*): of material that may be passed on, as hubs spell it. Without it, the material is MER's.
        skip_bad_rows (`bool`): leave malformed and duplicate rows out instead of refusing.
        max_shard_bytes (`int`): texts and embedded clips of a parquet file.

    Returns:
        [`BuildReport`]

    Raises:
        CorpusError: for malformed and duplicate rows, all at once, and for test names that EMER-Fine does not have.
        OSError: if the disk is too small or full, or a folder may not be written or read.
        ValueError: if `output` holds something else, or two clips have one name.
    """
    output = Path(output)
    _check_output(output)
    building = output / ".building"
    building.mkdir(parents=True, exist_ok=True)
    report = BuildReport()
    clips = find_clips(media)
    try:
        with _Join(building / "join.sqlite") as join:
            for priority, file in enumerate(files):
                join.add(file, priority, report.problems)
            if report.problems and not skip_bad_rows:
                raise CorpusError(report.problems, "Mend these rows, or leave them out by --skip-bad-rows.")
            configurations = [name for name in _SPLITS if join.has_rows(name)]
            if not configurations:
                sources = ", ".join(file.source for file in files)
                raise CorpusError([Problem(sources, "expected rows with descriptions or labels, got none.")])
            fine = [name for name, _, _ in join.rows("EMER-Fine")]
            test = frozenset(choose_test_names(fine)) if test_names is None else _read_test_names(test_names, fine)
            _check_space(join, clips.values() if with_media else (), building)
            written = {}
            known = shards_by_origin(output)
            for name in configurations:
                for split in _SPLITS[name]:
                    rows = _rows(join, name, split, test, clips, bool(media), licence, report)
                    shards = write_shards(
                        rows,
                        building / "data" / name,
                        split,
                        with_media=with_media,
                        max_shard_bytes=max_shard_bytes,
                        known=known,
                    )
                    for path in shards:
                        written.setdefault((name, split), []).append(path)
                        logger.info("%s, %s: %d rows written.", name, split, report.counts[name, split]["rows"])
            report.notes = [*join.notes(configurations), *report.notes]
            if report.problems:
                report.notes.insert(0, f"{len(report.problems)} malformed or duplicate rows are left out.")
        rule = _NAMES_RULE.format(number=len(test), total=len(fine)) if test_names is None else "an own list"
        body = _card_body(report, files, output, test, rule, licence, with_media, bool(media))
        facts = {"license_name": "mer-eula"} if licence is None else {}
        facts |= {"built_by": _BUILT_BY}
        if test:
            facts |= {"num_test_names": len(test), "test_names_sha256": names_digest(test)}
        _put_in_place(output, written, body, licence=licence, facts=facts)
    finally:
        for folder in (building / "data", building):
            if folder.is_dir() and not any(path.is_file() for path in folder.rglob("*")):
                shutil.rmtree(folder)
    return report


def _check_output(output: Path) -> None:
    """Refuse a folder whose card somebody else wrote: it would be replaced."""
    if not (output / "README.md").is_file():
        return
    try:
        built_by = read_card(output).get("built_by")
    except ValueError:
        built_by = None
    if built_by != _BUILT_BY:
        raise ValueError(
            f"{output}: expected a new folder or a corpus that `{_BUILT_BY}` wrote, got a folder with another README.md. "
            "Choose another output."
        )


def _read_test_names(path: str | Path, fine: Iterable[str]) -> frozenset[str]:
    chosen, known = read_names(path), set(fine)
    strange = [Problem(str(path), f"expected names of EMER-Fine, got {name}.") for name in chosen if known and name not in known]
    if strange:
        raise CorpusError(strange, "Give the list that belongs to these files.")
    return frozenset(chosen)


class _Join:
    """Cells of annotation files in a database on disk, by configuration, name, column and order of the files.

    Cells of the configuration "" serve any: subtitles.
    """

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> "_Join":
        self._path.unlink(missing_ok=True)
        self._database = sqlite3.connect(self._path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("PRAGMA page_size = 16384")
        self._database.execute(
            "CREATE TABLE cells (configuration TEXT, name TEXT, field TEXT, priority INT, value TEXT, source TEXT, "
            "PRIMARY KEY (configuration, name, field, priority)) WITHOUT ROWID"
        )
        # Columns that make a row, by configuration.
        self._keys: dict[str, tuple[str, ...]] = {}
        return self

    def __exit__(self, *_) -> None:
        self._database.close()
        self._path.unlink(missing_ok=True)

    def add(self, file: MerFile, priority: int, problems: list[Problem]) -> None:
        fields = {field.rstrip("?") for field in file.fields.values()}
        if "description" in fields:
            self._keys[file.configuration] = ("description", "description_zh")
        elif file.configuration is not None:
            self._keys.setdefault(file.configuration, ("labels",))
        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO cells VALUES (?, ?, ?, ?, ?, ?)", self._cells(file, priority, problems))
        self._database.execute("COMMIT")

    @staticmethod
    def _cells(file: MerFile, priority: int, problems: list[Problem]) -> Iterator[tuple]:
        for _, name, row in read_rows(file, problems):
            for column, value in row.items():
                configuration = "" if column.startswith("subtitle") else file.configuration
                value = json.dumps(value, ensure_ascii=False) if column == "labels" else value
                yield configuration, name, column, priority, value, file.source

    def has_rows(self, configuration: str) -> bool:
        return next(self.rows(configuration), None) is not None

    def rows(self, configuration: str) -> Iterator[tuple[str, dict, list[str]]]:
        """Name, columns and the names of the files that they are from, in the order of names."""
        keys = self._keys.get(configuration, ())
        cells = self._database.execute(
            "SELECT name, field, value, source FROM cells WHERE configuration = ? ORDER BY name, field, priority", (configuration,)
        )
        for name, group in groupby(cells, key=lambda cell: cell[0]):
            row, sources = {}, []
            shared = self._database.execute(
                "SELECT name, field, value, source FROM cells WHERE configuration = '' AND name = ? ORDER BY field, priority",
                (name,),
            )
            for _, column, value, source in (*group, *shared):
                if column not in row:
                    row[column] = json.loads(value) if column == "labels" else value
                    sources.append(source)
            if any(key in row for key in keys):
                yield name, row, list(dict.fromkeys(sources))

    def text_bytes(self) -> int:
        return self._database.execute("SELECT SUM(LENGTH(CAST(value AS BLOB))) FROM cells").fetchone()[0] or 0

    def notes(self, configurations: Iterable[str]) -> list[str]:
        """What the files contradict each other in, and what has no counterpart."""
        notes = []
        conflicts = self._database.execute(
            "SELECT a.configuration, a.field, a.source, b.source, COUNT(*), GROUP_CONCAT(a.name, ', ') FROM cells a JOIN cells b "
            "ON a.configuration = b.configuration AND a.name = b.name AND a.field = b.field AND a.priority < b.priority "
            "AND a.value <> b.value GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
        )
        for configuration, column, first, second, number, names in conflicts:
            where = f"{configuration}: " if configuration else ""
            notes.append(
                f"{where}{first} and {second} differ in the {column} of {_listed(names.split(', '), number)}; the first counts."
            )
        for configuration in configurations:
            keys = self._keys[configuration]
            if "labels" in keys:
                continue
            lost = self._database.execute(
                "SELECT name FROM cells a WHERE configuration = ? AND field = 'labels' AND NOT EXISTS (SELECT 1 FROM cells b WHERE "
                "b.configuration = a.configuration AND b.name = a.name AND b.field IN (?, ?)) GROUP BY name ORDER BY name",
                (configuration, *keys),
            ).fetchall()
            if lost:
                names = [name for (name,) in lost]
                notes.append(f"{configuration}: labels without a description, left out: {_listed(names, len(names))}.")
        return notes


def _listed(names: Sequence[str], number: int) -> str:
    """ "3 clips (a, b, c)", of long lists the beginning."""
    shown = ", ".join(names[:_NUM_LISTED]) + (", ..." if number > _NUM_LISTED else "")
    return f"{number} {'clip' if number == 1 else 'clips'} ({shown})"


def _rows(
    join: _Join, name: str, split: str, test: frozenset[str], clips: dict[str, str], has_media, licence, report
) -> Iterator[dict]:
    """The rows of one split, counted in `report` as they go by."""
    counts = report.counts[name, split] = Counter()
    lacking: dict[str, list[str]] = {"clip": [], "subtitle": [], "labels": []}
    left_out = 0
    for clip, row, sources in join.rows(name):
        if split in ("train", "test") and (clip in test) != (split == "test"):
            left_out += name != "EMER-Fine"
            continue
        recovered = {}
        if not {"subtitle", "subtitle_zh"} & set(row):
            recovered = quoted_subtitles(row.get("description"), row.get("description_zh"))
        row |= recovered
        row["video"] = clips.get(clip)
        counts.update(["rows", *(column for column in _COUNTED if row.get(column)), *(["recovered"] * bool(recovered))])
        has = {
            "clip": row["video"] or not has_media,
            "subtitle": row.get("subtitle") or row.get("subtitle_zh"),
            "labels": "labels" in row,
        }
        for what, is_there in has.items():
            if not is_there:
                lacking[what].append(clip)
        yield row | {
            "name": clip,
            "provenance": {
                "source": "MER" if licence is None else "own",
                "files": sources,
                "recovered": sorted(recovered),
                "redistributable": licence is not None,
            },
        }
    if left_out:
        report.notes.append(f"{name}, {split}: {left_out} rows are left out, because EMER-Fine tests on their clips.")
    if counts["recovered"]:
        report.notes.append(f"{name}, {split}: the subtitle of {counts['recovered']} clips is taken from their description.")
    for what, names in lacking.items():
        if names and not (what == "labels" and len(names) == counts["rows"]):
            report.notes.append(f"{name}, {split}: no {what} for {_listed(names, len(names))}.")


def _check_space(join: _Join, clips: Iterable[str], folder: Path) -> None:
    needed = join.text_bytes() + sum(map(os.path.getsize, clips)) + _SPARE_BYTES
    done = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    free = shutil.disk_usage(folder).free + done
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"expected {needed / 1e9:.1f} GB of free space, got {free / 1e9:.1f} GB. Free some, or refer to clips",
            folder,
        )


def _card_body(report: BuildReport, files, output: Path, test, rule: str, licence, with_media: bool, has_media: bool) -> str:
    table = [
        f"| {name} | {split} | {counts['rows']} | " + " | ".join(str(counts[column]) for column in _COUNTED) + " |"
        for (name, split), counts in report.counts.items()
    ]
    media = "Clips are referred to by absolute path: the folder serves this machine, while they lie where they lie."
    if with_media:
        media = "Clips are embedded: the folder is complete."
    elif not has_media:
        media = "Clips are not in it: `affectgpt.corpus.attach_media(dataset, folder)` joins them by name."
    digest = names_digest(test)
    return _CARD.format(
        title=" and ".join(dict.fromkeys(name for name, _ in report.counts)),
        built_by=_BUILT_BY,
        version=__version__,
        files="\n".join(f"- `{file.source}`" for file in files),
        table="\n".join(table),
        split_rule=f"EMER-Fine's test split: {rule}; SHA-256 of the sorted list, one name a line: `{digest}`.\n\n" if test else "",
        media=media,
        notes="".join(f"- {note}\n" for note in report.notes) + "\n" * bool(report.notes),
        terms=_MER_TERMS if licence is None else "",
    )


def _put_in_place(output: Path, written: dict[tuple[str, str], list[Path]], body: str, *, licence: str | None, facts: dict) -> None:
    """Card first: until the last of the files that it lists is there, the folder cannot be loaded."""
    moves = {path: output / "data" / name / path.name for (name, _), paths in written.items() for path in paths}
    configurations: dict[str, dict[str, list[str]]] = {}
    for (name, split), paths in written.items():
        configurations.setdefault(name, {})[split] = [moves[path].relative_to(output).as_posix() for path in paths]
    outdated = set(shards_by_origin(output / "data").values()) - set(moves.values())
    write_card(output, configurations, body, licence=licence or "other", redistributable=licence is not None, facts=facts)
    for source, target in moves.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
    for path in outdated:
        path.unlink()
    shutil.rmtree(output / ".building")
