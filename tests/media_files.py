"""Makes the clips that tests read: small, drawn and synthesised on the spot by PyAV, in any container and codec that it writes."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# One clip per pair is what users bring; AV1 needs a decoder that decord does not have.
VIDEO_FORMATS = [
    ("mp4", "libx264", "aac"),
    ("mp4", "libx265", "aac"),
    ("mp4", "libsvtav1", "aac"),
    ("mov", "libx264", "pcm_s16le"),
    ("mov", "mjpeg", "aac"),
    ("mkv", "libx264", "flac"),
    ("mkv", "libvpx-vp9", "libopus"),
    ("webm", "libvpx", "libopus"),
    ("webm", "libvpx-vp9", "libopus"),
    ("webm", "libsvtav1", "libopus"),
    ("avi", "mpeg4", "libmp3lame"),
    ("avi", "mjpeg", "pcm_s16le"),
]


def picture(index: int, total: int, size: tuple[int, int]) -> np.ndarray:
    """Frame `index` of `total`: `(height, width, 3)` uint8, gradients and a white bar on the left that moves down with time.

    No frame equals another, and top is unlike bottom and left unlike right, so that an order or rotation gone wrong is seen.
    """
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width]
    position = index / max(total - 1, 1)
    image = np.stack([rows * 150 // height, columns * 150 // width, np.full((height, width), int(200 * position))], axis=-1)
    top = int(position * height * 0.75)
    image[top : top + max(height // 4, 1), : max(width // 4, 1)] = 255
    return image.astype(np.uint8)


def tone(seconds: float, sampling_rate: int, channels: int = 1, *, frequency: float = 440.0, amplitude: float = 0.3) -> np.ndarray:
    """A sine of `frequency` Hz, the same in every channel: `(channels, num_samples)` float32 in [-1, 1]."""
    times = np.arange(round(seconds * sampling_rate)) / sampling_rate
    return np.tile((amplitude * np.sin(2 * np.pi * frequency * times)).astype(np.float32), (channels, 1))


def make_clip(
    path: str | Path,
    *,
    seconds: float = 2.0,
    fps: int = 25,
    size: tuple[int, int] = (64, 64),
    video: bool = True,
    video_codec: str = "libx264",
    frame_times: list[float] | None = None,
    rotation: int = 0,
    pixel_format: str | None = None,
    keyframe_interval: int = 12,
    audio: bool = True,
    audio_codec: str | None = None,
    sampling_rate: int = 16_000,
    layout: str = "mono",
    waveform: np.ndarray | None = None,
    audio_start: float = 0.0,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a clip and return its path. The container follows the suffix of `path`.

    Args:
        path (`str` or `Path`): file to write.
        seconds (`float`): length of picture and sound.
        fps (`int`): frames per second.
        size (`tuple[int, int]`): height and width in pixels; odd numbers need `pixel_format="yuv444p"` with most codecs.
        video (`bool`), audio (`bool`): which streams to write.
        video_codec (`str`): a PyAV encoder: `libx264`, `libx265`, `libvpx`, `libvpx-vp9`, `libsvtav1`, `mpeg4`, `mjpeg`, ...
        frame_times (`list[float]`, *optional*): seconds of each frame, for a variable frame rate; even spacing otherwise.
        rotation (`int`): degrees counter-clockwise by which a player turns the picture (mp4 and mov).
        pixel_format (`str`, *optional*): what the encoder gets, `yuv420p` by default.
        keyframe_interval (`int`): frames from one key frame to the next.
        audio_codec (`str`, *optional*): a PyAV encoder; by default what the container usually holds.
        sampling_rate (`int`): of the sound, in Hz.
        layout (`str`): `mono`, `stereo`, `5.1`, ...
        waveform (`np.ndarray` of shape `(channels, num_samples)`, *optional*): float32 sound; a 440 Hz tone by default.
        audio_start (`float`): seconds by which the sound begins later than the picture.
        options (`dict[str, str]`, *optional*): of the container, e.g. `{"movflags": "faststart"}`.
    """
    path = Path(path)
    times = [index / fps for index in range(round(seconds * fps))] if frame_times is None else frame_times
    with av.open(str(path), "w", options=options or {}) as container:
        video_stream = audio_stream = None
        if video:
            video_stream = container.add_stream(video_codec, rate=fps, options=_encoder_options(video_codec))
            video_stream.height, video_stream.width = size
            video_stream.pix_fmt = pixel_format or ("yuvj420p" if video_codec == "mjpeg" else "yuv420p")
            video_stream.codec_context.gop_size = keyframe_interval
            if frame_times is not None:
                video_stream.codec_context.time_base = Fraction(1, 1000)
            if rotation:
                video_stream.set_display_rotation(rotation)
        if audio:
            audio_codec = audio_codec or _usual_audio_codec(path)
            rate = 48_000 if audio_codec == "libopus" else sampling_rate  # Opus knows few rates
            audio_stream = container.add_stream(audio_codec, rate=rate, layout=layout)
        if video_stream:
            _write_video(container, video_stream, times, size)
        if audio_stream:
            channels = audio_stream.layout.nb_channels
            sound = tone(seconds, sampling_rate, channels) if waveform is None else waveform
            _write_audio(container, audio_stream, sound, sampling_rate, layout, audio_start)
    return path


def _encoder_options(codec: str) -> dict[str, str]:
    if codec == "libx265":
        return {"preset": "ultrafast", "x265-params": "log-level=none:pools=1"}
    if codec == "libsvtav1":
        return {"preset": "12", "svtav1-params": "lp=1"}
    return {"libx264": {"preset": "ultrafast"}, "libvpx": {"cpu-used": "8"}, "libvpx-vp9": {"cpu-used": "8"}}.get(codec, {})


def _usual_audio_codec(path: Path) -> str:
    codecs = {"webm": "libopus", "mkv": "aac", "avi": "libmp3lame", "mp3": "libmp3lame", "wav": "pcm_s16le", "flac": "flac"}
    return codecs.get(path.suffix[1:], "aac")


def _write_video(container, stream, frame_times, size):
    time_base = stream.codec_context.time_base or Fraction(1, stream.codec_context.framerate)
    for index, seconds in enumerate(frame_times):
        frame = av.VideoFrame.from_ndarray(picture(index, len(frame_times), size), format="rgb24")
        frame.time_base = time_base
        frame.pts = round(seconds / time_base)
        container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
    container.mux(stream.encode(None))


def _write_audio(container, stream, sound, sampling_rate, layout, start):
    resampler = av.AudioResampler(format=stream.format, layout=stream.layout, rate=stream.rate, frame_size=stream.frame_size)
    packed = np.ascontiguousarray(sound.T, dtype=np.float32).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate = sampling_rate
    frame.time_base = Fraction(1, sampling_rate)
    frame.pts = round(start * sampling_rate)
    if not sound.size:
        return
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))
