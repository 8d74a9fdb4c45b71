"""Synthetic speech whose prosody carries affect: espeak-ng says the words, numpy does what espeak-ng cannot.

Each of the eight voices is a `Prosody`: how far it departs from a plain reading in pitch, melody, pace, loudness, timbre, tremor,
breath, roughness, pauses and laughter, in English and in Mandarin alike. Speakers differ more in pitch and timbre than voices do,
so neither tells a voice alone. `speak` gives the speech as it leaves the mouth, `background` the room and music behind it.
"""

import _ctypes
import ctypes
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace

import espeakng_loader
import numpy as np

SAMPLING_RATE = 16_000  # Hz
MAX_DURATION = 3.3  # seconds of speech
MAX_PACE = 600  # words per minute; nothing can be made out beyond


@dataclass(frozen=True)
class Prosody:
    """How a sentence is spoken, apart from whose voice it is."""

    pitch: float  # semitones above the speaker's plain reading, in the median
    melody: float  # 0 monotone, 0.5 espeak-ng's usual, 1 twice as wide
    pace: float  # English words per minute inside a phrase; Mandarin keeps step
    loudness: float  # dB above a plain reading
    tilt: float  # dB per octave added above 300 Hz: dark below 0, cutting above
    tremor: float = 0.0  # depth of a shake of 5 to 7 Hz: 1 is 2.6 semitones up and down, and two thirds of the loudness
    breath: float = 0.0  # share of the voicing that turns into noise
    roughness: float = 0.0  # depth of fast irregular beating
    pauses: float = 0.0  # seconds of each gap inside the sentence
    laughter: float = 0.0  # 1 is four bursts before the sentence, three inside it, and words that heave in the same rhythm


PLAIN = Prosody(pitch=0, melody=0.3, pace=170, loudness=0, tilt=0)
VOICES: dict[str, Prosody] = {
    "calm": Prosody(pitch=0, melody=0.3, pace=160, loudness=0, tilt=0),
    "bright": Prosody(pitch=5.5, melody=1.0, pace=220, loudness=2, tilt=3),
    "dull": Prosody(pitch=-2.5, melody=0.0, pace=120, loudness=-5, tilt=-5),
    "harsh": Prosody(pitch=1, melody=0.3, pace=190, loudness=7, tilt=4, roughness=1),
    "trembling": Prosody(pitch=2, melody=0.2, pace=155, loudness=-2, tilt=0, tremor=1, breath=0.2),
    "breathy": Prosody(pitch=-1, melody=0.3, pace=145, loudness=-7, tilt=-1, breath=1),
    "hesitant": Prosody(pitch=0, melody=0.4, pace=190, loudness=-2, tilt=0, pauses=0.4),
    "laughing": Prosody(pitch=4, melody=0.8, pace=205, loudness=1, tilt=1, breath=0.15, laughter=1),
}


@dataclass(frozen=True)
class Reading:
    """How espeak-ng has to be set for its readings of one language to match those of another."""

    voice: str  # of espeak-ng
    pace: float  # its words per minute for one of `Prosody.pace`
    range: tuple[float, float]  # its range parameter (0 to 99) at melody 0 and 1
    lift: tuple[float, float]  # semitones of the median above a monotone at melody 0 and 1 (measured)
    fall: tuple[float, float]  # semitones by which the pitch of a phrase has to fall besides, at melody 0 and 1


LANGUAGES: dict[str, Reading] = {
    "en": Reading("en-us", pace=1.0, range=(0, 99), lift=(0.0, 3.0), fall=(0.0, 0.0)),
    # Without range, Mandarin has no tones; with all of it, they still move less than an English sentence does.
    # At 170 words per minute a character takes 0.26 s, which is slow: 0.2 s is usual.
    "zh": Reading("cmn", pace=1.35, range=(15, 99), lift=(0.0, 0.0), fall=(0.0, 4.5)),
}

VARIANTS = {  # clean voices of espeak-ng, each with its own formants: its pitch in Hz (measured on monotone readings)
    "m1": 81.9,
    "m2": 91.6,
    "m3": 91.0,
    "m4": 79.9,
    "m6": 89.4,
    "m7": 89.6,
    "adam": 89.0,
    "john": 89.9,
    "f1": 159.8,
    "f2": 169.9,
    "f3": 178.4,
    "f4": 160.4,
    "linda": 213.1,
    "steph": 173.2,
}


@dataclass(frozen=True)
class Speaker:
    """Whose voice it is, and how it was recorded; says nothing about what the speaker feels."""

    variant: str  # of espeak-ng: formants and source of the voice
    pitch: float  # semitones above the variant's own
    tract: float  # how much longer than the variant's the vocal tract is
    pace: float  # factor
    gain: float  # dB
    noise: float  # dB of full scale, of the room behind the voice
    music: float | None = None  # dB above the level of a plain reading (below 0), of music behind the voice; None without music

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Speaker":
        """Draw a speaker; `rng` fixes every number. About one in three is heard over music."""
        music = float(rng.uniform(-36, -24)) if rng.uniform() < 0.35 else None
        return cls(
            variant=str(rng.choice(list(VARIANTS))),
            pitch=float(rng.uniform(-1.5, 3.3)),
            tract=float(rng.uniform(0.92, 1.09)),
            pace=float(rng.uniform(0.95, 1.05)),
            gain=float(rng.uniform(-1, 1)),
            noise=float(rng.uniform(-68, -52)),
            music=music,
        )


VOICE_TARGETS = ("pitch", "melody", "pace", "loudness", "tilt", "tremor", "breath", "roughness", "pauses", "laughter")
_TARGET_SPANS = {  # prosody at 0 and at 1
    "pitch": (-5, 21),
    "melody": (0, 1),
    "pace": (115, 225),
    "loudness": (-8, 8),
    "tilt": (-5, 5),
    "tremor": (0, 1),
    "breath": (0, 1),
    "roughness": (0, 1),
    "pauses": (0, 0.4),
    "laughter": (0, 1),
}


def prosody_of(voice: str, intensity: float) -> Prosody:
    """The prosody of a voice, `intensity` of the way from a plain reading to `VOICES`.

    Raises:
        ValueError: if `voice` is not one of `VOICES`.
    """
    if voice not in VOICES:
        raise ValueError(f"Expected a voice among {', '.join(VOICES)}, got {voice!r}. Use one of these names.")
    return Prosody(
        *(plain + intensity * (full - plain) for plain, full in zip(astuple(PLAIN), astuple(VOICES[voice]), strict=True))
    )


def voice_targets(speaker: Speaker, voice: str, intensity: float) -> np.ndarray:
    """The prosody that `speak` uses, in the order of `VOICE_TARGETS`.

    Returns:
        `np.ndarray` of shape `(10,)`, float32, each number about in [0, 1].
    """
    prosody = prosody_of(voice, intensity)
    used = {name: getattr(prosody, name) for name in VOICE_TARGETS}
    used["pitch"] += speaker.pitch + 12 * np.log2(VARIANTS[speaker.variant] / 100)  # semitones above 100 Hz
    used["pace"] *= speaker.pace
    used["loudness"] += speaker.gain
    return np.array([(used[name] - low) / (high - low) for name, (low, high) in _TARGET_SPANS.items()], dtype=np.float32)


def speak(
    sentence: str, speaker: Speaker, voice: str, intensity: float, rng: np.random.Generator, *, language: str = "en"
) -> np.ndarray:
    """Say a sentence, in a room without noise (`background` gives the noise).

    Args:
        sentence (`str`): at most about nine English words or 16 Chinese characters; what exceeds `MAX_DURATION` is spoken faster.
        speaker (`Speaker`): whose voice.
        voice (`str`): one of `VOICES`.
        intensity (`float`): in [0, 1]; 0 is a plain reading.
        rng (`np.random.Generator`): where pauses fall, phases, noise in the voice.
        language (`str`): one of `LANGUAGES`.

    Returns:
        `np.ndarray` of shape `(num_samples,)`, float32 in [-1, 1], 16 kHz mono, at most `MAX_DURATION` long.

    Raises:
        ValueError: if the voice, the variant or the language is unknown, or the sentence is too long or has nothing to speak.
        OSError: if espeak-ng cannot be used.
    """
    prosody = prosody_of(voice, intensity)
    if speaker.variant not in VARIANTS:  # espeak-ng would speak with another voice
        raise ValueError(f"Expected a variant among {', '.join(VARIANTS)}, got {speaker.variant!r}. Use one of these names.")
    if language not in LANGUAGES:
        raise ValueError(f"Expected a language among {', '.join(LANGUAGES)}, got {language!r}. Use one of these codes.")
    with _fresh_synthesiser() as espeak:
        waveform = np.concatenate(_pieces(sentence, speaker, prosody, rng, language, espeak))
    if prosody.tremor:
        waveform = _shake(waveform, prosody.tremor, rng)
    if prosody.roughness:
        waveform = _roughen(waveform, prosody.roughness, rng)
    if prosody.breath:
        waveform = _breathe(waveform, prosody.breath, rng)
    if prosody.tilt:
        waveform = _tilt(waveform, prosody.tilt)
    waveform *= PLAIN_LEVEL * 10 ** ((prosody.loudness + speaker.gain) / 20) / _speech_level(waveform)
    return (np.tanh(waveform / CEILING) * CEILING).astype(np.float32)


PLAIN_LEVEL = 0.07  # root mean square of a plain reading where there is speech
CEILING = 0.95  # peaks bend towards it


def _pieces(
    sentence: str, speaker: Speaker, prosody: Prosody, rng: np.random.Generator, language: str, espeak: "_Synthesiser"
) -> list[np.ndarray]:
    """Phrases of about the same level, and the silences or the laughter before and between them: `MAX_DURATION` in all."""
    phrases = _phrases(sentence, 3 if prosody.pauses else 1 if prosody.laughter else 0, rng, language)
    gaps = prosody.pauses * rng.uniform(0.75, 1.25, size=len(phrases) - 1)
    laughs = []
    if prosody.laughter:
        most = [4, *[3] * (len(phrases) - 1)]
        voiced = _say("ha", speaker, replace(prosody, pitch=prosody.pitch + 6, melody=1.0), 260, "en", espeak)
        laughs = [_laugh(voiced, round(bursts * (0.25 + 0.75 * prosody.laughter)), rng) for bursts in most]
    longest = MAX_DURATION * SAMPLING_RATE - sum(map(len, laughs))
    pace = prosody.pace * speaker.pace
    while True:
        sounds = [_say(phrase, speaker, prosody, pace, language, espeak) for phrase in phrases]
        excess = (sum(map(len, sounds)) + gaps.sum() * SAMPLING_RATE) / longest
        if excess <= 1:
            break
        gaps /= excess
        pace *= 1.05 * excess
        if pace > MAX_PACE:
            raise ValueError(f"Expected a sentence that takes at most {MAX_DURATION} s, got {sentence!r}. Give a shorter one.")
    sounds = [sound / _speech_level(sound) for sound in sounds]
    if laughs:
        laughs = [laugh * 10 ** (6 * (prosody.laughter - 1) / 20) for laugh in laughs]
        heaved = [_heave(sound, prosody.laughter, rng) for sound in sounds]
        return [piece for laugh_and_words in zip(laughs, heaved, strict=True) for piece in laugh_and_words]
    pieces = sounds[:1]
    for gap, sound in zip(gaps, sounds[1:], strict=True):
        pieces += [np.zeros(int(gap * SAMPLING_RATE)), sound]
    return pieces


_UNITS = {"en": r"\W*\w\S*\W*", "zh": r"\W*(?:[A-Za-z0-9']+|\w)\W*"}  # what no pause divides
_SHORTEST = {"en": 1, "zh": 2}  # units of a phrase
_COMMA = re.compile(r"[,;:，、；：。！？]\s*$")
_CLOSED = re.compile(r"[的了们也都就很着过吧呢啊]$|[我你他她]$")  # Chinese words seldom go on after these,
_ATTACHED = re.compile(r"[们的了着过吧呢吗啊家]")  # nor begin with these


def _phrases(sentence: str, num_cuts: int, rng: np.random.Generator, language: str) -> list[str]:
    """The sentence in about equal parts, cut at commas where there are any near."""
    units = re.findall(_UNITS[language], sentence)
    shortest = _SHORTEST[language]
    places = np.arange(shortest, len(units) - shortest + 1)
    costs = np.zeros(len(places))
    for index, place in enumerate(places):
        if _COMMA.search(units[place - 1]):
            costs[index] = -3
        elif language == "zh":
            costs[index] = 2 * bool(_ATTACHED.match(units[place])) - bool(_CLOSED.search(units[place - 1]))
    cuts: list[int] = []
    for part in range(1, num_cuts + 1):
        distances = np.abs(places - len(units) * part / (num_cuts + 1)) + rng.uniform(0, 1.5, size=len(places))
        free = np.array([all(abs(place - cut) >= shortest for cut in cuts) for place in places], dtype=bool)
        if free.any():
            cuts.append(int(places[np.where(free, costs + distances, np.inf).argmin()]))
    if not cuts:
        return [sentence]
    edges = [0, *sorted(cuts), len(units)]
    return ["".join(units[start:end]) for start, end in zip(edges[:-1], edges[1:], strict=True)]


# Semitones above a variant's own pitch, by the pitch parameter of espeak-ng (measured on its default voice and two variants).
_PITCH_PARAMETERS = (0, 20, 35, 50, 65, 80, 99)
_PITCH_SEMITONES = (-7.7, -5.0, -2.5, 0.0, 2.7, 5.5, 9.3)


def _say(phrase: str, speaker: Speaker, prosody: Prosody, pace: float, language: str, espeak: "_Synthesiser") -> np.ndarray:
    """espeak-ng's reading at 16 kHz, silence cut. A longer vocal tract is a slower playback of a higher, quicker reading."""
    reading = LANGUAGES[language]
    plain_lift = np.interp(PLAIN.melody, (0, 1), LANGUAGES["en"].lift)
    melody_range, lift, fall = (np.interp(prosody.melody, (0, 1), ends) for ends in (reading.range, reading.lift, reading.fall))
    semitones = prosody.pitch + plain_lift - lift + speaker.pitch + 12 * np.log2(speaker.tract)
    raw = espeak.read(
        phrase,
        voice=f"{reading.voice}+{speaker.variant}",
        pace=round(pace * reading.pace * speaker.tract),
        pitch=round(float(np.interp(semitones, _PITCH_SEMITONES, _PITCH_PARAMETERS))),
        melody=round(float(melody_range)),
    )
    step = espeak.rate / (SAMPLING_RATE * speaker.tract)
    positions = np.arange(0, len(raw) - 1, step)
    if fall:
        positions = _falling(positions, fall)
    sound = _play(raw / 2**15, positions, cutoff=0.5 / step)
    loud = np.flatnonzero(np.abs(sound) > 0.01)
    if not len(loud):
        words = {"en": "English words", "zh": "Chinese characters"}[language]
        raise ValueError(f"Expected {words}, got {phrase!r}, in which nothing can be spoken. Give a sentence.")
    return _close_up(sound[max(0, loud[0] - 200) : loud[-1] + 400])


def _falling(positions: np.ndarray, semitones: float) -> np.ndarray:
    """The same way from the first position to the last, quicker at its start."""
    way = np.cumsum(2 ** (np.linspace(semitones / 2, -semitones / 2, len(positions)) / 12))
    return positions[0] + (way - way[0]) / (way[-1] - way[0]) * (positions[-1] - positions[0])


def _close_up(sound: np.ndarray) -> np.ndarray:
    """Shorten silences, as at commas, to 0.1 s: longer ones are for `Prosody.pauses` to make."""
    frames = sound[: len(sound) // 160 * 160].reshape(-1, 160)
    quiet = np.abs(frames).max(axis=1) < 0.005
    ends = np.cumsum(quiet)
    length = ends - np.maximum.accumulate(np.where(quiet, 0, ends))  # of the silence so far, in frames
    return np.concatenate([frames[length <= 10].ravel(), sound[len(frames) * 160 :]])


_BURST = 0.2  # seconds from one burst of laughter to the next


def _laugh(voiced: np.ndarray, num_bursts: int, rng: np.random.Generator) -> np.ndarray:
    """Bursts of breath and voice made of one "ha", the pitch falling in each and from one to the next, at the level of words."""
    onset = int((np.abs(voiced) > 0.3 * np.abs(voiced).max()).argmax())
    aspirated = (voiced * np.interp(np.arange(len(voiced)), (0.8 * onset, onset), (6, 1)))[int(0.4 * onset) :]
    times = np.arange(round(0.125 * SAMPLING_RATE))
    envelope = np.interp(times / SAMPLING_RATE, (0, 0.01, 0.08, 0.125), (0, 1, 1, 0))
    laugh = np.zeros(round(_BURST * num_bursts * SAMPLING_RATE))
    for index in range(num_bursts):
        semitones = np.linspace(5, -1, len(times)) - index + rng.uniform(-1, 1)
        burst = np.interp(np.cumsum(2 ** (semitones / 12)), np.arange(len(aspirated)), aspirated) * envelope
        first = round((_BURST * index + rng.uniform(0, 0.02)) * SAMPLING_RATE)
        laugh[first : first + len(times)] = burst * rng.uniform(0.8, 1.2)
    return laugh / _speech_level(laugh)


def _heave(waveform: np.ndarray, depth: float, rng: np.random.Generator) -> np.ndarray:
    """Words pushed out in the rhythm of laughter: in each heave, loudness and pitch fall."""
    times = np.arange(len(waveform)) / SAMPLING_RATE
    heave = (times / _BURST * rng.uniform(0.95, 1.05) + rng.uniform()) % 1
    speed = 2 ** (2 * depth * (0.5 - heave) / 12)
    pushed = _play(waveform, np.cumsum(speed / speed.mean()))
    return pushed * (1 - 0.85 * depth * np.interp(heave, (0, 0.12, 0.5, 1), (1, 0, 0.1, 1)))


def _play(waveform: np.ndarray, positions: np.ndarray, *, cutoff: float = 0.5) -> np.ndarray:
    """The waveform between its samples, at fractional `positions`, without what lies above `cutoff` cycles a sample."""
    length = _fft_length(len(waveform))
    spectrum = np.fft.rfft(waveform, n=length)
    spectrum[int(cutoff * length) :] = 0
    return np.interp(positions, np.arange(2 * length) / 2, np.fft.irfft(2 * spectrum, n=2 * length))


def _fft_length(num_samples: int) -> int:
    """A length without large prime factors, which are slow to transform."""
    return -(-num_samples // 2048) * 2048


def _speech_level(waveform: np.ndarray) -> float:
    """Root mean square of the louder half of the sound."""
    frames = waveform[: len(waveform) // 320 * 320].reshape(-1, 320)
    energies = np.sort((frames**2).mean(axis=1))
    return float(np.sqrt(energies[len(energies) // 2 :].mean()))


def _shake(waveform: np.ndarray, depth: float, rng: np.random.Generator) -> np.ndarray:
    """Vibrato and tremolo of 5 to 7 Hz that drifts a little."""
    drift = np.interp(np.arange(len(waveform)), np.linspace(0, len(waveform), 8), rng.uniform(5, 7, size=8))
    phase = 2 * np.pi * (rng.uniform() + np.cumsum(drift) / SAMPLING_RATE)
    swing = (2 ** (2.6 * depth / 12) - 1) * SAMPLING_RATE / (2 * np.pi * drift)
    shaken = _play(waveform, np.arange(len(waveform)) + swing * np.sin(phase))
    return shaken * (1 + 0.66 * depth * np.sin(phase + 1))


def _roughen(waveform: np.ndarray, depth: float, rng: np.random.Generator) -> np.ndarray:
    """Beating at 40 to 90 Hz, and an overdriven edge."""
    times = np.arange(0, len(waveform) + 160, 160)
    beat = np.interp(np.arange(len(waveform)), times, rng.uniform(40, 90, size=len(times)))
    beaten = waveform * (1 + 0.7 * depth * np.sin(2 * np.pi * np.cumsum(beat) / SAMPLING_RATE))
    return (1 - 0.6 * depth) * beaten + 0.6 * depth * np.tanh(2.5 * beaten)


_WINDOW = 512


def _breathe(waveform: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Replace voicing by noise of the same spectral envelope, a little sharper."""
    hop = _WINDOW // 4
    window = np.hanning(_WINDOW + 1)[:-1]
    padded = np.pad(waveform, (_WINDOW, _WINDOW + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::hop] * window
    magnitudes = np.abs(np.fft.rfft(frames))
    kernel = np.hanning(15)[1:-1]
    kernel /= kernel.sum()
    wide = np.pad(magnitudes, ((0, 0), (6, 6)))
    smooth = sum(weight * wide[:, index : index + magnitudes.shape[1]] for index, weight in enumerate(kernel))
    whispered = np.fft.irfft(smooth * np.exp(2j * np.pi * rng.uniform(size=smooth.shape))) * window
    noise = np.zeros(len(padded))
    for index, frame in enumerate(whispered):
        noise[index * hop : index * hop + _WINDOW] += frame
    noise = _tilt(noise[_WINDOW : _WINDOW + len(waveform)], 3)
    noise *= _speech_level(waveform) / _speech_level(noise)
    return np.sqrt(1 - 0.85 * share) * waveform + np.sqrt(0.85 * share) * noise


def _tilt(waveform: np.ndarray, tilt: float) -> np.ndarray:
    length = _fft_length(len(waveform))
    octaves = np.log2(np.maximum(np.fft.rfftfreq(length, 1 / SAMPLING_RATE), 300) / 300)
    return np.fft.irfft(np.fft.rfft(waveform, n=length) * 10 ** (tilt * octaves / 20), n=length)[: len(waveform)]


def background(num_samples: int, speaker: Speaker, rng: np.random.Generator) -> np.ndarray:
    """What is heard behind the voice: noise of a room, stronger in the low frequencies, and music if the speaker has it.

    Add it to the whole clip. It says nothing about how the speaker feels.

    Args:
        num_samples (`int`): length at 16 kHz.
        speaker (`Speaker`): how the recording was made: `noise` and `music` are levels.
        rng (`np.random.Generator`): the noise, and key, tempo, notes and instrument of the music.

    Returns:
        `np.ndarray` of shape `(num_samples,)`, float32, faded in and out.
    """
    length = _fft_length(num_samples)
    spectrum = np.fft.rfft(rng.standard_normal(length)) / np.sqrt(np.maximum(np.fft.rfftfreq(length, 1 / SAMPLING_RATE), 60))
    noise = np.fft.irfft(spectrum, n=length)[:num_samples]
    sound = 10 ** (speaker.noise / 20) * noise / np.sqrt((noise**2).mean())
    if speaker.music is not None:
        music = _music(num_samples, rng)
        sound += PLAIN_LEVEL * 10 ** (speaker.music / 20) * music / np.sqrt((music**2).mean())
    ramp = np.minimum(np.arange(num_samples) / (0.1 * SAMPLING_RATE), 1)
    return (sound * ramp * ramp[::-1]).astype(np.float32)


_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
_CHORDS = ((0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 5, 3), (5, 3, 0, 4))  # steps of the scale on which the chords stand


def _music(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """A bass note and a broken chord a bar, in a random tempo, timbre and key, major or minor whatever the clip shows."""
    scale = _SCALES[str(rng.choice(list(_SCALES)))]
    tonic = rng.uniform(100, 200)  # Hz
    beat = round(60 / rng.uniform(70, 130) * SAMPLING_RATE / 2)  # samples from one note to the next
    decay = rng.choice([0.15, 0.4, 1.5]) * SAMPLING_RATE
    attack = rng.choice([0.005, 0.06]) * SAMPLING_RATE
    partials = rng.uniform(0.2, 1) * rng.uniform(0.3, 0.7) ** np.arange(4) * rng.uniform(0.2, 1, size=4)
    chords = _CHORDS[rng.integers(len(_CHORDS))]
    order = rng.permutation([0, 2, 4, 7])
    times = np.arange(3 * beat)
    envelope = np.minimum(times / attack, 1) * np.exp(-times / decay) * np.clip((len(times) - times) / 800, 0, 1)
    begun = int(rng.integers(4 * beat))  # samples of it that are over when the clip starts
    music = np.zeros(begun + num_samples + len(times))
    for index, first in enumerate(range(0, begun + num_samples, beat)):
        root = chords[index // 4 % 4]
        for step in (root + order[index % 4], *([root - 7] if index % 4 == 0 else [])):
            frequency = tonic * 2 ** (step // 7 + scale[step % 7] / 12)
            tone = np.exp(2j * np.pi * frequency / SAMPLING_RATE * times)
            note, power = np.zeros(len(times)), tone
            for partial in partials:
                note += partial * power.imag
                power = power * tone
            music[first : first + len(times)] += note * envelope
    return music[begun : begun + num_samples]


# espeak-ng's own names (speak_lib.h).
_OUTPUT_SYNCHRONOUS, _DONT_EXIT, _POSITION_CHARACTER, _CHARS_UTF8 = 2, 0x8000, 1, 1
_PARAMETER_RATE, _PARAMETER_PITCH, _PARAMETER_RANGE = 1, 3, 4
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_unload = _ctypes.FreeLibrary if sys.platform == "win32" else _ctypes.dlclose
_one_at_a_time = threading.Lock()


@dataclass
class _Synthesiser:
    """espeak-ng, and the voice it has loaded."""

    library: ctypes.CDLL
    rate: int  # samples per second
    voice: str | None = None

    def read(self, text: str, *, voice: str, pace: int, pitch: int, melody: int) -> np.ndarray:
        """Synthesise `text`: samples, int16."""
        chunks = []

        @_Callback
        def keep(samples, num_samples, events):
            if samples and num_samples > 0:
                chunks.append(np.ctypeslib.as_array(samples, (num_samples,)).copy())
            return 0

        self.library.espeak_SetSynthCallback(keep)
        if voice != self.voice:  # takes longer than to speak
            if self.library.espeak_SetVoiceByName(voice.encode()) != 0:
                raise OSError(f"Expected espeak-ng to have the voice {voice}, got none. Reinstall espeakng-loader.")
            self.voice = voice
        for parameter, value in ((_PARAMETER_RATE, pace), (_PARAMETER_PITCH, pitch), (_PARAMETER_RANGE, melody)):
            self.library.espeak_SetParameter(parameter, value, 0)
        data = text.encode() + b"\0"
        self.library.espeak_Synth(data, len(data), 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None)
        self.library.espeak_Synchronize()
        return np.concatenate(chunks) if chunks else np.zeros(1, np.int16)


@contextmanager
def _fresh_synthesiser() -> Iterator[_Synthesiser]:
    """espeak-ng, loaded anew (a millisecond): its state survives `espeak_Terminate`, so that equal calls would sound different."""
    data = espeakng_loader.get_data_path()
    with _one_at_a_time:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        try:
            rate = library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, data.encode(), _DONT_EXIT)
            if rate <= 0:
                raise OSError(f"{data}: expected the data of espeak-ng, got none that it can read. Reinstall espeakng-loader.")
            library.espeak_ng_SetRandSeed(ctypes.c_long(1))
            yield _Synthesiser(library, rate)
        finally:
            library.espeak_Terminate()
            _unload(library._handle)
