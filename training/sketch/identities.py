"""People of the drawn world: continuous looks that say nothing about feelings, and the colours they are drawn in."""

import colorsys
import functools
from dataclasses import dataclass

import numpy as np

Color = tuple[int, int, int]

# From the lightest to the darkest skin; the darkest still lets the lines of the face stand out.
SKIN_TONES = ((252, 215, 189), (246, 203, 172), (229, 178, 140), (203, 146, 106), (166, 112, 78), (132, 87, 61), (114, 74, 54))
HAIR_TONES = (
    (38, 32, 36),
    (52, 34, 28),
    (92, 56, 36),
    (140, 84, 44),
    (172, 78, 40),
    (214, 164, 92),
    (168, 166, 170),
    (226, 224, 222),
)
IRIS_TONES = ((66, 42, 30), (104, 66, 36), (84, 110, 66), (70, 116, 160), (96, 122, 138))
INK: Color = (34, 26, 34)
WHITE: Color = (238, 234, 226)  # of eyes and teeth; leaves room for a brighter picture
TEAR: Color = (112, 190, 246)


@dataclass(frozen=True)
class Identity:
    """What one drawn person looks like in one place; says nothing about what they feel. Lengths are in face units."""

    skin: Color
    hair: Color
    iris: Color
    clothes: Color
    glasses_color: Color
    background: Color
    background_accent: Color
    background_shape: float  # in [0, 1): which simple shapes, and where
    background_fade: float  # 0 flat, 1 graded down to the accent colour
    background_dots: float  # how far the dots of the wallpaper stand out
    face_width: float
    jaw_width: float
    chin_width: float
    eye_size: float
    eye_spacing: float
    brow_thickness: float
    brow_rest: float
    nose_size: float
    lip_fullness: float
    mouth_rest: float
    mouth_width: float
    age: float  # 0 smooth, 1 deep lines
    freckles: float
    blush: float
    hair_volume: float  # 0 is bald
    hair_length: float
    hair_wave: float
    hair_part: float
    fringe: float
    bun: float  # 0 is none
    beard: float  # 0 is none
    glasses: float  # 0 is none, 1 round, in between squarer
    neckline: float
    x: float  # of the middle of the head, in [0, 1] of the picture
    y: float
    scale: float  # half the height of the head, in [0, 1] of the picture
    light: float  # -1 from the left, 1 from the right
    exposure: float  # by which share the picture is brighter (above 0) or darker
    warmth: float  # colour cast: redder and less blue by this share (above 0), or the other way

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Identity":
        """Draw a person from continuous distributions; `rng` fixes every number."""
        melanin, grey = rng.uniform(), rng.uniform()
        age = float(rng.beta(1.1, 1.6))
        skin = _jitter(_along(SKIN_TONES, melanin), rng, 5)
        natural = rng.uniform(0, 0.45 if melanin > 0.55 else 0.8)
        hair = _along(HAIR_TONES, natural) if grey > 0.75 * age else _along(HAIR_TONES, rng.uniform(0.82, 1.0))
        if rng.uniform() < 0.06:
            hair = _hls(rng.uniform(), rng.uniform(0.35, 0.55), 0.5)  # dyed
        hue, lightness = rng.uniform(), rng.uniform(0.55, 0.86)
        background = _hls(hue, lightness, rng.uniform(0.2, 0.52))
        darker = _hls(hue + rng.uniform(-0.12, 0.12), lightness - rng.uniform(0.15, 0.3), 0.45)
        accent = mix(background, darker, rng.uniform(0.35, 0.65))
        bald, long_hair = rng.uniform() < 0.06, rng.uniform() < 0.5
        return cls(
            skin=skin,
            hair=_jitter(hair, rng, 6),
            iris=_jitter(_along(IRIS_TONES, rng.uniform(0, 0.3 if melanin > 0.5 else 1.0)), rng, 8),
            clothes=_hls(rng.uniform(), rng.uniform(0.25, 0.7), rng.uniform(0.25, 0.65)),
            glasses_color=_hls(rng.uniform(), rng.uniform(0.12, 0.35), rng.uniform(0.1, 0.6)),
            background=background,
            background_accent=accent,
            background_shape=float(rng.uniform()),
            background_fade=float(max(0.0, rng.uniform(-0.6, 1.0))),
            background_dots=float(rng.uniform(0.1, 0.2)),
            face_width=float(rng.uniform(0.74, 0.86)),
            jaw_width=float(rng.uniform(0.70, 0.90)),
            chin_width=float(rng.uniform(0.22, 0.42)),
            eye_size=float(rng.uniform(0.92, 1.1)),
            eye_spacing=float(rng.uniform(0.345, 0.385)),
            brow_thickness=float(rng.uniform(0.068, 0.105)),
            brow_rest=float(rng.normal(0, 0.012)),
            nose_size=float(rng.uniform(0.8, 1.25)),
            lip_fullness=float(rng.uniform(0.6, 1.2)),
            mouth_rest=float(rng.normal(0, 0.012)),
            mouth_width=float(rng.uniform(0.93, 1.08)),
            age=age,
            freckles=float(rng.uniform()),
            blush=float(rng.uniform(0.0, 0.25)),
            hair_volume=0.0 if bald else float(rng.uniform(0.05, 0.26)),
            hair_length=float(rng.uniform(0.8, 1.7) if long_hair else rng.uniform(0.0, 0.4)),
            hair_wave=float(rng.beta(1, 1.3)),
            hair_part=float(rng.uniform(-0.8, 0.8)),
            fringe=float(rng.uniform()),
            bun=float(rng.uniform(0.2, 0.36) if rng.uniform() < 0.12 and not bald else 0),
            beard=float(rng.uniform(0.3, 1.0) if not long_hair and rng.uniform() < 0.3 else 0),
            glasses=float(rng.uniform(0.3, 1.0) if rng.uniform() < 0.3 else 0),
            neckline=float(rng.uniform()),
            x=float(rng.uniform(0.42, 0.58)),
            y=float(rng.uniform(0.45, 0.53)),
            scale=float(rng.uniform(0.328, 0.402)),
            light=float(rng.uniform(-1, 1)),
            exposure=float(rng.uniform(-0.12, 0.11)),
            warmth=float(rng.uniform(-0.015, 0.035)),
        )


def _along(tones: tuple[Color, ...], position: float) -> Color:
    place = position * (len(tones) - 1)
    index = min(int(place), len(tones) - 2)
    return mix(tones[index], tones[index + 1], place - index)


def mix(first: Color, second: Color, share: float) -> Color:
    """The colour on the way from `first` (share 0) to `second` (share 1)."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def _jitter(color: Color, rng: np.random.Generator, amount: float) -> Color:
    return tuple(int(np.clip(channel + rng.uniform(-amount, amount), 0, 255)) for channel in color)


def _hls(hue: float, lightness: float, saturation: float) -> Color:
    return tuple(round(255 * channel) for channel in colorsys.hls_to_rgb(hue % 1.0, lightness, saturation))


def luminance(color: Color) -> float:
    """How bright a colour looks, in [0, 255]."""
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]


@functools.lru_cache(maxsize=8)
def palette(identity: Identity) -> dict[str, Color]:
    """The colours of lines, shades, lips and brows that go with a person; brows stand out from every skin."""
    skin = identity.skin
    brow = next(
        (color for share in (0.35, 0.6, 0.8) if luminance(skin) - luminance(color := mix(identity.hair, INK, share)) > 90),
        mix(identity.hair, INK, 0.95),
    )
    return {
        "line": mix(skin, INK, 0.92 - 0.14 * luminance(skin) / 220),
        "shade": mix(skin, (120, 60, 70), 0.2),
        "shade_line": mix(skin, (110, 50, 40), 0.45),
        "blush": mix(skin, (230, 62, 78), 0.75),
        "blush_line": mix(mix(skin, (230, 62, 78), 0.75), (110, 10, 40), 0.5),
        "lid": mix(skin, (110, 50, 60), 0.28),
        "lip": mix(skin, (176, 40, 60), 0.55),
        "mouth": (92, 22, 34),
        "tongue": (214, 98, 104),
        "brow": brow,
        "iris_line": mix(identity.iris, INK, 0.6),
        "hair_line": mix(identity.hair, INK, 0.6) if luminance(identity.hair) > 60 else (12, 10, 14),
    }


@functools.lru_cache(maxsize=8)
def light_curves(identity: Identity) -> list[int]:
    """What exposure and colour cast make of each level of red, green and blue, as `PIL.Image.Image.point` takes it."""
    level = np.arange(256) / 255
    # Bright levels gain little: nothing clips, and skin keeps its colour.
    gain = 1 + identity.exposure * (1 - level**4 if identity.exposure > 0 else 1)
    casts = (1 + identity.warmth, 1.0, 1 - identity.warmth)
    return np.concatenate([np.clip(255 * level * gain * cast, 0, 255).round().astype(int) for cast in casts]).tolist()
