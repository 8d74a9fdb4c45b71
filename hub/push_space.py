"""Push the demo to the Hub as a Gradio Space: app.py, the package with the model that it ships, requirements, and a card.

python -m hub.push_space --operator "Name, address for questions" --repo ORG/NAME --dry-run
python -m hub.push_space --operator "Name, address for questions" --model ORG/MODEL --hardware t4-medium --repo ORG/NAME
"""

import argparse
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCard
from packaging.requirements import Requirement

from affectgpt.explanation import SHIPPED_MODEL

from .publish import ROOT, CallError, Push, add_arguments, card, check_name, run

PYTHON_VERSION = "3.11"  # what requirements.txt was tested with
# Extras that a Space can be asked for by its settings: faces for models that look at them, endpoints as models.
EXTRAS = ("faces", "llm")
# What a Space suggests by itself; whoever duplicates it sees this. (https://huggingface.co/docs/hub/spaces-config-reference)
HARDWARE = (
    "cpu-basic",
    "cpu-upgrade",
    "t4-small",
    "t4-medium",
    "l4x1",
    "l4x4",
    "a10g-small",
    "a10g-large",
    "a100-large",
    "zero-a10g",
)
_OUTDATED = ("affectgpt/*",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 failed, 2 a mistake in the call, 130 interrupted."""
    args = _parser().parse_args(arguments)
    return run("hub.push_space", lambda folder: prepare(args, folder), dry_run=args.dry_run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hub.push_space", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--operator", required=True, metavar="TEXT", help="who runs the Space, and where to ask: shown on its card")
    parser.add_argument("--hardware", choices=HARDWARE, default="cpu-basic", help="suggested hardware (default: %(default)s)")
    parser.add_argument("--model", metavar="REPO", help="model on the Hub that it is to answer with, instead of the shipped one")
    return parser


def prepare(args: argparse.Namespace, folder: Path) -> Push:
    """Write card and requirements into `folder`, and list what is to be pushed.

    Raises:
        CallError: if nobody is named who runs the Space.
    """
    check_name(args.repo)
    if not args.operator.strip():
        raise CallError("--operator: expected who runs the Space and where to ask, got nothing.")
    licence = ModelCard.load(Path(SHIPPED_MODEL) / "README.md").data.license
    model = "It answers with `affectgpt-sketch`, a small model that knows drawn faces only and declines clips of people."
    if args.model:
        model = (
            f"It was made for [{args.model}](https://huggingface.co/{args.model}): set the variable `AFFECTGPT_MODEL` to that. "
            "Until then it answers with `affectgpt-sketch`, which knows drawn faces only and declines clips of people."
        )
    (folder / "README.md").write_text(
        card(
            "space.md",
            front_matter(args.model, args.hardware),
            operator=args.operator.strip(),
            model=model,
            licence=f"{licence} (`affectgpt-sketch`)",
        ),
        encoding="utf-8",
    )
    (folder / "requirements.txt").write_text(requirements(), encoding="utf-8")
    files = space_files() | {name: folder / name for name in ("README.md", "requirements.txt")}
    return Push(
        "space",
        args.repo,
        files,
        private=args.private,
        tag=args.tag,
        outdated=_OUTDATED,
        check=() if args.skip_check else ("space",),
    )


def front_matter(model: str | None, hardware: str) -> dict:
    """The card's header, as Spaces read it."""
    header = {
        "title": "AffectGPT",
        "emoji": "🎭",
        "colorFrom": "blue",
        "colorTo": "gray",
        "sdk": "gradio",
        "sdk_version": _pinned("gradio"),
        "python_version": PYTHON_VERSION,
        "app_file": "app.py",
        "suggested_hardware": hardware,
        "pinned": False,
        "license": "apache-2.0",
        "short_description": "What a person in a clip seems to feel, and why",
    }
    return header | ({"models": [model]} if model else {})


def _pinned(name: str) -> str:
    """The version of a package that was tested."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    (pin,) = (line for line in lines if line.startswith(f"{name}=="))
    return pin.removeprefix(f"{name}==")


def requirements() -> str:
    """The Space's requirements: the package's own ranges, for a Space has versions of its own to fit in (gradio, spaces, torch)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]
    return "".join(f"{line}\n" for line in lines if Requirement(line).name != "gradio")


def space_files() -> dict[str, Path]:
    """The files of this project that a Space consists of: app.py, licence, and the package with its data."""
    files = {name: ROOT / name for name in ("app.py", "LICENSE")}
    for path in sorted((ROOT / "affectgpt").rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            files[path.relative_to(ROOT).as_posix()] = path
    return files


if __name__ == "__main__":
    sys.exit(main())
