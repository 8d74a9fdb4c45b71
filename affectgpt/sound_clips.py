"""What the feature extractors have in common: short clips, evenly spaced, cut out of a sound."""

from fractions import Fraction

import numpy as np
import torch
from transformers import BatchFeature
from transformers.feature_extraction_utils import FeatureExtractionMixin

# Decoded sound overshoots [-1, 1] a little (lossy codecs, resampling); 16-bit integers in a float array exceed it by thousands.
LARGEST_AMPLITUDE = 8.0


class SoundClipFeatureExtractor(FeatureExtractionMixin):
    """Cuts `num_clips` clips out of a sound; a subclass's `extract` makes features of them.

    Args:
        num_clips: clips per sound, evenly spaced from its start; they overlap when the sound is short.
        clip_duration: seconds of one clip. A shorter sound is padded with silence.
        sampling_rate: in Hz; other rates are refused, not resampled.
    """

    def __init__(self, num_clips: int = 8, clip_duration: float = 2.0, sampling_rate: int = 16_000, **kwargs):
        super().__init__(**kwargs)
        self.num_clips = num_clips
        self.clip_duration = clip_duration
        self.sampling_rate = sampling_rate

    def extract(self, waveform: torch.Tensor) -> torch.Tensor:
        """Features of one sound `(channels, samples)`: `(num_clips, ...)`."""
        raise NotImplementedError

    @property
    def _clip_length(self) -> int:
        return int(Fraction(self.clip_duration) * self.sampling_rate)

    def clip_starts(self, num_samples: int) -> list[int]:
        """First sample of each clip in a sound of `num_samples` (padded to one clip if it is shorter).

        Reference: pytorchvideo's sampler works with exact fractions of a float duration and truncates, so that 3.3 s start at
        2599, not 2600; the last `1 / num_clips` of what exceeds one clip is never reached.
        """
        duration = max(num_samples, self._clip_length) / self.sampling_rate
        step = Fraction(max(duration - self.clip_duration, 0.0)) / self.num_clips
        return [int(index * step * self.sampling_rate) for index in range(self.num_clips)]

    def clip_spans(self, num_samples: int) -> list[tuple[float, float]]:
        """Start and end in seconds of each clip in a sound of `num_samples`, without the silence that pads a short one."""
        return [
            (start / self.sampling_rate, min(start + self._clip_length, num_samples) / self.sampling_rate)
            for start in self.clip_starts(num_samples)
        ]

    def cut(self, waveform: torch.Tensor) -> list[torch.Tensor]:
        """`(channels, samples)` -> the clips, `(channels, samples of one clip)` each, views of one padded copy of the sound."""
        num_channels, num_samples = waveform.shape
        padded = torch.zeros(num_channels, max(num_samples, self._clip_length))
        padded[:, :num_samples] = waveform
        return [padded[:, start : start + self._clip_length] for start in self.clip_starts(num_samples)]

    def __call__(
        self,
        raw_speech: np.ndarray | torch.Tensor | list[np.ndarray] | list[torch.Tensor],
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """
        Args:
            raw_speech: one waveform of shape `(samples,)` or `(channels, samples)`, or a list of them; floating point in [-1, 1].
            sampling_rate: of the waveforms in Hz, to be checked against the extractor's.
            return_tensors: "pt" or "np"; without it, "np".

        Returns:
            What `model_input_names` says, of shape `(B, num_clips, ...)`, float32.

        Raises:
            TypeError: if a waveform is not floating point.
            ValueError: if the rate, shape or values of a waveform are not as expected.
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(
                f"Expected sound at {self.sampling_rate} Hz, got {sampling_rate} Hz. Resample it first, for example with "
                "`torchaudio.functional.resample`."
            )
        sounds = raw_speech if isinstance(raw_speech, (list, tuple)) else [raw_speech]
        if len(sounds) == 0:
            raise ValueError("Expected at least one waveform, got an empty list. Leave the sound out instead.")
        features = torch.stack([self.extract(_as_channels(sound)) for sound in sounds])
        data = {self.model_input_names[0]: features if return_tensors == "pt" else features.numpy()}
        return BatchFeature(data, tensor_type=return_tensors)


def _as_channels(sound: np.ndarray | torch.Tensor) -> torch.Tensor:
    """A float32 tensor of shape `(channels, samples)`, or an error that says what is wrong with `sound`."""
    sound = torch.as_tensor(sound)
    if not sound.is_floating_point():
        raise TypeError(f"Expected floating-point samples in [-1, 1], got {sound.dtype}. Divide 16-bit samples by 32768.")
    if sound.ndim not in (1, 2) or sound.numel() == 0:
        raise ValueError(
            f"Expected a waveform of shape (samples,) or (channels, samples), got {tuple(sound.shape)}. Leave the sound out "
            "of a clip that has none."
        )
    if sound.ndim == 2 and sound.shape[0] > sound.shape[1]:
        raise ValueError(f"Expected channels before samples, got a waveform of shape {tuple(sound.shape)}. Transpose it.")
    largest = max(abs(bound.item()) for bound in sound.aminmax())
    if not largest <= LARGEST_AMPLITUDE:
        raise ValueError(
            f"Expected samples in [-1, 1], got values up to {largest:g}. Remove NaN and infinity; divide 16-bit samples by 32768."
        )
    return sound.to(torch.float32).reshape(-1, sound.shape[-1])
