"""Corpora of clips with explanations: the row schema, and the folder that `datasets.load_dataset` reads.

A corpus is a folder of parquet files, for each configuration and split one or more, and a README.md whose YAML header lists them.
Clips are either embedded (the folder is complete, may be moved and pushed to a hub) or referred to by absolute path: `datasets`
hands the path of a parquet row over as it stands, so a relative one would only work from one working directory. Rows without a clip
get one by `attach_media`.

Each row says what it was made from (`provenance`) and whether that may be passed on (`provenance.redistributable`); the card says
the same of the whole (`redistributable`). `obstacles_to_publication` reads both.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from datasets import Dataset, Features, IterableDataset, List, Value, Video

from .predictions import MEDIA_SUFFIXES, SOUND_SUFFIXES, clip_name

FEATURES = Features(
    {
        "name": Value("string"),
        "video": Video(decode=False),
        "subtitle": Value("string"),
        "subtitle_zh": Value("string"),
        "description": Value("string"),
        "description_zh": Value("string"),
        "labels": List(Value("string")),
        "clues": {"video": Value("string"), "audio": Value("string"), "text": Value("string")},
        # What a row was made from; the parts of a drawn scene, as they are and as its annotator saw them, only in EMER-Sketch.
        "provenance": {
            "source": Value("string"),
            "files": List(Value("string")),
            # Columns that were found in the text of another one.
            "recovered": List(Value("string")),
            # False: clip and annotations must stay with whoever has them. Empty: nobody has said.
            "redistributable": Value("bool"),
            "seed": Value("string"),
            "expression": Value("string"),
            "level": Value("string"),
            "timing": Value("string"),
            "voice": Value("string"),
            "voice_level": Value("string"),
            "text_act": Value("string"),
            "spoken": Value("string"),
            "seen_expression": Value("string"),
            "seen_voice": Value("string"),
        },
    }
)
_SCHEMA = FEATURES.arrow_schema

# What hubs advise, and what a table of texts alone may take in memory while it is written.
MAX_SHARD_BYTES = 512 * 1024 * 1024
_MAX_SHARD_ROWS = 10_000
# Of a row group: what a writer and a streaming reader hold at a time.
_MAX_GROUP_BYTES = 16 * 1024 * 1024
_MAX_GROUP_ROWS = 1_000
# Key of a parquet file's metadata: what the file was made from, so that a stopped build finds what it has.
_ORIGIN_KEY = b"affectgpt.origin"


def write_split(rows: Iterable[Mapping], folder: str | Path, split: str, *, with_media: bool = False) -> Path:
    """Write one split as `<folder>/<split>-<hash>.parquet`, whole or not at all.

    The hash is that of the content: `datasets` keeps what it once loaded from a folder by the names of its files, whatever they
    hold now, and hands out the rows of another folder whose card names the same files.

    Args:
        rows (`Iterable[Mapping]`): rows with the columns of `FEATURES`; `video` is the path of the clip, columns left out are
            empty.
        folder (`str` or `Path`): where the file goes; made if need be.
        split (`str`): name of the split; the first letters of the file's name.
        with_media (`bool`): embed the bytes of the clips instead of referring to them by absolute path.

    Returns:
        `Path`: the file. An older one of the same split stays until the caller deletes it.

    Raises:
        ValueError: if a row has a column that the schema does not know.
        FileNotFoundError: if the clip of a row is missing.
        OSError: if the disk is full or the folder may not be written; nothing is left behind.
    """
    # Without a mark of when and where it was made: the same rows and clips give the same bytes.
    return _write_shard([_checked(row) for row in rows], Path(folder), split, with_media=with_media, origin=None)


def write_shards(
    rows: Iterable[Mapping],
    folder: str | Path,
    split: str,
    *,
    with_media: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    known: Mapping[str, Path] | None = None,
) -> Iterator[Path]:
    """Write one split of any size as `<folder>/<split>-<number>-<hash>.parquet`, and yield each file once it is whole.

    No more than one shard's texts and a few clips are in memory. Other arguments and errors are those of [`write_split`].

    Args:
        max_shard_bytes (`int`): texts and embedded clips of a file, before compression.
        known (`Mapping[str, Path]`, *optional*): files of an earlier, stopped run (`shards_by_origin`); one that was made of the
            same rows and clips is taken over instead of being written again.
    """
    folder = Path(folder)
    for index, shard in enumerate(_shards((_checked(row) for row in rows), with_media, max_shard_bytes)):
        stem = f"{split}-{index:05d}"
        origin = _origin(shard, with_media)
        finished = (known or {}).get(origin)
        if finished is None:
            yield _write_shard(shard, folder, stem, with_media=with_media, origin=origin)
            continue
        path = folder / f"{stem}-{finished.stem.rpartition('-')[2]}.parquet"
        if path != finished:
            folder.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            try:
                os.link(finished, path)
            except OSError:  # a file system without links
                shutil.copyfile(finished, path)
        yield path


def shards_by_origin(folder: str | Path) -> dict[str, Path]:
    """The parquet files below `folder` that this module wrote, by a hash of the rows and clips that each was made from."""
    found = {}
    for path in sorted(Path(folder).rglob("*.parquet")):
        try:
            metadata = pq.read_schema(path).metadata or {}
        except (pa.ArrowInvalid, OSError):
            continue  # someone else's, or damaged: it is written again
        if _ORIGIN_KEY in metadata:
            found[metadata[_ORIGIN_KEY].decode()] = path
    return found


def _checked(row: Mapping) -> dict:
    """A row with all columns, its clip as an absolute path."""
    for given, known, where in (
        (row, FEATURES, "row"),
        (row.get("clues") or {}, FEATURES["clues"], "clues"),
        (row.get("provenance") or {}, FEATURES["provenance"], "provenance"),
    ):
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ValueError(
                f"Expected the columns {', '.join(known)} in the {where} of {row.get('name')!r}, got also {', '.join(unknown)}. "
                "Drop or rename them."
            )
    clip = row.get("video")
    if clip is not None:
        clip = Path(clip).absolute()
        if not clip.is_file():
            raise FileNotFoundError(
                f"{clip}: expected the clip of row {row.get('name')!r}, got no such file. Make the clip, then write rows."
            )
    return {column: row.get(column) for column in FEATURES} | {"video": None if clip is None else str(clip)}


def _shards(rows: Iterable[dict], with_media: bool, max_bytes: int) -> Iterator[list[dict]]:
    shard, size = [], 0
    for row in rows:
        row_size = _text_bytes(row) + (os.path.getsize(row["video"]) if with_media and row["video"] else 0)
        if shard and (size + row_size > max_bytes or len(shard) == _MAX_SHARD_ROWS):
            yield shard
            shard, size = [], 0
        shard.append(row)
        size += row_size
    yield shard


def _text_bytes(row: dict) -> int:
    return sum(len(value.encode()) for value in row.values() if isinstance(value, str))


def _origin(rows: list[dict], with_media: bool) -> str:
    """A hash of what a shard is made from; a clip counts by its path, size and time of change."""
    digest = hashlib.sha256(_SCHEMA.to_string(show_schema_metadata=False).encode())
    for row in rows:
        state = os.stat(row["video"]) if with_media and row["video"] else None
        clip = [] if state is None else [state.st_size, state.st_mtime_ns]
        digest.update(json.dumps([row, clip], sort_keys=True).encode())
    return digest.hexdigest()


def _write_shard(rows: list[dict], folder: Path, stem: str, *, with_media: bool, origin: str | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{stem}.parquet.part"
    mark = {} if origin is None else {_ORIGIN_KEY: origin.encode()}
    schema = _SCHEMA.with_metadata({**_SCHEMA.metadata, **mark})
    try:
        with pq.ParquetWriter(temporary, schema, compression="none" if with_media else "snappy") as writer:
            for group in _groups(rows, with_media):
                encoded = [row | {"video": _encoded_clip(row["video"], with_media)} for row in group]
                writer.write_table(pa.Table.from_pylist(encoded, schema=schema))
        with open(temporary, "rb") as file:
            path = folder / f"{stem}-{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}.parquet"
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def _groups(rows: list[dict], with_media: bool) -> Iterator[list[dict]]:
    start = size = 0
    for index, row in enumerate(rows):
        size += _text_bytes(row) + (os.path.getsize(row["video"]) if with_media and row["video"] else 0)
        if size >= _MAX_GROUP_BYTES or index - start == _MAX_GROUP_ROWS - 1:
            yield rows[start : index + 1]
            start, size = index + 1, 0
    if start < len(rows):
        yield rows[start:]


def _encoded_clip(clip: str | None, with_media: bool) -> dict:
    if clip is None or not with_media:
        return {"path": clip, "bytes": None}
    return {"path": os.path.basename(clip), "bytes": Path(clip).read_bytes()}


def write_card(
    folder: str | Path,
    configurations: Mapping[str, Mapping[str, str | Sequence[str]]],
    body: str,
    *,
    licence: str,
    redistributable: bool | None = None,
    facts: Mapping | None = None,
) -> None:
    """Write the README.md that makes a folder of parquet files a dataset.

    Args:
        folder (`str` or `Path`): the corpus.
        configurations (`Mapping`): configuration name -> split name -> parquet path or paths relative to `folder`; the first one is
            the default.
        body (`str`): the text of the card, Markdown.
        licence (`str`): identifier of the licence as hubs spell it, e.g. "cc0-1.0".
        redistributable (`bool`, *optional*): whether the rows may be passed on; left out if nobody has said.
        facts (`Mapping`, *optional*): further entries of the YAML header.
    """
    listed = []
    for index, (name, splits) in enumerate(configurations.items()):
        files = [{"split": split, "path": path if isinstance(path, str) else list(path)} for split, path in splits.items()]
        listed.append({"config_name": name} | ({"default": True} if index == 0 else {}) | {"data_files": files})
    header = {"license": licence, "task_categories": ["video-text-to-text"]}
    if redistributable is not None:
        header["redistributable"] = redistributable
    text = yaml.safe_dump(header | dict(facts or {}) | {"configs": listed}, sort_keys=False, allow_unicode=True, width=1000)
    path = Path(folder) / "README.md"
    temporary = path.with_suffix(".md.part")
    try:
        temporary.write_text(f"---\n{text}---\n\n{body.strip()}\n", encoding="utf-8")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_card(folder: str | Path) -> dict:
    """The YAML header of a corpus's card.

    Raises:
        FileNotFoundError: if the folder has no card.
        ValueError: if the card has no header or a broken one.
    """
    path = Path(folder) / "README.md"
    if not path.is_file():
        found = "a folder without one" if Path(folder).is_dir() else "no such folder"
        raise FileNotFoundError(f"{folder}: expected a corpus, a folder with a card (README.md), got {found}. Build it first.")
    header = re.match(r"---\n(.*?)\n---", path.read_text(encoding="utf-8"), re.DOTALL)
    try:
        card = yaml.safe_load(header[1]) if header else None
    except yaml.YAMLError as error:
        raise ValueError(
            f"{path}: expected a YAML header, got one that cannot be read ({error}). Build the corpus again."
        ) from error
    if not isinstance(card, dict) or not isinstance(card.get("configs"), list):
        raise ValueError(f"{path}: expected a YAML header with `configs`, got none. Build the corpus again.")
    return card


def split_files(folder: str | Path) -> dict[tuple[str, str], list[Path]]:
    """The parquet files of a corpus: (configuration, split) -> files, as its card lists them.

    Raises:
        FileNotFoundError: if the card, or a file that it lists, is missing.
        ValueError: if the card is broken.
    """
    folder = Path(folder)
    found = {}
    for entry in read_card(folder)["configs"]:
        for part in entry["data_files"]:
            patterns = [part["path"]] if isinstance(part["path"], str) else part["path"]
            paths = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
            if len(paths) < len(patterns):
                raise FileNotFoundError(
                    f"{folder}: expected the files of {entry['config_name']}, {part['split']}, that its card lists, got "
                    f"{len(paths)} of {len(patterns)}. Copy or build the corpus again."
                )
            found[entry["config_name"], part["split"]] = paths
    return found


def read_rows(paths: Iterable[str | Path], columns: Sequence[str] | None = None) -> Iterator[dict]:
    """The rows of parquet files, a row group at a time; only `columns` if given (`provenance.source` is one of a nested column)."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield from file.read_row_group(group, columns=None if columns is None else list(columns)).to_pylist()


def obstacles_to_publication(folder: str | Path) -> list[str]:
    """Why a corpus must not be passed on; empty if nothing in it says so.

    Raises:
        FileNotFoundError, ValueError: if the folder is no corpus.
    """
    found = []
    if read_card(folder).get("redistributable") is False:
        found.append(f"{folder}: the card says `redistributable: false`.")
    for (configuration, split), paths in split_files(folder).items():
        sources, number = set(), 0
        for row in read_rows(paths, ["provenance.source", "provenance.redistributable"]):
            provenance = row["provenance"] or {}
            if provenance.get("redistributable") is False:
                number += 1
                sources.add(provenance.get("source") or "unnamed")
        if number:
            found.append(
                f"{configuration}, {split}: {number} rows are made from {', '.join(sorted(sources))} and must not be passed on."
            )
    return found


def media_path(video: Mapping, folder: str | Path) -> Path:
    """The file of a row's clip, for `media.read_clip`.

    Args:
        video (`Mapping`): the `video` value of a row, `{"path": ..., "bytes": ...}`.
        folder (`str` or `Path`): where an embedded clip is unpacked, under the hash of its bytes; it is unpacked once.

    Returns:
        `Path`: an existing file.

    Raises:
        FileNotFoundError: if the clip is neither embedded nor where the row says.
    """
    if not has_clip(video):
        raise FileNotFoundError("Expected the clip of a row, got a row without one. Join clips by `affectgpt.corpus.attach_media`.")
    if video["bytes"] is None:
        path = Path(video["path"])
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: expected the clip that a row refers to, got no such file. Build the corpus again where it lies now, "
                "or build it with its media embedded."
            )
        return path
    path = Path(folder) / f"{hashlib.sha256(video['bytes']).hexdigest()[:32]}{Path(video['path'] or '.mp4').suffix}"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
        temporary.write_bytes(video["bytes"])
        os.replace(temporary, path)
    return path


def has_clip(video: Mapping | None) -> bool:
    """Whether a row's `video` is a clip, embedded or referred to."""
    return video is not None and (video["path"] is not None or video["bytes"] is not None)


def find_clips(folders: Iterable[str | Path]) -> dict[str, str]:
    """Clips below `folders` by name: absolute paths. Of a picture and a sound file of one name, the picture counts.

    Raises:
        FileNotFoundError: if a folder does not exist.
        ValueError: if two clips have one name; they are listed.
    """
    found: dict[str, str] = {}
    clashes = []
    for folder in folders:
        folder = os.path.abspath(folder)
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                f"{folder}: expected a folder of clips, got {'a file' if os.path.exists(folder) else 'nothing'}."
            )
        for root, subfolders, files in os.walk(folder, onerror=_raise):
            subfolders.sort()
            for file in sorted(files):
                suffix = os.path.splitext(file)[1].lower()
                if suffix not in MEDIA_SUFFIXES:
                    continue
                name, path = clip_name(file), os.path.join(root, file)
                other = found.get(name)
                if other is None or (_is_sound(other) and not _is_sound(path)):
                    found[name] = path
                elif other != path and _is_sound(other) == _is_sound(path):
                    clashes.append(f"{other} and {path}")
    if clashes:
        raise ValueError(f"Expected one clip of each name, got two of {len(clashes)}: {'; '.join(clashes)}. Remove one of each.")
    return found


def _raise(error: OSError) -> None:
    raise error


def _is_sound(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in SOUND_SUFFIXES


def attach_media(dataset: Dataset | IterableDataset, folder: str | Path, *, missing_ok: bool = False) -> Dataset | IterableDataset:
    """Join clips to rows by name: `video` becomes the path of the file in `folder` or below it, with any suffix of a media file.

    No clip is opened or copied. Rows whose clips are embedded lose them for the files.

    Args:
        dataset (`Dataset` or `IterableDataset`): of a corpus, map-style or streaming.
        folder (`str` or `Path`): of the clips, such as the `video` of MER2025.
        missing_ok (`bool`): leave rows without a file without a clip, instead of raising.

    Raises:
        FileNotFoundError: if rows have no file; their names are listed. A stream raises when it reaches such a row.
        ValueError: if two files have one name.
    """
    clips = find_clips([folder])

    def video(name: str) -> dict:
        return {"path": clips.get(name), "bytes": None}

    if isinstance(dataset, Dataset):
        names = dataset["name"][:]
        missing = [name for name in names if name not in clips]
        if missing and not missing_ok:
            raise _missing(folder, missing, len(names))
        columns = dataset.column_names
        joined = dataset.remove_columns("video").add_column("video", [video(name) for name in names], feature=FEATURES["video"])
        return joined.select_columns(columns)

    def join(row: dict) -> dict:
        if row["name"] not in clips and not missing_ok:
            raise _missing(folder, [row["name"]], 1)
        return {"video": video(row["name"])}

    return dataset.map(join, features=dataset.features)


def _missing(folder: str | Path, names: list[str], total: int) -> FileNotFoundError:
    listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return FileNotFoundError(
        f"{folder}: expected a clip for each of {total} rows, got none for {len(names)}: {listed}. Complete the folder, or give "
        "`missing_ok=True` for rows without a clip."
    )
