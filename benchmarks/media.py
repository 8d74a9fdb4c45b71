"""What reading a clip costs, beside the bare decoders it stands on, and whether memory grows with the length of a file.

    python benchmarks/media.py [--long-minutes 60] [--repeats 20]

Prints ratios measured in one run on clips made on the spot (640 x 360, H.264 + AAC 48 kHz stereo in mp4). Needs the `dev` extra.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

import av  # noqa: E402
import torch  # noqa: E402
from media_files import make_clip  # noqa: E402

from affectgpt.media import read_clip, sample_indices  # noqa: E402

_PEAK_MEMORY = """
import resource, sys
from affectgpt.media import read_clip
clip = read_clip(sys.argv[1], audio="sound" in sys.argv[2])
sound = 0 if clip.waveform is None else clip.waveform.nbytes
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, clip.frames.nbytes + sound, clip.duration)
"""


def bare_decoders(path: str) -> None:
    """The floor: 8 frames by decord's `get_batch`, the packets of the sound decoded by PyAV and dropped."""
    import decord

    reader = decord.VideoReader(path)
    reader.get_batch(sample_indices(len(reader), 8)).asnumpy()
    with av.open(path) as container:
        for frame in container.decode(audio=0):
            frame.to_ndarray()


def repeat_clip(source: Path, path: Path, times: int) -> Path:
    """Write the packets of `source` `times` times in a row."""
    with av.open(str(path), "w") as output:
        streams = None
        shift = 0
        for _ in range(times):
            with av.open(str(source)) as clip:
                streams = streams or [output.add_stream_from_template(stream) for stream in clip.streams]
                for packet in clip.demux():
                    if packet.dts is None:
                        continue
                    offset = round(shift / packet.time_base)
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    packet.stream = streams[packet.stream_index]
                    output.mux(packet)
                shift += clip.duration / av.time_base + 0.1  # the last packet of the sound may reach beyond
    return path


def median_seconds(function, path: str, repeats: int) -> float:
    function(path)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(path)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def peak_memory(path: Path, what: str) -> tuple[int, int, float]:
    """Peak resident bytes of a process that reads the clip, bytes of the arrays that it got, seconds of the clip."""
    command = [sys.executable, "-c", _PEAK_MEMORY, str(path), what]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]).stdout
    peak, arrays, duration = output.split()
    return int(peak), int(arrays), float(duration)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long-minutes", type=int, default=60, help="length of the long clip")
    parser.add_argument("--repeats", type=int, default=20, help="readings per figure, of which the median counts")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as in a DataLoader worker
    form = {"size": (360, 640), "sampling_rate": 48_000, "layout": "stereo", "keyframe_interval": 50}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for seconds in (3, 30):
            path = str(make_clip(folder / f"{seconds}.mp4", seconds=seconds, **form))
            floor = median_seconds(bare_decoders, path, arguments.repeats)
            ours = median_seconds(read_clip, path, arguments.repeats)
            print(f"{seconds} s clip: {1000 * ours:.0f} ms, decord + PyAV alone {1000 * floor:.0f} ms, ratio {ours / floor:.2f}")
        short = make_clip(folder / "minute.mp4", seconds=60, **form)
        long = repeat_clip(short, folder / "long.mp4", arguments.long_minutes)
        for what in ("frames", "frames and sound"):
            short_peak, short_arrays, _ = peak_memory(short, what)
            long_peak, long_arrays, duration = peak_memory(long, what)
            print(
                f"{duration / 60:.0f} min against 1 min, {what}: peak ratio {long_peak / short_peak:.2f} "
                f"({long_peak >> 20} and {short_peak >> 20} MiB, returned arrays {long_arrays >> 20} and {short_arrays >> 20} MiB)"
            )


if __name__ == "__main__":
    main()
