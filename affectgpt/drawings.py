"""Whether a clip looks like EMER-Sketch: what a model that knows drawings only asks before it says anything about a clip."""

import numpy as np
import torch

# How a clip of EMER-Sketch is told from a camera's, on frames of 112 x 112 pixels as `read_clip` gives them. Each bound is outside
# the range of the drawings that it was chosen on (H.264 at crf 18 to 35); together they shut out photographs (a portrait, animals,
# objects, textures: cropped, blurred, sharpened, dark, overexposed, grey, gaudy, compressed, before plain walls).
DRAWING_SIZE = 112
# Share of pixels of which no channel differs by more than FLAT_STEP from the neighbours to the right and below. Drawings are wide
# fills, camera pictures have texture; above the upper bound it is a plain wall.
FLAT_STEP = 2
FLAT_SHARE = (0.235, 0.68)
# Share of pixels within FILL_TOLERANCE of one of the NUM_FILLS commonest colours.
NUM_FILLS = 10
FILL_TOLERANCE = 4
MIN_FILL_SHARE = 0.36
# The same without the largest fill, black and white: a wall or a clipped exposure is one fill, a drawing has many.
MIN_MINOR_FILL_SHARE = 0.13
BLACK, WHITE = 24, 240
MAX_BLACK_OR_WHITE_SHARE = 0.10
# Mean distance between the strongest and the weakest channel.
MAX_CHROMA = 99.0
# In the middle, where the face is: share of steps that only ink makes, and of texture, which is weaker and farther than two pixels
# from any ink.
OUTLINE_STEP = 24
MIN_FACE_OUTLINE_SHARE = 0.133
TEXTURE_STEP = 4
MAX_FACE_TEXTURE_SHARE = 0.20
MAX_FACE_BLACK_OR_WHITE_SHARE = 0.05
MIN_FACE_CHROMA = 32.0


def looks_drawn(frames: np.ndarray) -> bool:
    """Whether frames look like EMER-Sketch: wide flat fills of few colours, ink outlines, a coloured face. In doubt, no.

    Args:
        frames (`np.ndarray` of shape `(T, 112, 112, 3)`): uint8 RGB, as [`read_clip`] resizes them.

    Raises:
        ValueError: if the frames have another size, for which the bounds are not made.
    """
    if frames.shape[1:] != (DRAWING_SIZE, DRAWING_SIZE, 3):
        raise ValueError(
            f"Expected frames of {DRAWING_SIZE} x {DRAWING_SIZE} pixels, got {frames.shape}. Use `read_clip(size=...)`."
        )
    frames = frames.astype(np.int16)
    steps = np.maximum(np.abs(np.diff(frames, axis=1))[:, :, :-1], np.abs(np.diff(frames, axis=2))[:, :-1]).max(axis=-1)
    is_near_ink = torch.nn.functional.max_pool2d(torch.from_numpy(steps).float(), 5, stride=1, padding=2).numpy() > OUTLINE_STEP
    is_texture = (steps > TEXTURE_STEP) & ~is_near_ink
    chroma = frames.max(axis=-1) - frames.min(axis=-1)
    is_black_or_white = _is_black_or_white(frames)
    face = np.s_[:, DRAWING_SIZE * 3 // 10 : DRAWING_SIZE * 7 // 10, DRAWING_SIZE * 3 // 10 : DRAWING_SIZE * 7 // 10]
    is_like_a_drawing = (
        FLAT_SHARE[0] <= (steps <= FLAT_STEP).mean() <= FLAT_SHARE[1]
        and is_black_or_white.mean() <= MAX_BLACK_OR_WHITE_SHARE
        and chroma.mean() <= MAX_CHROMA
        and (steps[face] > OUTLINE_STEP).mean() >= MIN_FACE_OUTLINE_SHARE
        and is_texture[face].mean() <= MAX_FACE_TEXTURE_SHARE
        and is_black_or_white[face].mean() <= MAX_FACE_BLACK_OR_WHITE_SHARE
        and chroma[face].mean() >= MIN_FACE_CHROMA
    )
    if not is_like_a_drawing:
        return False
    fill_share, minor_fill_share = np.mean([_fill_shares(frame) for frame in frames], axis=0)
    return bool(fill_share >= MIN_FILL_SHARE and minor_fill_share >= MIN_MINOR_FILL_SHARE)


def _fill_shares(picture: np.ndarray) -> tuple[float, float]:
    """Shares of the pixels that the commonest colours cover: all of them, and those but the largest, black and white."""
    pixels = rest = picture.reshape(-1, 3).astype(np.int32)
    shares, minor = [], []
    while len(shares) < NUM_FILLS and len(rest):
        codes = rest // FILL_TOLERANCE @ np.array([256 * 256, 256, 1])
        values, counts = np.unique(codes, return_counts=True)
        fill = rest[codes == values[counts.argmax()]].mean(axis=0)
        is_covered = np.abs(rest - fill).max(axis=1) <= FILL_TOLERANCE
        shares.append(is_covered.sum() / len(pixels))
        minor.append(len(shares) > 1 and not _is_black_or_white(fill))
        rest = rest[~is_covered]
    return sum(shares), sum(share for share, is_minor in zip(shares, minor, strict=True) if is_minor)


def _is_black_or_white(colors: np.ndarray) -> np.ndarray:
    return (colors.max(axis=-1) <= BLACK) | (colors.min(axis=-1) >= WHITE)
