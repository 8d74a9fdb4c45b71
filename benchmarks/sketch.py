"""What rendering EMER-Sketch costs, beside encoding the same pictures and sound, and how large its clips are.

    python benchmarks/sketch.py [--clips 60]

One process, processor time. The whole corpus takes as many processes as the machine has cores.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import av
import numpy as np
from PIL import Image

from training.sketch.render import SAMPLING_RATE, encode, render_clip
from training.sketch.scenarios import sample_scenes


def decoded(path: Path) -> tuple[list[Image.Image], np.ndarray]:
    """All pictures of a clip, and its sound, `(num_samples,)` float32."""
    with av.open(str(path)) as container:
        pictures = [frame.to_image() for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return pictures, sound.astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=60, help="clips of the coarse split; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    scenes = sample_scenes("coarse", arguments.clips, arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{scene.name}.mp4" for scene in scenes]
        render_clip(scenes[0], paths[0])
        start = time.process_time()
        for scene, path in zip(scenes, paths, strict=True):
            render_clip(scene, path)
        rendering = time.process_time() - start
        sizes = [path.stat().st_size for path in paths]
        clips = [decoded(path) for path in paths]
        start = time.process_time()
        for pictures, sound in clips:
            encode(Path(folder) / "floor.mp4", pictures, sound, comment="")
        encoding = time.process_time() - start
        seconds = sum(len(sound) for _, sound in clips) / SAMPLING_RATE
    print(
        f"{arguments.clips} clips of {seconds / arguments.clips:.1f} s: {arguments.clips / rendering:.1f} clips a second a core, "
        f"{rendering / encoding:.1f} times the encoding of their pictures and sound; {np.mean(sizes) / 1000:.1f} kB a clip, "
        f"at most {max(sizes) / 1000:.1f}"
    )


if __name__ == "__main__":
    main()
