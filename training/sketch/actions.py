"""What drawn faces do: action units, the expressions made of them, the geometry they give and how they run over time.

Face units: the origin is the middle of the head, one unit is half the height of the head, x points right, y points down.
"Left" and "right" are sides of the picture.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .identities import Identity

# A slight expression stays legible on a small picture, and weaker to the eye than a full one: 0.45 gives 0.55, 0.9 gives 0.92.
INTENSITY_POWER = 0.75
CROSS_FADE = 0.4  # seconds in which one expression turns into another

# Intensities run from 0 to 1; gaze_*, head_* run from -1 (left, up, anticlockwise) to 1.
ACTION_UNITS = (
    "inner_brow_raise",
    "outer_brow_raise_left",
    "outer_brow_raise_right",
    "brow_lower",
    "lid_raise",
    "lid_tighten",
    "cheek_raise",
    "nose_wrinkle",
    "upper_lip_raise",
    "lip_corner_up_left",
    "lip_corner_up_right",
    "lip_corner_down",
    "lip_pucker",
    "lip_stretch",
    "lip_press",
    "jaw_drop",
    "blink",
    "blush",
    "tears",
    "gaze_x",
    "gaze_y",
    "head_tilt",
    "head_x",
    "head_y",
)

EXPRESSIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smile": {"lip_corner_up_left": 1.0, "lip_corner_up_right": 1.0, "cheek_raise": 0.9, "jaw_drop": 0.12},
    "polite_smile": {
        "lip_corner_up_left": 0.65,
        "lip_corner_up_right": 0.65,
        "lip_press": 0.3,
        "outer_brow_raise_left": 0.3,
        "outer_brow_raise_right": 0.3,
    },
    "laugh": {
        "lip_corner_up_left": 1.0,
        "lip_corner_up_right": 1.0,
        "cheek_raise": 1.0,
        "jaw_drop": 0.9,
        "blink": 1.0,
        "head_y": -0.8,
    },
    "weeping_smile": {
        "inner_brow_raise": 1.0,
        "lip_corner_up_left": 1.0,
        "lip_corner_up_right": 1.0,
        "cheek_raise": 0.7,
        "jaw_drop": 0.25,
        "tears": 1.0,
    },
    "masking_smile": {
        "inner_brow_raise": 1.0,
        "lip_corner_up_left": 0.8,
        "lip_corner_up_right": 0.8,
        "gaze_y": 1.0,
        "head_y": 0.3,
    },
    "surprise": {
        "inner_brow_raise": 1.0,
        "outer_brow_raise_left": 1.0,
        "outer_brow_raise_right": 1.0,
        "lid_raise": 0.9,
        "jaw_drop": 0.95,
        "head_y": -0.5,
    },
    "feigned_surprise": {
        "inner_brow_raise": 1.0,
        "outer_brow_raise_left": 1.0,
        "outer_brow_raise_right": 1.0,
        "blink": 0.65,
        "jaw_drop": 0.8,
        "head_tilt": 0.3,
    },
    "bashful": {
        "blush": 1.0,
        "gaze_y": 0.9,
        "gaze_x": 0.3,
        "lip_corner_up_left": 0.35,
        "lip_corner_up_right": 0.35,
        "lip_press": 0.5,
        "head_y": 0.9,
        "head_tilt": 0.6,
    },
    "doubt": {
        "outer_brow_raise_right": 1.0,
        "lid_tighten": 0.7,
        "lip_pucker": 1.0,
        "head_tilt": 0.6,
    },
    "boredom": {"blink": 0.65, "gaze_x": 0.9, "lip_corner_down": 0.15, "head_tilt": 0.9, "head_y": 0.2},
    "sadness": {"inner_brow_raise": 1.0, "lip_corner_down": 0.9, "gaze_y": 0.8, "head_y": 0.5},
    "grief": {
        "inner_brow_raise": 1.0,
        "brow_lower": 0.25,
        "lip_corner_down": 1.0,
        "blink": 0.3,
        "tears": 1.0,
        "gaze_y": 0.7,
        "head_y": 0.5,
        "head_tilt": 0.35,
    },
    "fear": {
        "inner_brow_raise": 1.0,
        "outer_brow_raise_left": 0.35,
        "outer_brow_raise_right": 0.35,
        "brow_lower": 0.15,
        "lid_raise": 1.0,
        "lip_stretch": 1.0,
        "head_y": -0.3,
    },
    "worry": {"inner_brow_raise": 1.0, "brow_lower": 0.5, "lip_press": 1.0, "gaze_x": -0.9},
    "scowl": {"brow_lower": 1.0, "lid_tighten": 0.35, "lip_press": 1.0, "lip_corner_down": 0.3, "head_y": 0.2},
    "snarl": {
        "brow_lower": 1.0,
        "lid_raise": 0.8,
        "upper_lip_raise": 0.9,
        "lip_stretch": 0.8,
        "jaw_drop": 0.25,
        "head_y": 0.3,
    },
    "disgust": {
        "nose_wrinkle": 1.0,
        "upper_lip_raise": 1.0,
        "brow_lower": 0.55,
        "lid_tighten": 0.9,
        "cheek_raise": 0.3,
        "lip_corner_down": 0.45,
        "gaze_x": 0.5,
        "head_x": -0.4,
        "head_tilt": 0.5,
    },
    "smirk": {
        "lip_corner_up_right": 1.0,
        "outer_brow_raise_right": 0.9,
        "blink": 0.25,
        "gaze_x": 0.7,
        "head_tilt": -0.45,
    },
    "pout": {"lip_pucker": 1.0, "brow_lower": 0.55, "lip_corner_down": 0.3, "gaze_y": 0.8, "head_y": 0.4},
}

TIMINGS = ("early", "late", "held")  # where the apex of a single expression is; two expressions "turn"


@dataclass(frozen=True)
class Course:
    """What a face does over a clip: one expression, or one that turns into another. Raises `ValueError` if the parts do not fit."""

    phases: tuple[str, ...]  # one or two names of `EXPRESSIONS`
    intensity: float  # at the apex, in [0, 1]
    timing: str  # of `TIMINGS` for one phase, "turn" for two

    def __post_init__(self) -> None:
        if len(self.phases) not in (1, 2):
            raise ValueError(f"Expected one or two expressions, got {self.phases!r}. Name at most one that the first turns into.")
        for phase in self.phases:
            if phase not in EXPRESSIONS:
                raise ValueError(f"Expected expressions among {', '.join(EXPRESSIONS)}; got {phase!r}. Correct the name.")
        timings = TIMINGS if len(self.phases) == 1 else ("turn",)
        if self.timing not in timings:
            raise ValueError(
                f"Expected a timing among {', '.join(timings)} for {len(self.phases)} expression(s), got {self.timing!r}. "
                'One expression is "early", "late" or "held"; two "turn".'
            )
        if not 0 <= self.intensity <= 1:
            raise ValueError(f"Expected an intensity in [0, 1], got {self.intensity}. Give it as a share of the full expression.")


@dataclass(frozen=True)
class Geometry:
    """Where the moving parts of a face are, in face units; one source for the drawing and for the targets."""

    tilt: float  # radians
    shift: tuple[float, float]
    turn: tuple[float, float]  # how far the features move on the head when it turns or bows
    jaw: float
    brow_left: np.ndarray  # (4, 2), inner to outer end
    brow_right: np.ndarray
    lid_open: float  # height of the upper lid when the eye is neither shut nor cast down
    lid_upper: float  # height of the upper lid above the line between the eye's corners
    lid_lower: float  # height of the lower lid below it
    lid_slant: float  # how much lower the inner half of the upper lid is
    gaze: tuple[float, float]
    nose_lift: float
    mouth_y: float
    mouth_left: float  # half widths
    mouth_right: float
    corner_left: float  # y of the corners relative to mouth_y
    corner_right: float
    upper_opening: float  # how far each lip stands from the line of the mouth
    lower_opening: float
    pucker: float  # how far the lips are pushed out
    lip: float  # thickness of the lips


def read_action_units(action_units: Mapping[str, float]) -> dict[str, float]:
    """All action units by name, those left out as 0. Raises `ValueError` if a name is unknown."""
    unknown = sorted(set(action_units) - set(ACTION_UNITS))
    if unknown:
        raise ValueError(f"Expected action units among {', '.join(ACTION_UNITS)}; got {', '.join(unknown)}. Correct the names.")
    return {name: float(action_units.get(name, 0.0)) for name in ACTION_UNITS}


def _brow(identity: Identity, au: dict[str, float], side: int) -> np.ndarray:
    raised = au["outer_brow_raise_left" if side < 0 else "outer_brow_raise_right"]
    inner, lower = au["inner_brow_raise"], au["brow_lower"]
    oblique = inner * (1 - raised)
    x = np.array([0.135 - 0.06 * lower, 0.27 - 0.035 * lower, 0.44, 0.62])
    y = np.array([-0.335, -0.395, -0.415, -0.335])
    y += inner * np.array([-0.14, -0.11, -0.05, 0.0]) + oblique * np.array([-0.055, 0.01, 0.07, 0.11])
    y += raised * np.array([-0.04, -0.14, -0.15, -0.11])
    y += lower * np.array([0.19, 0.13, 0.06, -0.03])
    return np.array([side * (x - 0.365 + identity.eye_spacing), y - identity.brow_rest]).T


def geometry_of(identity: Identity, action_units: Mapping[str, float]) -> Geometry:
    """How the action units shape and place the parts of a person's face."""
    au = read_action_units(action_units)
    smile = min(au["lip_corner_up_left"], au["lip_corner_up_right"])
    jaw, stretch, press = au["jaw_drop"], au["lip_stretch"], au["lip_press"] * (1 - min(1.0, 2 * au["jaw_drop"]))
    pucker, cheek, blink = au["lip_pucker"], au["cheek_raise"], au["blink"]
    upper = 0.165 * identity.eye_size
    upper *= 1 + 0.42 * au["lid_raise"] - 0.38 * au["lid_tighten"] - 0.22 * cheek - 0.1 * au["brow_lower"]
    lower = 0.125 * identity.eye_size * (1 + 0.25 * au["lid_raise"] - 0.62 * au["lid_tighten"] - 0.95 * cheek)
    # Eyes shut by raised cheeks are arches.
    lower = max(lower, -0.03) * (1 - 0.3 * blink) + (0.01 - 0.10 * cheek) * blink
    # The upper lid follows the eye down.
    lid_upper = upper * (1 - 0.3 * max(au["gaze_y"], 0.0))
    round_mouth = jaw * (1 - stretch) * (1 - smile)
    width = identity.mouth_width * (0.30 + 0.15 * stretch - 0.14 * round_mouth + 0.08 * press - 0.02 * au["upper_lip_raise"])
    width *= 1 - 0.55 * pucker * (1 - 0.5 * round_mouth)
    fall = 0.145 * au["lip_corner_down"] + 0.055 * stretch + 0.05 * au["upper_lip_raise"] - identity.mouth_rest
    # A faint smile already bends the mouth.
    lift_left, lift_right = (0.2 * up * (1.5 - 0.5 * up) for up in (au["lip_corner_up_left"], au["lip_corner_up_right"]))
    shift = (round(14 * au["head_x"]) / 100, round(10 * au["head_y"]) / 100)
    return Geometry(
        # The pose moves in small steps: a head that rests is then drawn once, and costs a video no bytes.
        tilt=math.radians(round(22 * au["head_tilt"]) / 2),
        shift=shift,
        turn=(0.7 * shift[0], 0.8 * shift[1]),
        jaw=round(10 * jaw) / 10,
        brow_left=_brow(identity, au, -1),
        brow_right=_brow(identity, au, 1),
        lid_open=upper,
        lid_upper=lid_upper * (1 - blink) - lower * blink,
        lid_lower=lower,
        lid_slant=0.085 * au["brow_lower"] - 0.05 * au["inner_brow_raise"] * (1 - au["lid_raise"]),
        gaze=(0.105 * au["gaze_x"], 0.085 * au["gaze_y"]),
        nose_lift=0.055 * au["nose_wrinkle"],
        mouth_y=0.56 + 0.03 * smile - 0.02 * au["upper_lip_raise"] - 0.02 * pucker,
        mouth_left=width + 0.10 * au["lip_corner_up_left"],
        mouth_right=width + 0.10 * au["lip_corner_up_right"],
        corner_left=fall - lift_left,
        corner_right=fall - lift_right,
        upper_opening=0.02 * jaw + 0.14 * round_mouth**1.25 + 0.10 * au["upper_lip_raise"] + 0.05 * stretch,
        # A smile that reaches the cheeks bares the teeth, one of the lips alone is closed.
        lower_opening=0.28 * jaw + 0.035 * au["upper_lip_raise"] + 0.075 * stretch + 0.10 * min(smile, cheek),
        pucker=pucker,
        lip=0.062 * identity.lip_fullness * (1 - 0.85 * press) * (1 - 0.3 * smile) + 0.06 * pucker,
    )


def expression_track(course: Course, num_frames: int, fps: float, rng: np.random.Generator) -> list[dict[str, float]]:
    """The action units of every frame of a clip: the course, with blinks, glances and small head motion.

    Args:
        course (`Course`): which expressions, how strong and when. The strength of an action unit at the apex is
            `intensity ** INTENSITY_POWER` of its value in `EXPRESSIONS`.
        num_frames (`int`): length of the clip.
        fps (`float`): frames per second.
        rng (`np.random.Generator`): fixes the moments, small variations, and which side of the face smirks.

    Returns:
        `list[dict[str, float]]` of length `num_frames`, for `draw_face`.
    """
    strength = course.intensity**INTENSITY_POWER
    apexes = [
        {name: value * strength * rng.uniform(0.9, 1.08) for name, value in EXPRESSIONS[phase].items()} for phase in course.phases
    ]
    if rng.uniform() < 0.5:
        apexes = [_mirror(apex) for apex in apexes]
    time = np.arange(num_frames) / fps
    end = num_frames / fps
    envelopes = _envelopes(course.timing, time, end, rng)
    blink = np.zeros(num_frames)
    moment = rng.uniform(0.2, 2.0)
    while moment < end:
        blink = np.maximum(blink, np.clip(1.4 - np.abs(time - moment) / 0.07, 0, 1))
        moment += rng.uniform(1.4, 3.5)
    sway = {name: 0.3 * _poses(time, rng, 0.3) for name in ("head_tilt", "head_x", "head_y")}
    glance = {name: 0.12 * _poses(time, rng, 0.08) for name in ("gaze_x", "gaze_y")}
    track = []
    for frame in range(num_frames):
        units: dict[str, float] = {}
        for apex, envelope in zip(apexes, envelopes, strict=True):
            for name, value in apex.items():
                units[name] = units.get(name, 0.0) + value * envelope[frame]
        units["blink"] = max(units.get("blink", 0.0), blink[frame])
        for name, motion in (sway | glance).items():
            units[name] = units.get(name, 0.0) + motion[frame]
        track.append({name: float(np.clip(value, -1, 1)) for name, value in units.items()})
    return track


def _envelopes(timing: str, time: np.ndarray, end: float, rng: np.random.Generator) -> list[np.ndarray]:
    """How far each phase has come at each moment, in [0, 1]."""
    if timing == "late":
        start, apex = end * rng.uniform(0.28, 0.33), end * rng.uniform(0.72, 0.77)
        return [_smooth_step((time - start) / (apex - start))]
    rise = _smooth_step((time - rng.uniform(0.0, 0.06)) / rng.uniform(0.18, 0.26))
    if timing == "early":
        start, rest = end * rng.uniform(0.36, 0.44), end * rng.uniform(0.78, 0.86)
        return [rise * (1 - (1 - rng.uniform(0.2, 0.3)) * _smooth_step((time - start) / (rest - start)))]
    if timing == "held":
        return [rise * (1 - rng.uniform(0.0, 0.15) * _smooth_step((time - end + 0.3) / 0.3))]
    change = end * rng.uniform(0.40, 0.58)
    second = _smooth_step((time - change) / CROSS_FADE + 0.5)
    return [rise * (1 - second), second]


def _smooth_step(value: np.ndarray) -> np.ndarray:
    value = np.clip(value, 0, 1)
    return value * value * (3 - 2 * value)


def _poses(time: np.ndarray, rng: np.random.Generator, move: float) -> np.ndarray:
    """Held values in [-1, 1], each reached from the last within `move` seconds: still pictures in between cost few bytes."""
    value = np.full(len(time), rng.uniform(-1, 1))
    moment = rng.uniform(0.0, 0.8)
    while moment < time[-1]:
        value += (rng.uniform(-1, 1) - value[-1]) * _smooth_step((time - moment) / move)
        moment += move + rng.uniform(0.5, 1.4)
    return value


def _mirror(action_units: Mapping[str, float]) -> dict[str, float]:
    """The same action units on the other side of the face."""
    swapped = {}
    for name, value in action_units.items():
        if name.endswith("_left"):
            name = name.removesuffix("_left") + "_right"
        elif name.endswith("_right"):
            name = name.removesuffix("_right") + "_left"
        swapped[name] = -value if name in ("gaze_x", "head_tilt", "head_x") else value
    return swapped
