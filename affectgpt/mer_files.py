"""Readers of the files in which the authors published their annotations: what a file is, and its rows, whatever their encoding.

    what                 columns                              rows of
    EMER v1              names, emotions, subtitles, reasons  EMER-V1 (one file English, one Chinese)
    EMER-Fine v2         name, chinese, english               EMER-Fine
    labels               name, openset                        EMER-Fine, or what the file's name says
    descriptions         name, reason                         EMER-Fine, or what the file's name says
    subtitles            name, chinese, english               any (the file's name says `subtitle` or `transcription`)

A name with `mercaptionplus` or `coarse` in it is of EMER-Coarse, one with `human` of Human-OV (`track2_train_human.csv`, MER2026).
`openset` holds a Python list as text. The authors' data come under an EULA: nothing of it is in this package.
"""

import ast
import codecs
import csv
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .predictions import clip_name

# Columns of a row (`affectgpt.corpus.FEATURES`) that a cell goes to; ending in "?": in the language that the row is in.
_LAYOUTS = {
    "EMER v1": {"names": "name", "emotions": "labels", "subtitles": "subtitle?", "reasons": "description?"},
    "descriptions in two languages": {"name": "name", "chinese": "description_zh", "english": "description"},
    "descriptions": {"name": "name", "reason": "description?"},
    "labels": {"name": "name", "openset": "labels"},
}
_SUBTITLES = {"name": "name", "chinese": "subtitle_zh", "english": "subtitle"}
_MEDIA_FOLDERS = ("video", "audio")
# Files of the MER2025 and MER2026 repositories that hold no open-vocabulary labels, descriptions or subtitles.
_OTHER_FILES = re.compile(r"track1_|candidate|_test\b", re.IGNORECASE)

# EMER v1 has one emotion a clip, from the six of MER2023, in the language of the file.
_EMOTIONS_ZH = {"生气": "angry", "高兴": "happy", "担忧": "worried", "惊讶": "surprise", "悲伤": "sad", "中性": "neutral"}

_MAX_HEADER_CHARACTERS = 10_000
_MAX_LABELS_CHARACTERS = 10_000
_HAN = re.compile(r"[\u3400-\u9fff]")
_LATIN = re.compile(r"[A-Za-z]")

# EMER-Fine, paper section 5: 266 clips to train on and 66 to test on; which ones was never published.
TEST_SHARE = (66, 332)

_SUBTITLE_EN = re.compile(r"\bsubtitles?\b[^.!?\"“”]{0,60}?(?:\"(?P<plain>[^\"]+)\"|“(?P<curly>[^“”]+)”)", re.IGNORECASE)
_TRANSLATION = re.compile(r"\s*[(（](?P<translation>[^()（）]+)[)）]")
_SUBTITLE_ZH = re.compile(r"字幕[^。！？；“”\"「」]{0,20}?(?:“(?P<curly>[^“”]+)”|\"(?P<plain>[^\"]+)\"|「(?P<corner>[^「」]+)」)")


@dataclass(frozen=True)
class Problem:
    """Something wrong in a file, at the row and column as a spreadsheet shows them: the header is row 1."""

    file: str
    text: str
    row: int | None = None
    column: str | None = None

    def __str__(self) -> str:
        row = "" if self.row is None else f", row {self.row}"
        column = "" if self.column is None else f", column {self.column}"
        return f"{self.file}{row}{column}: {self.text}"


class CorpusError(ValueError):
    """Files that make no corpus.

    Attributes:
        problems (`list[Problem]`): all that was found, in the order of files and rows.
    """

    def __init__(self, problems: Sequence[Problem], advice: str = ""):
        self.problems = list(problems)
        count = f"{len(self.problems)} problems:\n" if len(self.problems) > 1 else ""
        super().__init__(count + "\n".join(map(str, self.problems)) + (f"\n{advice}" if advice else ""))


@dataclass(frozen=True)
class MerFile:
    """A file of annotations, recognised.

    Attributes:
        path (`Path`): the file.
        source (`str`): how provenance names it: the name of the file, after the repository if it came from a hub.
        configuration (`str`, *optional*): of the corpus that its rows belong to; `None` for subtitles, which serve any.
        fields (`dict[str, str]`): column of the file -> column of a row.
        encoding (`str`), delimiter (`str`): as found.
    """

    path: Path
    source: str
    configuration: str | None
    fields: dict[str, str]
    encoding: str
    delimiter: str


def recognise_all(paths: Iterable[str | os.PathLike]) -> tuple[list[MerFile], list[Path], list[Problem]]:
    """The annotation files among `paths` and in folders among them, the folders of clips, and the files that were passed over.

    Of a folder, those of its CSV files count that can be recognised, and as clips its `video` and `audio`.

    Raises:
        CorpusError: for paths where nothing is, files that cannot be recognised, and folders with nothing to use.
    """
    files, folders, passed, problems = [], [], [], []
    for path in map(Path, paths):
        if path.is_dir():
            media = [path / name for name in _MEDIA_FOLDERS if (path / name).is_dir()]
            found, others = _recognised(path.glob("*.csv"))
            files += found
            folders += media
            passed += others
            if not found and not media:
                problems.append(Problem(str(path), "expected a folder with the authors' CSV files, got none that is known."))
                problems += others
        elif path.is_file():
            try:
                files.append(recognise(path))
            except CorpusError as error:
                problems += error.problems
        else:
            problems.append(
                Problem(str(path), "expected a CSV file or a folder of them, got nothing of this name. Check the path.")
            )
    if problems:
        raise CorpusError(problems)
    return list({file.path.absolute(): file for file in files}.values()), folders, passed


def _recognised(paths: Iterable[Path]) -> tuple[list[MerFile], list[Problem]]:
    files, passed = [], []
    for path in sorted(paths):
        if _OTHER_FILES.search(path.name):
            continue
        try:
            files.append(recognise(path))
        except CorpusError as error:
            passed += error.problems
    return files, passed


def fetch(repo_id: str, *, revision: str | None = None) -> tuple[list[MerFile], list[Problem]]:
    """The annotation files of a dataset repository on the Hub, downloaded with the user's token, and those that were passed over.

    Clips are not fetched: the authors' repositories hold them as archives of many gigabytes.

    Raises:
        CorpusError: if the repository cannot be reached, its terms are not accepted, or it has no file that is known.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import GatedRepoError, HTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    page = f"https://huggingface.co/datasets/{repo_id}"
    try:
        info = HfApi().dataset_info(repo_id, revision=revision)
        names = sorted(file.rfilename for file in info.siblings or [] if "/" not in file.rfilename)
        names = [name for name in names if name.endswith(".csv") and not _OTHER_FILES.search(name)]
        paths = {name: hf_hub_download(repo_id, name, repo_type="dataset", revision=info.sha) for name in names}
    except GatedRepoError as error:
        text = f"expected access to a gated repository, got a refusal. Accept its terms at {page}, then log in: `hf auth login`."
        raise CorpusError([Problem(repo_id, text)]) from error
    except RepositoryNotFoundError as error:
        text = "expected a dataset repository on the Hub, got none that your token may see. Check the name, or `hf auth login`."
        raise CorpusError([Problem(repo_id, text)]) from error
    except (HTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = " ".join(str(error).split())
        raise CorpusError([Problem(repo_id, f"expected to download its CSV files, got an error: {reason}")]) from error
    files, passed = [], []
    for name, path in paths.items():
        try:
            files.append(recognise(path, source=f"{repo_id}@{info.sha[:12]}/{name}"))
        except CorpusError as error:
            passed += error.problems
    if not files:
        raise CorpusError([Problem(repo_id, "expected the authors' CSV files at its top, got none that is known."), *passed])
    return files, passed


def recognise(path: str | os.PathLike, *, source: str | None = None) -> MerFile:
    """Find out what an annotation file is, by its columns and its name.

    Raises:
        CorpusError: if it cannot be read as text, or its columns are not those of a known file; the message names both.
    """
    path = Path(path)
    encoding = _encoding(path)
    with open(path, encoding=encoding, newline="") as file:
        first = file.readline(_MAX_HEADER_CHARACTERS)
    headers = {delimiter: _header(first, delimiter) for delimiter in ",;\t"}
    is_subtitles = re.search(r"subtitle|transcription", path.name, re.IGNORECASE) is not None
    layouts = [_SUBTITLES] if is_subtitles else list(_LAYOUTS.values())
    for delimiter, header in headers.items():
        for fields in layouts:
            if set(fields) <= set(header):
                return MerFile(
                    path=path,
                    source=source or path.name,
                    configuration=None if is_subtitles else _configuration(path, fields),
                    fields=fields,
                    encoding=encoding,
                    delimiter=delimiter,
                )
    expected = " or ".join(", ".join(fields) for fields in layouts)
    found = ", ".join(max(headers.values(), key=len)) or "nothing"
    raise CorpusError(
        [Problem(str(path), f"expected the columns {expected}; got {found}. Rename the columns, or leave the file out.")]
    )


def _configuration(path: Path, fields: dict[str, str]) -> str:
    name = path.name.lower()
    if fields is _LAYOUTS["EMER v1"]:
        return "EMER-V1"
    if "mercaptionplus" in name or "coarse" in name:
        return "EMER-Coarse"
    return "Human-OV" if "human" in name else "EMER-Fine"


def _encoding(path: Path) -> str:
    """UTF-8 with or without its mark, UTF-16 with one (as spreadsheets export it), or GB 18030 (as older Chinese ones do)."""
    try:
        with open(path, "rb") as file:
            has_mark = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        for encoding in ("utf-16",) if has_mark else ("utf-8-sig", "gb18030"):
            decoder = codecs.getincrementaldecoder(encoding)()
            try:
                with open(path, "rb") as file:
                    while block := file.read(1 << 20):
                        decoder.decode(block)
                    decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                continue
            return encoding
    except OSError as error:
        raise CorpusError(
            [Problem(str(path), f"expected a CSV file that can be read, got an error ({error.strerror}).")]
        ) from error
    raise CorpusError(
        [
            Problem(
                str(path),
                "expected text in UTF-8, UTF-16 or GB 18030, got bytes that are none of them. Save the file as UTF-8 CSV.",
            )
        ]
    )


def _header(line: str, delimiter: str) -> list[str]:
    try:
        cells = next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return []
    return [cell.strip().lower() for cell in cells]


def read_rows(file: MerFile, problems: list[Problem]) -> Iterator[tuple[int, str, dict]]:
    """The rows of a file: number as a spreadsheet shows it, name of the clip, and its non-empty fields (`labels` may be empty).

    A row that is malformed or whose name an earlier row has is left out and added to `problems`.
    """
    seen: dict[str, int] = {}
    with open(file.path, encoding=file.encoding, newline="") as stream:
        reader = csv.reader(stream, delimiter=file.delimiter, strict=True)
        header = [cell.strip().lower() for cell in next(reader, [])]
        for number in itertools.count(2):
            try:
                cells = next(reader, None)
            except (csv.Error, UnicodeDecodeError) as error:
                text = f"expected cells in matching double quotes, got {error}; nothing after it can be read. Mend the quotes."
                problems.append(Problem(file.source, text, number))
                return
            if cells is None:
                return
            found = _row(file, number, header, cells, problems) if any(cell.strip() for cell in cells) else None
            if found is None:
                continue
            name, row = found
            if seen.setdefault(name, number) != number:
                text = f"expected each clip once, got {name} again, which is in row {seen[name]}. Remove one."
                problems.append(Problem(file.source, text, number, _column(file, "name")))
                continue
            yield number, name, row


def _row(file: MerFile, number: int, header: list[str], cells: list[str], problems: list[Problem]) -> tuple[str, dict] | None:
    if len(cells) != len(header):
        # The last column that both have: what comes after it is missing or too much.
        column = header[min(len(cells), len(header)) - 1]
        text = f"expected {len(header)} cells, got {len(cells)}. A comma in a text must stand in double quotes."
        problems.append(Problem(file.source, text, number, column))
        return None
    values = {column: cells[header.index(column)].strip() for column in file.fields}
    name = values[_column(file, "name")]
    name = clip_name(name) if "." in name or "/" in name else name
    if not name:
        problems.append(Problem(file.source, "expected the name of a clip, got an empty cell.", number, _column(file, "name")))
        return None
    is_chinese = any(_is_chinese(values[column]) for column, field in file.fields.items() if field == "description?")
    row = {}
    for column, field in file.fields.items():
        value = "" if values[column].lower() == "nan" else values[column].replace("\r\n", "\n").replace("\r", "\n")
        if field == "labels":
            try:
                row["labels"] = parse_labels(_EMOTIONS_ZH.get(value, value))
            except ValueError as error:
                problems.append(Problem(file.source, str(error), number, column))
                return None
        elif field != "name" and value:
            row[field.replace("?", "_zh" if is_chinese else "")] = value
    if any(field.startswith("description") for field in file.fields.values()) and not {"description", "description_zh"} & set(row):
        columns = " and ".join(column for column, field in file.fields.items() if field.startswith("description"))
        problems.append(Problem(file.source, "expected a description, got nothing.", number, columns))
        return None
    return name, row


def _column(file: MerFile, field: str) -> str:
    return next(column for column, found in file.fields.items() if found == field)


def _is_chinese(text: str) -> bool:
    return not text.isascii() and 2 * len(_HAN.findall(text)) > len(_LATIN.findall(text))


def parse_labels(text: str) -> list[str]:
    """The labels in a cell: a Python list of strings, or the same without quotation marks or brackets. Lower case, each once.

    Raises:
        ValueError: if the cell holds something else. It is never run as code.
    """
    text = text.strip()
    complaint = f"expected a list of labels such as ['happy', 'calm'], got {_shortened(text)}."
    if len(text) > _MAX_LABELS_CHARACTERS:
        raise ValueError(complaint)
    if text.startswith("[") and text.endswith("]"):
        try:
            items = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            items = text[1:-1].split(",")
            if any(mark in text[1:-1] for mark in "[]{}()'\""):
                raise ValueError(complaint) from None
    else:
        items = re.split("[,，、]", text)
        if any(mark in text for mark in "[]{}()"):
            raise ValueError(complaint)
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError(complaint)
    return list(dict.fromkeys(label for item in items if (label := " ".join(item.split()).lower())))


def _shortened(text: str, length: int = 60) -> str:
    return repr(text if len(text) <= length else f"{text[: length - 1]}…")


def quoted_subtitles(description: str | None, description_zh: str | None) -> dict[str, str]:
    """The subtitle as descriptions quote it: `subtitle`, `subtitle_zh`, or what of them can be told.

    It is the quotation that follows the word "subtitle" (字幕) in the same sentence. An English text may quote the Chinese words
    and translate them in parentheses.
    """
    found = {}
    if (match := _SUBTITLE_ZH.search(description_zh or "")) is not None:
        found["subtitle_zh"] = _quotation(match)
    if (match := _SUBTITLE_EN.search(description or "")) is not None:
        words = _quotation(match)
        if not _is_chinese(words):
            found["subtitle"] = words
        else:
            found.setdefault("subtitle_zh", words)
            translation = _TRANSLATION.match(description, match.end())
            if translation is not None and not _is_chinese(translation["translation"]):
                found["subtitle"] = translation["translation"].strip()
    return {field: text for field, text in found.items() if text}


def _quotation(match: re.Match) -> str:
    return next(text for text in match.groupdict().values() if text is not None).strip()


def choose_test_names(names: Iterable[str]) -> list[str]:
    """Which clips of EMER-Fine are tested on, from their names alone: 66 of 332, or the same share of another number.

    The rule: names are put in the order of the SHA-256 of their UTF-8 bytes, written in hexadecimal, and the first
    round(66 / 332 * n) are the test split. The authors never published theirs.
    """
    names = sorted(set(names), key=lambda name: (hashlib.sha256(name.encode()).hexdigest(), name))
    return sorted(names[: round(TEST_SHARE[0] / TEST_SHARE[1] * len(names))])


def names_digest(names: Iterable[str]) -> str:
    """SHA-256 of a list of names, sorted, one a line: what a card states, so that two lists can be compared."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(set(names))).encode()).hexdigest()


def read_names(path: str | os.PathLike) -> list[str]:
    """The names of clips in a text file, one a line; empty lines and lines that begin with # are skipped.

    Raises:
        CorpusError: if the file cannot be read, is empty, or has a name twice.
    """
    path = Path(path)
    problems, names = [], {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError([Problem(str(path), f"expected a text file with a name a line, got an error ({error}).")]) from error
    for number, line in enumerate(lines, start=1):
        name = clip_name(line.strip())
        if not name or name.startswith("#"):
            continue
        if names.setdefault(name, number) != number:
            problems.append(Problem(str(path), f"expected each name once, got {name} again (row {names[name]}).", number))
    if not names and not problems:
        problems.append(Problem(str(path), "expected names of clips, one a line, got none."))
    if problems:
        raise CorpusError(problems)
    return list(names)
