"""Frames of a clip -> normalised pixel values. Works without torchvision."""

import numpy as np
import torch
from PIL import Image
from transformers import BaseImageProcessor, BatchFeature
from transformers.image_processing_utils import get_size_dict
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling
from transformers.processing_utils import ImagesKwargs


class AffectGPTImageProcessorKwargs(ImagesKwargs, total=False):
    """
    Args:
        num_frames (`int`): frames of each clip.
    """

    num_frames: int


class AffectGPTImageProcessor(BaseImageProcessor):
    """Picks `num_frames` frames of each clip, resizes them without regard to the aspect ratio, and normalises them.

    Args:
        size: `{"height": int, "width": int}` of the frames that the model takes.
        num_frames: frames of each clip. Of more, those at `floor(i * n / num_frames)` are taken; of fewer, the last is repeated.
        do_resize: resize frames of another size. Decoded at the right size (`affectgpt.media.read_clip(path, size=...)`), they are
            left as they are, which is how the reference does it.
        resample: Pillow's filter for that.
        do_rescale: divide by 255.
        do_normalize: subtract `image_mean` and divide by `image_std`, per channel.
    """

    model_input_names = ["pixel_values_videos"]
    valid_kwargs = AffectGPTImageProcessorKwargs

    def __init__(
        self,
        size: dict[str, int] | int = 224,
        num_frames: int = 8,
        do_resize: bool = True,
        resample: int = PILImageResampling.BICUBIC,
        do_rescale: bool = True,
        do_normalize: bool = True,
        image_mean: list[float] | tuple[float, ...] = OPENAI_CLIP_MEAN,
        image_std: list[float] | tuple[float, ...] = OPENAI_CLIP_STD,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.size = dict(get_size_dict(size))
        self.num_frames = num_frames
        self.do_resize = do_resize
        self.resample = int(resample)
        self.do_rescale = do_rescale
        self.do_normalize = do_normalize
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)

    def preprocess(
        self,
        images: np.ndarray | torch.Tensor | list[np.ndarray] | list[torch.Tensor],
        num_frames: int | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """
        Args:
            images: frames of one clip, `(T, height, width, 3)` uint8 RGB, or a list of such clips.
            num_frames: in place of the processor's own.
            return_tensors: "pt" or "np"; without it, "np".

        Returns:
            `pixel_values_videos` of shape `(B, num_frames, 3, size["height"], size["width"])`, float32.

        Raises:
            TypeError: if frames are not uint8.
            ValueError: if frames are not of that shape, or there are none.
        """
        clips = images if isinstance(images, (list, tuple)) else [images]
        if len(clips) == 0:
            raise ValueError("Expected frames of at least one clip, got an empty list. Leave the frames out instead.")
        clips = [self._pick_and_resize(clip, num_frames or self.num_frames) for clip in clips]
        sizes = {clip.shape[1:3] for clip in clips}
        if len(sizes) > 1:
            raise ValueError(f"Expected frames of one size with `do_resize=False`, got {sorted(sizes)}. Set `do_resize=True`.")
        pixel_values = (
            torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3).to(torch.float32, memory_format=torch.contiguous_format)
        )
        if self.do_rescale:
            pixel_values /= 255
        if self.do_normalize:
            pixel_values -= torch.tensor(self.image_mean)[:, None, None]
            pixel_values /= torch.tensor(self.image_std)[:, None, None]
        data = {"pixel_values_videos": pixel_values if return_tensors == "pt" else pixel_values.numpy()}
        return BatchFeature(data, tensor_type=return_tensors)

    def _pick_and_resize(self, frames: np.ndarray | torch.Tensor, count: int) -> np.ndarray:
        """`(T, height, width, 3)` -> `(count, size["height"], size["width"], 3)`, both uint8."""
        frames = np.asarray(frames)
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.size == 0:
            raise ValueError(
                f"Expected the RGB frames of a clip, of shape (T, height, width, 3), got {frames.shape}. Stack single frames, put "
                "the channels last, and leave the frames out of a clip that has none."
            )
        if frames.dtype != np.uint8:
            raise TypeError(
                f"Expected uint8 frames with values 0 to 255, got {frames.dtype}. Convert them; they are normalised here."
            )
        num_frames = len(frames)
        if num_frames > count:
            frames = frames[[index * num_frames // count for index in range(count)]]
        elif num_frames < count:
            frames = frames[[min(index, num_frames - 1) for index in range(count)]]
        height, width = self.size["height"], self.size["width"]
        if not self.do_resize or frames.shape[1:3] == (height, width):
            return frames
        return np.stack([np.asarray(Image.fromarray(frame).resize((width, height), self.resample)) for frame in frames])
