"""What finding and cropping the face costs, beside reading the clip, and whether memory grows with the size of a picture.

    python benchmarks/faces.py [--repeats 10]

One thread, 8 frames a clip, a photograph of an astronaut (public domain, in scikit-image) that fills the height of the picture.
Needs the extras `faces` and `dev`.
"""

import argparse
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from media_files import make_clip  # noqa: E402
from PIL import Image  # noqa: E402
from skimage import data  # noqa: E402

from affectgpt.faces import FaceDetector, find_faces  # noqa: E402
from affectgpt.media import read_clip  # noqa: E402

NUM_FRAMES = 8
SIZES = ((360, 640), (720, 1280), (2160, 3840))  # height, width


def frames_with_a_face(height: int, width: int) -> np.ndarray:
    """`(NUM_FRAMES, height, width, 3)` uint8 RGB: the photograph moves from left to right."""
    picture = Image.fromarray(data.astronaut()).resize((height, height), Image.Resampling.BICUBIC)
    frames = np.full((NUM_FRAMES, height, width, 3), 120, dtype=np.uint8)
    for index, frame in enumerate(frames):
        left = index * (width - height) // (NUM_FRAMES - 1)
        frame[:, left : left + height] = np.asarray(picture)
    return frames


def median_seconds(function, repeats: int) -> float:
    """Of processor time, which other programs on the machine do not change much."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="calls per figure, of which the median counts")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    detect = FaceDetector()
    for height, width in SIZES:
        frames = frames_with_a_face(height, width)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        num_found = find_faces(frames, detect=detect).num_found
        growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
        finding = median_seconds(lambda frames=frames: find_faces(frames, detect=detect), arguments.repeats)
        with tempfile.TemporaryDirectory() as folder:
            path = make_clip(Path(folder) / "clip.mp4", seconds=3, size=(height, width))
            reading = median_seconds(lambda path=path: read_clip(path, num_frames=NUM_FRAMES), max(arguments.repeats // 3, 1))
        print(
            f"{width} x {height}: {1000 * finding / NUM_FRAMES:.0f} ms a frame, {num_found} of {NUM_FRAMES} found, "
            f"{finding / reading:.2f} of the time that reading a 3 s clip takes ({1000 * reading:.0f} ms), "
            f"peak memory +{growth} MiB (frames {frames.nbytes >> 20} MiB)"
        )


if __name__ == "__main__":
    main()
