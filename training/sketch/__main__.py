"""Make the drawn world.

python -m training.sketch build --output ../emer-sketch
python -m training.sketch sheet --output sheet.png
python -m training.sketch examples --output affectgpt/assets/examples
"""

import argparse
import inspect
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from .faces import EXPRESSIONS, Identity, draw_face, expression_track
from .render import FPS, SIZE, build_corpus, render_clip
from .scenarios import sample_scenes

# Faces, voices and words that agree and that do not: the clips that the demo offers.
EXAMPLES = (
    ("smile", "bright", "good_news"),
    ("grief", "trembling", "bad_news"),
    ("scowl", "harsh", "complaint"),
    ("smirk", "dull", "praise"),
    ("fear", "hesitant", "warning"),
    ("surprise", "breathy", "remark"),
)


def contact_sheet(*, identities: int = 8, moments: int = 8, seed: int = 0, size: int = SIZE) -> Image.Image:
    """A picture to judge the drawings by: expressions by identities at the apex, then one row over time for each expression."""
    columns = max(len(EXPRESSIONS), moments)
    sheet = Image.new("RGB", (columns * size, (identities + len(EXPRESSIONS)) * size), "white")
    people = [Identity.sample(np.random.default_rng((seed, index))) for index in range(max(identities, len(EXPRESSIONS)))]
    for row, identity in enumerate(people[:identities]):
        for column, apex in enumerate(EXPRESSIONS.values()):
            sheet.paste(draw_face(identity, apex).resize((size, size), Image.Resampling.BILINEAR), (column * size, row * size))
    for row, expression in enumerate(EXPRESSIONS):
        track = expression_track(expression, 1.0, 3 * FPS, FPS, np.random.default_rng((seed, row)))
        for column in range(moments):
            face = draw_face(people[row], track[column * len(track) // moments])
            sheet.paste(face.resize((size, size), Image.Resampling.BILINEAR), (column * size, (identities + row) * size))
    return sheet


def render_examples(output: Path, seed: int) -> None:
    """Render `EXAMPLES` with people and sentences that no training split has, and list their subtitles in `examples.json`."""
    output.mkdir(parents=True, exist_ok=True)
    scenes = {(scene.expression, scene.voice, scene.text_act): scene for scene in sample_scenes("fine_test", 336, seed)}
    subtitles = {}
    for parts in EXAMPLES:
        name = "-".join(parts).replace("_", "-") + ".mp4"
        render_clip(scenes[parts], output / name)
        subtitles[name] = scenes[parts].sentence
    (output / "examples.json").write_text(json.dumps(subtitles, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
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
    sheet = commands.add_parser("sheet", help="draw a contact sheet of the expressions")
    sheet.add_argument("--output", type=Path, required=True, help="PNG file")
    sheet.add_argument("--identities", type=int, default=8, help="default: %(default)s")
    sheet.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    sheet.add_argument("--size", type=int, default=SIZE, help="pixels a face; a model sees 112; default: %(default)s")
    examples = commands.add_parser("examples", help="render the clips that the demo offers")
    examples.add_argument("--output", type=Path, required=True, help="folder")
    examples.add_argument("--seed", type=int, default=2026, help="default: %(default)s")
    options = vars(parser.parse_args(arguments))
    command = options.pop("command")
    if command == "sheet":
        output = options.pop("output")
        contact_sheet(**options).save(output)
        return 0
    if command == "examples":
        render_examples(**options)
        return 0
    try:
        build_corpus(**options)
    except KeyboardInterrupt:
        print("Interrupted. The clips that are done are kept: run the same command again to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
