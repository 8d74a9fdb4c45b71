"""How a mouth moves with what it says: open with the loudness, round with dark vowels."""

import numpy as np

CLOSED = 0.05  # share of the loudest sound (amplitude) up to which the mouth stays shut
RELEASE = 0.3  # share of the opening that is left after a frame: it opens at once and closes within two frames
BANDS = np.geomspace(300, 3000, 9)  # Hz; where the lips are heard: above the pitch, below hissing
ROUND, SPREAD = 700, 1600  # Hz; about which the energy of "oo" and of "ee" lies
USUAL_SLOPE = -1.5  # exponent of the frequency with which the power of a plain voice falls off (measured on espeak-ng)


def mouth_shapes(waveform: np.ndarray, num_frames: int, sampling_rate: int) -> np.ndarray:
    """Mouth shapes for speech.

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)`): the clean voice: whatever else sounds would move the lips too.
        num_frames (`int`): number of equal spans to give a shape for, of about 20 to 80 ms.
        sampling_rate (`int`): in Hz, at least 8000.

    Returns:
        `np.ndarray` of shape `(num_frames, 2)`, float32 in [0, 1]: how far the mouth opens (0 in silence, 1 in the loudest spans),
        and how rounded it is (0 spread, as in "ee", or at rest; 1 rounded, as in "oo").

    Raises:
        ValueError: if `waveform` is not one channel, or a span is too short to hear a vowel in.
    """
    if waveform.ndim != 1 or num_frames < 1 or len(waveform) < 0.01 * sampling_rate * num_frames:
        raise ValueError(
            f"Expected one channel, at least 10 ms for each of {num_frames} frames, got samples of shape {waveform.shape} at "
            f"{sampling_rate} Hz. Give mono speech as long as the frames."
        )
    spans = waveform[: len(waveform) // num_frames * num_frames].reshape(num_frames, -1).astype(np.float64)
    loudness = np.sqrt(np.mean(spans**2, axis=1))
    top = np.quantile(loudness, 0.95) or loudness.max()
    if top == 0:
        return np.zeros((num_frames, 2), dtype=np.float32)
    opening = np.clip((loudness / top - CLOSED) / (1 - CLOSED), 0, 1) ** 0.8
    for index in range(1, num_frames):
        opening[index] = max(opening[index], RELEASE * opening[index - 1] - 0.1)
    rounding = np.clip((np.log2(SPREAD) - _height(spans, loudness, sampling_rate)) / np.log2(SPREAD / ROUND), 0, 1)
    # Lips are slower than sounds: each frame is a mean of three, weighted by their power.
    weighted, total = (np.convolve(row, (0.5, 1, 0.5), mode="same") for row in (rounding * loudness**2, loudness**2))
    rounding = weighted / np.maximum(total, 1e-12) * np.clip(opening / 0.1, 0, 1)
    return np.stack([opening, rounding], axis=1).astype(np.float32)


def _height(spans: np.ndarray, loudness: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Where the energy of each span lies, in octaves above 1 Hz, were the voice neither dark nor bright."""
    size = 2 * spans.shape[1]
    power = np.abs(np.fft.rfft(spans * np.hanning(spans.shape[1] + 1)[:-1], size)) ** 2
    frequencies = np.fft.rfftfreq(size, 1 / sampling_rate)
    inside = (frequencies >= BANDS[0]) & (frequencies < BANDS[-1])
    power, octaves = power[:, inside], np.log2(frequencies[inside])
    # A dark voice is no round mouth: the slope of the whole clip is levelled, by four fifths, as vowels bring some of it about.
    place = np.searchsorted(BANDS, frequencies[inside], side="right")
    voiced = power[loudness > 0.2 * loudness.max()].sum(axis=0)
    means = np.bincount(place, voiced)[1:] / np.bincount(place)[1:]
    slope = np.polyfit(np.log2(BANDS[:-1]), np.log2(means + 1e-12 * means.max() + 1e-300), 1)[0]
    levelled = power * 2 ** (-(0.8 * slope + 0.2 * USUAL_SLOPE) * octaves)
    return levelled @ octaves / np.maximum(levelled.sum(axis=1), 1e-300)
