"""Drawn talking heads that move by named action units.

A face is an `Identity` (continuous looks, free of emotion) and a mapping of action units, the visible muscle actions of the Facial
Action Coding System. `draw_face` draws it with flat fills and clear outlines, `face_targets` gives the geometry that was drawn.
Lengths are in face units (see `actions`).
"""

import functools
import math
from collections.abc import Mapping

import numpy as np
from PIL import Image

from .actions import ACTION_UNITS, EXPRESSIONS, TIMINGS, Course, expression_track, geometry_of, read_action_units
from .features import EYE_Y, draw_features
from .identities import INK, WHITE, Color, Identity, light_curves, luminance, mix, palette
from .pen import Pen, band, curve, mirrored

__all__ = [
    "ACTION_UNITS",
    "EXPRESSIONS",
    "TARGETS",
    "TIMINGS",
    "Course",
    "Identity",
    "draw_face",
    "expression_track",
    "face_targets",
]

TARGETS = (
    "face_x",
    "face_y",
    "face_size",
    "face_tilt",
    "eye_y",
    "brow_inner_left",
    "brow_inner_right",
    "brow_outer_left",
    "brow_outer_right",
    "lid_opening",
    "lower_lid",
    "gaze_x",
    "gaze_y",
    "mouth_corner_left",
    "mouth_corner_right",
    "mouth_width",
    "mouth_opening",
    "upper_lip",
    "nose_wrinkle",
    "lip_press",
    "tears",
    "lip_pucker",
    "blush",
)

SUPERSAMPLING = 2


def face_targets(identity: Identity, action_units: Mapping[str, float]) -> np.ndarray:
    """The geometry of a drawn face, for training a vision tower (names in `TARGETS`).

    Args:
        identity (`Identity`): who.
        action_units (`Mapping[str, float]`): what the face does, as for `draw_face`.

    Returns:
        `np.ndarray` of shape `(len(TARGETS),)`, float32, each about in [0, 1]: face centre, size and eye line as fractions of the
        picture; tilt, brows (above the eye line), lids, gaze and mouth in face units, shifted and scaled by constants so that what
        differs between expressions does not drown in where the head happens to be; five action units as they are.

    Raises:
        ValueError: if an action unit is unknown.
    """
    geometry, au = geometry_of(identity, action_units), read_action_units(action_units)
    x = identity.x + identity.scale * geometry.shift[0]
    y = identity.y + identity.scale * geometry.shift[1]
    values = [
        x,
        y,
        2 * identity.scale,
        0.5 + geometry.tilt / math.radians(40),
        y + identity.scale * (EYE_Y + geometry.turn[1]),
        *(-(brow[0, 1] + 0.05) for brow in (geometry.brow_left, geometry.brow_right)),
        *(-(brow[-1, 1] + 0.05) for brow in (geometry.brow_left, geometry.brow_right)),
        2 * (geometry.lid_upper + geometry.lid_lower),
        3 * (geometry.lid_lower + 0.05),
        0.5 + 4 * geometry.gaze[0],
        0.5 + 4 * geometry.gaze[1],
        0.5 - 2 * geometry.corner_left,
        0.5 - 2 * geometry.corner_right,
        geometry.mouth_left + geometry.mouth_right,
        2 * (geometry.upper_opening + geometry.lower_opening),
        5 * geometry.upper_opening,
        au["nose_wrinkle"],
        au["lip_press"],
        au["tears"],
        geometry.pucker,
        au["blush"],
    ]
    return np.array(values, dtype=np.float32)


@functools.lru_cache(maxsize=8)
def _background(identity: Identity, size: int) -> Image.Image:
    base, accent = np.array(identity.background), np.array(identity.background_accent)
    fade = 0.5 * identity.background_fade * np.linspace(0, 1, size)[:, None, None]
    image = Image.fromarray(np.broadcast_to(base + (accent - base) * fade, (size, size, 3)).round().astype(np.uint8))
    pen = Pen(image, scale=size, center=(0, 0))
    kind, place = divmod(identity.background_shape * 6, 1)
    soft = mix(identity.background, identity.background_accent, 0.55)
    if kind == 1:  # a big disc behind the head
        pen.disc((0.3 + 0.4 * place, 0.45), 0.46, soft)
    elif kind == 2:  # hills
        for height, color in ((0.55, soft), (0.75, identity.background_accent)):
            x = np.linspace(-0.05, 1.05, 30)
            y = height + 0.08 * np.sin(6 * x + 9 * place + 7 * height)
            pen.fill(band(x, y, np.full_like(x, 1.1)), color)
    elif kind == 3:  # a window
        left = 0.02 + 0.6 * place
        for x, y in ((left, 0.06), (left + 0.19, 0.06), (left, 0.29), (left + 0.19, 0.29)):
            pen.fill(np.array([(x, y), (x + 0.17, y), (x + 0.17, y + 0.21), (x, y + 0.21)]), soft)
    elif kind == 4:  # upright stripes
        for x in np.arange(-0.25 + 0.25 * place, 1.1, 0.25):
            pen.fill(np.array([(x, 0), (x + 0.125, 0), (x + 0.125, 1), (x, 1)]), soft)
    elif kind == 5:  # a wall above a table
        height = 0.6 + 0.2 * place
        pen.fill(np.array([(0, height), (1, height), (1, 1), (0, 1)]), soft)
    if kind != 4 or not identity.hair_volume:  # stripes behind hair are busy enough
        share = identity.background_dots
        light = luminance(identity.background) > 180
        dot = mix(identity.background, INK, 0.4 * share) if light else mix(identity.background, WHITE, share)
        for row, y in enumerate(np.arange(0.04, 1.0, 0.085)):
            for x in np.arange(0.01 + 0.05 * (row % 2), 1.0, 0.1):
                pen.disc((x, y), 0.012, dot)
    return image


def _draw_back_hair(pen: Pen, identity: Identity, line: Color) -> None:
    width, volume, length = identity.face_width, identity.hair_volume, identity.hair_length
    if identity.bun:
        pen.disc((0.3 * identity.hair_part, -1.08 - volume), identity.bun + 0.03, line)
        pen.disc((0.3 * identity.hair_part, -1.08 - volume), identity.bun, identity.hair)
    if volume and length > 0.45:
        outer = width + 0.08 + 0.6 * volume
        side = [
            (0.0, -1.0 - volume),
            (outer, -0.55),
            (outer + 0.03, 0.2),
            (outer + 0.02, 0.6 * length),
            (0.8 * outer, length),
            (0.0, length),
        ]
        points = _wavy(curve(mirrored(side), closed=True), identity)
        pen.fill(points, mix(identity.hair, INK, 0.22))
        pen.outline(points, 0.035, line)


def _wavy(points: np.ndarray, identity: Identity) -> np.ndarray:
    """Push an outline in and out along its length, more for curlier hair."""
    wave = 1 + 0.035 * identity.hair_wave * np.sin(np.arange(len(points)) * 1.15)
    return points * wave[:, None]


def _draw_body(pen: Pen, identity: Identity, skin_shade: Color, line: Color) -> None:
    neck = np.array([(-0.33, 0.5), (0.33, 0.5), (0.36, 1.35), (-0.36, 1.35)])
    pen.fill(neck * (1.1, 1), line)
    pen.fill(neck, skin_shade)
    cloth_line = mix(identity.clothes, INK, 0.6)
    shoulders = [(0.0, 1.22), (0.40, 1.14), (0.95, 1.3), (1.5, 1.62), (1.7, 2.2), (0.0, 2.4)]
    body = curve(mirrored(shoulders), closed=True)
    pen.fill(body, identity.clothes)
    pen.outline(body, 0.035, cloth_line)
    depth = 1.28 + 0.3 * identity.neckline
    opening = curve([(-0.40, 1.12), (-0.25, 0.55 * depth + 0.58), (0.0, depth), (0.25, 0.55 * depth + 0.58), (0.40, 1.12)])
    pen.fill(opening, skin_shade)
    pen.stroke(opening, 0.05, cloth_line)


def _face_outline(identity: Identity, jaw: float) -> np.ndarray:
    width, jaw_width = identity.face_width, identity.jaw_width
    drop = 0.14 * jaw
    right = [
        (0.0, -1.0),
        (0.62 * width, -0.83),
        (0.97 * width, -0.36),
        (1.0 * width, 0.12),
        (jaw_width * width * 1.02, 0.52 + 0.4 * drop),
        (0.5 * (jaw_width * width + identity.chin_width), 0.83 + 0.9 * drop),
        (0.55 * identity.chin_width, 0.98 + drop),
        (0.0, 1.0 + drop),
    ]
    return curve(mirrored(right), closed=True)


def _draw_head(pen: Pen, identity: Identity, jaw: float, colors: dict[str, Color]) -> None:
    width = identity.face_width
    for side in (-1, 1):
        pen.disc((side * (width + 0.03), 0.06), (0.145, 0.195), colors["line"])
        pen.disc((side * (width + 0.03), 0.06), (0.115, 0.165), identity.skin)
        pen.disc((side * (width + 0.05), 0.07), (0.05, 0.09), colors["shade"])
    outline = _face_outline(identity, jaw)
    pen.fill(outline, identity.skin)
    dark_side = outline[outline[:, 0] * -np.sign(identity.light) >= 0]
    order = np.argsort(dark_side[:, 1], kind="stable")
    edge = dark_side[order]
    inner = edge * (1 - 0.10 - 0.16 * abs(identity.light), 1)
    pen.fill(np.concatenate([edge, inner[::-1]]), colors["shade"])
    if identity.beard:
        _draw_beard(pen, identity, jaw)
    pen.outline(outline, 0.035, colors["line"])


def _draw_beard(pen: Pen, identity: Identity, jaw: float) -> None:
    width, jaw_width, drop = identity.face_width, identity.jaw_width, 0.14 * jaw
    cheek = 0.88 - 0.12 * identity.beard
    side = [
        (0.0, 0.80 + 0.26 * jaw),
        (0.30, 0.70 + 0.14 * jaw),
        (0.62 * width, 0.48),
        (cheek * width, 0.20),
        (0.97 * width, 0.10),
        (jaw_width * width, 0.52 + 0.4 * drop),
        (0.5 * (jaw_width * width + identity.chin_width) + 0.02, 0.85 + 0.9 * drop),
        (0.55 * identity.chin_width, 1.0 + drop + 0.06 * identity.beard),
        (0.0, 1.01 + drop + 0.08 * identity.beard),
    ]
    pen.fill(curve(mirrored(side), closed=True), mix(identity.hair, identity.skin, 0.38))


def _draw_front_hair(pen: Pen, identity: Identity, line: Color) -> None:
    width, volume, part = identity.face_width, identity.hair_volume, identity.hair_part
    if not volume:
        return
    side = width + 0.03 + 0.35 * volume
    low = 0.30 if identity.hair_length > 0.45 else -0.08
    crown = [(-side - 0.01, -0.35), (-0.80 * width, -0.93 - 0.6 * volume), (0.15 * part, -1.06 - volume)]
    crown += [(0.80 * width, -0.93 - 0.6 * volume), (side + 0.01, -0.35)]
    # The lowest fringe ends above the highest brow.
    bare, parting = 0.2 * (1 - identity.fringe), 0.45 * part
    hairline = [(0.95 * width, low), (0.90 * width, -0.35), (0.62 * width, -0.68 - 0.4 * bare), (parting + 0.2, -0.72 - 0.5 * bare)]
    hairline += [(parting, -0.77 - 0.6 * bare), (parting - 0.2, -0.72 - 0.5 * bare)]
    hairline += [(-0.62 * width, -0.68 - 0.4 * bare), (-0.90 * width, -0.35), (-0.95 * width, low)]
    outer = curve([(-0.97 * width, low - 0.02), (-side, low - 0.3), *crown, (side, low - 0.3), (0.97 * width, low - 0.02)])
    points = np.concatenate([_wavy(outer, identity), curve(hairline)])
    pen.fill(points, identity.hair)
    arc, middle = curve(crown), (0.0, -0.3)
    lit = slice(4, 14) if identity.light < 0 else slice(-14, -4)
    pen.stroke((arc[lit] - middle) * 0.88 + middle, 0.075, mix(identity.hair, WHITE, 0.2), taper=0.9)
    strand = mix(identity.hair, line, 0.55)
    for reach in (-0.75, -0.42, 0.42, 0.75):
        end = (parting + reach * width * (1 - 0.5 * reach * part), -0.70 - 0.4 * bare - 0.1 * (1 - abs(reach)))
        bend = (parting + 0.5 * reach * width, -0.93 - 0.5 * volume)
        pen.stroke(curve([(parting + 0.05 * np.sign(reach), -0.85 - 0.5 * volume), bend, end]), 0.026, strand, taper=0.95)
    pen.outline(points, 0.03, line)


def draw_face(identity: Identity, action_units: Mapping[str, float], *, size: int = 224) -> Image.Image:
    """Draw one face.

    Args:
        identity (`Identity`): who, and where in the picture.
        action_units (`Mapping[str, float]`): intensities by name (`ACTION_UNITS`); names left out are 0.
        size (`int`): width and height of the picture in pixels.

    Returns:
        `PIL.Image.Image` in RGB, `size` x `size`.

    Raises:
        ValueError: if an action unit is unknown.
    """
    geometry = geometry_of(identity, action_units)
    canvas = size * SUPERSAMPLING
    image = _posed_head(identity, canvas, geometry.tilt, geometry.shift, geometry.jaw).copy()
    pen = _head_pen(image, identity, geometry.tilt, geometry.shift)
    pen.center += np.array(geometry.turn) @ pen.matrix
    draw_features(pen, identity, geometry, read_action_units(action_units), palette(identity))
    return image.reduce(SUPERSAMPLING).point(light_curves(identity))


@functools.lru_cache(maxsize=16)
def _posed_head(identity: Identity, canvas: int, tilt: float, shift: tuple[float, float], jaw: float) -> Image.Image:
    """All but the features of the face: what does not change while a head rests."""
    image, colors = _background(identity, canvas).copy(), palette(identity)
    pen = _head_pen(image, identity, tilt, shift)
    _draw_back_hair(pen, identity, colors["hair_line"])
    _draw_body(_head_pen(image, identity, 0.0, (0.4 * shift[0], 0.4 * shift[1])), identity, colors["shade"], colors["line"])
    _draw_head(pen, identity, jaw, colors)
    _draw_front_hair(pen, identity, colors["hair_line"])
    return image


def _head_pen(image: Image.Image, identity: Identity, tilt: float, shift: tuple[float, float]) -> Pen:
    scale = identity.scale * image.width
    center = (identity.x * image.width + scale * shift[0], identity.y * image.height + scale * shift[1])
    return Pen(image, scale=scale, center=center, tilt=tilt)
