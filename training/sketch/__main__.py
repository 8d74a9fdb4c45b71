"""Make the drawn world, and look at it.

python -m training.sketch build --output ../emer-sketch    # the corpus: clips and their truth
python -m training.sketch ceilings                         # how far fewer modalities lead, by the rules
python -m training.sketch sheet --output sheet.png         # the expressions, and how they run over time
python -m training.sketch voices --output voices.png       # mels and pitch of the voices
python -m training.sketch page --output page.html          # clips with their truth
python -m training.sketch examples --output affectgpt/assets/examples
"""

import argparse
import inspect
import json
import sys
import tempfile
from pathlib import Path

from . import grammar
from .render import build_corpus, render_all, render_clip
from .scenarios import SPLITS, sample_scenes

# Faces, voices and words that agree and that do not: the clips that the demo offers.
EXAMPLES = (
    ("smile", "bright", "good_news"),
    ("grief", "trembling", "bad_news"),
    ("scowl", "harsh", "complaint"),
    ("smirk", "dull", "praise"),
    ("worry>smile", "breathy", "good_news"),
    ("polite_smile", "harsh", "apology"),
)


def render_examples(output: Path, seed: int) -> None:
    """Render `EXAMPLES` with people and sentences that no training split has, and list their subtitles in `examples.json`."""
    output.mkdir(parents=True, exist_ok=True)
    scenes = {scene.combination: scene for scene in sample_scenes("fine_test", len(grammar.COMBINATIONS), seed)}
    subtitles = {}
    for combination in EXAMPLES:
        scene = scenes[combination]
        name = "-".join(combination).replace("_", "-").replace(">", "-") + ".mp4"
        render_clip(scene, output / name)
        subtitles[name] = scene.words
    (output / "examples.json").write_text(json.dumps(subtitles, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def render_page(output: Path, *, split: str, count: int, seed: int, workers: int | None) -> None:
    """Render the first clips of a split, and write them and their truth as one HTML page."""
    from .page import write_page

    with tempfile.TemporaryDirectory() as folder:
        clips = [(scene, Path(folder) / f"{scene.name}.mp4") for scene in sample_scenes(split, count, seed)]
        render_all(clips, workers)
        write_page(output, clips, f"EMER-Sketch, {split.replace('_', ' ')}, seed {seed}")


def print_ceilings() -> None:
    """Print what each set of modalities allows, over the held-out combinations and over all."""
    held_out, every = grammar.ceilings(), grammar.ceilings(grammar.COMBINATIONS)
    print(f"Best Avg on exact labels by the rules, answers of at most {grammar.MAX_LABELS} labels:")
    print(f"{'known':<20}{'held-out':>10}{'all':>8}  of {len(grammar.COMBINATIONS)} combinations")
    for known in held_out:
        print(f"{known:<20}{held_out[known]:>10.1f}{every[known]:>8.1f}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.sketch", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="render EMER-Sketch")
    build.add_argument(
        "--output", type=Path, required=True, help="folder of the corpus; an interrupted build goes on where it stopped"
    )
    defaults = inspect.signature(build_corpus).parameters
    for name in ("coarse", "fine_train", "fine_test", "test", "seed"):
        build.add_argument(f"--{name.replace('_', '-')}", type=int, default=defaults[name].default, help="default: %(default)s")
    build.add_argument("--workers", type=int, help="processes; default: one for each core")
    build.add_argument("--with-media", action="store_true", help="embed the clips in the parquet files, for moving and pushing")
    commands.add_parser("ceilings", help="print the best Avg that each set of modalities allows")
    sheet = commands.add_parser("sheet", help="draw a contact sheet of the expressions")
    sheet.add_argument("--output", type=Path, required=True, help="PNG file")
    sheet.add_argument("--identities", type=int, default=6, help="default: %(default)s")
    sheet.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    sheet.add_argument("--size", type=int, default=224, help="pixels a face; a model sees 112; default: %(default)s")
    voices = commands.add_parser("voices", help="plot mels and pitch by voice (needs matplotlib)")
    voices.add_argument("--output", type=Path, required=True, help="PNG file")
    voices.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    page = commands.add_parser("page", help="write a page of clips with their truth")
    page.add_argument("--output", type=Path, required=True, help="HTML file")
    page.add_argument("--split", choices=SPLITS, default="coarse", help="default: %(default)s")
    page.add_argument("--count", type=int, default=40, help="clips; default: %(default)s")
    page.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    page.add_argument("--workers", type=int, help="processes; default: one for each core")
    examples = commands.add_parser("examples", help="render the clips that the demo offers")
    examples.add_argument("--output", type=Path, required=True, help="folder")
    examples.add_argument("--seed", type=int, default=2031, help="default: %(default)s")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    try:
        if command == "ceilings":
            print_ceilings()
        elif command == "sheet":
            from .sheets import contact_sheet

            output = options.pop("output")
            contact_sheet(**options).save(output)
        elif command == "voices":
            from .plots import voice_plot

            voice_plot(options.pop("output"), **options)
        elif command == "page":
            render_page(options.pop("output"), **options)
        elif command == "examples":
            render_examples(options.pop("output"), **options)
        else:
            build_corpus(options.pop("output"), **options)
    except KeyboardInterrupt:
        print("\nInterrupted. What is rendered is kept; the same command goes on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
