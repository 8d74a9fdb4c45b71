"""Push a corpus to the Hub: its parquet files, clips embedded, and a card.

python -m hub.push_dataset --corpus runs/sketch/corpus --repo ORG/NAME --dry-run
python -m hub.push_dataset --corpus corpora/mer --repo ORG/NAME --private --i-have-permission "Agreement of 2026-03-01 with ..."

Clips and annotations of the MER corpora, and what is derived from them, may not be passed on: a corpus that was made from them is
refused, unless the repository is private and you say by whose permission it goes there. Your words stand in the card.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from affectgpt.corpus import obstacles_to_publication, read_card, read_rows, split_files

from .load_back import names_digest
from .publish import CallError, Push, add_arguments, add_gate, card, check_name, gate_header, read_body, run

# What provenance calls the corpora of the MER challenges, their repositories and their files.
_MER = re.compile(r"(?<![a-z])mer(?:20\d\d)?(?![a-z])|merchallenge|mer-eula|mercaptionplus", re.IGNORECASE)
_OUTDATED = ("data/*.parquet",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 failed, 2 a mistake in the call, 130 interrupted."""
    args = _parser().parse_args(arguments)
    return run("hub.push_dataset", lambda folder: prepare(args, folder), dry_run=args.dry_run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hub.push_dataset", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True, metavar="DIR", help="folder of a corpus")
    add_arguments(parser)
    parser.add_argument(
        "--i-have-permission",
        dest="permission",
        metavar="TEXT",
        help="with --private: whose permission you have to keep material of the MER corpora there; it stands in the card",
    )
    add_gate(parser)
    return parser


def prepare(args: argparse.Namespace, folder: Path) -> Push:
    """Write the card into `folder`, and list what is to be pushed.

    Raises:
        CallError: if there is no corpus, it refers to clips of this machine, or it may not be passed on.
    """
    check_name(args.repo)
    try:
        header, splits = read_card(args.corpus), split_files(args.corpus)
        _check_files(args.corpus, splits)
        obstacles = find_obstacles(args.corpus)
    except (OSError, ValueError) as error:
        raise CallError(str(error)) from error
    check_permission(obstacles, private=args.private, permission=args.permission)
    _check_clips(splits)

    gate = args.gate or ("none" if _is_drawn(splits) else "auto")
    header = {key: value for key, value in header.items() if not key.startswith("extra_gated") and key != "permission"}
    header |= gate_header() if gate != "none" else {}
    permission = ""
    if obstacles:
        header["permission"] = args.permission.strip()
        permission = (
            "## Permission\n\nThis repository holds material that may not be passed on, and must stay private. Whoever pushed it "
            f"says: {args.permission.strip()}"
        )
    (folder / "README.md").write_text(
        card(
            "dataset.md",
            header,
            title=args.repo.split("/")[1],
            repo=args.repo,
            tag=args.tag,
            body=read_body(args.corpus / "README.md"),
            permission=permission,
            configuration=next(iter(splits))[0],
            split=next(iter(splits))[1],
        ),
        encoding="utf-8",
    )
    files = {path.relative_to(args.corpus).as_posix(): path for paths in splits.values() for path in paths}
    others = [
        path.relative_to(args.corpus).as_posix()
        for path in sorted(args.corpus.rglob("*"))
        if path.is_file() and path.relative_to(args.corpus).as_posix() not in {*files, "README.md"}
    ]
    if others:
        print(f"Left out, since the card does not list them: {len(others)} files, such as {', '.join(others[:3])}.")
    names = [[*key, names_digest([row["name"] for row in read_rows(paths, ["name"])])] for key, paths in splits.items()]
    return Push(
        "dataset",
        args.repo,
        files | {"README.md": folder / "README.md"},
        private=args.private,
        tag=args.tag,
        gate=None if gate == "none" else gate,
        outdated=_OUTDATED,
        check=() if args.skip_check else ("dataset", json.dumps(names)),
    )


def _check_files(corpus: Path, splits: dict[tuple[str, str], list[Path]]) -> None:
    others = [path.name for paths in splits.values() for path in paths if path.suffix != ".parquet"]
    if others:
        raise CallError(
            f"{corpus}: expected a corpus of parquet files, got a card that lists {', '.join(others[:3])}. Media, annotations and "
            "caches are not pushed as they are: build a corpus of them (`affectgpt corpus build`)."
        )


def find_obstacles(corpus: Path) -> list[str]:
    """Why a corpus must not be passed on: its own marks, and what its provenance names, whatever those marks say.

    Raises:
        OSError, ValueError: if the folder is no corpus.
    """
    found = obstacles_to_publication(corpus)
    licence = read_card(corpus).get("license_name") or ""
    if _MER.search(str(licence)):
        found.append(f"{corpus}: the card's licence is {licence}.")
    for (configuration, split), paths in split_files(corpus).items():
        named, number = set(), 0
        for row in read_rows(paths, ["provenance.source", "provenance.files"]):
            provenance = row["provenance"] or {}
            origins = [provenance.get("source") or "", *(provenance.get("files") or [])]
            origins = [origin for origin in origins if _MER.search(origin)]
            named.update(origins)
            number += bool(origins)
        if number:
            shown = ", ".join(sorted(named)[:3]) + (", ..." if len(named) > 3 else "")
            found.append(f"{configuration}, {split}: the provenance of {number} rows names a MER corpus ({shown}).")
    return found


def check_permission(obstacles: list[str], *, private: bool, permission: str | None) -> None:
    """Raise `CallError` if there are obstacles, and not both a private repository and the words of a permission."""
    has_permission = bool((permission or "").strip())
    if obstacles and not (private and has_permission):
        lines = "\n".join(f"  {obstacle}" for obstacle in obstacles)
        raise CallError(
            f"This corpus may not be passed on:\n{lines}\nNothing was sent. If you have permission to keep it in a private "
            'repository, give --private and --i-have-permission "whose permission, and since when".'
        )
    if has_permission and not obstacles:
        raise CallError("--i-have-permission: expected material of the MER corpora, got a corpus without. Leave it out.")


def _check_clips(splits: dict[tuple[str, str], list[Path]]) -> None:
    for (configuration, split), paths in splits.items():
        for row in read_rows(paths, ["name", "video"]):
            clip = row["video"] or {}
            if clip.get("path") and clip.get("bytes") is None:
                raise CallError(
                    f"{configuration}, {split}: expected embedded clips, got {row['name']!r} with one that lies on this machine. "
                    "Build the corpus with --with-media, or without clips."
                )


def _is_drawn(splits: dict[tuple[str, str], list[Path]]) -> bool:
    """Whether all rows are drawings of EMER-Sketch, which have an expression in their provenance."""
    return all(
        (row["provenance"] or {}).get("expression")
        for paths in splits.values()
        for row in read_rows(paths, ["provenance.expression"])
    )


if __name__ == "__main__":
    sys.exit(main())
