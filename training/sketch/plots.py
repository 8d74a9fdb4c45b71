"""Pictures of the synthetic voices: what sets one apart from another, to be seen at a glance."""

from pathlib import Path

import numpy as np

from .voices import LANGUAGES, SAMPLING_RATE, VOICES, Speaker, speak

HOP = 160  # samples from one frame to the next: 10 ms
NUM_SPEAKERS = 20  # of the measurements
ENGLISH = ("You never listen when I talk to you.", "I found your letter on the table.", "They want to move the house again.")
MANDARIN = ("你今天怎么才来我等了很久", "我把你的信放在桌子上", "他们又想搬到别的地方去")


def pitch_track(waveform: np.ndarray, sampling_rate: int = SAMPLING_RATE) -> np.ndarray:
    """Fundamental frequency from the autocorrelation of 40 ms, searched within an octave of its median.

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)`): speech, at least 40 ms.
        sampling_rate (`int`): in Hz.

    Returns:
        `np.ndarray` of shape `(num_frames,)`: semitones above 100 Hz every 10 ms, NaN where nothing is voiced.
    """
    length, hop = sampling_rate // 25, sampling_rate // 100
    frames = np.lib.stride_tricks.sliding_window_view(waveform, length)[::hop]
    frames = frames - frames.mean(axis=1, keepdims=True)
    window = np.hanning(length)
    size = 2 * 2 ** (length - 1).bit_length()
    # At twice the rate by padding the spectrum, so that high pitches are told apart finely.
    own, power = (np.abs(np.fft.rfft(piece, size)) ** 2 for piece in (window, frames * window))
    power *= np.fft.rfftfreq(size, 1 / sampling_rate) < 1200  # higher harmonics blur when the pitch glides
    correlation, damping = (np.fft.irfft(piece, 2 * size) for piece in (power, own))
    lags = np.arange(2 * sampling_rate // 560, 2 * sampling_rate // 60)
    strength = correlation[:, lags] / damping[lags] * damping[0] / np.maximum(correlation[:, :1], 1e-9)
    octaves = np.log2(lags / lags[0])
    loudness = frames.std(axis=1)
    loud = loudness > 0.1 * np.quantile(loudness, 0.95)

    def best(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        places = (strength - cost).argmax(axis=1)
        return places, loud & (strength[np.arange(len(places)), places] > 0.45)

    places, voiced = best(0.05 * octaves)  # a multiple of the period fits as well as the period
    if not voiced.any():
        return np.full(len(frames), np.nan)
    away = np.abs(octaves - np.median(octaves[places[voiced]]))
    places, voiced = best(0.05 * octaves + np.maximum(away - 0.8, 0))
    semitones = np.where(voiced, 12 * np.log2(2 * sampling_rate / lags[places] / 100), np.nan)
    # Voicing goes on smoothly for 50 ms; noise matches itself for a moment.
    edges = np.concatenate([[0], np.flatnonzero(~(np.abs(np.diff(semitones)) < 2.5)) + 1, [len(semitones)]])
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        if end - start < 5:
            semitones[start:end] = np.nan
    return semitones


def tremor_of(pitches: np.ndarray) -> float:
    """Semitones (amplitude) by which a pitch track, bridged where nothing is voiced, swings at 4.5 to 7.5 Hz; 0 without voicing."""
    voiced = ~np.isnan(pitches)
    if not voiced.any():
        return 0.0
    bridged = np.interp(np.arange(len(pitches)), np.flatnonzero(voiced), pitches[voiced])
    window = np.hanning(min(60, len(bridged)))
    stretches = np.lib.stride_tricks.sliding_window_view(bridged, len(window))[::10]
    stretches = (stretches - stretches.mean(axis=1, keepdims=True)) * window
    swing = 2 * np.abs(np.fft.rfft(stretches, 200)) / window.sum()  # bins of half a hertz
    return float(np.median(swing[:, 9:16].max(axis=1)))


def mel_spectrogram(waveform: np.ndarray, num_mels: int = 64) -> np.ndarray:
    """Decibels of shape `(num_mels, num_frames)`, a frame every 10 ms, bands from 60 to 7600 Hz."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform, 400)[::HOP] * np.hanning(400)
    power = np.abs(np.fft.rfft(frames, 1024)) ** 2
    frequencies = np.fft.rfftfreq(1024, 1 / SAMPLING_RATE)
    edges = 700 * (np.geomspace(1 + 60 / 700, 1 + 7600 / 700, num_mels + 2) - 1)
    rising = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    return 10 * np.log10(np.maximum(np.minimum(rising, falling), 0) @ power.T + 1e-7)


def voice_plot(output_path: str | Path, *, seed: int = 0) -> None:
    """Plot every voice (mels and pitch of three speakers), and measurements of each voice over twenty speakers.

    Args:
        output_path (`str` or `Path`): a picture, e.g. `voices.png`; the measurements go beside it, to `voices_measured.png`.
        seed (`int`): fixes the speakers.

    Raises:
        ImportError: if matplotlib is missing (`pip install "affectgpt[dev]"`).
    """
    import matplotlib

    matplotlib.use("Agg")
    output_path = Path(output_path)
    _plot_examples(output_path, seed)
    _plot_measurements(output_path.with_stem(output_path.stem + "_measured"), seed)


def _plot_examples(path: Path, seed: int) -> None:
    from matplotlib import pyplot

    speakers = [Speaker.sample(np.random.default_rng([seed, place])) for place in range(3)]
    columns = [(speakers[0], ENGLISH[0], "en"), (speakers[1], ENGLISH[0], "en"), (speakers[2], MANDARIN[0], "zh")]
    figure, axes = pyplot.subplots(
        2 * len(VOICES), 3, figsize=(18, 4 * len(VOICES)), height_ratios=[2, 1] * len(VOICES), layout="constrained"
    )
    for row, voice in enumerate(VOICES):
        for column, (speaker, sentence, language) in enumerate(columns):
            waveform = speak(sentence, speaker, voice, 1.0, np.random.default_rng([seed, row, column]), language=language)
            mels, track = axes[2 * row, column], axes[2 * row + 1, column]
            decibels = mel_spectrogram(waveform)
            mels.imshow(
                decibels, origin="lower", aspect="auto", vmin=-50, vmax=25, extent=(0, len(waveform) / SAMPLING_RATE, 0, 64)
            )
            mels.set_title(f"{voice}, {language}, {speaker.variant}")
            pitches = pitch_track(waveform)
            track.plot((np.arange(len(pitches)) + 2.5) / 100, pitches, ".-")
            track.set_ylim(-8, 26)
            track.grid(alpha=0.4)
            for axis in (mels, track):
                axis.set_xlim(0, 3.3)
    figure.supylabel("mel bands; semitones above 100 Hz")
    figure.supxlabel("seconds")
    figure.savefig(path, dpi=55)
    pyplot.close(figure)


def _measured(waveform: np.ndarray) -> tuple[float, ...]:
    pitches = pitch_track(waveform)
    voiced = pitches[~np.isnan(pitches)]
    low, median, high = np.quantile(voiced, [0.05, 0.5, 0.95]) if len(voiced) > 20 else (np.nan,) * 3
    loudness = np.lib.stride_tricks.sliding_window_view(waveform, 400)[::HOP].std(axis=1)
    return (
        median,
        high - low,
        len(waveform) / SAMPLING_RATE,
        20 * np.log10(np.sqrt(np.mean(waveform**2))),
        tremor_of(pitches),
        np.mean(loudness < 0.03 * loudness.max()),
    )


def _plot_measurements(path: Path, seed: int) -> None:
    from matplotlib import pyplot

    names = (
        "pitch above the calm voice (semitones)",
        "pitch range (semitones, 5 to 95 %)",
        "seconds per word or character",
        "level (dB)",
        "tremor (semitones)",
        "silence (share of frames)",
    )
    figure, axes = pyplot.subplots(2, 3, figsize=(22, 11), layout="constrained")
    series = [(language, intensity) for language in LANGUAGES for intensity in (1.0, 0.45)]
    for offset, (language, intensity) in enumerate(series):
        sentences = {"en": ENGLISH, "zh": MANDARIN}[language]
        measured = np.zeros((len(VOICES), NUM_SPEAKERS, len(names)))
        for place in range(NUM_SPEAKERS):
            speaker = Speaker.sample(np.random.default_rng([seed, 1, place]))
            sentence = sentences[place % len(sentences)]
            for row, voice in enumerate(VOICES):
                rng = np.random.default_rng([seed, 2, place])
                measured[row, place] = _measured(speak(sentence, speaker, voice, intensity, rng, language=language))
                measured[row, place, 2] /= len(sentence) if language == "zh" else len(sentence.split())
        measured[..., 0] -= measured[list(VOICES).index("calm"), :, 0]
        for index, (name, axis) in enumerate(zip(names, axes.flat, strict=True)):
            boxes = axis.boxplot(
                [row[~np.isnan(row)] for row in measured[:, :, index]],
                positions=np.arange(len(VOICES)) + 0.2 * offset - 0.3,
                widths=0.17,
                patch_artist=True,
            )
            for box in boxes["boxes"]:
                box.set_facecolor(("tab:blue", "lightblue", "tab:orange", "moccasin")[offset])
            axis.set_title(name)
            axis.set_xticks(range(len(VOICES)), list(VOICES), rotation=20)
            axis.grid(alpha=0.4)
    figure.suptitle("Blue English, orange Mandarin; pale at intensity 0.45")
    figure.savefig(path, dpi=65)
    pyplot.close(figure)
