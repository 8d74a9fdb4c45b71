"""Sound -> normalised log-mels for the ImageBind audio tower, in plain torch.

Kaldi's filter bank features of short clips cut from the sound, as ImageBind's and Video-LLaMA's loaders make them (torchaudio's
`compliance.kaldi.fbank` with a hanning window and no dither). The reference's traits are marked `# Reference:`.
"""

import torch

from .sound_clips import SoundClipFeatureExtractor

FRAME_LENGTH_S = 0.025
FRAME_SHIFT_S = 0.010
PREEMPHASIS = 0.97
LOWEST_FREQUENCY = 20.0


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


class ImageBindAudioFeatureExtractor(SoundClipFeatureExtractor):
    """Cuts `num_clips` clips out of a sound and turns each into log-mels: `input_features` `(B, num_clips, mel bins, mel frames)`.

    Args:
        num_clips, clip_duration, sampling_rate: as in [`SoundClipFeatureExtractor`].
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
        super().__init__(num_clips=num_clips, clip_duration=clip_duration, sampling_rate=sampling_rate, **kwargs)
        self.num_mel_bins = num_mel_bins
        self.num_frames = num_frames
        self.mean = mean
        self.std = std
        # `FeatureExtractionMixin.to_dict` leaves out these two names.
        self.window = torch.hann_window(round(FRAME_LENGTH_S * sampling_rate), periodic=False)
        self.mel_filters = mel_filter_bank(num_mel_bins, self._fft_length, sampling_rate)

    @property
    def _fft_length(self) -> int:
        return 1 << (round(FRAME_LENGTH_S * self.sampling_rate) - 1).bit_length()

    def extract(self, waveform: torch.Tensor) -> torch.Tensor:
        """`(channels, samples)` -> `(num_clips, num_mel_bins, num_frames)`."""
        mels = []
        for clip in self.cut(waveform):
            # Reference: the mean over all channels is taken off in place, so that a clip which overlaps an earlier one sees samples
            # already changed; released weights were trained on that. Only the first channel becomes mels.
            clip -= clip.mean()
            # One clip at a time is faster than all at once: its frames stay in the processor's cache.
            mels.append(self._log_mels(clip[0]))
        return torch.stack(mels)

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
