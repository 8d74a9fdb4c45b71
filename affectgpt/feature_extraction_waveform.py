"""Sound -> normalised samples for audio towers that take those: HuBERT and its like."""

import torch

from .sound_clips import SoundClipFeatureExtractor


class WaveformClipFeatureExtractor(SoundClipFeatureExtractor):
    """Cuts `num_clips` clips out of a sound and normalises their samples: `input_values` `(B, num_clips, samples of a clip)`.

    The way of the authors' 2025 model, `my_affectgpt/models/ImageBind/data.py` and `models/encoder.py`, commit d961cab.

    Args:
        num_clips, clip_duration, sampling_rate: as in [`SoundClipFeatureExtractor`].
        do_normalize: bring the clips of one sound together to mean 0 and variance 1.
    """

    model_input_names = ["input_values"]

    def __init__(
        self,
        num_clips: int = 8,
        clip_duration: float = 2.0,
        sampling_rate: int = 16_000,
        do_normalize: bool = True,
        **kwargs,
    ):
        super().__init__(num_clips=num_clips, clip_duration=clip_duration, sampling_rate=sampling_rate, **kwargs)
        self.do_normalize = do_normalize

    def extract(self, waveform: torch.Tensor) -> torch.Tensor:
        """`(channels, samples)` -> `(num_clips, samples of a clip)`."""
        if len(waveform) == 2:
            # Reference: two channels become one; of more, all are kept until the last step, which takes the first.
            waveform = waveform.mean(dim=0, keepdim=True)
        # Reference: each clip loses its own mean, silence that pads it included. Unlike ImageBind's, clips do not share samples.
        clips = torch.stack([(clip - clip.mean())[0] for clip in self.cut(waveform)])
        if self.do_normalize:
            # Reference: over all clips of a sound at once, not clip by clip. (In the authors' training even over all sounds of a
            # batch, which makes a sound's features depend on its neighbours; in their inference, as here.)
            clips = (clips - clips.mean()) / torch.sqrt(clips.var(correction=0) + 1e-7)
        return clips
