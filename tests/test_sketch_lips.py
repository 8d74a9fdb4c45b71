import numpy as np
import pytest

from training.sketch.lips import mouth_shapes
from training.sketch.voices import SAMPLING_RATE, VOICES, Speaker, speak

SPAN = 640  # samples of a frame at 25 frames a second
FORMANTS = {
    "oo": (300, 750, 2300),
    "oh": (450, 850, 2400),
    "ah": (750, 1200, 2500),
    "eh": (500, 1900, 2500),
    "ee": (280, 2300, 3000),
}


def vowel(name, *, pitch=120, num_frames=12):
    """Harmonics that fall off by 6 dB an octave, through three resonances; of peak 0.3."""
    times = np.arange(num_frames * SPAN) / SAMPLING_RATE
    sound = np.zeros(len(times))
    for frequency in np.arange(pitch, 7000, pitch):
        gain = pitch / frequency
        for centre, width in zip(FORMANTS[name], (80, 100, 150), strict=True):
            gain *= centre**2 / np.hypot(centre**2 - frequency**2, width * frequency)
        sound += gain * np.sin(2 * np.pi * frequency * times + frequency)
    return 0.3 * sound / np.abs(sound).max()


def spoken(sentence, voice="calm", *, seed=0, language="en"):
    """Speech with a quarter of a second of silence around it, in whole frames."""
    rng = np.random.default_rng(seed)
    waveform = np.pad(speak(sentence, Speaker.sample(rng), voice, 1.0, rng, language=language), 4000)
    return waveform[: len(waveform) // SPAN * SPAN]


def shapes(waveform):
    return mouth_shapes(waveform, len(waveform) // SPAN, SAMPLING_RATE)


@pytest.mark.parametrize("voice", VOICES)
def test_mouth_opens_with_the_loudness(voice):
    for seed, (sentence, language) in enumerate(
        [("You never listen when I talk to you.", "en"), ("你今天怎么才来，我等了很久", "zh")]
    ):
        waveform = spoken(sentence, voice, seed=seed, language=language)
        loudness = np.sqrt((waveform.reshape(-1, SPAN) ** 2).mean(axis=1))
        mouth = shapes(waveform)
        assert mouth.shape == (len(loudness), 2) and mouth.dtype == np.float32
        assert mouth.min() == 0 and mouth.max() <= 1
        assert np.corrcoef(mouth[:, 0], loudness)[0, 1] > 0.9
        assert mouth[:5].max() == mouth[-5:].max() == 0  # silence before and after


def test_mouth_opens_alike_for_soft_and_loud_voices():
    waveform = spoken("They want to move the house again.")
    assert np.allclose(shapes(waveform), shapes(0.1 * waveform), atol=1e-4)


def test_mouth_opens_at_once_and_shuts_in_gaps():
    sound = vowel("ah", num_frames=30)
    sound[10 * SPAN : 20 * SPAN] = 0
    opening = shapes(sound)[:, 0]
    assert opening[0] > 0.8 and opening[20] > 0.8  # the first frames of sound
    assert opening[12:20].max() == 0


@pytest.mark.parametrize("voice", ["hesitant", "laughing"])
def test_mouth_shuts_between_phrases_and_laughs(voice):
    opening = shapes(spoken("You never listen when I talk to you.", voice, seed=2))[6:-6, 0]
    shut = opening < 0.15
    assert (np.diff(shut.astype(int)) == 1).sum() >= 3


@pytest.mark.parametrize("pitch", [90, 120, 200])
def test_mouth_rounds_for_dark_vowels_and_spreads_for_bright_ones(pitch):
    mouth = shapes(np.concatenate([vowel(name, pitch=pitch) for name in FORMANTS]))
    rounding = dict(zip(FORMANTS, mouth[:, 1].reshape(len(FORMANTS), -1)[:, 2:-2].mean(axis=1), strict=True))
    assert min(rounding["oo"], rounding["oh"]) > 0.9
    assert 0.3 < rounding["ah"] < 0.8
    assert max(rounding["eh"], rounding["ee"]) < 0.3


@pytest.mark.parametrize("pitch", [90, 120, 200])
def test_mouth_rounds_for_a_dark_vowel_that_is_all_there_is(pitch):
    rounding = {name: shapes(vowel(name, pitch=pitch))[:, 1].mean() for name in FORMANTS}
    assert min(rounding["oo"], rounding["oh"]) > 0.6 > 0.45 > max(rounding["eh"], rounding["ee"])


@pytest.mark.parametrize("voice", ["calm", "dull", "harsh", "breathy"])
def test_mouth_rounds_by_the_vowel_whatever_the_voice(voice):
    for seed in range(3):
        sounds = [spoken(syllables, voice, seed=seed, language="zh") for syllables in ("五不路", "爸大妈", "你七米")]
        mouth = shapes(np.concatenate(sounds))
        edges = np.cumsum([len(sound) // SPAN for sound in sounds])[:-1]
        dark, open_, bright = (np.average(part[:, 1], weights=part[:, 0]) for part in np.split(mouth, edges))
        assert dark > open_ + 0.2 and open_ > bright + 0.05
        assert dark > 0.6 and bright < 0.35


def test_mouth_hissing_is_not_rounded():
    noise = np.random.default_rng(0).standard_normal(20 * SPAN)
    spectrum = np.fft.rfft(noise)
    spectrum[: len(spectrum) // 2] *= 0.1  # below 4 kHz
    sounds = np.concatenate([vowel("ah", num_frames=20), 0.05 * np.fft.irfft(spectrum)])
    rounding = shapes(sounds)[:, 1]
    assert rounding[22:].mean() < 0.5 * rounding[2:18].mean()


def test_mouth_stays_shut_in_silence():
    assert not mouth_shapes(np.zeros(10 * SPAN), 10, SAMPLING_RATE).any()


def test_mouth_keeps_time_with_any_frame_rate():
    waveform = spoken("I found your letter on the table.")
    for num_frames in (30, 47, 80):
        mouth = mouth_shapes(waveform, num_frames, SAMPLING_RATE)
        assert mouth.shape == (num_frames, 2)
        assert mouth[: num_frames // 20].max() == 0 and mouth[:, 0].max() > 0.9


@pytest.mark.parametrize(("waveform", "num_frames"), [(np.zeros((2, 16_000)), 25), (np.zeros(1000), 25), (np.zeros(16_000), 0)])
def test_mouth_of_no_mono_speech_raises(waveform, num_frames):
    with pytest.raises(ValueError, match=f"at least 10 ms for each of {num_frames} frames, got samples of shape"):
        mouth_shapes(waveform, num_frames, SAMPLING_RATE)
