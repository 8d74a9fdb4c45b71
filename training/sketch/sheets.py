"""A picture to judge the drawn faces by: who shows what, and how it runs over time."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .actions import INTENSITY_POWER
from .faces import EXPRESSIONS, TIMINGS, Course, Identity, draw_face, expression_track
from .grammar import COURSES, phases_of

FULL, SLIGHT = 0.95, 0.45
MOMENTS, FPS, SECONDS = 8, 25, 3
TIMED = ("smile", "scowl")
TURNS = [phases_of(course) for course in COURSES if len(phases_of(course)) > 1]


def contact_sheet(*, identities: int = 6, seed: int = 0, size: int = 224) -> Image.Image:
    """Draw a labelled grid of faces.

    The expressions by identities at the apex of a full one, a row of slight ones, then rows over time: each timing of two
    expressions, and expressions that turn into another, two courses to a row.

    Args:
        identities (`int`): rows of full expressions.
        seed (`int`): fixes people and movements.
        size (`int`): pixels a face; a model sees 112. Faces are drawn at 224 and made smaller as for a model.
    """
    people = [Identity.sample(np.random.default_rng((seed, row))) for row in range(max(identities, 1))]
    rows = [_apexes(person, FULL, "full") for person in people[:identities]]
    rows.append(_apexes(people[0], SLIGHT, "slight"))
    courses = [Course((expression,), FULL, timing) for expression in TIMED for timing in TIMINGS]
    courses += [Course(phases, FULL, "turn") for phases in TURNS]
    moving = [_moments(course, people[row % len(people)], (seed, row)) for row, course in enumerate(courses)]
    rows += [first + second for first, second in zip(moving[::2], moving[1::2], strict=True)]
    return _grid(rows, size)


def _apexes(person: Identity, intensity: float, degree: str) -> list[tuple[str, Image.Image]]:
    strength = intensity**INTENSITY_POWER
    return [
        (f"{expression}\n{degree}", draw_face(person, {name: value * strength for name, value in units.items()}))
        for expression, units in EXPRESSIONS.items()
    ]


def _moments(course: Course, person: Identity, seed: tuple[int, int]) -> list[tuple[str, Image.Image]]:
    """The frames of a clip that a model sees."""
    num_frames = FPS * SECONDS
    track = expression_track(course, num_frames, FPS, np.random.default_rng(seed))
    frames = [moment * num_frames // MOMENTS for moment in range(MOMENTS)]
    title = " > ".join(course.phases)
    return [(f"{title}\n{course.timing}, {frame / FPS:.1f} s", draw_face(person, track[frame])) for frame in frames]


def _grid(rows: list[list[tuple[str, Image.Image]]], size: int) -> Image.Image:
    font_size = max(7, size // 15)
    font, label = ImageFont.load_default(font_size), 5 * font_size // 2
    sheet = Image.new("RGB", (size * max(map(len, rows)), (size + label) * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, cells in enumerate(rows):
        for column, (title, face) in enumerate(cells):
            x, y = column * size, row * (size + label)
            draw.multiline_text((x + 2, y), title, "black", font=font, spacing=0)
            sheet.paste(face.resize((size, size), Image.Resampling.BILINEAR), (x, y + label))
    return sheet
