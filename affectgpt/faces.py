"""Faces in the frames of a clip: the main one through the frames, aligned and cropped.

Crops come from one of four sources, and the result says which: a detector, the authors' files of precomputed crops, the centre of
the picture where no detector is installed, and the whole picture where the detector finds nobody.

The detector is MTCNN (Zhang et al. 2016, arXiv:1604.02878), computed here by torch with the weights in the package `mtcnn`: code
and weights are MIT, the 2 MB wheel holds them, and their five landmarks are what alignment needs. Its weights were trained on
WIDER FACE and CelebA, corpora for research. The crop imitates OpenFace's similarity alignment (112 pixels, scale 0.7), by which
the authors of AffectGPT made theirs: a tight square from above the brows to the chin. It is an approximation: OpenFace fits 68
landmarks, five are fitted here.
"""

import functools
import hashlib
import importlib.util
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.nn import functional

from .media import MediaError, sample_indices

# Where a crop has its eyes, nose tip and corners of the mouth, left before right as one sees them, in parts of its width and
# height: the proportions of an average face as OpenFace places it.
_LANDMARKS = np.array([[0.295, 0.26], [0.705, 0.26], [0.505, 0.448], [0.32, 0.678], [0.68, 0.678]])
# What of a crop OpenFace leaves visible, in the same units: within the jaw, open to the top.
_OUTLINE = [(0.12, -0.1), (0.04, 0.05), (0.04, 0.31), (0.06, 0.55), (0.13, 0.77), (0.29, 0.92), (0.5, 0.98)]
# Cost of following another face, in parts of the prominence of the lesser one. Above one half, so that a bystander seen in one
# frame is left alone; below one, so that the crops follow a cut.
_JUMP = 0.6
_MAX_FACES = 8  # of a frame, the most prominent: more make a crowd without a main face


@dataclass(frozen=True)
class Face:
    """A face that a detector found in a frame.

    Attributes:
        box (`tuple[float, float, float, float]`): left, top, right, bottom, in pixels.
        landmarks (`np.ndarray` of shape `(5, 2)`): x and y in pixels of the eyes, the tip of the nose and the corners of the mouth;
            of a pair, the one on the left of the picture first.
        score (`float`): the detector's confidence, 0 to 1.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float = 1.0

    @property
    def center(self) -> complex:
        left, top, right, bottom = self.box
        return complex(left + right, top + bottom) / 2

    @property
    def size(self) -> float:
        left, top, right, bottom = self.box
        return math.sqrt(max(right - left, 1.0) * max(bottom - top, 1.0))


@dataclass(frozen=True)
class FaceTrack:
    """The face of a clip.

    Attributes:
        crops (`np.ndarray` of shape `(T, size, size, 3)`): uint8 RGB, one per frame.
        source (`str`): "detector", "precomputed" (a file), "centre" (of the picture) or "frame" (the whole picture, stretched).
        num_found (`int`): crops that show a face: frames in which it was found; all of those from a file; 0 of the stand-ins.
        notes (`list[str]`): what a reader of the result should know, as sentences.
    """

    crops: np.ndarray
    source: str
    num_found: int
    notes: list[str] = field(default_factory=list)


def find_faces(frames: np.ndarray, *, size: int = 224, detect: Callable[[np.ndarray], Sequence[Face]] | None = None) -> FaceTrack:
    """Follow the main face through the frames of a clip, and crop it upright at one scale.

    The main face is the chain of detections, at most one per frame, that is largest, most central and surest, and jumps least. In
    a frame without it, the crop shows where it was before and after. Neither place nor tilt is smoothed, since the frames of a
    clip lie far apart and heads move; the scale is, within a shot, so that it does not follow the mouth.

    Args:
        frames (`np.ndarray` of shape `(T, height, width, 3)`): uint8 RGB at their native size, as `read_clip` gives them.
        size (`int`): width and height of a crop in pixels.
        detect (*optional*): gives the faces in a frame `(height, width, 3)`; by default a `FaceDetector`, if it is installed.

    Returns:
        [`FaceTrack`]. Without a detector, its crops are the centre of the picture; without a face, the whole picture.

    Raises:
        TypeError: if frames are not uint8.
        ValueError: if frames are not of that shape, or there are none.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.size == 0:
        raise ValueError(
            f"Expected the RGB frames of a clip, of shape (T, height, width, 3), got {frames.shape}. Stack single frames, put the "
            "channels last, and do not look for faces in a clip without a picture."
        )
    if frames.dtype != np.uint8:
        raise TypeError(f"Expected uint8 frames with values 0 to 255, got {frames.dtype}. Convert them.")
    if size < 1:
        raise ValueError(f"Expected `size` of at least 1 pixel, got {size}.")
    if detect is None and not is_detector_installed():
        note = "No face detector is installed (`pip install affectgpt[faces]`): the centre of the picture stands in for the face."
        return FaceTrack(_centers(frames, size), "centre", 0, [note])
    detect = detect or _default_detector()
    height, width = frames.shape[1:3]
    found = []
    for frame in frames:
        faces = [face for face in detect(frame) if np.ptp(face.landmarks, axis=0).max() > 1]  # else there is nothing to align by
        faces.sort(key=lambda face: -_prominence(face, height, width))
        found.append(faces[:_MAX_FACES])
    if not any(found):
        note = "No face was found: the whole picture stands in for it."
        return FaceTrack(_stretched(frames, size), "frame", 0, [note])
    track = _main_track(found, height, width)
    crops = [_crop(frame, turn, shift, size) for frame, (turn, shift) in zip(frames, _alignments(track), strict=True)]
    return FaceTrack(np.stack(crops), "detector", sum(face is not None for face in track), _notes(track, found, height, width))


def read_face_crops(
    path: str | os.PathLike, *, clip: str | os.PathLike | None = None, num_frames: int = 8, size: int = 224
) -> FaceTrack:
    """Read face crops that were computed beforehand, in the form of the authors' corpora.

    A file holds the crops of all frames of a clip: npy, uint8, `(n, height, width, 3)`, and **BGR**, because it was filled by
    OpenCV from OpenFace's pictures. What is returned is RGB, like all pictures here. The released 2025 checkpoints were trained on
    the channels as they stand in the file, BGR: it is for their processor to swap them back, which loses nothing.

    Args:
        path (`str` or `os.PathLike`): a npy file; or a folder of them, `<clip name>.npy` or `<clip name>/<clip name>.npy`.
        clip (`str` or `os.PathLike`, *optional*): the clip whose crops to take from a folder, by its name or path.
        num_frames (`int`): crops to return, at floor(i * n / num_frames); of a shorter file the last one is repeated.
        size (`int`): width and height to which they are resized (`resize_crops`), in pixels.

    Returns:
        [`FaceTrack`] with source "precomputed".

    Raises:
        MediaError: if there is no such file, or it is not of this form. The message names the file.
        ValueError: if an argument makes no sense.
    """
    if num_frames < 1 or size < 1:
        raise ValueError(f"Expected `num_frames` and `size` of at least 1, got {num_frames} and {size}.")
    path = _crop_file(Path(path), clip)
    advice = "Give the npy file of face crops that belongs to the clip."
    try:
        # Mapped, so that of a long clip only the chosen crops are read.
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise MediaError(
            f"{path}: expected a npy file of face crops, got something else or part of one ({error}). {advice}"
        ) from error
    if not isinstance(stored, np.ndarray):
        stored.close()
        raise MediaError(f"{path}: expected a npy file of face crops, got an archive of several arrays (npz). {advice}")
    if stored.ndim != 4 or stored.shape[-1] != 3 or stored.dtype != np.uint8:
        raise MediaError(
            f"{path}: expected face crops as uint8 of shape (n, height, width, 3), got {stored.dtype} of shape {stored.shape}. "
            f"{advice}"
        )
    if stored.size == 0:
        raise MediaError(f"{path}: expected at least one face crop, got none. Leave the faces of this clip out.")
    chosen = np.array(stored[sample_indices(len(stored), num_frames)])
    return FaceTrack(np.ascontiguousarray(resize_crops(chosen, size)[..., ::-1]), "precomputed", num_frames)


def resize_crops(crops: np.ndarray, size: int) -> np.ndarray:
    """Resize pictures as the authors' loader of face crops does: OpenCV's bilinear filter in 11-bit fixed point, no antialiasing.

    Args:
        crops (`np.ndarray` of shape `(n, height, width, channels)`): uint8.
        size (`int`): width and height of the result in pixels.

    Returns:
        `np.ndarray` of shape `(n, size, size, channels)`: uint8. (OpenCV averages when it halves a picture exactly; this does not,
        and may differ by one grey level then.)
    """
    height, width = crops.shape[1:3]
    if (height, width) == (size, size):
        return crops
    (top, bottom), (above, below) = _fixed_point_taps(height, size)
    (left, right), (before, after) = _fixed_point_taps(width, size)
    # Beyond the outermost centres OpenCV takes a column once, but mixes a row with itself, which rounds otherwise.
    before, after = np.where(left == right, 2048, before), np.where(left == right, 0, after)
    above, below = above[:, None, None], below[:, None, None]
    resized = np.empty((len(crops), size, size, crops.shape[3]), dtype=np.uint8)
    for index, crop in enumerate(crops.astype(np.int32)):
        rows = crop[:, left] * before[:, None] + crop[:, right] * after[:, None]  # scaled by 2^11
        rows >>= 4
        resized[index] = ((above * rows[top] >> 16) + (below * rows[bottom] >> 16) + 2) >> 2
    return resized


def mask_background(crops: np.ndarray) -> np.ndarray:
    """Blacken what lies outside an average face, as OpenFace does by default with the crops it aligns.

    Reference: OpenFace cuts along the jaw it has found, this along a mean jaw.

    Args:
        crops (`np.ndarray` of shape `(T, size, size, 3)`): uint8, from the source "detector".
    """
    size = crops.shape[1]
    outline = _OUTLINE + [(1 - x, y) for x, y in reversed(_OUTLINE[:-1])]
    mask = Image.new("L", (size, size))
    ImageDraw.Draw(mask).polygon([(x * size, y * size) for x, y in outline], fill=1)
    return crops * np.asarray(mask)[None, :, :, None]


def _fixed_point_taps(length: int, size: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Of each output pixel, the two pixels that it mixes and their weights in units of 2^-11."""
    position = ((np.arange(size) + 0.5) * (length / size) - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int32)
    share = position - first
    weights = np.rint((1 - share) * 2048).astype(np.int32), np.rint(share * 2048).astype(np.int32)
    return (np.clip(first, 0, length - 1), np.clip(first + 1, 0, length - 1)), weights


def _crop_file(path: Path, clip: str | os.PathLike | None) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise MediaError(f"{path}: expected a npy file of face crops or a folder of them, got neither. Check the path.")
    name = path.name if clip is None else Path(clip).name
    names = dict.fromkeys([name, Path(name).stem])  # a clip may be named with its suffix, and a name may hold a dot
    candidates = [path / part for name in names for part in (f"{name}.npy", f"{name}/{name}.npy")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    expected = " or ".join(str(candidate.relative_to(path)) for candidate in candidates)
    raise MediaError(
        f"{path}: expected {expected} in this folder of face crops, got no such file. Name the clip, or give the file."
    )


def _stretched(frames: np.ndarray, size: int) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BILINEAR)) for frame in frames])


def _centers(frames: np.ndarray, size: int) -> np.ndarray:
    height, width = frames.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return _stretched(frames[:, top : top + side, left : left + side], size)


def _prominence(face: Face, height: int, width: int) -> float:
    """How much a face looks like the main one: its size in parts of the picture, less at the edges and where it is unsure."""
    offset = math.hypot(face.center.real / width - 0.5, face.center.imag / height - 0.5) * math.sqrt(2)  # 1 in a corner
    return face.score * face.size / min(height, width) * (1 - 0.5 * min(offset, 1.0))


def _difference(face: Face, other: Face) -> float:
    """0 for the same place and size; 1 for what is another face, or the same after a cut or a quick move."""
    distance = abs(face.center - other.center) / ((face.size + other.size) / 2)
    return min(1.0, distance + abs(math.log2(face.size / other.size)))


def _main_track(found: list[list[Face]], height: int, width: int) -> list[Face | None]:
    """One face of each frame, or none, such that the sum of their prominences less the cost of jumps is greatest."""
    ends = []  # of each face so far: (total, frame, face, prominence, index of the one before)
    for frame, faces in enumerate(found):
        before = list(enumerate(ends))
        for face in faces:
            prominence = _prominence(face, height, width)
            best, previous = 0.0, None
            for index, (total, other_frame, other, other_prominence, _) in before:
                cost = _JUMP * min(prominence, other_prominence) * _difference(face, other)
                if other_frame < frame and total - cost > best:
                    best, previous = total - cost, index
            ends.append((best + prominence, frame, face, prominence, previous))
    track: list[Face | None] = [None] * len(found)
    index = max(range(len(ends)), key=lambda index: ends[index][0])
    while index is not None:
        _, frame, track[frame], _, index = ends[index]
    return track


def _notes(track: list[Face | None], found: list[list[Face]], height: int, width: int) -> list[str]:
    notes = []
    num_found = sum(face is not None for face in track)
    if num_found < len(track):
        notes.append(
            f"The face was found in {num_found} of {len(track)} frames; the others are cropped where it was before or after."
        )
    mains = [_prominence(face, height, width) for face in track if face is not None]
    others = [face for main, faces in zip(track, found, strict=True) for face in faces if face is not main]
    if any(_prominence(face, height, width) > np.median(mains) / 2 for face in others):
        notes.append("More than one face was seen; the crops follow the most prominent one.")
    return notes


def _alignments(track: list[Face | None]) -> list[tuple[complex, complex]]:
    """Of each frame, `turn` and `shift` such that `turn * (x + iy) + shift` is a pixel's place in a crop of width 1."""
    known = [index for index, face in enumerate(track) if face is not None]
    target = _LANDMARKS @ np.array([1, 1j])
    landmarks, shots = [], []  # shots: the face that a frame shows or is nearest to, and the number of cuts before it
    for index in range(len(track)):
        before = max((place for place in known if place <= index), default=known[0])
        after = min((place for place in known if place >= index), default=known[-1])
        if _difference(track[before], track[after]) == 1:  # a cut between them: the nearer one
            before = after = before if index - before <= after - index else after
        share = (index - before) / max(after - before, 1)
        points = (1 - share) * track[before].landmarks + share * track[after].landmarks
        landmarks.append(points @ np.array([1, 1j]))
        shown = track[before if share < 0.5 else after]
        last, num_cuts = shots[-1] if shots else (shown, 0)
        shots.append((shown, num_cuts + (_difference(shown, last) == 1)))
    turns = []
    for points in landmarks:  # least squares; in complex numbers, turning and scaling is one factor
        points = points - points.mean()
        turns.append(np.vdot(points, target - target.mean()) / np.vdot(points, points).real)
    sizes = np.log(np.abs(turns))
    alignments = []
    for index, (points, turn) in enumerate(zip(landmarks, turns, strict=True)):
        near = [place for place in (index - 1, index, index + 1) if 0 <= place < len(track) and shots[place][1] == shots[index][1]]
        smooth = np.average(sizes[near], weights=[2 if place == index else 1 for place in near])
        turn = turn * math.exp(smooth - sizes[index])
        alignments.append((turn, target.mean() - turn * points.mean()))
    return alignments


def _crop(frame: np.ndarray, turn: complex, shift: complex, size: int) -> np.ndarray:
    """`(height, width, 3)` -> `(size, size, 3)`; black beyond the picture, as with OpenFace."""
    height, width = frame.shape[:2]
    corners = [(corner - shift) / turn for corner in (0, 1, 1j, 1 + 1j)]
    left = max(0, math.floor(min(corner.real for corner in corners)) - 1)
    top = max(0, math.floor(min(corner.imag for corner in corners)) - 1)
    right = min(width, math.ceil(max(corner.real for corner in corners)) + 1)
    bottom = min(height, math.ceil(max(corner.imag for corner in corners)) + 1)
    if left >= right or top >= bottom:
        return np.zeros((size, size, 3), dtype=np.uint8)
    image = Image.fromarray(frame[top:bottom, left:right])
    factor = max(1, int(1 / (abs(turn) * size)))  # averaged before it is made much smaller, else it flickers
    image = image.reduce(factor)
    inverse = 1 / (turn * size * factor)
    origin = (-shift / turn - complex(left, top)) / factor
    # Pillow asks where each pixel of the result comes from.
    matrix = (inverse.real, -inverse.imag, origin.real, inverse.imag, inverse.real, origin.imag)
    return np.asarray(image.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))


# Of mtcnn 1.0.0. The files are pickles, which can run code: only these are opened.
_WEIGHTS = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}
_LONGER_SIDE = 640  # pixels to which a frame is reduced for the search
_SMALLEST_FACE = 24  # pixels in that picture
_PYRAMID_STEP = 0.709  # half the area, as in the paper
_CELL, _STRIDE = 12, 2  # pixels that the first network sees, and its step
_THRESHOLDS = (0.6, 0.7, 0.7)  # confidence that each network asks for, as in the code of the paper
_MAX_PROPOSALS = 300  # that go on from the first network: bounds the work on pictures full of texture


def is_detector_installed() -> bool:
    """Whether the extra `faces` is installed."""
    return importlib.util.find_spec("mtcnn") is not None and importlib.util.find_spec("joblib") is not None


@functools.cache
def _default_detector() -> "FaceDetector":
    return FaceDetector()


class FaceDetector:
    """MTCNN: three small networks that propose, refine and place faces. Needs the extra `faces`; runs on the CPU.

    Called with a frame `(height, width, 3)`, uint8 RGB, it gives the faces in it, `list[Face]`, surest first. It finds those of at
    least 24 pixels once the frame is reduced to 640, that is 4 % of the longer side, tilted by up to about 45 degrees.

    Raises:
        ImportError: if the extra is not installed.
        RuntimeError: if the weights are not those of mtcnn 1.0.0.
    """

    def __init__(self):
        if not is_detector_installed():
            raise ImportError(
                "Expected the package `mtcnn` for finding faces, got none. Install it: `pip install affectgpt[faces]`."
            )
        # The package itself is not imported: that would need TensorFlow.
        folder = Path(importlib.util.find_spec("mtcnn").submodule_search_locations[0], "assets", "weights")
        self._weights = {name: _read_weights(folder / f"{name}.lz4", digest) for name, digest in _WEIGHTS.items()}

    @torch.inference_mode()
    def __call__(self, frame: np.ndarray) -> list[Face]:
        height, width = frame.shape[:2]
        image = Image.fromarray(frame)
        scale = min(1.0, _LONGER_SIDE / max(height, width))
        if scale < 1:
            reduced = (max(1, round(width * scale)), max(1, round(height * scale)))
            image = image.resize(reduced, Image.Resampling.BOX, reducing_gap=2.0)
        scale = np.array([image.width / width, image.height / height])
        boxes = self._propose(image)
        boxes, _ = self._refine(image, boxes, "rnet", 24, _THRESHOLDS[1])
        boxes, landmarks = self._refine(image, boxes, "onet", 48, _THRESHOLDS[2])
        return [
            Face(box=tuple((box[:4].reshape(2, 2) / scale).ravel().tolist()), landmarks=points / scale, score=float(box[4]))
            for box, points in zip(boxes, landmarks, strict=True)
        ]

    def _propose(self, image: Image.Image) -> np.ndarray:
        """Boxes `(n, 5)` (left, top, right, bottom, confidence) that may hold a face, at all sizes."""
        proposals = []
        scale = _CELL / _SMALLEST_FACE
        while min(image.size) * scale >= _CELL:
            scaled = image.resize((math.ceil(image.width * scale), math.ceil(image.height * scale)), Image.Resampling.BOX)
            features, heads = _convolve(_pixels([scaled]), self._weights["pnet"], pools=(2, None, None))
            offsets = functional.conv2d(features, *heads[:2])[0]
            confidence = functional.conv2d(features, *heads[2:])[0].softmax(0)[1]
            rows, columns = torch.nonzero(confidence > _THRESHOLDS[0], as_tuple=True)
            corner = torch.stack([columns, rows, columns, rows]) * _STRIDE + torch.tensor([[0], [0], [_CELL], [_CELL]])
            boxes = (corner + offsets[:, rows, columns] * _CELL) / scale
            boxes = torch.cat([boxes, confidence[None, rows, columns]]).T.double().numpy()
            proposals.append(boxes[_suppress(boxes, 0.5)])
            scale *= _PYRAMID_STEP
        boxes = np.concatenate([np.empty((0, 5)), *proposals])
        return boxes[_suppress(boxes, 0.7)][:_MAX_PROPOSALS]

    def _refine(
        self, image: Image.Image, boxes: np.ndarray, name: str, side: int, threshold: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """The boxes that the network `name` confirms, moved as it asks, and the landmarks `(n, 5, 2)` if it gives them."""
        boxes = _squared(boxes)
        if not len(boxes):
            return boxes, np.empty((0, 5, 2))
        # Rounded, and black beyond the picture, as in the paper's code.
        patches = [image.crop(box).resize((side, side), Image.Resampling.BOX) for box in boxes[:, :4].tolist()]
        pools = {"rnet": (3, 3, None), "onet": (3, 3, 2, None)}[name]
        features, (weight, bias, slope, *heads) = _convolve(_pixels(patches), self._weights[name], pools)
        features = features.permute(0, 3, 2, 1).flatten(1)  # the weights count columns first
        features = functional.prelu(functional.linear(features, weight, bias), slope)
        *outputs, confidence = [functional.linear(features, *heads[index : index + 2]) for index in range(0, len(heads), 2)]
        confidence = confidence.softmax(1)[:, 1].double().numpy()
        extent = boxes[:, 2:4] - boxes[:, :2]
        moved = boxes[:, :4] + outputs[0].double().numpy() * np.tile(extent, 2)
        landmarks = np.empty((len(boxes), 5, 2))
        if len(outputs) > 1:
            landmarks = outputs[1].double().numpy().reshape(-1, 2, 5).transpose(0, 2, 1) * extent[:, None] + boxes[:, None, :2]
        boxes = np.column_stack([moved, confidence])
        sure = np.flatnonzero(confidence > threshold)
        kept = sure[_suppress(boxes[sure], 0.7, of_smaller=name == "onet")]
        return boxes[kept], landmarks[kept]


def _read_weights(path: Path, digest: str) -> list[torch.Tensor]:
    import joblib

    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise RuntimeError(
            f"{path}: expected the weights of mtcnn 1.0.0, got others or none. Run `pip install --force-reinstall mtcnn==1.0.0`."
        )
    weights = []
    for array in joblib.load(path):
        tensor = torch.from_numpy(np.array(array, dtype=np.float32))
        if tensor.ndim == 4:  # TensorFlow: height, width, in, out
            tensor = tensor.permute(3, 2, 0, 1)
        elif tensor.ndim == 2:
            tensor = tensor.T
        elif tensor.ndim == 3:  # slopes, one per channel
            tensor = tensor.flatten()
        weights.append(tensor.contiguous())
    return weights


def _pixels(images: list[Image.Image]) -> torch.Tensor:
    """`(n, 3, height, width)` in about [-1, 1]."""
    return (torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float() - 127.5) / 128


def _convolve(
    pixels: torch.Tensor, weights: list[torch.Tensor], pools: tuple[int | None, ...]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What the convolutions make of the pixels, and the weights of the layers after them."""
    for index, pool in enumerate(pools):
        kernel, bias, slope = weights[3 * index : 3 * index + 3]
        pixels = functional.prelu(functional.conv2d(pixels, kernel, bias), slope)
        if pool:
            pixels = functional.max_pool2d(pixels, pool, stride=2, ceil_mode=True)
    return pixels, weights[3 * len(pools) :]


def _squared(boxes: np.ndarray) -> np.ndarray:
    """Boxes made square about their centres and rounded to pixels."""
    center = (boxes[:, :2] + boxes[:, 2:4]) / 2
    half = np.maximum((boxes[:, 2:4] - boxes[:, :2]).max(axis=1, keepdims=True), 1.0) / 2
    left_top = np.rint(center - half)
    return np.column_stack([left_top, left_top + np.maximum(np.rint(2 * half), 1), boxes[:, 4]])


def _suppress(boxes: np.ndarray, threshold: float, *, of_smaller: bool = False) -> np.ndarray:
    """Indices of the boxes, surest first, that overlap a surer one by at most `threshold` of their union (or of the smaller)."""
    order = np.argsort(-boxes[:, 4], kind="stable")
    areas = np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1)
    kept = []
    while len(order):
        first, order = order[0], order[1:]
        kept.append(first)
        overlap = np.minimum(boxes[first, 2:4], boxes[order, 2:4]) - np.maximum(boxes[first, :2], boxes[order, :2])
        shared = np.prod(np.maximum(overlap, 0), axis=1)
        whole = np.minimum(areas[first], areas[order]) if of_smaller else areas[first] + areas[order] - shared
        order = order[shared <= threshold * whole]
    return np.array(kept, dtype=int)
