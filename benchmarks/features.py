"""How fast sound becomes log-mels, against torchaudio's Kaldi features, and frames become pixel values, against a loop.

    python -m benchmarks.features [--seconds 10] [--repeats 30]

Prints the best of the repeats in milliseconds on one thread, and ratios: above 1, this project is faster.
"""

import argparse
import time
from collections.abc import Callable

import affectgpt  # noqa: F401  (before torchaudio: see affectgpt/_torchaudio_guard.py)

# isort: split
import numpy as np
import torch
from torchaudio.compliance import kaldi

from affectgpt import AffectGPTImageProcessor, ImageBindAudioFeatureExtractor

SAMPLING_RATE = 16_000


def best_ms(run: Callable[[], object], repeats: int) -> float:
    run()
    durations = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        durations.append(1000 * (time.perf_counter() - start))
    return min(durations)


def torchaudio_mels(waveform: torch.Tensor, starts: list[int]) -> torch.Tensor:
    waveform = waveform.clone()
    clips = []
    for start in starts:
        clip = waveform[:, start : start + 2 * SAMPLING_RATE]
        clip -= clip.mean()
        mels = kaldi.fbank(clip, sample_frequency=SAMPLING_RATE, window_type="hanning", num_mel_bins=128)
        clips.append((torch.nn.functional.pad(mels, (0, 0, 0, 204 - len(mels))).T + 4.268) / 9.138)
    return torch.stack(clips)


def frames_one_by_one(frames: np.ndarray, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    return torch.stack([(torch.from_numpy(frame).permute(2, 0, 1).float() / 255 - mean) / std for frame in frames])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the sound")
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)

    extractor = ImageBindAudioFeatureExtractor()
    waveform = torch.from_numpy(0.1 * generator.standard_normal((1, round(arguments.seconds * SAMPLING_RATE)))).float()
    starts = extractor.clip_starts(waveform.shape[1])
    ours = best_ms(lambda: extractor(waveform, return_tensors="pt"), arguments.repeats)
    theirs = best_ms(lambda: torchaudio_mels(waveform, starts), arguments.repeats)
    print(f"log-mels of {len(starts)} clips: {ours:.1f} ms, torchaudio {theirs:.1f} ms, ratio {theirs / ours:.2f}")

    processor = AffectGPTImageProcessor()
    frames = generator.integers(0, 256, (8, 224, 224, 3), dtype=np.uint8)
    mean, std = (torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std))
    ours = best_ms(lambda: processor(frames, return_tensors="pt"), arguments.repeats)
    theirs = best_ms(lambda: frames_one_by_one(frames, mean, std), arguments.repeats)
    print(f"pixel values of 8 frames: {ours:.1f} ms, frame by frame {theirs:.1f} ms, ratio {theirs / ours:.2f}")


if __name__ == "__main__":
    main()
