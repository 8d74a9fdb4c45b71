"""Emotion-wheel metrics: labels compared by where the authors' tables put them on five emotion wheels, without any model.

The metrics of the authors' later work ("OV-MER", arXiv 2410.01495; MER2025, MER2026). The tables are theirs and are read from a
folder that the user names; two versions are in use, of 2025 and 2026, and give different figures. Without torch and without pandas:
the spreadsheets are plain tables, which the standard library can read.
"""

import csv
import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from .metrics import bootstrap_interval, check_same_clips, f_score, normalised
from .npz import read_npz

_WHEEL_NUMBERS = (1, 2, 3, 4, 5)
# The names of the authors' code. In the paper: M1 (forms of a word), M2 (and synonyms), M3-W1 L1 ... M3-W5 L2 (and wheels).
MEASURES = ("case1", "case2", *(f"case3_wheel{wheel}_level{level}" for wheel in _WHEEL_NUMBERS for level in (1, 2)))
_LEVEL_COLUMNS = {level: [MEASURES.index(f"case3_wheel{wheel}_level{level}") for wheel in _WHEEL_NUMBERS] for level in (1, 2)}
_ALL_COLUMNS = list(range(len(MEASURES)))
_MAPPING_FILE = "wheel_mapping.npz"
_MAPPING_KEYS = ("format_mapping", "raw_mapping", "wheel_map_whole")
# Clips are counted in a table of clips by classes, so many cells at a time.
_MAX_CELLS = 1 << 20
_TABLES = ("format", "synonym", *(f"wheel{wheel}" for wheel in _WHEEL_NUMBERS))


@dataclass(frozen=True)
class EmotionWheels:
    """The authors' tables, as look-ups of lower-cased words.

    Args:
        bases: word form -> its base forms, sorted.
        roots: base form -> the words on the wheels that it is a synonym of, sorted.
        wheels: for each wheel, level 1 and level 2: word on the wheel -> its class there.
        fingerprint: tells versions of the tables apart; hexadecimal.
    """

    bases: dict[str, tuple[str, ...]] = field(repr=False)
    roots: dict[str, tuple[str, ...]] = field(repr=False)
    wheels: tuple[tuple[dict[str, str], dict[str, str]], ...] = field(repr=False)
    fingerprint: str

    def classes(self, label: str) -> tuple[str | None, ...]:
        """What a lower-cased label becomes in each of `MEASURES`; `None` where it is out of vocabulary."""
        bases = self.bases.get(label)
        if bases is None:
            return (None,) * len(MEASURES)
        # Reference: measure 2 follows the first base form only, the wheels follow all of them.
        roots = sorted({root for base in bases for root in self.roots[base]})
        on_wheels = [next((level[root] for root in roots if root in level), None) for wheel in self.wheels for level in wheel]
        return (bases[0], self.roots[bases[0]][0], *on_wheels)


@dataclass(frozen=True)
class WheelMeasure:
    """Precision and recall, means over the `n` clips with an annotated label in vocabulary, and F of these means; all in [0, 1]."""

    precision: float
    recall: float
    f: float
    n: int


@dataclass(frozen=True)
class WheelScore:
    """The twelve measures and what is made of them.

    Args:
        n: clips given. Each measure leaves out those of which it knows no annotated label, and counts its own `n`.
        measures: `MEASURES` -> precision, recall, F.
        names: clips, in the order of `per_clip`.
        per_clip (`np.ndarray` of shape `(n, 12, 2)`): precision and recall of each clip in each measure, NaN where left out.
        fingerprint: that of the tables.
    """

    n: int
    measures: dict[str, WheelMeasure]
    names: tuple[str, ...] = field(repr=False)
    per_clip: np.ndarray = field(repr=False)
    fingerprint: str

    @property
    def level1_mean_f(self) -> float:
        """Mean F over the five wheels at their inner level: the figure of MER-UniBench and MER2026."""
        return self._mean_f(_LEVEL_COLUMNS[1])

    @property
    def level2_mean_f(self) -> float:
        """Mean F over the five wheels at their middle level."""
        return self._mean_f(_LEVEL_COLUMNS[2])

    @property
    def m_avg(self) -> float:
        """Mean F over all twelve measures."""
        return self._mean_f(_ALL_COLUMNS)

    def interval(
        self, figure: str = "m_avg", *, level: float = 0.95, num_samples: int = 2000, seed: int = 0
    ) -> tuple[float, float]:
        """Percentile bootstrap interval, drawn over clips, of "m_avg", "level1_mean_f" or "level2_mean_f".

        Raises:
            ValueError: if `figure` is another.
        """
        columns_of = {"m_avg": _ALL_COLUMNS, "level1_mean_f": _LEVEL_COLUMNS[1], "level2_mean_f": _LEVEL_COLUMNS[2]}
        if figure not in columns_of:
            raise ValueError(f"Expected one of {', '.join(columns_of)}, got {figure!r}.")
        columns = columns_of[figure]
        counted = ~np.isnan(self.per_clip[:, columns, :1])
        values = np.concatenate([np.nan_to_num(self.per_clip[:, columns]), counted], axis=2)

        def mean_f(means: np.ndarray) -> np.ndarray:
            means = means.reshape(-1, len(columns), 3)
            scores = np.divide(means[..., :2], means[..., 2:], out=np.zeros_like(means[..., :2]), where=means[..., 2:] > 0)
            return f_score(scores[..., 0], scores[..., 1]).mean(axis=1)

        flat = values.reshape(len(values), -1)
        return bootstrap_interval(flat, statistic=mean_f, level=level, num_samples=num_samples, seed=seed)

    def to_dict(self) -> dict:
        """Every figure under the name that the authors' code gives it, without the per-clip values; plain JSON."""
        measures = {name: asdict(measure) for name, measure in self.measures.items()}
        means = {"level1_mean_f": self.level1_mean_f, "level2_mean_f": self.level2_mean_f, "m_avg": self.m_avg}
        return {"fingerprint": self.fingerprint, "n": self.n, **measures, **means}

    def _mean_f(self, columns: Sequence[int]) -> float:
        return float(np.mean([self.measures[MEASURES[column]].f for column in columns]))


def wheel_score(truth: Mapping[str, Sequence[str]], predicted: Mapping[str, Sequence[str]], wheels: EmotionWheels) -> WheelScore:
    """The twelve emotion-wheel measures: set precision and recall per clip, their means over clips, F of the means.

    A label becomes its base form (measure 1), the synonym root of that (measure 2), or its class on a wheel (ten measures); labels
    out of vocabulary are dropped. A clip that has no annotated label left is left out; an empty prediction scores 0, 0; 0/0 is 0.

    Args:
        truth, predicted: clip -> labels, for the same clips; compared lower-cased, without surrounding space.
        wheels: see `read_emotion_wheels`.

    Raises:
        ValueError: if the two mappings do not name the same clips, or no annotated label is in vocabulary.
        TypeError: if a clip has a string where a list of labels belongs.
    """
    check_same_clips(truth, predicted)
    label_ids: dict[str, int] = {}
    annotated = _occurrences(truth, truth, label_ids)
    answered = _occurrences(truth, predicted, label_ids)
    classes = [wheels.classes(label) for label in label_ids]
    per_clip = np.full((len(truth), len(MEASURES), 2), np.nan)
    for column in range(len(MEASURES)):
        class_ids: dict[str | None, int] = {None: 0}
        of_label = np.array([class_ids.setdefault(row[column], len(class_ids)) for row in classes], dtype=np.int64)
        step = max(1, _MAX_CELLS // len(class_ids))
        for first in range(0, len(truth), step):
            clips = slice(first, min(first + step, len(truth)))
            wanted, given = (_members(labels, of_label, clips, len(class_ids)) for labels in (annotated, answered))
            num_wanted, num_given, num_common = (np.count_nonzero(of, axis=1) for of in (wanted, given, wanted & given))
            precision, recall = num_common / np.maximum(num_given, 1), num_common / np.maximum(num_wanted, 1)
            per_clip[clips, column] = np.where(num_wanted > 0, [precision, recall], np.nan).T
    if np.isnan(per_clip).all():
        raise ValueError(
            f"Expected annotated labels that the tables know, got none among {len(truth)} clips. The tables are English."
        )
    measures = {name: _measure(per_clip[:, column]) for column, name in enumerate(MEASURES)}
    return WheelScore(len(truth), measures, tuple(truth), per_clip, wheels.fingerprint)


def _occurrences(names: Iterable[str], labels_of: Mapping[str, Sequence[str]], label_ids: dict[str, int]) -> np.ndarray:
    """`(2, N)`: for each label of each clip, the clip's number and the label's; labels not met before are numbered."""
    pairs = [
        (index, label_ids.setdefault(label, len(label_ids)))
        for index, name in enumerate(names)
        for label in normalised(labels_of[name], name)
    ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2).T


def _members(occurrences: np.ndarray, class_of_label: np.ndarray, clips: slice, num_classes: int) -> np.ndarray:
    """`(clips, classes)`: which classes the labels of these clips have; class 0 is out of vocabulary and left away."""
    start, stop = np.searchsorted(occurrences[0], [clips.start, clips.stop])
    members = np.zeros((clips.stop - clips.start, num_classes), dtype=bool)
    members[occurrences[0, start:stop] - clips.start, class_of_label[occurrences[1, start:stop]]] = True
    return members[:, 1:]


def _measure(per_clip: np.ndarray) -> WheelMeasure:
    scored = per_clip[~np.isnan(per_clip[:, 0])]
    precision, recall = scored.mean(axis=0) if len(scored) else (0.0, 0.0)
    return WheelMeasure(float(precision), float(recall), f_score(float(precision), float(recall)), len(scored))


def read_emotion_wheels(folder: str | Path) -> EmotionWheels:
    """Read the authors' tables from `folder`.

    Either `wheel_mapping.npz` (as the 2026 code does), or the tables `format`, `synonym`, `wheel1` to `wheel5`, each as .csv or
    .xlsx. Where the folder has both, the .npz counts.

    Raises:
        FileNotFoundError: if the folder or one of the tables is missing; all that miss are named.
        ValueError: naming the file, if it cannot be read, has other columns, or contradicts another one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a folder with the emotion-wheel tables, found none at {folder}.")
    if (folder / _MAPPING_FILE).exists():
        return _from_mapping_file(folder / _MAPPING_FILE)
    paths = {table: next((path for path in _candidates(folder, table) if path.exists()), None) for table in _TABLES}
    missing = [table for table, path in paths.items() if path is None]
    if missing:
        raise FileNotFoundError(
            f"Expected {_MAPPING_FILE}, or the tables {', '.join(_TABLES)} as .csv or .xlsx in {folder}, did not find "
            f"{', '.join(missing)}. They are in the folder `emotion_wheel` of the authors' repository (zeroQiaoba/AffectGPT)."
        )
    bases = _read_forms(paths["format"])
    roots = _read_synonyms(paths["synonym"])
    wheels = [_read_wheel(paths[f"wheel{number}"]) for number in _WHEEL_NUMBERS]
    return _checked(bases, roots, wheels, paths["format"], paths["synonym"])


def _candidates(folder: Path, table: str) -> list[Path]:
    return [folder / f"{table}.csv", folder / f"{table}.xlsx"]


def _checked(
    bases: dict[str, tuple[str, ...]],
    roots: dict[str, tuple[str, ...]],
    wheels: Sequence[tuple[dict[str, str], dict[str, str]]],
    bases_path: Path,
    roots_path: Path,
) -> EmotionWheels:
    unknown = sorted({base for words in bases.values() for base in words} - roots.keys())
    if unknown:
        raise ValueError(
            f"Expected every base form of {bases_path} to have synonyms in {roots_path}, got {len(unknown)} without "
            f"({', '.join(unknown[:5])}). Take both tables from the same version."
        )
    content = json.dumps([bases, roots, list(wheels)], sort_keys=True)
    return EmotionWheels(bases, roots, tuple(wheels), hashlib.sha256(content.encode()).hexdigest()[:12])


def _sorted_values(words: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(sorted(set(values))) for key, values in words.items()}


def _read_forms(path: Path) -> dict[str, tuple[str, ...]]:
    """Word form -> base forms; a base form is a form of itself."""
    bases: dict[str, list[str]] = {}
    for base, forms in _columns(_read_table(path), ["name", "format"], path):
        for form in [base, *_split(forms)]:
            bases.setdefault(form, []).append(base)
    return _sorted_values(bases)


def _read_synonyms(path: Path) -> dict[str, tuple[str, ...]]:
    """Word -> the words on the wheels that some run of the table's makers called it a synonym of; each of those is its own."""
    table = _read_table(path)
    runs = [column.removeprefix("word_") for column in table[0] if column.startswith("word_")]
    roots: dict[str, list[str]] = {}
    for run in runs or ["run1"]:
        for root, synonyms in _columns(table, [f"word_{run}", f"synonym_{run}"], path):
            for word in [root, *_split(synonyms)]:
                roots.setdefault(word, []).append(root)
    return _sorted_values(roots)


def _read_wheel(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Word -> its class at level 1 and at level 2. An empty cell means the one above it.

    Reference: a word that stands twice belongs to the later place, and an inner word's class at level 2 is its first child in the
    alphabet.
    """
    children: dict[str, dict[str, list[str]]] = {}
    above = ["", "", ""]
    for row in _columns(_read_table(path), ["level1", "level2", "level3"], path):
        above = [cell or last for cell, last in zip(row, above, strict=True)]
        inner, middle, outer = above
        if not all(above):
            raise ValueError(f"Expected a word in each column of the first row of {path}, got {row}.")
        children.setdefault(inner, {}).setdefault(middle, []).append(outer)
    level1, level2 = {}, {}
    for inner, middles in children.items():
        level1[inner], level2[inner] = inner, min(middles)
        for middle, outers in middles.items():
            for word in [middle, *outers]:
                level1[word], level2[word] = inner, middle
    return level1, level2


def _split(cell: str) -> list[str]:
    return [word for word in (word.strip() for word in cell.split(",")) if word]


def _columns(table: list[list[str]], columns: list[str], path: Path) -> list[list[str]]:
    """The named columns of a table, lower-cased, without surrounding space; rows that are blank in all of them are dropped."""
    header, *rows = table
    missing = [column for column in columns if column not in header]
    if missing:
        raise ValueError(f"Expected the columns {', '.join(columns)} in {path}, got {', '.join(filter(None, header)) or 'none'}.")
    places = [header.index(column) for column in columns]
    rows = [[row[place].strip().lower() if place < len(row) else "" for place in places] for row in rows]
    return [row for row in rows if any(row)]


def _read_table(path: Path) -> list[list[str]]:
    """All rows of a .csv or of the first sheet of an .xlsx, the header first; an empty cell is an empty string."""
    rows = _read_xlsx(path) if path.suffix == ".xlsx" else _read_csv(path)
    if not rows:
        raise ValueError(f"Expected a table with a header in {path}, got an empty one.")
    return [[cell.strip() for cell in rows[0]], *rows[1:]]


def _read_csv(path: Path) -> list[list[str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"Expected a table as UTF-8 text in {path}, could not read it ({error}). Save it as UTF-8.") from error


def _read_xlsx(path: Path) -> list[list[str]]:
    """The first sheet: an .xlsx is a zip of XML in which a cell holds a number, a text, or the number of a shared text."""
    try:
        with zipfile.ZipFile(path) as archive:
            sheet = _parse(archive, _first_sheet(archive))
            shared = [_text(item) for item in _parse(archive, "xl/sharedStrings.xml")] if _has_shared(archive) else []
        return [_cells(row, shared) for row in sheet.iterfind("{*}sheetData/{*}row")]
    except (zipfile.BadZipFile, ElementTree.ParseError, KeyError, IndexError, ValueError) as error:
        raise ValueError(f"Expected an .xlsx workbook in {path}, could not read it as one ({error}). Save it as .csv.") from error


def _first_sheet(archive: zipfile.ZipFile) -> str:
    """The path in the archive of the sheet that the workbook lists first."""
    sheet = _parse(archive, "xl/workbook.xml").find("{*}sheets/{*}sheet")
    ids = [value for name, value in sheet.attrib.items() if name.endswith("}id")] if sheet is not None else []
    relations = {relation.get("Id"): relation.get("Target") for relation in _parse(archive, "xl/_rels/workbook.xml.rels")}
    target = relations[ids[0]]
    return target.lstrip("/") if target.startswith("/") else f"xl/{target}"


def _has_shared(archive: zipfile.ZipFile) -> bool:
    return "xl/sharedStrings.xml" in archive.namelist()


def _parse(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    return ElementTree.fromstring(archive.read(name))


def _text(item: ElementTree.Element) -> str:
    """The text of a plain or rich string, without the reading aids that East Asian texts may carry."""
    return "".join(part.text or "" for path in ("{*}t", "{*}r/{*}t") for part in item.iterfind(path))


def _cells(row: ElementTree.Element, shared: Sequence[str]) -> list[str]:
    """The texts of a row; a cell says its own column, as empty ones may be left out."""
    cells: list[str] = []
    for cell in row.iterfind("{*}c"):
        column = _column(cell.get("r")) if cell.get("r") else len(cells)
        cells += [""] * (column + 1 - len(cells))
        cells[column] = _cell_text(cell, shared)
    return cells


def _cell_text(cell: ElementTree.Element, shared: Sequence[str]) -> str:
    if cell.get("t") == "inlineStr":
        inline = cell.find("{*}is")
        return "" if inline is None else _text(inline)
    value = cell.find("{*}v")
    if value is None or value.text is None:
        return ""
    return shared[int(value.text)] if cell.get("t") == "s" else value.text


def _column(reference: str) -> int:
    """Column number from 0 of a cell name such as "AB12"."""
    number = 0
    for letter in reference.rstrip("0123456789"):
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1


def _from_mapping_file(path: Path) -> EmotionWheels:
    arrays = read_npz(path)
    try:
        bases, roots, on_wheels = (arrays[key].item() for key in _MAPPING_KEYS)
        bases, roots = _sorted_values(bases), _sorted_values(roots)
        wheels = [tuple(on_wheels[f"wheel{number}"][level] for level in ("level1", "level2")) for number in _WHEEL_NUMBERS]
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"Expected dictionaries under {', '.join(_MAPPING_KEYS)} in {path}, the last by wheel and level, got others ({error}). "
            "Take the authors' file, or the tables as .csv or .xlsx without it."
        ) from error
    return _checked(bases, roots, wheels, path, path)
