"""Sound -> normalised log-mels for the ImageBind audio tower, in plain torch.

Kaldi's filter bank features of short clips cut from the sound, as ImageBind's and Video-LLaMA's loaders make them (torchaudio's
`compliance.kaldi.fbank` with a hanning window and no dither). The reference's traits are marked `# Reference:`.
"""

from fractions import Fraction

import numpy as np
import torch
from transformers import BatchFeature
from transformers.feature_extraction_utils import FeatureExtractionMixin

FRAME_LENGTH_S = 0.025
FRAME_SHIFT_S = 0.010
PREEMPHASIS = 0.97
LOWEST_FREQUENCY = 20.0
# Decoded sound overshoots [-1, 1] a little (lossy codecs, resampling); 16-bit integers in a float array exceed it by thousands.
LARGEST_AMPLITUDE = 8.0


def mel_filter_bank(num_mel_bins: int, fft_length: int, sampling_rate: int) -> torch.Tensor:
    """Kaldi's triangular mel filters from 20 Hz to half the sampling rate: `(fft_length // 2 + 1, num_mel_bins)`.

    At 512 points and 128 bins some low filters fall between two frequencies and stay empty.
    """

    def mel(frequency):
        return 1127.0 * torch.log1p(frequency / 700.0)

    frequencies = torch.arange(fft_length // 2 + 1, dtype=torch.float64) * sampling_rate / fft_length
    low, high = mel(torch.tensor([LOWEST_FREQUENCY, sampling_rate / 2], dtype=torch.float64))
    edges = low + (high - low) * torch.arange(num_mel_bins + 2, dtype=torch.float64) / (num_mel_bins + 1)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    position = mel(frequencies)[:, None]
    filters = torch.minimum((position - left) / (centre - left), (right - position) / (right - centre)).clamp(min=0)
    filters[-1] = 0.0  # half the sampling rate itself is the upper edge of the last filter
    return filters.float()


class ImageBindAudioFeatureExtractor(FeatureExtractionMixin):
    """Cuts `num_clips` clips out of a sound and turns each into log-mels.

    Args:
        num_clips: clips per sound, evenly spaced from its start; they overlap when the sound is short.
        clip_duration: seconds of one clip. A shorter sound is padded with silence.
        sampling_rate: in Hz; other rates are refused, not resampled.
        num_mel_bins: mel filters.
        num_frames: mel frames of one clip; 2 s give 198, the rest is padding.
        mean, std: the log-mels become `(x - mean) / std`.
    """

    model_input_names = ["input_features"]

    def __init__(
        self,
        num_clips: int = 8,
        clip_duration: float = 2.0,
        sampling_rate: int = 16_000,
        num_mel_bins: int = 128,
        num_frames: int = 204,
        mean: float = -4.268,
        std: float = 9.138,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_clips = num_clips
        self.clip_duration = clip_duration
        self.sampling_rate = sampling_rate
        self.num_mel_bins = num_mel_bins
        self.num_frames = num_frames
        self.mean = mean
        self.std = std
        # `FeatureExtractionMixin.to_dict` leaves out these two names.
        self.window = torch.hann_window(round(FRAME_LENGTH_S * sampling_rate), periodic=False)
        self.mel_filters = mel_filter_bank(num_mel_bins, self._fft_length, sampling_rate)

    @property
    def _clip_length(self) -> int:
        return int(Fraction(self.clip_duration) * self.sampling_rate)

    @property
    def _fft_length(self) -> int:
        return 1 << (round(FRAME_LENGTH_S * self.sampling_rate) - 1).bit_length()

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
            `input_features` of shape `(B, num_clips, num_mel_bins, num_frames)`, float32.

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
        # One clip at a time is faster than all at once: its frames stay in the processor's cache.
        features = torch.stack([torch.stack([self._log_mels(clip) for clip in self._cut(_as_channels(sound))]) for sound in sounds])
        return BatchFeature(
            {"input_features": features if return_tensors == "pt" else features.numpy()}, tensor_type=return_tensors
        )

    def _cut(self, waveform: torch.Tensor) -> list[torch.Tensor]:
        """`(channels, samples)` -> the clips' first channels, `(samples of one clip,)` each."""
        num_channels, num_samples = waveform.shape
        buffer = torch.zeros(num_channels, max(num_samples, self._clip_length))
        buffer[:, :num_samples] = waveform
        clips = []
        for start in self.clip_starts(num_samples):
            clip = buffer[:, start : start + self._clip_length]
            # Reference: the mean over all channels is taken off in place, so that a clip which overlaps an earlier one sees samples
            # already changed; released weights were trained on that. Only the first channel becomes mels.
            clip -= clip.mean()
            clips.append(clip[0].clone())
        return clips

    def _log_mels(self, clip: torch.Tensor) -> torch.Tensor:
        """`(samples,)` -> `(num_mel_bins, num_frames)`."""
        frames = clip.unfold(-1, len(self.window), round(FRAME_SHIFT_S * self.sampling_rate))
        frames = frames - frames.mean(dim=-1, keepdim=True)
        previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        frames = (frames - PREEMPHASIS * previous) * self.window
        spectrum = torch.fft.rfft(frames, n=self._fft_length)
        power = spectrum.real.square() + spectrum.imag.square()
        mels = (power @ self.mel_filters).clamp(min=torch.finfo(torch.float32).eps).log()
        # Reference: padding comes before normalisation, so that it is not 0 but -mean / std.
        mels = torch.nn.functional.pad(mels, (0, 0, 0, self.num_frames - len(mels)))
        return ((mels - self.mean) / self.std).T


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
