"""Frames -> pixel values."""

import numpy as np
import pytest
import torch
from PIL import Image

from affectgpt import AffectGPTImageProcessor


def make_frames(num_frames: int, height: int = 28, width: int = 28, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def test_frames_of_the_right_size_are_only_normalised():
    processor, frames = AffectGPTImageProcessor(size=28, num_frames=4), make_frames(4)
    pixel_values = processor(frames, return_tensors="pt").pixel_values_videos
    assert pixel_values.shape == (1, 4, 3, 28, 28)
    assert pixel_values.dtype == torch.float32
    expected = (torch.from_numpy(frames) / 255 - torch.tensor(processor.image_mean)) / torch.tensor(processor.image_std)
    assert torch.equal(pixel_values[0], expected.permute(0, 3, 1, 2))


def test_frames_of_another_size_are_resized_without_regard_to_the_aspect_ratio():
    processor = AffectGPTImageProcessor(size={"height": 28, "width": 42}, num_frames=2, do_rescale=False, do_normalize=False)
    frames = make_frames(2, height=50, width=90)
    pixel_values = processor(frames, return_tensors="np").pixel_values_videos
    assert pixel_values.shape == (1, 2, 3, 28, 42)
    expected = np.asarray(Image.fromarray(frames[1]).resize((42, 28), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(pixel_values[0, 1], expected.transpose(2, 0, 1))


@pytest.mark.parametrize(("num_given", "expected"), [(1, [0, 0, 0, 0]), (3, [0, 1, 2, 2]), (4, [0, 1, 2, 3]), (9, [0, 2, 4, 6])])
def test_other_numbers_of_frames_are_sampled_or_filled_up(num_given, expected):
    processor = AffectGPTImageProcessor(size=28, num_frames=4, do_rescale=False, do_normalize=False)
    frames = np.arange(num_given, dtype=np.uint8)[:, None, None, None] * np.ones((1, 28, 28, 3), dtype=np.uint8)
    assert processor(frames, return_tensors="pt").pixel_values_videos[0, :, 0, 0, 0].tolist() == expected


def test_batch_of_different_clips_equals_single_clips():
    processor = AffectGPTImageProcessor(size=28, num_frames=3)
    clips = [make_frames(3), torch.from_numpy(make_frames(5, height=40, seed=1))]
    batch = processor(clips, return_tensors="pt").pixel_values_videos
    assert batch.shape == (2, 3, 3, 28, 28)
    for row, clip in zip(batch, clips, strict=True):
        assert torch.equal(row, processor(clip, return_tensors="pt").pixel_values_videos[0])


def test_caller_s_frames_are_left_unchanged():
    frames = make_frames(2)
    before = frames.copy()
    AffectGPTImageProcessor(size=28, num_frames=2)(frames)
    np.testing.assert_array_equal(frames, before)


def test_save_and_load_keeps_every_setting(tmp_path):
    processor = AffectGPTImageProcessor(size=112, num_frames=5, do_normalize=False, image_mean=[0.5, 0.4, 0.3])
    processor.save_pretrained(tmp_path)
    loaded = AffectGPTImageProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    assert loaded.size == {"height": 112, "width": 112}
    assert AffectGPTImageProcessor.from_pretrained(tmp_path, num_frames=2).num_frames == 2


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (make_frames(1)[0], ValueError, r"of shape \(T, height, width, 3\), got \(28, 28, 3\)"),
        (make_frames(1).transpose(0, 3, 1, 2), ValueError, "channels last"),
        (make_frames(0), ValueError, r"got \(0, 28, 28, 3\)"),
        (make_frames(2).astype(np.float32), TypeError, "Expected uint8 frames with values 0 to 255, got float32"),
        ([], ValueError, "empty list"),
    ],
)
def test_unusable_frames_raise(frames, error, message):
    with pytest.raises(error, match=message):
        AffectGPTImageProcessor(size=28)(frames)


def test_clips_of_different_sizes_without_resizing_raise():
    with pytest.raises(ValueError, match="one size with `do_resize=False`"):
        AffectGPTImageProcessor(size=28, num_frames=2, do_resize=False)([make_frames(2), make_frames(2, height=30)])
