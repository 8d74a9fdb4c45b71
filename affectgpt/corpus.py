"""Corpora of clips with explanations: the row schema, and the writer that makes a folder `datasets.load_dataset` reads.

A corpus is a folder of parquet files, one per configuration and split, and a README.md whose YAML header lists them. Clips are
either embedded (the folder is complete, may be moved and pushed to a hub) or referred to by absolute path: `datasets` hands the
path of a parquet row over as it stands, so a relative one would only work from one working directory.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, List, Value, Video

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
            "seed": Value("string"),
            "expression": Value("string"),
            "voice": Value("string"),
            "text_act": Value("string"),
            "seen_expression": Value("string"),
            "seen_voice": Value("string"),
        },
    }
)


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
    """
    folder = Path(folder)
    table = pa.Table.from_pylist([_encode(row, with_media=with_media) for row in rows], schema=FEATURES.arrow_schema)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{split}.parquet.part"
    pq.write_table(table, temporary, compression="none" if with_media else "snappy")
    with open(temporary, "rb") as file:
        path = folder / f"{split}-{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}.parquet"
    os.replace(temporary, path)
    return path


def _encode(row: Mapping, *, with_media: bool) -> dict:
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
    clip = Path(row["video"]).absolute()
    if not clip.is_file():
        raise FileNotFoundError(
            f"{clip}: expected the clip of row {row.get('name')!r}, got no such file. Make the clip, then write rows."
        )
    video = {"path": clip.name, "bytes": clip.read_bytes()} if with_media else {"path": str(clip), "bytes": None}
    return {column: row.get(column) for column in FEATURES} | {"video": video}


def write_card(folder: str | Path, configurations: Mapping[str, Mapping[str, str]], body: str, *, licence: str) -> None:
    """Write the README.md that makes a folder of parquet files a dataset.

    Args:
        folder (`str` or `Path`): the corpus.
        configurations (`Mapping`): configuration name -> split name -> parquet path relative to `folder`; the first one is the
            default.
        body (`str`): the text of the card, Markdown.
        licence (`str`): identifier of the licence as hubs spell it, e.g. "cc0-1.0".
    """
    lines = ["---", f"license: {licence}", "task_categories:", "- video-text-to-text", "configs:"]
    for index, (name, splits) in enumerate(configurations.items()):
        lines.append(f"- config_name: {name}")
        if index == 0:
            lines.append("  default: true")
        lines.append("  data_files:")
        for split, path in splits.items():
            lines += [f"  - split: {split}", f"    path: {path}"]
    lines += ["---", "", body.strip(), ""]
    path = Path(folder) / "README.md"
    temporary = path.with_suffix(".md.part")
    temporary.write_text("\n".join(lines), encoding="utf-8")
    os.replace(temporary, path)


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
