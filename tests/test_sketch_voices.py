import functools
import multiprocessing

import numpy as np
import pytest

from training.sketch import voices
from training.sketch.plots import pitch_track, tremor_of, voice_plot
from training.sketch.voices import (
    LANGUAGES,
    MAX_DURATION,
    PLAIN_LEVEL,
    SAMPLING_RATE,
    VOICE_TARGETS,
    VOICES,
    Speaker,
    background,
    prosody_of,
    speak,
    voice_targets,
)

SENTENCES = {
    "en": (
        "You never listen when I talk to you.",
        "I found your letter on the table.",
        "Well, they want to move the house again.",
        "My brother is coming home this evening.",
    ),
    "zh": ("你今天怎么才来，我等了很久。", "我把你的信放在桌子上。", "他们又想搬到别的地方去。", "我弟弟今天晚上就回家了。"),
}
LONGEST = {
    "en": "Unfortunately everybody misunderstood the complicated international agreement completely yesterday.",
    "zh": "昨天晚上我们在学校门口等了你很久",
}
SPEAKERS = [  # two low voices, two high
    Speaker("m3", 0.5, 1.0, 1.0, 0.0, -60),
    Speaker("john", 2.0, 1.05, 1.0, 0.0, -60),
    Speaker("f3", 0.0, 0.95, 1.0, 0.0, -60),
    Speaker("steph", 1.5, 1.0, 1.0, 0.0, -60),
]


def speaker(seed):
    return Speaker.sample(np.random.default_rng(seed))


def said(voice, language="en", *, seed=0, intensity=1.0, sentence=None):
    sentence = SENTENCES[language][seed % 4] if sentence is None else sentence
    return speak(sentence, speaker(seed), voice, intensity, np.random.default_rng(seed), language=language)


@functools.cache
def recordings(voice, language, intensity=1.0):
    """Four speakers, each with a sentence of their own."""
    return [
        speak(sentence, who, voice, intensity, np.random.default_rng(place), language=language)
        for place, (who, sentence) in enumerate(zip(SPEAKERS, SENTENCES[language], strict=True))
    ]


@functools.cache
def tracks(voice, language, intensity=1.0):
    return [pitch_track(waveform) for waveform in recordings(voice, language, intensity)]


def averages(measure, language, intensity=1.0, *, of=recordings):
    """The mean of a measure over the speakers, by voice."""
    return {voice: np.mean([measure(item) for item in of(voice, language, intensity)]) for voice in VOICES}


def quantile(share):
    def measure(pitches):
        voiced = pitches[~np.isnan(pitches)]
        return np.quantile(voiced, share) if len(voiced) else 0.0

    return measure


def level(waveform):
    return 20 * np.log10(np.sqrt(np.mean(waveform**2)))


def envelope(waveform):
    """Root mean square of every 10 ms."""
    frames = waveform[: len(waveform) // 160 * 160].reshape(-1, 160)
    return np.sqrt((frames.astype(float) ** 2).mean(axis=1))


def silences(waveform):
    """Seconds of each silence inside the speech."""
    loud = np.flatnonzero(envelope(waveform) > 0.02 * envelope(waveform).max())
    return (np.diff(loud) - 1) / 100


def spectrogram(waveform):
    frames = np.lib.stride_tricks.sliding_window_view(waveform, 400)[::160]
    return np.abs(np.fft.rfft(frames * np.hanning(400), 512)) ** 2


def beat(waveform):
    """How regularly the loudness comes and goes five times a second."""
    moving = envelope(waveform) / envelope(waveform).max()
    moving = moving - moving.mean()
    return (moving[:-20] * moving[20:]).mean() / moving.var()


def hearing(waveform):
    """Plain measurements: level, length, silence, timbre, fast and slow beating, how voiced and how moved the pitch is."""
    power = spectrogram(waveform)
    decibels = 10 * np.log10(power.sum(axis=1) + 1e-6)
    loud = decibels > np.quantile(decibels, 0.95) - 20
    bands = 10 * np.log10(power[loud].mean(axis=0) + 1e-8)
    low, middle, high = bands[3:16].mean(), bands[32:96].mean(), bands[128:230].mean()
    fine = np.lib.stride_tricks.sliding_window_view(waveform, 64)[::32]
    roughness = np.abs(np.diff(np.log(np.sqrt((fine**2).mean(axis=1)) + 1e-3))).mean()
    pitches = pitch_track(waveform)
    voiced = ~np.isnan(pitches)
    moved = np.subtract(*np.nanquantile(pitches, [0.95, 0.05])) if voiced.any() else 0.0
    longest = silences(waveform).max()
    start = beat(waveform[: int(0.6 * SAMPLING_RATE)])
    steadiness = [voiced.sum() / loud.sum(), moved, tremor_of(pitches)]
    return [level(waveform), len(waveform), middle - low, high - middle, roughness, longest, start, *steadiness]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("voice", VOICES)
def test_speak_every_voice_is_clean_speech_of_a_few_seconds(voice, language):
    for seed, intensity in enumerate((0.4, 0.85, 1.0)):
        waveform = said(voice, language, seed=seed, intensity=intensity)
        assert waveform.dtype == np.float32 and waveform.ndim == 1
        assert 0.8 < len(waveform) / SAMPLING_RATE <= MAX_DURATION
        assert np.isfinite(waveform).all() and np.abs(waveform).max() < 0.96
        assert -40 < level(waveform) < -12


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("voice", ["dull", "hesitant", "laughing"])
def test_speak_longest_sentences_stay_within_a_clip(voice, language):
    for seed in (1, 2):
        assert 2.5 < len(said(voice, language, seed=seed, sentence=LONGEST[language])) / SAMPLING_RATE <= MAX_DURATION


@pytest.mark.parametrize("language", LANGUAGES)
def test_speak_same_seed_same_sound_whatever_was_said_before(language):
    first = said("trembling", language, seed=3), said("laughing", language, seed=3)
    said("harsh", "zh" if language == "en" else "en", seed=4)
    assert np.array_equal(first[1], said("laughing", language, seed=3))
    assert np.array_equal(first[0], said("trembling", language, seed=3))
    assert not np.array_equal(first[0], said("trembling", language, seed=7))


def test_speak_in_a_worker_process_gives_the_same_sound():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for job in (("hesitant", "en"), ("laughing", "zh")):
            assert np.array_equal(pool.apply(said, job), said(*job))


@pytest.mark.parametrize("language", LANGUAGES)
def test_speak_loudness_is_kept(language):
    levels = averages(level, language)
    assert levels["harsh"] > levels["calm"] + 4
    assert levels["breathy"] < levels["calm"] - 4
    assert levels["dull"] < levels["calm"] - 3


@pytest.mark.parametrize("language", LANGUAGES)
def test_speak_pitch_and_its_range_tell_bright_from_dull(language):
    height = averages(quantile(0.5), language, of=tracks)
    assert height["bright"] > height["calm"] + 4
    assert height["laughing"] > height["calm"] + 2.5
    assert height["dull"] < height["calm"] - 1.5
    width = averages(lambda pitches: quantile(0.95)(pitches) - quantile(0.05)(pitches), language, of=tracks)
    assert width["dull"] < 2 and width["dull"] < 0.6 * width["calm"]
    assert width["bright"] > 1.5 * width["calm"] and width["laughing"] > 1.5 * width["calm"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_speak_pace_tells_dull_from_bright(language):
    duration = averages(len, language)
    assert 1.15 * duration["bright"] < duration["calm"] < 0.9 * duration["dull"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_speak_pitch_follows_the_speaker(language):
    low, high = Speaker("m3", -1, 1, 1, 0, -70), Speaker("f3", 2, 1, 1, 0, -70)
    for voice in ("calm", "dull", "bright"):
        sounds = [speak(SENTENCES[language][0], who, voice, 1, np.random.default_rng(0), language=language) for who in (low, high)]
        medians = [np.nanmedian(pitch_track(sound)) for sound in sounds]
        assert medians[1] > medians[0] + 8


@pytest.mark.parametrize("language", LANGUAGES)
def test_speak_trembling_shakes(language):
    shake = averages(tremor_of, language, of=tracks)
    slight = averages(tremor_of, language, 0.45, of=tracks)
    assert shake["trembling"] > 1.0
    for voice in ("calm", "dull", "harsh", "breathy", "hesitant"):
        assert shake["trembling"] > 2 * shake[voice]
    assert 1.3 * slight["calm"] < slight["trembling"] < shake["trembling"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_speak_breathy_loses_its_voicing(language):
    voiced = averages(lambda pitches: np.mean(~np.isnan(pitches)), language, of=tracks)
    assert voiced["breathy"] < 0.1 < 0.5 < min(voiced["calm"], voiced["dull"], voiced["bright"])
    noise = averages(lambda waveform: spectrogram(waveform)[:, 160:].sum() / spectrogram(waveform).sum(), language)  # above 5 kHz
    assert noise["breathy"] > 2 * noise["calm"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_speak_hesitant_pauses_and_only_hesitant(language):
    longest = averages(lambda waveform: silences(waveform).max(), language)
    number = averages(lambda waveform: (silences(waveform) > 0.15).sum(), language)
    slight = averages(lambda waveform: silences(waveform).max(), language, 0.45)
    assert longest["hesitant"] > 0.3 and number["hesitant"] >= 2
    assert max(longest[voice] for voice in VOICES if voice != "hesitant") < 0.16
    assert max(slight[voice] for voice in VOICES if voice != "hesitant") < 0.16 < slight["hesitant"] < longest["hesitant"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_speak_laughing_starts_with_bursts_that_fall_in_pitch(language):
    for who, waveform, pitches in zip(SPEAKERS, recordings("laughing", language), tracks("laughing", language), strict=True):
        loudness = envelope(waveform)[:78]
        is_burst = np.concatenate([[False], loudness > 0.1 * loudness.max(), [False]])
        edges = np.flatnonzero(np.diff(is_burst.astype(int)))
        starts, ends = edges[::2], edges[1::2]
        assert len(starts) == 4
        assert np.all((np.diff(starts) >= 17) & (np.diff(starts) <= 23))  # in 10 ms: five a second
        assert np.all(starts[1:] - ends[:-1] >= 5)
        if who.variant in ("f3", "steph"):  # low voices have few periods in a burst
            falls = [np.diff(pitches[start:end]) for start, end in zip(starts, ends, strict=True)]
            assert np.nanmean(np.concatenate(falls)) < -0.4  # semitones in 10 ms
    rhythm = averages(lambda waveform: beat(waveform[: int(0.8 * SAMPLING_RATE)]), language)
    assert rhythm["laughing"] > 0.5 > 0.35 > max(rhythm[voice] for voice in VOICES if voice != "laughing")


def test_speak_slight_laughter_has_fewer_bursts():
    full, slight = (len(said("laughing", seed=2, intensity=intensity)) for intensity in (1.0, 0.45))
    assert slight < full - 0.2 * SAMPLING_RATE
    assert beat(said("laughing", seed=2, intensity=0.45)[: int(0.4 * SAMPLING_RATE)]) > 0.4


def test_speak_mandarin_has_tones_that_english_readings_lack():
    def rise(character):
        sound = speak(character, SPEAKERS[2], "calm", 1.0, np.random.default_rng(0), language="zh")
        pitches = pitch_track(sound)
        pitches = pitches[~np.isnan(pitches)]
        return np.median(pitches[-4:]) - np.median(pitches[:4])

    assert rise("骂") < rise("妈") - 1 < rise("麻") - 2
    # The characters are syllables, not names of letters.
    lengths = [len(speak("我弟弟回家了", SPEAKERS[2], "calm", 1, np.random.default_rng(0), language=code)) for code in ("zh", "en")]
    assert 0.8 * SAMPLING_RATE < lengths[0] < 0.7 * lengths[1]


def test_speak_mandarin_pauses_at_punctuation_and_keeps_every_character():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        for sentence in (*SENTENCES["zh"], "他真的太好了！"):
            phrases = voices._phrases(sentence, 3, rng, "zh")
            assert "".join(phrases) == sentence and len(phrases) >= 2
            assert all(2 <= sum(character.isalnum() for character in phrase) <= 8 for phrase in phrases)
        assert any(phrase.endswith("，") for phrase in voices._phrases(SENTENCES["zh"][0], 3, rng, "zh"))


def test_speak_lone_punctuation_is_never_a_phrase():
    for seed in range(5):
        assert said("hesitant", seed=seed, sentence="I know - and you - too .").size


@pytest.mark.parametrize("sentence", ["", "...", "   ", "。"])
def test_speak_nothing_to_say_raises(sentence):
    for voice in ("calm", "hesitant", "laughing"):
        with pytest.raises(ValueError, match="Expected English words"):
            said(voice, sentence=sentence)
        with pytest.raises(ValueError, match="Expected Chinese characters"):
            said(voice, "zh", sentence=sentence)


def test_speak_endless_sentence_raises():
    with pytest.raises(ValueError, match="at most 3.3 s, got 'You never"):
        said("calm", sentence=" ".join(SENTENCES["en"]) * 3)


def test_speak_unknown_language_raises():
    with pytest.raises(ValueError, match="Expected a language among en, zh, got 'de'. Use"):
        speak("Guten Tag", SPEAKERS[0], "calm", 1, np.random.default_rng(0), language="de")


def test_speak_unknown_voice_raises():
    with pytest.raises(ValueError, match="Expected a voice among calm, .*, got 'angry'"):
        said("angry")


def test_speak_unknown_variant_raises():
    with pytest.raises(ValueError, match="Expected a variant among m1, .*, got 'nobody'"):
        speak(SENTENCES["en"][0], Speaker("nobody", 0, 1, 1, 0, -60), "calm", 1, np.random.default_rng(0))


def test_voices_of_unseen_speakers_are_told_apart_by_plain_measurements():
    names = list(VOICES)

    def heard(stream, count, low, high):
        rows = []
        for index in range(count * len(names)):
            rng = np.random.default_rng([stream, index])
            language = ("en", "zh")[index // len(names) % 2]
            who = Speaker.sample(rng)
            waveform = speak(
                SENTENCES[language][rng.integers(4)], who, names[index % len(names)], rng.uniform(low, high), rng, language=language
            )
            rows.append(hearing(waveform + background(len(waveform), who, rng)))
        return np.array(rows), np.arange(count * len(names)) % len(names)

    for (low, high), least in (((0.85, 1.0), 0.9), ((0.4, 0.55), 0.65)):
        known, truth = heard(1, 6, low, high)
        unseen, unseen_truth = heard(2, 4, low, high)
        centres = np.array([known[truth == place].mean(axis=0) for place in range(len(names))])
        spread = np.mean([known[truth == place].var(axis=0) for place in range(len(names))], axis=0)
        nearest = (((unseen[:, None] - centres) ** 2) / spread).sum(axis=2).argmin(axis=1)
        assert (nearest == unseen_truth).mean() > least  # chance is 0.125


def test_background_is_noise_at_the_level_of_the_recording():
    for noise in (-68, -52):
        who = Speaker("m3", 0, 1, 1, 0, noise)
        sound = background(48_000, who, np.random.default_rng(1))
        assert sound.shape == (48_000,) and sound.dtype == np.float32
        assert abs(level(sound[3_200:-3_200]) - noise) < 1
        assert np.array_equal(sound, background(48_000, who, np.random.default_rng(1)))


def test_background_music_is_soft_and_tonal():
    quiet, musical = Speaker("m3", 0, 1, 1, 0, -90), Speaker("m3", 0, 1, 1, 0, -90, music=-30)
    for seed in range(8):
        noise, sound = (background(60_000, who, np.random.default_rng(seed)) for who in (quiet, musical))
        assert abs(level(sound) - 20 * np.log10(PLAIN_LEVEL) + 30) < 2
        assert np.abs(sound).max() < 0.03
        assert level(noise) < level(sound) - 20
        power = np.sort(np.abs(np.fft.rfft(sound)) ** 2)
        assert power[-len(power) // 50 :].sum() > 0.8 * power.sum()  # few frequencies hold it


def test_background_music_differs_from_clip_to_clip():
    who = Speaker("m3", 0, 1, 1, 0, -90, music=-24)
    peaks = {int(np.abs(np.fft.rfft(background(32_000, who, np.random.default_rng(seed)))).argmax()) for seed in range(8)}
    assert len(peaks) > 5


def test_speaker_sample_gives_music_to_one_in_three():
    levels = [speaker(seed).music for seed in range(400)]
    loud = [music for music in levels if music is not None]
    assert 0.28 < len(loud) / len(levels) < 0.42
    assert -36 <= min(loud) < -34 and -26 < max(loud) <= -24


def test_voice_targets_are_the_prosody_about_in_the_unit_interval():
    for voice in VOICES:
        for seed in range(20):
            targets = voice_targets(speaker(seed), voice, 0.4 + 0.03 * seed)
            assert targets.shape == (len(VOICE_TARGETS),) and targets.dtype == np.float32
            assert targets.min() > -0.2 and targets.max() < 1.2


def test_voice_targets_of_stronger_voices_are_further_from_plain():
    signs = {"trembling": "tremor", "breathy": "breath", "harsh": "roughness", "hesitant": "pauses", "laughing": "laughter"}
    for voice, name in signs.items():
        weak, strong = (voice_targets(speaker(0), voice, intensity)[VOICE_TARGETS.index(name)] for intensity in (0.45, 1.0))
        assert 0.4 < weak < 0.6 < 0.95 < strong


def test_prosody_of_no_intensity_is_plain():
    assert {prosody_of(voice, 0) for voice in VOICES} == {voices.PLAIN}


def test_voice_plot_writes_two_pictures(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("training.sketch.plots.VOICES", {voice: VOICES[voice] for voice in ("calm",)})
    monkeypatch.setattr("training.sketch.plots.NUM_SPEAKERS", 1)
    voice_plot(tmp_path / "voices.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["voices.png", "voices_measured.png"]


@pytest.mark.parametrize("frequency", [70, 110, 200, 420])
def test_pitch_track_of_a_buzz_is_its_frequency(frequency):
    times = np.arange(SAMPLING_RATE) / SAMPLING_RATE
    buzz = sum(np.sin(2 * np.pi * frequency * k * times) / k for k in range(1, 8)) * (times < 0.7)
    pitches = pitch_track(buzz.astype(np.float32))
    assert np.abs(pitches[5:60] - 12 * np.log2(frequency / 100)).max() < 0.5
    assert np.isnan(pitches[75:]).all()
    assert np.isnan(pitch_track(np.random.default_rng(0).standard_normal(SAMPLING_RATE))).mean() > 0.95
