"""Synthetic speech whose prosody carries affect: espeak-ng says the words, numpy does what espeak-ng cannot.

Each of the seven voices is a `Prosody`: how far it departs from a plain reading in pitch, melody, pace, loudness, timbre, tremor,
breath, roughness and pauses. Speakers differ more in pitch and timbre than voices do, so neither tells a voice alone.
"""

import _ctypes
import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass

import espeakng_loader
import numpy as np

SAMPLING_RATE = 16_000  # Hz
MAX_DURATION = 3.3  # seconds of speech


@dataclass(frozen=True)
class Prosody:
    """How a sentence is spoken, apart from whose voice it is."""

    pitch: float  # semitones above the speaker's own
    melody: float  # 0 monotone, 0.5 espeak-ng's usual, 1 twice as wide
    pace: float  # words per minute inside a phrase
    loudness: float  # dB above a plain reading
    tilt: float  # dB per octave added above 300 Hz: dark below 0, cutting above
    tremor: float  # depth of a shake of 5 to 7 Hz: 1 is 2.6 semitones up and down, and two thirds of the loudness
    breath: float  # share of the voicing that turns into noise
    roughness: float  # depth of fast irregular beating
    pauses: float  # seconds of each gap inside the sentence


PLAIN = Prosody(pitch=0, melody=0.3, pace=170, loudness=0, tilt=0, tremor=0, breath=0, roughness=0, pauses=0)
VOICES: dict[str, Prosody] = {
    "calm": Prosody(pitch=0, melody=0.3, pace=160, loudness=0, tilt=0, tremor=0, breath=0, roughness=0, pauses=0),
    "bright": Prosody(pitch=4.5, melody=1.0, pace=220, loudness=2, tilt=3, tremor=0, breath=0, roughness=0, pauses=0),
    "dull": Prosody(pitch=-2, melody=0.0, pace=120, loudness=-5, tilt=-5, tremor=0, breath=0, roughness=0, pauses=0),
    "harsh": Prosody(pitch=1, melody=0.3, pace=190, loudness=7, tilt=4, tremor=0, breath=0, roughness=1, pauses=0),
    "trembling": Prosody(pitch=2, melody=0.2, pace=155, loudness=-2, tilt=0, tremor=1, breath=0.2, roughness=0, pauses=0),
    "breathy": Prosody(pitch=-1, melody=0.3, pace=145, loudness=-7, tilt=-1, tremor=0, breath=1, roughness=0, pauses=0),
    "hesitant": Prosody(pitch=0, melody=0.5, pace=190, loudness=-2, tilt=0, tremor=0, breath=0, roughness=0, pauses=0.35),
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
    noise: float  # dB below full scale, of the background

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Speaker":
        """Draw a speaker; `rng` fixes every number."""
        return cls(
            variant=str(rng.choice(list(VARIANTS))),
            pitch=float(rng.uniform(-1.5, 3.3)),
            tract=float(rng.uniform(0.92, 1.09)),
            pace=float(rng.uniform(0.95, 1.05)),
            gain=float(rng.uniform(-1, 1)),
            noise=float(rng.uniform(-68, -52)),
        )


VOICE_TARGETS = ("pitch", "melody", "pace", "loudness", "tilt", "tremor", "breath", "roughness", "pauses")
_TARGET_SPANS = {  # prosody at 0 and at 1
    "pitch": (-5, 21),
    "melody": (0, 1),
    "pace": (115, 225),
    "loudness": (-8, 8),
    "tilt": (-5, 5),
    "tremor": (0, 1),
    "breath": (0, 1),
    "roughness": (0, 1),
    "pauses": (0, 0.35),
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
        `np.ndarray` of shape `(9,)`, float32, each number about in [0, 1].
    """
    prosody = prosody_of(voice, intensity)
    used = {name: getattr(prosody, name) for name in VOICE_TARGETS}
    used["pitch"] += speaker.pitch + 12 * np.log2(VARIANTS[speaker.variant] / 100)  # semitones above 100 Hz
    used["pace"] *= speaker.pace
    used["loudness"] += speaker.gain
    return np.array([(used[name] - low) / (high - low) for name, (low, high) in _TARGET_SPANS.items()], dtype=np.float32)


def speak(sentence: str, speaker: Speaker, voice: str, intensity: float, rng: np.random.Generator) -> np.ndarray:
    """Say an English sentence.

    Args:
        sentence (`str`): at most about nine words; what exceeds `MAX_DURATION` is spoken faster.
        speaker (`Speaker`): whose voice.
        voice (`str`): one of `VOICES`.
        intensity (`float`): in [0, 1]; 0 is a plain reading.
        rng (`np.random.Generator`): where pauses fall, phases, noise.

    Returns:
        `np.ndarray` of shape `(num_samples,)`, float32 in [-1, 1], 16 kHz mono.

    Raises:
        ValueError: if the voice or the variant is unknown, or nothing in the sentence can be spoken.
        OSError: if espeak-ng cannot be used.
    """
    prosody = prosody_of(voice, intensity)
    if speaker.variant not in VARIANTS:  # espeak-ng would speak with another voice
        raise ValueError(f"Expected a variant among {', '.join(VARIANTS)}, got {speaker.variant!r}. Use one of these names.")
    phrases = _phrases(sentence, prosody.pauses, rng)
    gaps = prosody.pauses * rng.uniform(0.75, 1.25, size=len(phrases) - 1)
    pace = prosody.pace * speaker.pace
    sounds = [_say(phrase, speaker, prosody, pace) for phrase in phrases]
    duration = sum(map(len, sounds)) / SAMPLING_RATE + gaps.sum()
    if duration > MAX_DURATION:
        gaps *= MAX_DURATION / duration
        sounds = [_say(phrase, speaker, prosody, pace * 1.05 * duration / MAX_DURATION) for phrase in phrases]
    waveform = sounds[0]
    for gap, sound in zip(gaps, sounds[1:], strict=True):
        waveform = np.concatenate([waveform, np.zeros(round(gap * SAMPLING_RATE)), sound])
    waveform = waveform / _speech_level(waveform)
    if prosody.tremor:
        waveform = _shake(waveform, prosody.tremor, rng)
    if prosody.roughness:
        waveform = _roughen(waveform, prosody.roughness, rng)
    if prosody.breath:
        waveform = _breathe(waveform, prosody.breath, rng)
    waveform = _tilt(waveform, prosody.tilt)
    waveform *= PLAIN_LEVEL * 10 ** ((prosody.loudness + speaker.gain) / 20) / _speech_level(waveform)
    waveform += 10 ** (speaker.noise / 20) * _background(len(waveform), rng)
    return (np.tanh(waveform / CEILING) * CEILING).astype(np.float32)


PLAIN_LEVEL = 0.07  # root mean square of a plain reading where there is speech
CEILING = 0.95  # peaks bend towards it


def _phrases(sentence: str, pauses: float, rng: np.random.Generator) -> list[str]:
    """The sentence in one piece, or, with pauses, in three or four where it has the words."""
    words = sentence.split()
    if not pauses:
        return [sentence]
    num_gaps = max(0, min(max(2, round(len(words) / 3)), 3, len(words) - 1))
    cuts = sorted(rng.choice(np.arange(1, len(words)), size=num_gaps, replace=False))
    return [" ".join(words[start:end]) for start, end in zip([0, *cuts], [*cuts, len(words)], strict=True)]


# Semitones above a variant's own pitch, by the pitch parameter of espeak-ng (measured on its default voice and two variants).
_PITCH_PARAMETERS = (0, 20, 35, 50, 65, 80, 99)
_PITCH_SEMITONES = (-7.7, -5.0, -2.5, 0.0, 2.7, 5.5, 9.3)


def _say(phrase: str, speaker: Speaker, prosody: Prosody, pace: float) -> np.ndarray:
    """espeak-ng's reading at 16 kHz, silence cut off. A longer vocal tract is a slower playback of a higher, quicker reading."""
    semitones = prosody.pitch + speaker.pitch + 12 * np.log2(speaker.tract)
    raw, rate = _espeak(
        phrase,
        variant=speaker.variant,
        pace=round(pace * speaker.tract),
        pitch=round(float(np.interp(semitones, _PITCH_SEMITONES, _PITCH_PARAMETERS))),
        melody=round(99 * prosody.melody),
    )
    step = rate / (SAMPLING_RATE * speaker.tract)
    sound = _play(raw / 2**15, np.arange(0, len(raw) - 1, step), cutoff=0.5 / step)
    loud = np.flatnonzero(np.abs(sound) > 0.01)
    if not len(loud):
        raise ValueError(f"Expected English words, got {phrase!r}, in which nothing can be spoken. Give a sentence.")
    return sound[max(0, loud[0] - 200) : loud[-1] + 400]


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
    smooth = np.apply_along_axis(np.convolve, 1, magnitudes, kernel, "same")
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


def _background(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of a quiet room, stronger in the low frequencies, of root mean square 1, faded in and out."""
    length = _fft_length(num_samples)
    spectrum = np.fft.rfft(rng.standard_normal(length)) / np.sqrt(np.maximum(np.fft.rfftfreq(length, 1 / SAMPLING_RATE), 60))
    noise = np.fft.irfft(spectrum, n=length)[:num_samples]
    noise /= np.sqrt((noise**2).mean())
    ramp = np.minimum(np.arange(num_samples) / (0.1 * SAMPLING_RATE), 1)
    return noise * ramp * ramp[::-1]


# espeak-ng's own names (speak_lib.h).
_OUTPUT_SYNCHRONOUS, _DONT_EXIT, _POSITION_CHARACTER, _CHARS_UTF8 = 2, 0x8000, 1, 1
_PARAMETER_RATE, _PARAMETER_PITCH, _PARAMETER_RANGE = 1, 3, 4
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_unload = _ctypes.FreeLibrary if sys.platform == "win32" else _ctypes.dlclose
_one_at_a_time = threading.Lock()


def _espeak(text: str, *, variant: str, pace: int, pitch: int, melody: int) -> tuple[np.ndarray, int]:
    """Synthesise `text`: samples (int16) and their rate."""
    chunks = []

    @_Callback
    def keep(samples, num_samples, events):
        if samples and num_samples > 0:
            chunks.append(np.ctypeslib.as_array(samples, (num_samples,)).copy())
        return 0

    with _one_at_a_time, _fresh_library() as (library, rate):
        library.espeak_SetSynthCallback(keep)
        if library.espeak_SetVoiceByName(f"en-us+{variant}".encode()) != 0:
            raise OSError("Expected espeak-ng to have the voice en-us, got none. Reinstall espeakng-loader.")
        for parameter, value in ((_PARAMETER_RATE, pace), (_PARAMETER_PITCH, pitch), (_PARAMETER_RANGE, melody)):
            library.espeak_SetParameter(parameter, value, 0)
        data = text.encode() + b"\0"
        library.espeak_Synth(data, len(data), 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None)
        library.espeak_Synchronize()
    return (np.concatenate(chunks) if chunks else np.zeros(1, np.int16)), rate


@contextmanager
def _fresh_library() -> Iterator[tuple[ctypes.CDLL, int]]:
    """espeak-ng, loaded anew (a millisecond): its state survives `espeak_Terminate`, so that equal calls would sound different."""
    data = espeakng_loader.get_data_path()
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        rate = library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, data.encode(), _DONT_EXIT)
        if rate <= 0:
            raise OSError(f"{data}: expected the data of espeak-ng, got none that it can read. Reinstall espeakng-loader.")
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        yield library, rate
        library.espeak_Terminate()
    finally:
        _unload(library._handle)
