"""Drawn talking heads that move by named action units.

A face is an `Identity` (continuous looks, free of emotion) and a mapping of action units, the visible muscle actions of the Facial
Action Coding System. `draw_face` draws it with flat fills and clear outlines, `face_targets` gives the geometry that was drawn.
Lengths are in face units (see `actions`).
"""

import functools
import math
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from .actions import ACTION_UNITS, EXPRESSIONS, Geometry, expression_track, geometry_of, read_action_units
from .identities import INK, TEAR, WHITE, Color, Identity, mix, palette

__all__ = ["ACTION_UNITS", "EXPRESSIONS", "TARGETS", "Identity", "draw_face", "expression_track", "face_targets"]

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
)

SUPERSAMPLING = 2
EYE_Y = -0.03
EYE_HALF_WIDTH = 0.235


def face_targets(identity: Identity, action_units: Mapping[str, float]) -> np.ndarray:
    """The geometry of a drawn face, for training a vision tower (names in `TARGETS`).

    Args:
        identity (`Identity`): who.
        action_units (`Mapping[str, float]`): what the face does, as for `draw_face`.

    Returns:
        `np.ndarray` of shape `(len(TARGETS),)`, float32, each about in [0, 1]: face centre, size and eye line as fractions of the
        picture; tilt, brows (above the eye line), lids, gaze and mouth in face units, shifted and scaled by constants so that what
        differs between expressions does not drown in where the head happens to be; three action units as they are.

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
        y + identity.scale * EYE_Y,
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
    ]
    return np.array(values, dtype=np.float32)


@functools.cache
def _span(count: int) -> np.ndarray:
    return np.linspace(-1, 1, count)


@functools.cache
def _spline_basis(num_points: int, closed: bool, steps: int) -> np.ndarray:
    """(num_samples, num_points) weights of a Catmull-Rom curve through the points."""
    num_segments = num_points if closed else num_points - 1
    basis = np.zeros((num_segments * steps + (not closed), num_points))
    for row in range(len(basis)):
        segment, t = divmod(row / steps, 1)
        segment = int(segment)
        weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3)
        for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
            index = segment + offset
            index = index % num_points if closed else min(max(index, 0), num_points - 1)
            basis[row, index] += weight / 2
    return basis


def _curve(points, *, closed: bool = False, steps: int = 6) -> np.ndarray:
    points = np.asarray(points, dtype=float)
    return _spline_basis(len(points), closed, steps) @ points


def _band(x: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """The outline of the region between two curves over `x`; where they cross the region is empty."""
    return np.concatenate([np.stack([x, top], 1), np.stack([x, np.maximum(bottom, top)], 1)[::-1]])


def _mirrored(right_side) -> np.ndarray:
    """A closed outline from its right half, given from top to bottom; both ends lie on the axis."""
    right = np.asarray(right_side, dtype=float)
    return np.concatenate([right, (right[1:-1] * (-1, 1))[::-1]])


CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 24, endpoint=False)), np.sin(np.linspace(0, 2 * np.pi, 24, endpoint=False))], 1)


class _Pen:
    """Draws shapes given in face units onto a picture."""

    def __init__(self, image: Image.Image, *, scale: float, center: tuple[float, float], tilt: float = 0.0):
        self.draw = ImageDraw.Draw(image)
        cos, sin = scale * math.cos(tilt), scale * math.sin(tilt)
        self.matrix = np.array([[cos, sin], [-sin, cos]])
        self.center = np.array(center)

    def fill(self, points: np.ndarray, color: Color) -> None:
        self.draw.polygon((points @ self.matrix + self.center).ravel().tolist(), fill=color)

    def disc(self, center, radius, color: Color) -> None:
        self.fill(np.asarray(center) + CIRCLE * radius, color)

    def stroke(self, points: np.ndarray, width: float, color: Color, *, taper: float = 0.0) -> None:
        """A line of `width` along `points`, its ends thinner by `taper` (0 to 1) and round."""
        steps = np.empty_like(points)
        steps[1:-1] = points[2:] - points[:-2]
        steps[0], steps[-1] = points[1] - points[0], points[-1] - points[-2]
        normal = steps[:, ::-1] * (1, -1) / np.maximum(np.hypot(steps[:, 0], steps[:, 1]), 1e-9)[:, None]
        along = _span(len(points))
        half = (width / 2 * (1 - taper * along**2))[:, None]
        self.fill(np.concatenate([points + half * normal, (points - half * normal)[::-1]]), color)
        if width * (1 - taper) > 0.025:
            self.disc(points[0], half[0], color)
            self.disc(points[-1], half[-1], color)

    def outline(self, points: np.ndarray, width: float, color: Color) -> None:
        normal = (np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0))[:, ::-1] * (1, -1)
        normal *= width / 2 / np.maximum(np.hypot(normal[:, 0], normal[:, 1]), 1e-9)[:, None]
        outer, inner = points + normal, points - normal
        self.fill(np.concatenate([outer, outer[:1], inner[:1], inner[::-1]]), color)


@functools.lru_cache(maxsize=8)
def _background(identity: Identity, size: int) -> Image.Image:
    base, accent = np.array(identity.background), np.array(identity.background_accent)
    fade = 0.5 * identity.background_fade * np.linspace(0, 1, size)[:, None, None]
    image = Image.fromarray(np.broadcast_to(base + (accent - base) * fade, (size, size, 3)).round().astype(np.uint8))
    pen = _Pen(image, scale=size, center=(0, 0))
    kind, place = divmod(identity.background_shape * 6, 1)
    soft = mix(identity.background, identity.background_accent, 0.55)
    if kind == 1:  # a big disc behind the head
        pen.disc((0.3 + 0.4 * place, 0.45), 0.46, soft)
    elif kind == 2:  # hills
        for height, color in ((0.55, soft), (0.75, identity.background_accent)):
            x = np.linspace(-0.05, 1.05, 30)
            y = height + 0.08 * np.sin(6 * x + 9 * place + 7 * height)
            pen.fill(_band(x, y, np.full_like(x, 1.1)), color)
    elif kind == 3:  # a window
        left = 0.02 + 0.6 * place
        for x, y in ((left, 0.06), (left + 0.19, 0.06), (left, 0.29), (left + 0.19, 0.29)):
            pen.fill(np.array([(x, y), (x + 0.17, y), (x + 0.17, y + 0.21), (x, y + 0.21)]), soft)
    elif kind == 4:  # upright stripes
        for x in np.arange(-0.2 + 0.2 * place, 1.1, 0.2):
            pen.fill(np.array([(x, 0), (x + 0.1, 0), (x + 0.1, 1), (x, 1)]), soft)
    elif kind == 5:  # a wall above a table
        height = 0.6 + 0.2 * place
        pen.fill(np.array([(0, height), (1, height), (1, 1), (0, 1)]), soft)
    return image


def _draw_back_hair(pen: _Pen, identity: Identity, line: Color) -> None:
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
        points = _wavy(_curve(_mirrored(side), closed=True), identity)
        pen.fill(points, mix(identity.hair, INK, 0.22))
        pen.outline(points, 0.035, line)


def _wavy(points: np.ndarray, identity: Identity) -> np.ndarray:
    """Push an outline in and out along its length, more for curlier hair."""
    wave = 1 + 0.035 * identity.hair_wave * np.sin(np.arange(len(points)) * 1.15)
    return points * wave[:, None]


def _draw_body(pen: _Pen, identity: Identity, skin_shade: Color, line: Color) -> None:
    neck = np.array([(-0.33, 0.5), (0.33, 0.5), (0.36, 1.35), (-0.36, 1.35)])
    pen.fill(neck * (1.1, 1), line)
    pen.fill(neck, skin_shade)
    cloth_line = mix(identity.clothes, INK, 0.6)
    shoulders = [(0.0, 1.22), (0.40, 1.14), (0.95, 1.3), (1.5, 1.62), (1.7, 2.2), (0.0, 2.4)]
    body = _curve(_mirrored(shoulders), closed=True)
    pen.fill(body, identity.clothes)
    pen.outline(body, 0.035, cloth_line)
    depth = 1.28 + 0.3 * identity.neckline
    opening = _curve([(-0.40, 1.12), (-0.25, 0.55 * depth + 0.58), (0.0, depth), (0.25, 0.55 * depth + 0.58), (0.40, 1.12)])
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
    return _curve(_mirrored(right), closed=True)


def _draw_head(pen: _Pen, identity: Identity, jaw: float, colors: dict[str, Color]) -> None:
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


def _draw_beard(pen: _Pen, identity: Identity, jaw: float) -> None:
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
    pen.fill(_curve(_mirrored(side), closed=True), mix(identity.hair, identity.skin, 0.25))


def _draw_front_hair(pen: _Pen, identity: Identity, line: Color) -> None:
    width, volume, part = identity.face_width, identity.hair_volume, identity.hair_part
    if not volume:
        return
    side = width + 0.03 + 0.35 * volume
    low = 0.30 if identity.hair_length > 0.45 else -0.08
    crown = [(-side - 0.01, -0.35), (-0.80 * width, -0.93 - 0.6 * volume), (0.15 * part, -1.06 - volume)]
    crown += [(0.80 * width, -0.93 - 0.6 * volume), (side + 0.01, -0.35)]
    # The lowest fringe ends above the highest brow.
    bare, parting = 0.2 * (1 - identity.fringe), 0.45 * part
    hairline = [(0.95 * width, low), (0.90 * width, -0.35), (0.62 * width, -0.64 - 0.5 * bare), (parting + 0.2, -0.67 - 0.6 * bare)]
    hairline += [(parting, -0.72 - 0.8 * bare), (parting - 0.2, -0.67 - 0.6 * bare)]
    hairline += [(-0.62 * width, -0.64 - 0.5 * bare), (-0.90 * width, -0.35), (-0.95 * width, low)]
    outer = _curve([(-0.97 * width, low - 0.02), (-side, low - 0.3), *crown, (side, low - 0.3), (0.97 * width, low - 0.02)])
    points = np.concatenate([_wavy(outer, identity), _curve(hairline)])
    pen.fill(points, identity.hair)
    arc, middle = _curve(crown), (0.0, -0.3)
    lit = slice(4, 14) if identity.light < 0 else slice(-14, -4)
    pen.stroke((arc[lit] - middle) * 0.88 + middle, 0.075, mix(identity.hair, WHITE, 0.2), taper=0.9)
    strand = mix(identity.hair, line, 0.55)
    for reach in (-0.75, -0.42, 0.42, 0.75):
        end = (parting + reach * width * (1 - 0.5 * reach * part), -0.70 - 0.4 * bare - 0.1 * (1 - abs(reach)))
        bend = (parting + 0.5 * reach * width, -0.93 - 0.5 * volume)
        pen.stroke(_curve([(parting + 0.05 * np.sign(reach), -0.85 - 0.5 * volume), bend, end]), 0.026, strand, taper=0.95)
    pen.outline(points, 0.03, line)


def _draw_eye(pen: _Pen, identity: Identity, geometry: Geometry, side: int, colors: dict[str, Color]) -> None:
    center = side * identity.eye_spacing
    along = _span(19)  # from the picture's left to its right corner of the eye
    arch = 1 - np.abs(along) ** 2.3
    inward = -side * along
    upper = -geometry.lid_upper * arch + geometry.lid_slant * arch * (0.5 + inward)
    lower = geometry.lid_lower * arch
    upper = np.minimum(upper, lower)
    half_width = EYE_HALF_WIDTH * identity.eye_size
    x = center + half_width * along
    top, bottom = EYE_Y + upper, EYE_Y + lower
    white = _band(x, top, bottom)
    pen.fill(white, WHITE)
    if (bottom - top).max() > 0.03:
        middle = np.array([center + geometry.gaze[0], EYE_Y + 0.01 + geometry.gaze[1]])
        for radius, color in ((0.125, colors["iris_line"]), (0.108, identity.iris), (0.062, INK)):
            _fill_within(pen, middle, radius * identity.eye_size, x, top, bottom, color)
        _fill_within(pen, middle + (0.045, -0.05), 0.034, x, top, bottom, WHITE)
    pen.stroke(np.stack([x, bottom], 1), 0.022, colors["line"], taper=0.5)
    lash = np.stack([x, top], 1)
    lash[-1 if side > 0 else 0] += (0.03 * side, -0.02)
    pen.stroke(lash, 0.052, INK, taper=0.35)


def _fill_within(pen: _Pen, center, radius: float, x, top, bottom, color: Color) -> None:
    """A disc, cut off where it leaves the eye's opening."""
    along = _span(17)
    columns = center[0] + radius * along
    height = radius * np.sqrt(1 - along**2)
    upper = np.maximum(center[1] - height, np.interp(columns, x, top))
    lower = np.minimum(center[1] + height, np.interp(columns, x, bottom))
    visible = (lower > upper) & (columns > x[0]) & (columns < x[-1])
    if visible.sum() > 1:
        pen.fill(_band(columns[visible], upper[visible], lower[visible]), color)


def _draw_mouth(pen: _Pen, geometry: Geometry, colors: dict[str, Color], stretch: float) -> None:
    along = _span(25)
    width = np.where(along < 0, geometry.mouth_left, geometry.mouth_right)
    corner = np.where(along < 0, geometry.corner_left, geometry.corner_right)
    x = width * along
    middle = geometry.mouth_y + corner * np.abs(along) ** 1.7
    square = 2.0 + 2.5 * stretch
    arch = (1 - np.abs(along) ** square) ** (0.6 if geometry.lower_opening > 0.1 else 0.9)
    top, bottom = middle - geometry.upper_opening * arch, middle + geometry.lower_opening * arch
    lip_arch = (1 - along**2) ** 0.6
    bow = lip_arch * (1 - 0.22 * np.exp(-((along / 0.22) ** 2)))
    pen.fill(_band(x, top - geometry.lip * bow, bottom + 1.15 * geometry.lip * lip_arch), colors["lip"])
    if geometry.upper_opening + geometry.lower_opening > 0.03:
        pen.fill(_band(x, top, bottom), colors["mouth"])
        tongue = np.maximum(bottom - 0.10 * arch, top + 0.5 * (bottom - top))
        inner = slice(4, -4)
        if geometry.lower_opening > 0.16:
            pen.fill(_band(x[inner], tongue[inner], bottom[inner]), colors["tongue"])
        teeth = np.minimum(top + 0.10 * arch, bottom)
        pen.fill(_band(x, top, teeth), WHITE)
        if stretch > 0.3:
            pen.fill(_band(x, np.maximum(bottom - 0.09 * stretch * arch, teeth + 0.014), bottom), WHITE)
        pen.stroke(np.stack([x, bottom], 1), 0.022, colors["line"], taper=0.4)
        pen.stroke(np.stack([x, top], 1), 0.03, colors["line"], taper=0.3)
    else:
        pen.stroke(np.stack([x, middle], 1), 0.055, colors["line"], taper=0.45)


def _draw_creases(pen: _Pen, identity: Identity, geometry: Geometry, au: dict[str, float], colors: dict[str, Color]) -> None:
    """Lines that age and action units draw into the skin."""

    def crease(points, strength: float, width: float) -> None:
        if strength > 0.08:
            pen.stroke(_curve(points), width, mix(identity.skin, colors["line"], min(strength, 1.0)), taper=0.8)

    age = 0.35 * identity.age
    raised = max(au["inner_brow_raise"], au["outer_brow_raise_left"], au["outer_brow_raise_right"])
    for y, bend in ((-0.60, 0.02), (-0.69, 0.03)):
        crease([(-0.34, y + bend), (0.0, y), (0.34, y + bend)], max(age, 0.45 * raised), 0.03)
    for side in (-1, 1):
        crease([(side * 0.055, -0.35), (side * 0.04, -0.27), (side * 0.05, -0.17)], au["brow_lower"] ** 2, 0.04)
        fold = max(age, 0.8 * au["nose_wrinkle"], 0.5 * au["upper_lip_raise"])
        end = geometry.mouth_left if side < 0 else geometry.mouth_right
        crease([(side * 0.17, 0.20 - geometry.nose_lift), (side * 0.30, 0.33), (side * (end + 0.09), 0.52)], fold, 0.035)
        crease([(side * 0.22, 0.13), (side * 0.36, 0.17), (side * 0.5, 0.12)], max(0.8 * age, 0.75 * au["cheek_raise"]), 0.032)
        for lift in (-0.02, 0.05, 0.12):
            crease([(side * 0.035, lift - 0.01), (side * 0.09, lift), (side * 0.14, lift + 0.045)], au["nose_wrinkle"], 0.034)


def _draw_glasses(pen: _Pen, identity: Identity) -> None:
    power = 0.35 + 0.65 * identity.glasses
    cos, sin = CIRCLE[:, 0], CIRCLE[:, 1]
    rim = np.stack([np.sign(cos) * np.abs(cos) ** power * 0.31, np.sign(sin) * np.abs(sin) ** power * 0.265], 1)
    for side in (-1, 1):
        pen.outline(rim + (side * (identity.eye_spacing + 0.01), EYE_Y + 0.035), 0.034, identity.glasses_color)
        pen.stroke(
            np.array([(side * (identity.eye_spacing + 0.31), -0.06), (side * identity.face_width, -0.1)]),
            0.034,
            identity.glasses_color,
        )
    bridge = identity.eye_spacing - 0.29
    pen.stroke(_curve([(-bridge, -0.02), (0.0, -0.06), (bridge, -0.02)]), 0.034, identity.glasses_color)


def _draw_tears(pen: _Pen, identity: Identity, geometry: Geometry, tears: float) -> None:
    for side in (-1, 1):
        x = side * (identity.eye_spacing + 0.05)
        top = EYE_Y + geometry.lid_lower
        end = top + 0.10 + 0.42 * tears
        stream = np.array(
            [
                (x - 0.035, top),
                (x + 0.035, top),
                (x + 0.05, end - 0.07),
                (x + 0.06, end),
                (x, end + 0.06),
                (x - 0.06, end),
                (x - 0.05, end - 0.07),
            ]
        )
        drop = _curve(stream, closed=True)
        pen.fill(drop, TEAR)
        pen.outline(drop, 0.02, mix(TEAR, INK, 0.35))
        pen.disc((x - 0.02, end - 0.02), (0.018, 0.04), WHITE)


def _draw_features(pen: _Pen, identity: Identity, geometry: Geometry, au: dict[str, float], colors: dict[str, Color]) -> None:
    for side in (-1, 1):
        pen.disc(
            (side * 0.50, 0.27 - 0.07 * au["cheek_raise"]),
            (0.17, 0.12),
            mix(identity.skin, colors["blush"], identity.blush + 0.35 * au["cheek_raise"]),
        )
    if identity.freckles > 0.8:
        for x, y in ((-0.5, 0.22), (-0.42, 0.3), (-0.36, 0.2), (0.5, 0.23), (0.41, 0.29), (0.35, 0.19)):
            pen.disc((x, y), 0.018, colors["shade_line"])
    nose_y, size = 0.25 - geometry.nose_lift, identity.nose_size
    wing = 0.115 * size * (1 + 0.35 * au["nose_wrinkle"])
    pen.fill(
        _curve(
            [(0.02, -0.02), (0.5 * wing, nose_y - 0.12), (wing, nose_y), (0.0, nose_y + 0.05), (0.0, nose_y - 0.1)], closed=True
        ),
        colors["shade"],
    )
    pen.stroke(
        _curve(
            [
                (-wing, nose_y - 0.035),
                (-0.6 * wing, nose_y + 0.03),
                (0.0, nose_y + 0.05),
                (0.6 * wing, nose_y + 0.03),
                (wing, nose_y - 0.035),
            ]
        ),
        0.036,
        colors["line"],
        taper=0.5,
    )
    _draw_creases(pen, identity, geometry, au, colors)
    _draw_mouth(pen, geometry, colors, au["lip_stretch"])
    for side in (-1, 1):
        _draw_eye(pen, identity, geometry, side, colors)
    if identity.glasses:
        _draw_glasses(pen, identity)
    for brow in (geometry.brow_left, geometry.brow_right):
        pen.stroke(_curve(brow), identity.brow_thickness, colors["brow"], taper=0.45)
    if au["tears"] > 0.1:
        _draw_tears(pen, identity, geometry, au["tears"])


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
    _draw_features(pen, identity, geometry, read_action_units(action_units), palette(identity))
    return image.reduce(SUPERSAMPLING)


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


def _head_pen(image: Image.Image, identity: Identity, tilt: float, shift: tuple[float, float]) -> _Pen:
    scale = identity.scale * image.width
    center = (identity.x * image.width + scale * shift[0], identity.y * image.height + scale * shift[1])
    return _Pen(image, scale=scale, center=center, tilt=tilt)
