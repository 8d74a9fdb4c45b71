import multiprocessing

import numpy as np
import pytest

from training.sketch import voices
from training.sketch.text import SENTENCES
from training.sketch.voices import MAX_DURATION, SAMPLING_RATE, VOICE_TARGETS, VOICES, Speaker, prosody_of, speak, voice_targets

SENTENCE = "You never listen when I talk to you."


def speaker(seed):
    return Speaker.sample(np.random.default_rng(seed))


def said(voice, *, seed=0, intensity=1.0, sentence=SENTENCE):
    return speak(sentence, speaker(seed), voice, intensity, np.random.default_rng(seed))


def level(waveform):
    return 20 * np.log10(np.sqrt(np.mean(waveform**2)))


def spectrogram(waveform):
    frames = np.lib.stride_tricks.sliding_window_view(waveform, 400)[::160]
    return np.abs(np.fft.rfft(frames * np.hanning(400), 512)) ** 2


def hearing(waveform):
    """Plain measurements: level, length, silence, timbre, fast and slow beating, how voiced and how moved the pitch is."""
    power = spectrogram(waveform)
    energy = power.sum(axis=1)
    decibels = 10 * np.log10(energy + 1e-6)
    loud = decibels > np.quantile(decibels, 0.95) - 20
    bands = 10 * np.log10(power[loud].mean(axis=0) + 1e-8)
    low, middle, high = bands[3:16].mean(), bands[32:96].mean(), bands[128:230].mean()
    fine = np.lib.stride_tricks.sliding_window_view(waveform, 64)[::32]
    roughness = np.abs(np.diff(np.log(np.sqrt((fine**2).mean(axis=1)) + 1e-3))).mean()
    semitones, voiced = pitch(waveform)
    moving = semitones - np.convolve(np.pad(semitones, 12, mode="edge"), np.ones(25) / 25, "valid")
    shake = np.abs(np.fft.rfft(moving * np.hanning(len(moving)), 1024))[int(4.5 * 10.24) : int(7.5 * 10.24)].mean()
    silence = 1 - loud.mean()
    return [level(waveform), len(waveform), silence, middle - low, high - middle, roughness, voiced, semitones.std(), shake]


def pitch(waveform):
    """Semitones above 100 Hz every 10 ms, bridged where there is no voicing, and the share of voiced frames."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform, 800)[::160]
    window = np.hanning(800)
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames * window, 2048)) ** 2) / np.fft.irfft(
        np.abs(np.fft.rfft(window, 2048)) ** 2
    ).clip(1e-3)
    shortest, longest = SAMPLING_RATE // 450, SAMPLING_RATE // 65
    lags = shortest + correlation[:, shortest:longest].argmax(axis=1)
    strength = correlation[np.arange(len(lags)), lags] / correlation[:, 0]
    voiced = (strength > 0.45) & (frames.std(axis=1) > 0.008)
    if voiced.sum() < 5:
        return np.zeros(len(lags)), 0.0
    semitones = 12 * np.log2(SAMPLING_RATE / lags / 100)
    return np.interp(np.arange(len(lags)), np.flatnonzero(voiced), semitones[voiced]), float(voiced.mean())


@pytest.mark.parametrize("voice", VOICES)
def test_speak_every_voice_is_clean_speech_of_a_few_seconds(voice):
    for seed in range(4):
        waveform = said(voice, seed=seed, intensity=0.6 + 0.1 * seed)
        assert waveform.dtype == np.float32 and waveform.ndim == 1
        assert 0.8 < len(waveform) / SAMPLING_RATE < MAX_DURATION + 0.3
        assert np.isfinite(waveform).all() and np.abs(waveform).max() < 0.96
        assert -40 < level(waveform) < -12


def test_speak_longest_sentences_stay_within_a_clip():
    longest = sorted((s for lists in SENTENCES.values() for part in lists.values() for s in part), key=len)[-3:]
    for sentence in longest:
        for voice in ("dull", "hesitant"):
            assert len(said(voice, sentence=sentence)) / SAMPLING_RATE < MAX_DURATION + 0.3


def test_speak_every_sentence_sounds():
    sentences = [s for lists in SENTENCES.values() for part in lists.values() for s in part][::8]
    for index, sentence in enumerate(sentences):
        assert len(said("bright", seed=index, sentence=sentence)) > 0.8 * SAMPLING_RATE


def test_speak_same_seed_same_sound_whatever_was_said_before():
    first = said("trembling", seed=3)
    said("harsh", seed=4)
    assert np.array_equal(first, said("trembling", seed=3))
    assert not np.array_equal(first, said("trembling", seed=5))


def test_speak_in_a_worker_process_gives_the_same_sound():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert np.array_equal(pool.apply(said, ("hesitant",)), said("hesitant"))


def test_speak_loudness_is_kept():
    levels = {voice: np.mean([level(said(voice, seed=seed)) for seed in range(4)]) for voice in VOICES}
    assert levels["harsh"] > levels["calm"] + 4
    assert levels["breathy"] < levels["calm"] - 4
    assert levels["dull"] < levels["calm"] - 3


def test_speak_pitch_follows_the_speaker():
    low, high = Speaker("m3", -1, 1, 1, 0, -70), Speaker("f3", 2, 1, 1, 0, -70)
    for voice in ("calm", "dull", "bright"):
        medians = [np.median(pitch(speak(SENTENCE, who, voice, 1, np.random.default_rng(0)))[0]) for who in (low, high)]
        assert medians[1] > medians[0] + 8


@pytest.mark.parametrize("sentence", ["", "...", "   "])
def test_speak_nothing_to_say_raises(sentence):
    for voice in ("calm", "hesitant"):
        with pytest.raises(ValueError, match="Expected English words"):
            said(voice, sentence=sentence)


def test_speak_unknown_voice_raises():
    with pytest.raises(ValueError, match="Expected a voice among calm, .*, got 'angry'"):
        said("angry")


def test_speak_unknown_variant_raises():
    with pytest.raises(ValueError, match="Expected a variant among m1, .*, got 'nobody'"):
        speak(SENTENCE, Speaker("nobody", 0, 1, 1, 0, -60), "calm", 1, np.random.default_rng(0))


def test_voices_of_unseen_speakers_are_told_apart_by_plain_measurements():
    names = list(VOICES)
    sentences = [sentence for lists in SENTENCES.values() for sentence in lists["held_out"]]

    def heard(stream, count):
        rows = []
        for index in range(count * len(names)):
            rng = np.random.default_rng([stream, index])
            sentence = sentences[rng.integers(len(sentences))]
            rows.append(hearing(speak(sentence, Speaker.sample(rng), names[index % len(names)], rng.uniform(0.6, 1), rng)))
        return np.array(rows), np.arange(count * len(names)) % len(names)

    known, truth = heard(1, 10)
    unseen, unseen_truth = heard(2, 6)
    centres = np.array([known[truth == place].mean(axis=0) for place in range(len(names))])
    spread = np.mean([known[truth == place].var(axis=0) for place in range(len(names))], axis=0)
    nearest = (((unseen[:, None] - centres) ** 2) / spread).sum(axis=2).argmin(axis=1)
    assert (nearest == unseen_truth).mean() > 0.75  # chance is 0.14


def test_voice_targets_are_the_prosody_about_in_the_unit_interval():
    for voice in VOICES:
        for seed in range(20):
            targets = voice_targets(speaker(seed), voice, 0.6 + 0.02 * seed)
            assert targets.shape == (len(VOICE_TARGETS),) and targets.dtype == np.float32
            assert targets.min() > -0.2 and targets.max() < 1.2


def test_voice_targets_of_stronger_voices_are_further_from_plain():
    who = speaker(0)
    for voice, name in (("trembling", "tremor"), ("breathy", "breath"), ("harsh", "roughness"), ("hesitant", "pauses")):
        weak, strong = (voice_targets(who, voice, intensity)[VOICE_TARGETS.index(name)] for intensity in (0.6, 1.0))
        assert 0.5 < weak < strong


def test_prosody_of_no_intensity_is_plain():
    assert {prosody_of(voice, 0) for voice in VOICES} == {voices.PLAIN}
