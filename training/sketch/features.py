"""The features of a drawn face: eyes, brows, nose, mouth, cheeks, and the creases and tears that action units draw."""

import numpy as np

from .actions import Geometry
from .identities import INK, TEAR, WHITE, Color, Identity, mix
from .pen import CIRCLE, Pen, band, curve, line, span

EYE_Y = -0.03
EYE_HALF_WIDTH = 0.235
HALF_CIRCLE = np.sqrt(1 - span(17) ** 2)


def _draw_eye(pen: Pen, identity: Identity, geometry: Geometry, side: int, au: dict[str, float], colors: dict[str, Color]) -> None:
    center = side * identity.eye_spacing
    along = span(19)  # from the picture's left to its right corner of the eye
    arch = 1 - np.abs(along) ** 2.3
    slant = geometry.lid_slant * arch * (0.5 - side * along)
    lower = geometry.lid_lower * arch
    # A lid that droops is level, one that is open or shut is an arch.
    level = 0.7 * (1 - au["blink"] ** 3)
    rest = np.minimum(slant - geometry.lid_open * arch, lower)
    upper = np.maximum(slant - geometry.lid_upper * (level + (1 - level) * arch), rest)
    upper = np.minimum(upper, lower)
    x = center + EYE_HALF_WIDTH * identity.eye_size * along
    top, bottom = EYE_Y + upper, EYE_Y + lower
    lid = (upper - rest).max()
    if lid > 0.02:
        pen.fill(band(x, EYE_Y + rest, top), mix(colors["lid"], identity.skin, au["cheek_raise"]))
    pen.fill(band(x, top, bottom), WHITE)
    if (bottom - top).max() > 0.03:
        middle = np.array([center + geometry.gaze[0], EYE_Y + 0.01 + geometry.gaze[1]])
        for radius, color in ((0.125, colors["iris_line"]), (0.108, identity.iris), (0.062, INK)):
            _fill_within(pen, middle, radius * identity.eye_size, x, top, bottom, color)
        _fill_within(pen, middle + (0.045, -0.05), 0.034, x, top, bottom, WHITE)
    pen.stroke(line(x, bottom), 0.022, colors["line"], taper=0.5)
    if lid > 0.05:
        pen.stroke(line(x, EYE_Y + rest), 0.024 * (1 - au["cheek_raise"]), colors["line"], taper=0.6)
    lash = line(x, top)
    lash[-1 if side > 0 else 0] += (0.03 * side, -0.02)
    pen.stroke(lash, 0.052 + 0.02 * au["blink"], INK, taper=0.35)


def _fill_within(pen: Pen, center, radius: float, x, top, bottom, color: Color) -> None:
    """A disc, cut off where it leaves the eye's opening."""
    columns, height = center[0] + radius * span(17), radius * HALF_CIRCLE
    upper = np.maximum(center[1] - height, np.interp(columns, x, top))
    lower = np.minimum(center[1] + height, np.interp(columns, x, bottom))
    visible = (lower > upper) & (columns > x[0]) & (columns < x[-1])
    if visible.sum() > 1:
        pen.fill(band(columns[visible], upper[visible], lower[visible]), color)


def _draw_mouth(pen: Pen, geometry: Geometry, au: dict[str, float], colors: dict[str, Color]) -> None:
    along, stretch, pucker = span(25), au["lip_stretch"], geometry.pucker
    width = np.where(along < 0, geometry.mouth_left, geometry.mouth_right)
    corner = np.where(along < 0, geometry.corner_left, geometry.corner_right)
    x = width * along
    middle = geometry.mouth_y + corner * np.abs(along) ** 1.7
    square = 2.0 + 2.5 * stretch
    arch = (1 - np.abs(along) ** square) ** (0.6 if geometry.lower_opening > 0.1 else 0.9)
    top, bottom = middle - geometry.upper_opening * arch, middle + geometry.lower_opening * arch
    lip_arch = (1 - along**2) ** 0.6
    bow = lip_arch * (1 - (0.22 + 0.2 * pucker) * np.exp(-((along / 0.22) ** 2)))
    lips = band(x, top - geometry.lip * bow, bottom + (1.15 + 0.2 * pucker) * geometry.lip * lip_arch)
    pen.fill(lips, colors["lip"])
    if pucker > 0.32:  # speech alone pushes the lips out by less
        pen.outline(lips, 0.028, colors["line"])
        pen.disc((0.0, bottom[12] + 0.75 * geometry.lip), (0.07, 0.022), mix(colors["lip"], WHITE, 0.45))
    if geometry.upper_opening + geometry.lower_opening > 0.03:
        pen.fill(band(x, top, bottom), colors["mouth"])
        tongue = np.maximum(bottom - 0.10 * arch, top + 0.5 * (bottom - top))
        inner = slice(4, -4)
        if geometry.lower_opening > 0.16:
            pen.fill(band(x[inner], tongue[inner], bottom[inner]), colors["tongue"])
        teeth = np.minimum(top + 0.10 * arch, bottom)
        pen.fill(band(x, top, teeth), WHITE)
        if stretch > 0.3:
            pen.fill(band(x, np.maximum(bottom - 0.09 * stretch * arch, teeth + 0.014), bottom), WHITE)
        pen.stroke(line(x, bottom), 0.022, colors["line"], taper=0.4)
        pen.stroke(line(x, top), 0.03, colors["line"], taper=0.3)
    else:
        pen.stroke(line(x, middle), 0.055 - 0.015 * pucker, colors["line"], taper=0.45)
        press = au["lip_press"]
        if press > 0.1:  # dimples at the ends
            for end in (0, -1):
                across = np.array([(0.02, -0.06), (0.035, 0.0), (0.02, 0.06)]) * (np.sign(along[end]), 0.4 + 0.6 * press)
                pen.stroke(curve(across + (x[end], middle[end])), 0.034, colors["line"], taper=0.5)


def _draw_creases(pen: Pen, identity: Identity, geometry: Geometry, au: dict[str, float], colors: dict[str, Color]) -> None:
    """Lines that age and action units draw into the skin."""

    def crease(points, strength: float, width: float) -> None:
        if strength > 0.08:
            pen.stroke(curve(points), width, mix(identity.skin, colors["line"], min(strength, 1.0)), taper=0.8)

    age = 0.35 * identity.age
    raised = max(au["inner_brow_raise"], au["outer_brow_raise_left"], au["outer_brow_raise_right"])
    for y, bend in ((-0.60, 0.02), (-0.69, 0.03)):
        crease([(-0.34, y + bend), (0.0, y), (0.34, y + bend)], max(age, 0.45 * raised), 0.03)
    for side in (-1, 1):
        crease([(side * 0.055, -0.35), (side * 0.04, -0.27), (side * 0.05, -0.17)], 1.2 * au["brow_lower"], 0.044)
        fold = max(age, 0.8 * au["nose_wrinkle"], 0.6 * au["upper_lip_raise"], 0.5 * au["cheek_raise"])
        end = geometry.mouth_left if side < 0 else geometry.mouth_right
        crease([(side * 0.17, 0.20 - geometry.nose_lift), (side * 0.30, 0.33), (side * (end + 0.09), 0.52)], fold, 0.035)
        crease([(side * 0.22, 0.13), (side * 0.36, 0.17), (side * 0.5, 0.12)], max(0.8 * age, 0.75 * au["cheek_raise"]), 0.032)
        for lift in (-0.02, 0.05, 0.12):
            crease([(side * 0.035, lift - 0.01), (side * 0.09, lift), (side * 0.14, lift + 0.045)], au["nose_wrinkle"], 0.034)
    if au["lip_press"] > 0.3 or geometry.pucker > 0.32:
        y = geometry.mouth_y + 0.15 + 0.05 * geometry.pucker
        crease([(-0.13, y + 0.025), (0.0, y), (0.13, y + 0.025)], max(0.6 * au["lip_press"], 0.6 * geometry.pucker), 0.032)


def _draw_glasses(pen: Pen, identity: Identity) -> None:
    power = 0.35 + 0.65 * identity.glasses
    cos, sin = CIRCLE[:, 0], CIRCLE[:, 1]
    rim = line(np.sign(cos) * np.abs(cos) ** power * 0.31, np.sign(sin) * np.abs(sin) ** power * 0.265)
    for side in (-1, 1):
        pen.outline(rim + (side * (identity.eye_spacing + 0.01), EYE_Y + 0.035), 0.034, identity.glasses_color)
        pen.stroke(
            np.array([(side * (identity.eye_spacing + 0.31), -0.06), (side * identity.face_width, -0.1)]),
            0.034,
            identity.glasses_color,
        )
    bridge = identity.eye_spacing - 0.29
    pen.stroke(curve([(-bridge, -0.02), (0.0, -0.06), (bridge, -0.02)]), 0.034, identity.glasses_color)


def _draw_tears(pen: Pen, identity: Identity, geometry: Geometry, tears: float) -> None:
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
        drop = curve(stream, closed=True)
        pen.fill(drop, TEAR)
        pen.outline(drop, 0.02, mix(TEAR, INK, 0.35))
        pen.disc((x - 0.02, end - 0.02), (0.018, 0.04), WHITE)


def draw_features(pen: Pen, identity: Identity, geometry: Geometry, au: dict[str, float], colors: dict[str, Color]) -> None:
    blush = au["blush"]
    for side in (-1, 1):
        pen.disc(
            (side * 0.50, 0.27 - 0.07 * au["cheek_raise"]),
            (0.17 + 0.04 * blush, 0.12 + 0.03 * blush),
            mix(identity.skin, colors["blush"], min(1.0, identity.blush + 0.25 * au["cheek_raise"] + 0.9 * blush)),
        )
    if blush > 0.05:
        pen.disc((0.0, 0.09), (0.22, 0.085), mix(identity.skin, colors["blush"], 0.8 * blush))
    if identity.freckles > 0.8:
        for x, y in ((-0.5, 0.22), (-0.42, 0.3), (-0.36, 0.2), (0.5, 0.23), (0.41, 0.29), (0.35, 0.19)):
            pen.disc((x, y), 0.018, colors["shade_line"])
    nose_y, size = 0.25 - geometry.nose_lift, identity.nose_size
    wing = 0.115 * size * (1 + 0.35 * au["nose_wrinkle"])
    pen.fill(
        curve([(0.02, -0.02), (0.5 * wing, nose_y - 0.12), (wing, nose_y), (0.0, nose_y + 0.05), (0.0, nose_y - 0.1)], closed=True),
        colors["shade"],
    )
    pen.stroke(
        curve(
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
    if blush > 0.25:
        for side in (-1, 1):
            for x in (0.43, 0.51, 0.59):
                pen.stroke(np.array([(side * x + 0.025, 0.21), (side * x - 0.025, 0.33)]), 0.028, colors["blush_line"])
    _draw_mouth(pen, geometry, au, colors)
    for side in (-1, 1):
        _draw_eye(pen, identity, geometry, side, au, colors)
    if identity.glasses:
        _draw_glasses(pen, identity)
    for brow in (geometry.brow_left, geometry.brow_right):
        pen.stroke(curve(brow), identity.brow_thickness, colors["brow"], taper=0.45)
    if au["tears"] > 0.1:
        _draw_tears(pen, identity, geometry, au["tears"])
