"""Sound -> log-mels: against torchaudio's Kaldi features, clip by clip, and what is refused."""

import numpy as np
import pytest
import torch
from torchaudio.compliance import kaldi

from affectgpt import ImageBindAudioFeatureExtractor
from affectgpt.feature_extraction_imagebind import mel_filter_bank

RATE = 16_000


def make_sound(seconds: float, *, channels: int = 1, seed: int = 0) -> np.ndarray:
    """A gliding tone in noise, away from zero on average: `(channels, samples)`, float32."""
    generator = np.random.default_rng(seed)
    times = np.arange(round(seconds * RATE)) / RATE
    tone = 0.3 * np.sin(2 * np.pi * (200 + 60 * times) * times)
    return (0.05 + tone + 0.02 * generator.standard_normal((channels, len(times)))).astype(np.float32)


def torchaudio_mels(waveform: np.ndarray, extractor: ImageBindAudioFeatureExtractor) -> torch.Tensor:
    """One clip after another with torchaudio, each subtraction of the mean seen by the clips that follow."""
    buffer = torch.from_numpy(waveform).clone()
    buffer = torch.nn.functional.pad(buffer, (0, max(0, 2 * RATE - buffer.shape[1])))
    clips = []
    for start in extractor.clip_starts(waveform.shape[1]):
        clip = buffer[:, start : start + 2 * RATE]
        clip -= clip.mean()
        mels = kaldi.fbank(
            clip, htk_compat=True, sample_frequency=RATE, use_energy=False, window_type="hanning", num_mel_bins=128, dither=0.0
        )
        clips.append((torch.nn.functional.pad(mels, (0, 0, 0, 204 - len(mels))).T + 4.268) / 9.138)
    return torch.stack(clips)


@pytest.mark.parametrize("seconds", [0.2, 2.0, 3.3, 17.0, 20.0])
@pytest.mark.parametrize("channels", [1, 2])
def test_mels_equal_torchaudio(seconds, channels):
    extractor = ImageBindAudioFeatureExtractor()
    waveform = make_sound(seconds, channels=channels)
    mels = extractor(waveform, sampling_rate=RATE, return_tensors="pt").input_features
    torch.testing.assert_close(mels[0], torchaudio_mels(waveform, extractor), rtol=0, atol=5e-4)


def test_mel_filters_equal_torchaudio():
    expected, _ = kaldi.get_mel_banks(128, 512, RATE, 20.0, 0.0, 100.0, -500.0, 1.0)
    torch.testing.assert_close(mel_filter_bank(128, 512, RATE)[:-1].T, expected, rtol=0, atol=1e-4)


def test_padding_frames_hold_the_normalised_zero():
    mels = ImageBindAudioFeatureExtractor()(make_sound(2.0), return_tensors="pt").input_features
    torch.testing.assert_close(mels[..., 198:], torch.full((1, 8, 128, 6), 4.268 / 9.138))


def test_overlapping_clips_differ_from_independent_ones_only_where_they_overlap():
    # The reference's in-place subtraction; 20 s hold 8 clips without overlap.
    extractor = ImageBindAudioFeatureExtractor()
    for seconds, equal in ((3.3, False), (20.0, True)):
        waveform = make_sound(seconds)
        waveform[:, 1000:9000] += 0.2
        mels = extractor(waveform, return_tensors="pt").input_features[0]
        alone = [
            ImageBindAudioFeatureExtractor(num_clips=1)(waveform[:, start : start + 2 * RATE], return_tensors="pt").input_features[
                0, 0
            ]
            for start in extractor.clip_starts(waveform.shape[1])
        ]
        assert torch.allclose(mels, torch.stack(alone), atol=1e-4) == equal


def test_caller_s_waveform_is_left_unchanged():
    waveform = make_sound(3.3)
    before = waveform.copy()
    ImageBindAudioFeatureExtractor()(waveform)
    np.testing.assert_array_equal(waveform, before)


def test_batch_of_different_lengths_equals_single_sounds():
    extractor = ImageBindAudioFeatureExtractor(num_clips=2)
    sounds = [make_sound(0.5)[0], make_sound(4.0, seed=1)[0]]
    batch = extractor(sounds, return_tensors="pt").input_features
    assert batch.shape == (2, 2, 128, 204)
    for row, sound in zip(batch, sounds, strict=True):
        torch.testing.assert_close(row, extractor(sound, return_tensors="pt").input_features[0])


def test_output_without_return_tensors_is_numpy():
    assert isinstance(ImageBindAudioFeatureExtractor(num_clips=1)(make_sound(1.0))["input_features"], np.ndarray)


def test_clip_spans_cover_the_sound_that_is_there():
    extractor = ImageBindAudioFeatureExtractor(num_clips=4)
    assert extractor.clip_spans(RATE) == [(0.0, 1.0)] * 4
    assert extractor.clip_spans(10 * RATE) == [(0.0, 2.0), (2.0, 4.0), (4.0, 6.0), (6.0, 8.0)]


def test_save_and_load_gives_the_same_features(tmp_path):
    extractor = ImageBindAudioFeatureExtractor(num_clips=3, mean=-4.0)
    extractor.save_pretrained(tmp_path)
    loaded = ImageBindAudioFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.to_dict() == extractor.to_dict()
    assert {"num_clips", "clip_duration", "num_mel_bins", "num_frames", "sampling_rate", "mean", "std"} < set(loaded.to_dict())
    np.testing.assert_array_equal(loaded(make_sound(1.0)).input_features, extractor(make_sound(1.0)).input_features)


@pytest.mark.parametrize(
    ("waveform", "error", "message"),
    [
        (np.zeros(0, dtype=np.float32), ValueError, r"got \(0,\)"),
        (np.zeros((1, 1, 100), dtype=np.float32), ValueError, r"got \(1, 1, 100\)"),
        (np.zeros((100, 2), dtype=np.float32), ValueError, "Transpose"),
        (np.zeros(100, dtype=np.int16), TypeError, "Divide 16-bit samples by 32768"),
        (np.full(100, 12000.0, dtype=np.float32), ValueError, "values up to 12000"),
        (np.full(100, np.nan, dtype=np.float32), ValueError, "Remove NaN"),
        (np.full(100, -np.inf, dtype=np.float32), ValueError, "Remove NaN"),
        ([], ValueError, "empty list"),
    ],
)
def test_unusable_waveform_raises(waveform, error, message):
    with pytest.raises(error, match=message):
        ImageBindAudioFeatureExtractor()(waveform)


def test_other_sampling_rate_raises():
    with pytest.raises(ValueError, match="Expected sound at 16000 Hz, got 44100 Hz"):
        ImageBindAudioFeatureExtractor()(make_sound(1.0), sampling_rate=44_100)
