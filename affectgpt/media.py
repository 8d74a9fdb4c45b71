"""Files to arrays: the frames and the sound of a clip. The only module that opens media.

Frames come from decord, at the indices and with the resizing of Video-LLaMA's `load_video`: swscale bilinear, aspect ratio ignored.
PyAV reads the sound, and the frames where decord 0.6.0 is absent, fails or gives wrong ones (`_is_safe_for_decord`); on 8-bit video
the two agree to the bit. A file is read packet by packet: memory is that of the chosen frames and of the sound at 16 kHz, however
long the clip is.

Sound becomes mono by libswresample's standard downmix, in which the centre of 5.1 keeps its weight (dialogue is there) and the
subwoofer is left out, and 16 kHz by torchaudio's windowed sinc.
"""

import math
import multiprocessing
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
import torch

SAMPLING_RATE = 16_000
# One 8K picture. Larger ones are refused before they are decoded.
MAX_FRAME_PIXELS = 7680 * 4320

# What is opened at all: containers that hold their own media. A playlist (HLS, DASH, concat) could make FFmpeg open other files.
_CONTAINERS = (
    "3g2,3gp,aac,ac3,aiff,amr,asf,avi,caf,dv,flac,flv,gif,ivf,m4a,matroska,mj2,mov,mp3,mp4,mpeg,mpegts,mxf,ogg,w64,wav,webm"
)
# Where decord's seeking is right; in a program stream (mpeg) it returns the first frames over and over.
_DECORD_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")
# Whose duration FFmpeg guesses from the bit rate of the beginning.
_GUESSED_DURATION = ("aac", "ac3", "amr", "mp3")
# Seconds. Containers round times, and codecs pad the last packet; anything shorter is not a gap, a cut or too long.
_TIME_TOLERANCE = 0.1
# A header may well be wrong by this much (seconds) without a clip having been cut.
_CUT_TOLERANCE = 0.5
_SILENCE = 1e-3
# Seconds. A longer gap in the sound is a broken time stamp.
_LONGEST_GAP = 60.0
# Of sound that is resampled at a time.
_BLOCK_SECONDS = 10


class MediaError(ValueError):
    """A file cannot be read as a clip. The message names the file, what was expected, what was found and what to do."""


@dataclass(frozen=True)
class Clip:
    """What `read_clip` found in a file.

    Attributes:
        path (`str`): the file.
        frames (`np.ndarray` of shape `(T, height, width, 3)`, *optional*): uint8 RGB, upright; `None` without a picture.
        frame_times (`list[float]`): seconds from the start of the clip at which each frame is shown; empty without a picture.
        waveform (`np.ndarray` of shape `(num_samples,)`, *optional*): float32 in [-1, 1], mono, 16 kHz; `None` without sound.
        duration (`float`): seconds.
        notes (`list[str]`): what is missing, silent or damaged, as sentences for the user.
    """

    path: str
    frames: np.ndarray | None
    frame_times: list[float]
    waveform: np.ndarray | None
    duration: float
    notes: list[str] = field(default_factory=list)


def read_clip(
    path: str | os.PathLike,
    *,
    num_frames: int = 8,
    size: tuple[int, int] | None = None,
    max_duration: float | None = None,
    video: bool = True,
    audio: bool = True,
) -> Clip:
    """Read `num_frames` frames, evenly spaced by index, and the whole sound of a clip.

    What is missing is `None`; of a damaged file, what still decodes is returned; `notes` says so. The file is opened and closed in
    the call, so that clips may be read in forked workers and in threads.

    Args:
        path (`str` or `os.PathLike`): a video or sound file (mp4, mov, mkv, webm, avi, ...).
        num_frames (`int`): frames to return; of a shorter clip the last one is repeated.
        size (`tuple[int, int]`, *optional*): height and width in pixels to which each frame is stretched; their own by default.
        max_duration (`float`, *optional*): seconds; a longer clip is refused before its frames are decoded.
        video (`bool`): whether frames are wanted.
        audio (`bool`): whether sound is wanted.

    Returns:
        [`Clip`]

    Raises:
        MediaError: if the file cannot be opened, holds neither picture nor sound of those wanted, or exceeds a limit.
        ValueError: if an argument makes no sense.
    """
    if num_frames < 1:
        raise ValueError(f"Expected `num_frames` of at least 1, got {num_frames}.")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"Expected `size` as (height, width) in pixels, got {size}.")
    if not (video or audio):
        raise ValueError("Expected `video` or `audio` to be wanted, got neither.")
    path = _check_file(path)
    scan = _scan(path, max_duration=max_duration, with_sound=audio)

    notes = []
    frames, times = None, []
    if video and scan.has_picture_track:
        if scan.picture_index is not None:
            frames, times = _read_frames(path, scan, num_frames, size)
        if frames is None:
            notes.append("The clip has a picture track, but no frame of it can be read.")
        elif scan.is_damaged and not scan.is_cut:
            notes.append("The picture is damaged in places; only frames that can be read are used.")
    elif video:
        notes.append("The clip has no picture.")
    waveform = scan.waveform
    if audio:
        notes += _notes_on_sound(scan)
    if frames is None and waveform is None:
        wanted = " or ".join(name for name, is_wanted in (("picture", video), ("sound", audio)) if is_wanted)
        raise MediaError(
            f"{path}: expected a clip with {wanted}, got none that can be read. "
            "Play the file to see whether it is whole, or choose another one."
        )
    if scan.is_cut:
        notes.append(f"The clip is cut or damaged after {scan.end:.1f} s of {scan.stated_duration:.1f} s; the rest cannot be read.")
    times = [min(max(time, 0.0), scan.duration) for time in times]  # damaged files hold any time stamp
    return Clip(path=path, frames=frames, frame_times=times, waveform=waveform, duration=scan.duration, notes=notes)


def sample_indices(num_total: int, num_frames: int) -> list[int]:
    """Indices of `num_frames` frames out of `num_total`, at floor(i * num_total / num_frames); the last is repeated in short clips.

    Source: `load_video` of Video-LLaMA (processors/video_processor.py), whose `np.arange` computes in float64 like this.
    """
    if num_total < 1 or num_frames < 1:
        raise ValueError(f"Expected at least one frame to choose and to choose from, got {num_frames} of {num_total}.")
    count = min(num_frames, num_total)
    indices = [int(i * (num_total / count)) for i in range(count)]
    return indices + [indices[-1]] * (num_frames - count)


def resample(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Bring sound to 16 kHz by torchaudio's windowed sinc.

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)` or `(channels, num_samples)`): float32.
        sampling_rate (`int`): of `waveform`, in Hz.

    Returns:
        `np.ndarray` of the same shape but for its length, ceil(num_samples * 16000 / sampling_rate).
    """
    return _resampler(sampling_rate)(torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))).numpy()


def _resampler(sampling_rate: int):
    # Here, because importing torchaudio takes long and sound at 16 kHz never needs it.
    from torchaudio.transforms import Resample

    if sampling_rate < 1:
        raise ValueError(f"Expected a sampling rate in Hz, got {sampling_rate}.")
    if math.gcd(sampling_rate, SAMPLING_RATE) < 10:
        # The filter bank grows with the common multiple of both rates, to gigabytes at 47,999 Hz; 5 Hz more or less are not heard.
        sampling_rate = max(10, round(sampling_rate / 10) * 10)
    # dtype: as `torchaudio.functional.resample` computes its filter for float32 sound, which the reference uses.
    return Resample(sampling_rate, SAMPLING_RATE, dtype=torch.float32)


def _check_file(path: str | os.PathLike) -> str:
    # Absolute, so that FFmpeg takes no part of a name like "a:b.mp4" for a protocol.
    name = os.path.abspath(os.fsdecode(path))
    if os.path.isdir(name):
        raise MediaError(f"{name}: expected a video or sound file, got a folder. Give the path of a file in it.")
    if not os.path.isfile(name):
        raise MediaError(f"{name}: expected a video or sound file, got no file of this name. Check the path.")
    if os.path.getsize(name) == 0:
        raise MediaError(f"{name}: expected a video or sound file, got an empty file. Copy or record it again.")
    if not os.access(name, os.R_OK):
        raise MediaError(f"{name}: expected a file that may be read, got no permission. Change its permissions (`chmod u+r`).")
    return name


def open_container(path):
    """An opened file or buffer of a known media format, for reading; `MediaError` if it is none."""
    try:
        return av.open(path, options={"format_whitelist": _CONTAINERS}, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise MediaError(
            f"{path}: expected a video or sound file (mp4, mov, mkv, webm, avi, wav, ...), got something else or a file that lost "
            f"its beginning or its index ({error.strerror}). Play it to see whether it is whole; record, copy or convert it again."
        ) from error


def _best_stream(container, kind: str):
    """The stream to read (`None` if there is none that can be decoded), and whether there is any. Cover art is no picture."""
    attached = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams if stream.type == kind and not stream.disposition & attached]
    decodable = [stream for stream in streams if stream.codec_context is not None]
    best = container.streams.best(kind)
    return best if best in decodable else next(iter(decodable), None), bool(streams)


@dataclass
class _Scan:
    """What one pass over the packets of a file told, with the sound decoded on the way."""

    container: str  # FFmpeg's name of the format
    stated_duration: float | None
    end: float = 0.0  # seconds, of the last packet
    start: float = 0.0  # seconds, the time that the container gives to its first packet
    has_picture_track: bool = False
    picture_index: int | None = None  # of its stream, if it can be decoded
    num_picture_streams: int = 0
    time_base: Fraction | None = None  # seconds, unit of `pts`
    orientation: list[tuple[str, str]] = field(default_factory=list)
    # Of each picture packet, in the order of decoding.
    pts: array = field(default_factory=lambda: array("q"))
    is_key: bytearray = field(default_factory=bytearray)
    is_hidden: bytearray = field(default_factory=bytearray)  # by an edit list: decoded, not shown
    is_damaged: bool = False  # the picture, or the file itself
    has_sound_track: bool = False
    sound_is_damaged: bool = False
    missing_sound: float = 0.0
    waveform: np.ndarray | None = None

    @property
    def is_cut(self) -> bool:
        return self.stated_duration is not None and self.stated_duration - self.end > _CUT_TOLERANCE

    @property
    def duration(self) -> float:
        return self.end if self.stated_duration is None or self.is_cut else self.stated_duration


def _scan(path: str, *, max_duration: float | None, with_sound: bool) -> _Scan:
    with open_container(path) as container:
        # 0 and None both mean that there is none.
        has_duration = container.duration and container.duration > 0 and container.format.name not in _GUESSED_DURATION
        stated = container.duration / av.time_base if has_duration else None
        scan = _Scan(container=container.format.name, stated_duration=stated, start=(container.start_time or 0) / av.time_base)
        _check_duration(path, stated or 0.0, max_duration)
        picture, scan.has_picture_track = _best_stream(container, "video")
        sound, scan.has_sound_track = _best_stream(container, "audio")
        if not (scan.has_picture_track or scan.has_sound_track):
            raise MediaError(f"{path}: expected a clip with picture or sound, got neither. Choose another file.")
        if picture is not None:
            scan.picture_index, scan.time_base = picture.index, picture.time_base
            scan.num_picture_streams = len(container.streams.video)
            if picture.width * picture.height > MAX_FRAME_PIXELS:
                raise MediaError(
                    f"{path}: expected pictures of at most {MAX_FRAME_PIXELS} pixels, got {picture.width} x {picture.height}. "
                    "Convert the clip to a smaller size."
                )
        track = _SoundTrack(scan.start)
        is_seen = False
        # All streams, since subtitles or chapters may be what makes the stated duration.
        for packet in _packets(container, container.streams, scan):
            time = packet.pts if packet.pts is not None else packet.dts
            if time is not None:
                scan.end = max(scan.end, float((time + (packet.duration or 0)) * packet.time_base) - scan.start)
            _check_duration(path, max(scan.end, track.seconds), max_duration)
            if packet.stream is picture:
                scan.is_damaged |= packet.is_corrupt
                if packet.size:
                    scan.pts.append(time or 0)
                    scan.is_key.append(packet.is_keyframe)
                    scan.is_hidden.append(packet.is_discard)
                if not is_seen:
                    for frame in _decode(picture, packet, scan):
                        scan.orientation, is_seen = _orientation(frame), True
            elif with_sound and packet.stream is sound:
                scan.sound_is_damaged |= packet.is_corrupt
                try:
                    for frame in packet.decode():
                        track.add(frame)
                except av.FFmpegError:
                    scan.sound_is_damaged = True
        if with_sound:
            scan.waveform, scan.missing_sound = track.finish(), track.missing
    return scan


def _check_duration(path: str, seconds: float, max_duration: float | None) -> None:
    if max_duration is not None and seconds > max_duration + _TIME_TOLERANCE:
        raise MediaError(
            f"{path}: expected a clip of at most {max_duration:g} s, got {seconds:.1f} s or more. Cut out the part that matters."
        )


def _packets(container, streams: Iterable, scan: _Scan) -> Iterator[av.Packet]:
    """The packets of `streams`, as far as the file can be followed."""
    try:
        yield from container.demux(list(streams))
    except (av.FFmpegError, IndexError):  # IndexError: a stream that the beginning of the file does not announce
        scan.is_damaged = True


def _decode(stream, packet: av.Packet | None, scan: _Scan) -> list[av.VideoFrame]:
    try:
        return stream.decode(packet)
    except av.FFmpegError:
        scan.is_damaged = True
        return []


class _SoundTrack:
    """Gathers decoded sound as mono samples at 16 kHz, block by block: the native samples are never held as a whole."""

    def __init__(self, start: float):
        self.seconds = 0.0
        self.missing = 0.0  # seconds within the sound
        self._start = start
        self._rate = None
        self._source = None
        self._pending = []
        self._num_pending = 0
        self._samples = bytearray()

    def add(self, frame: av.AudioFrame) -> None:
        if self._rate is None:
            self._set_rate(frame.rate)
        source = (frame.format.name, frame.layout.name, frame.rate)
        if source != self._source:
            # A stream may change its layout or its rate on the way; what follows is brought to the rate of its beginning.
            # rematrix_maxval: float sound is not scaled down otherwise, and loud stereo would exceed 1.
            self._downmix = av.AudioResampler(format="flt", layout="mono", rate=self._rate, options={"rematrix_maxval": "1.0"})
            self._source = source
        gap = 0.0 if frame.time is None else frame.time - self._start - self.seconds
        if _TIME_TOLERANCE < gap < _LONGEST_GAP:
            # Late or lost sound: silence keeps what follows in step with the picture.
            if self.seconds:
                self.missing += gap
            self._push(np.zeros(round(gap * self._rate), dtype=np.float32))
        for piece in self._downmix.resample(frame):
            self._push(piece.to_ndarray().reshape(-1))

    def finish(self) -> np.ndarray | None:
        """All samples, `(num_samples,)` float32; `None` without any."""
        if self._num_pending:
            self._resample_pending(is_last=True)
        return np.frombuffer(self._samples, dtype=np.float32) if self._samples else None

    def _set_rate(self, rate: int) -> None:
        self._rate = rate
        self._resample = None if rate == SAMPLING_RATE else _resampler(rate)
        if self._resample is not None:
            # The filter turns each group of `step` samples into `step_out`, and looks at `context` samples on either side.
            self._step = self._resample.orig_freq // self._resample.gcd
            self._step_out = self._resample.new_freq // self._resample.gcd
            self._context = math.ceil(self._resample.width / self._step) * self._step
            self._pending = [np.zeros(self._context, dtype=np.float32)]

    def _push(self, samples: np.ndarray) -> None:
        self.seconds += len(samples) / self._rate
        if self._resample is None:
            self._keep(samples)
            return
        self._pending.append(samples)
        self._num_pending += len(samples)
        if self._num_pending >= _BLOCK_SECONDS * self._rate + self._context + self._step:
            self._resample_pending(is_last=False)

    def _resample_pending(self, *, is_last: bool) -> None:
        pending = np.concatenate(self._pending)  # begins with the `context` samples that came before
        resampled = self._resample(torch.from_numpy(np.nan_to_num(pending))).numpy()
        num_steps = (self._num_pending - self._context) // self._step
        first = self._context // self._step * self._step_out
        self._keep(resampled[first:] if is_last else resampled[first : first + num_steps * self._step_out])
        self._pending = [pending[num_steps * self._step :]]
        self._num_pending -= num_steps * self._step

    def _keep(self, samples: np.ndarray) -> None:
        self._samples += np.clip(np.nan_to_num(samples), -1.0, 1.0).tobytes()


def _notes_on_sound(scan: _Scan) -> list[str]:
    if not scan.has_sound_track:
        return ["The clip has no sound."]
    if scan.waveform is None:
        return ["The clip has a sound track, but no sound can be read from it."]
    notes = []
    if max(scan.waveform.max(), -scan.waveform.min()) < _SILENCE:
        notes.append("The sound is silent.")
    if scan.missing_sound:
        notes.append(f"{scan.missing_sound:.1f} s of the sound are missing; silence stands in for them.")
    elif scan.sound_is_damaged and not scan.is_cut:
        notes.append("The sound is damaged in places; only what can be read is used.")
    return notes


def _read_frames(path: str, scan: _Scan, num_frames: int, size: tuple[int, int] | None):
    """Frames and their times in seconds; `None` and no times if no frame can be decoded."""
    to_array = _FrameFilter(size, scan.orientation)
    positions = _shown_packets(scan)
    if len(positions) and not scan.is_damaged:
        indices = sample_indices(len(positions), num_frames)
        wanted = [scan.pts[position] for position in positions[indices]]
        times = [float(time * scan.time_base) - scan.start for time in wanted]
        frames = _frames_from_decord(path, scan, indices, size)
        if frames is not None:
            return frames, times
        needed = _needed_packets(scan, positions[indices].tolist())
        arrays = {frame.pts: to_array(frame) for frame in _decoded(path, scan, needed) if frame.pts in wanted}
        if len(arrays) == len(set(wanted)):
            return np.stack([arrays[time] for time in wanted]), times
    # Not every packet gives a frame: count what decodes, then choose among that.
    times = [frame.time - scan.start for frame in _decoded(path, scan) if frame.time is not None]
    if not times:
        return None, []
    indices = sample_indices(len(times), num_frames)
    decoded = (frame for frame in _decoded(path, scan) if frame.time is not None)
    arrays = {index: to_array(frame) for index, frame in enumerate(decoded) if index in indices}
    return np.stack([arrays[index] for index in indices]), [times[index] for index in indices]


def _is_safe_for_decord(scan: _Scan) -> bool:
    """Whether decord 0.6.0 gives the right frames.

    It knows few containers, fails on pictures turned by 90 degrees, counts frames that an edit list hides, may take cover art for
    the picture, and miscounts after seeking to a key frame that later packets precede on screen (open groups of pictures: most
    HEVC).
    """
    if scan.container not in _DECORD_CONTAINERS or scan.orientation or any(scan.is_hidden) or scan.num_picture_streams > 1:
        return False
    last_key = -math.inf
    for pts, is_key in zip(scan.pts, scan.is_key, strict=True):
        if is_key:
            last_key = pts
        elif pts < last_key:
            return False
    return True


def _frames_from_decord(path: str, scan: _Scan, indices: list[int], size: tuple[int, int] | None) -> np.ndarray | None:
    """The frames at `indices`, or `None` where decord is not installed, not right or not able."""
    if not _is_safe_for_decord(scan):
        return None
    try:
        import decord
    except (ImportError, OSError, RuntimeError):  # not installed, or no library for this platform
        return None
    decord.logging.set_level(decord.logging.QUIET)
    height, width = size or (-1, -1)
    # One thread in a worker, which has its siblings; as many as decord likes otherwise.
    num_threads = 0 if multiprocessing.parent_process() is None else 1
    try:
        reader = decord.VideoReader(path, width=width, height=height, num_threads=num_threads)
        if len(reader) != len(scan.pts):
            return None
        batch = reader.get_batch(indices)
    # The C library raises DECORDError and RuntimeError, its Python part AssertionError for a stream without frames.
    except (decord.DECORDError, RuntimeError, AssertionError, UnicodeEncodeError):
        return None
    # The caller may have set a bridge, and then it is a tensor of that framework.
    return batch.asnumpy() if hasattr(batch, "asnumpy") else np.asarray(batch)


def _shown_packets(scan: _Scan) -> np.ndarray:
    """Positions of the picture packets (in the order of decoding) that are shown, in the order in which they are."""
    positions = np.flatnonzero(np.frombuffer(scan.is_hidden, dtype=np.uint8) == 0)
    return positions[np.argsort(np.frombuffer(scan.pts, dtype=np.int64)[positions], kind="stable")]


def _needed_packets(scan: _Scan, positions: list[int]) -> np.ndarray:
    """Which packets must be decoded for the frames in the packets at `positions`: from the key frame before each up to it."""
    needed = np.zeros(len(scan.pts), dtype=bool)
    keys = np.flatnonzero(np.frombuffer(scan.is_key, dtype=np.uint8))
    for position in positions:
        before = keys[: np.searchsorted(keys, position, side="right")]
        # A frame shown before the key frame that precedes it (open GOP) also needs the group before.
        if len(before) and scan.pts[position] < scan.pts[before[-1]]:
            before = before[:-1]
        needed[before[-1] if len(before) else 0 : position + 1] = True
    return needed


def _decoded(path: str, scan: _Scan, needed: np.ndarray | None = None) -> Iterator[av.VideoFrame]:
    """The frames that decode, in the order in which they are shown; of the `needed` packets only, if given."""
    with open_container(path) as container:
        stream = container.streams[scan.picture_index]
        if needed is not None:
            stream.thread_type = "AUTO"  # not for damaged files: which frames survive must not depend on threads
        is_fed = False
        for position, packet in enumerate(_packets(container, [stream], scan)):
            if needed is None or not packet.size or needed[position]:
                yield from _decode(stream, packet, scan)
                is_fed = True
            elif is_fed:
                yield from _decode(stream, None, scan)
                stream.codec_context.flush_buffers()
                is_fed = False


class _FrameFilter:
    """Turns decoded frames upright, stretches them to one size and converts them to RGB as decord does, to the bit."""

    def __init__(self, size: tuple[int, int] | None, orientation: list[tuple[str, str]]):
        self._size = size
        self._orientation = orientation
        self._source = None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """`(height, width, 3)` uint8."""
        source = (frame.width, frame.height, frame.format.name)
        if source != self._source:  # a stream may change its size on the way, as video calls do
            self._source = source
            self._configure(frame)
        self._graph.push(frame)
        return self._graph.pull().to_ndarray()

    def _configure(self, frame: av.VideoFrame) -> None:
        if self._size is None:
            is_turned = any(name == "transpose" for name, _ in self._orientation)
            self._size = (frame.width, frame.height) if is_turned else (frame.height, frame.width)
        height, width = self._size
        self._graph = av.filter.Graph()
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, av.time_base)
        )
        steps = [*self._orientation, ("scale", f"{width}:{height}:flags=bilinear"), ("format", "rgb24"), ("buffersink", None)]
        self._graph.link_nodes(source, *[self._graph.add(name, arguments) for name, arguments in steps]).configure()


def _orientation(frame: av.VideoFrame) -> list[tuple[str, str]]:
    """FFmpeg filters that turn a frame as its display matrix asks; none for most."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return []
    # x' = a x + c y and y' = b x + d y, in 16.16 fixed point, native byte order
    a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5].tolist()
    if abs(b) > abs(a):
        direction = {(True, False): "clock", (False, True): "cclock", (True, True): "cclock_flip", (False, False): "clock_flip"}
        return [("transpose", direction[b > 0, c > 0])]
    return [(name, "") for name, is_flipped in (("hflip", a < 0), ("vflip", d < 0)) if is_flipped]
