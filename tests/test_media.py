"""Clips as users bring them: every container and codec that PyAV writes, and files that are not what they say."""

import concurrent.futures
import json
import multiprocessing
import os
import shutil
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from media_files import VIDEO_FORMATS, make_clip, picture, tone

from affectgpt import media
from affectgpt.media import MediaError, read_clip, resample, sample_indices

REFERENCE = Path(os.environ.get("AFFECTGPT_REFERENCE_DIR", Path(__file__).parents[2] / "shared/reference/video-llama"))
needs_reference = pytest.mark.skipif(not (REFERENCE / "videos").is_dir(), reason="The recorded reference tensors are not here.")
try:
    import decord
except (ImportError, OSError):
    decord = None
needs_decord = pytest.mark.skipif(decord is None, reason="decord has no wheel for this platform.")


@pytest.fixture
def no_decord(monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)


def decord_frames(path, count=8, **kwargs):
    reader = decord.VideoReader(str(path), **kwargs)
    return reader.get_batch(sample_indices(len(reader), count)).asnumpy()


def shown(frames):
    """How far each frame is into its clip, in [0, 1]: the blue of `media_files.picture`, read where the bar never is."""
    return frames[:, :, -frames.shape[2] // 4 :, 2].mean(axis=(1, 2)) / 200


def damage(source, path, start, stop):
    """Copy `source` with zeros from `start` to `stop` (fractions of its size)."""
    data = bytearray(source.read_bytes())
    first, last = int(len(data) * start), int(len(data) * stop)
    data[first:last] = bytes(last - first)
    path.write_bytes(data)
    return path


def cut(source, path, fraction):
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


@pytest.mark.parametrize(
    ("num_total", "indices"),
    [
        (1, [0] * 8),
        (5, [0, 1, 2, 3, 4, 4, 4, 4]),
        (8, list(range(8))),
        (25, [0, 3, 6, 9, 12, 15, 18, 21]),
        (100, [0, 12, 25, 37, 50, 62, 75, 87]),
        (251, [0, 31, 62, 94, 125, 156, 188, 219]),
    ],
)
def test_sample_indices_are_those_of_the_reference(num_total, indices):
    assert sample_indices(num_total, 8) == indices


@pytest.mark.parametrize("num_frames", [1, 5, 7, 8, 11, 16, 32])
def test_sample_indices_any_length_are_ordered_and_inside(num_frames):
    for num_total in range(1, 600):
        indices = sample_indices(num_total, num_frames)
        assert len(indices) == num_frames
        assert indices == sorted(indices)
        assert indices[0] == 0
        assert indices[-1] < num_total


def test_sample_indices_nothing_to_choose_from_raises():
    with pytest.raises(ValueError, match="at least one frame"):
        sample_indices(0, 8)


@needs_reference
def test_sample_indices_match_recorded_table():
    from safetensors.numpy import load_file

    tables = {name: table for name, table in load_file(REFERENCE / "preproc_video.safetensors").items() if "indices.n" in name}
    assert tables
    for table in tables.values():
        assert [sample_indices(row + 1, table.shape[1]) for row in range(len(table))] == table.tolist()


@needs_reference
def test_read_clip_reference_clips_are_bit_equal_to_recorded_frames():
    from safetensors.numpy import load_file

    recorded = load_file(REFERENCE / "preproc_video.safetensors")
    names = sorted(name.split(".")[1] for name in recorded if name.endswith(".frames_uint8"))
    assert names
    for name in names:
        expected = recorded[f"decord.{name}.frames_uint8"].transpose(1, 2, 3, 0)  # (T, H, W, C)
        path = REFERENCE / "videos" / f"{name}.avi"
        clip = read_clip(path, num_frames=len(expected), size=expected.shape[1:3])
        np.testing.assert_array_equal(clip.frames, expected)
        native = recorded.get(f"decord.{name}.native_uint8_THWC")
        if native is not None:
            np.testing.assert_array_equal(read_clip(path, num_frames=len(native)).frames, native)


@pytest.mark.parametrize(("container", "video_codec", "audio_codec"), VIDEO_FORMATS)
def test_read_clip_container_and_codec_gives_frames_times_and_sound(tmp_path, container, video_codec, audio_codec):
    path = make_clip(tmp_path / f"clip.{container}", video_codec=video_codec, audio_codec=audio_codec)
    clip = read_clip(path)
    assert clip.frames.shape == (8, 64, 64, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.duration == pytest.approx(2.0, abs=0.1)
    assert clip.notes == []
    # MPEG-4 in AVI counts the pictures by which the sound starts earlier.
    assert clip.frame_times == pytest.approx([index / 25 for index in sample_indices(50, 8)], abs=0.09)
    np.testing.assert_allclose(shown(clip.frames), np.array(sample_indices(50, 8)) / 49, atol=0.04)
    assert clip.waveform.dtype == np.float32
    assert len(clip.waveform) == pytest.approx(32_000, abs=1500)
    spectrum = np.abs(np.fft.rfft(clip.waveform[8000:24_000]))
    assert spectrum.argmax() == pytest.approx(440, abs=2)  # 1 s: one bin per Hz


@needs_decord
@pytest.mark.parametrize("size", [None, (56, 40), (112, 112)])
@pytest.mark.parametrize(
    ("container", "video_codec"), [("mp4", "libx264"), ("mkv", "libvpx-vp9"), ("avi", "mpeg4"), ("mp4", "libx265")]
)
def test_read_clip_frames_are_bit_equal_to_decord_with_it_and_without(tmp_path, monkeypatch, container, video_codec, size):
    path = make_clip(tmp_path / f"c.{container}", video_codec=video_codec, size=(50, 78), keyframe_interval=250, audio=False)
    expected = decord_frames(path, **({} if size is None else {"height": size[0], "width": size[1]}))
    np.testing.assert_array_equal(read_clip(path, size=size).frames, expected)
    monkeypatch.setitem(sys.modules, "decord", None)
    np.testing.assert_array_equal(read_clip(path, size=size).frames, expected)


@pytest.mark.parametrize("video_codec", ["libx264", "libx265", "libvpx", "libsvtav1"])
@pytest.mark.parametrize("interval", [3, 12, 250])
def test_read_clip_any_key_frame_interval_gives_the_frames_at_the_indices(tmp_path, video_codec, interval):
    container = "webm" if video_codec == "libvpx" else "mp4"
    path = make_clip(tmp_path / f"c.{container}", video_codec=video_codec, keyframe_interval=interval, audio=False)
    with av.open(str(path)) as opened:
        every = [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]
    clip = read_clip(path, num_frames=16)
    expected = shown(np.stack([every[index] for index in sample_indices(50, 16)]))
    np.testing.assert_allclose(shown(clip.frames), expected, atol=0.004)  # a frame further is 0.02


def test_read_clip_variable_frame_rate_counts_frames_and_tells_their_times(tmp_path):
    times = [0.0, 0.1, 0.15, 0.5, 0.9, 1.0, 1.8]
    for name in ("c.mp4", "c.mkv"):
        clip = read_clip(make_clip(tmp_path / name, frame_times=times), num_frames=4)
        assert clip.frame_times == pytest.approx([times[index] for index in sample_indices(7, 4)], abs=0.002)
        np.testing.assert_allclose(shown(clip.frames), np.array(sample_indices(7, 4)) / 6, atol=0.03)


@pytest.mark.parametrize("size", [None, (40, 24)])
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_read_clip_turned_picture_comes_upright(tmp_path, rotation, size):
    plain = read_clip(make_clip(tmp_path / "plain.mp4", size=(48, 80)))
    turned = read_clip(make_clip(tmp_path / "turned.mp4", size=(48, 80), rotation=rotation), size=size)
    upright = np.rot90(plain.frames, rotation // 90, axes=(1, 2))
    assert turned.frames.shape[1:3] == (size or upright.shape[1:3])
    if size is None:
        assert np.abs(turned.frames.astype(int) - upright).mean() < 3
    else:
        rows, columns = (np.linspace(2, length - 3, 6).astype(int) for length in size)
        like = (np.linspace(2, length - 3, 6).astype(int) for length in upright.shape[1:3])
        near = upright[:, next(like)][:, :, next(like)].astype(int)
        assert np.abs(turned.frames[:, rows][:, :, columns] - near).mean() < 25


@needs_decord
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_read_clip_turned_and_sized_is_bit_equal_to_decord(tmp_path, rotation):
    path = make_clip(tmp_path / "turned.mp4", size=(48, 80), rotation=rotation)
    reader = decord.VideoReader(str(path), height=32, width=64)  # frame by frame: `get_batch` fails on turned pictures
    expected = np.stack([reader[index].asnumpy() for index in sample_indices(50, 8)])
    np.testing.assert_array_equal(read_clip(path, size=(32, 64)).frames, expected)


def test_read_clip_mirrored_picture_is_mirrored_not_turned(tmp_path):
    path = make_clip(tmp_path / "c.mp4", size=(48, 80), rotation=180)
    data = path.read_bytes()
    turned_by_180 = b"".join(number.to_bytes(4, "big", signed=True) for number in (-65536, 0, 0, 0, -65536, 0))
    mirrored = b"".join(number.to_bytes(4, "big", signed=True) for number in (-65536, 0, 0, 0, 65536, 0))
    assert data.count(turned_by_180) == 1
    path.write_bytes(data.replace(turned_by_180, mirrored))
    plain = read_clip(make_clip(tmp_path / "plain.mp4", size=(48, 80)))
    assert np.abs(read_clip(path).frames.astype(int) - plain.frames[:, :, ::-1]).mean() < 3


def test_read_clip_trimmed_by_an_edit_list_shows_only_what_a_player_shows(tmp_path):
    path = make_clip(
        tmp_path / "c.mp4",
        frame_times=[index / 25 - 0.52 for index in range(50)],
        audio_start=-0.52,
        options={"avoid_negative_ts": "disabled"},
    )
    clip = read_clip(path)
    assert min(clip.frame_times) >= 0
    np.testing.assert_allclose(shown(clip.frames), (np.array(clip.frame_times) * 25 + 13) / 49, atol=0.03)


@pytest.mark.parametrize("size", [(33, 47), (1, 1), (64, 65)])
def test_read_clip_odd_size_keeps_it(tmp_path, size):
    path = make_clip(tmp_path / "c.mp4", size=size, pixel_format="yuv444p", video_codec="libx264", audio=False)
    assert read_clip(path).frames.shape == (8, *size, 3)
    assert read_clip(path, size=(28, 28)).frames.shape == (8, 28, 28, 3)


def test_read_clip_picture_that_changes_size_on_the_way_keeps_the_first(tmp_path):
    parts = [make_clip(tmp_path / f"{side}.ts", size=(side, side), audio=False).read_bytes() for side in (64, 96)]
    (tmp_path / "c.ts").write_bytes(b"".join(parts))
    assert read_clip(tmp_path / "c.ts").frames.shape == (8, 64, 64, 3)
    assert read_clip(tmp_path / "c.ts", size=(32, 48)).frames.shape == (8, 32, 48, 3)


@pytest.mark.parametrize("sampling_rate", [8000, 11_025, 16_000, 22_050, 44_100, 47_999, 48_000, 96_000])
def test_read_clip_any_sampling_rate_gives_the_same_tone(tmp_path, sampling_rate):
    path = make_clip(tmp_path / "c.wav", video=False, sampling_rate=sampling_rate, layout="stereo")
    clip = read_clip(path)
    assert clip.frames is None
    assert clip.notes == ["The clip has no picture."]
    assert len(clip.waveform) == pytest.approx(32_000, abs=16)
    np.testing.assert_allclose(clip.waveform[100:-100], tone(2.0, 16_000)[0, 100 : len(clip.waveform) - 100], atol=0.05)


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1", "7.1", "quad"])
def test_read_clip_any_channel_layout_stays_within_one(tmp_path, layout):
    channels = av.AudioLayout(layout).nb_channels
    path = make_clip(tmp_path / "c.wav", video=False, layout=layout, waveform=np.full((channels, 16_000), 0.99, dtype=np.float32))
    waveform = read_clip(path).waveform
    assert waveform.shape == (16_000,)
    assert np.abs(waveform).max() <= 1
    assert waveform[8000] == pytest.approx(0.99, abs=0.01)


def test_read_clip_surround_sound_keeps_its_centre(tmp_path):
    levels = []
    for channel in range(6):  # FL FR FC LFE BL BR
        waveform = np.zeros((6, 16_000), dtype=np.float32)
        waveform[channel] = tone(1.0, 16_000)[0]
        path = make_clip(tmp_path / f"{channel}.wav", video=False, layout="5.1", waveform=waveform)
        levels.append(np.abs(read_clip(path).waveform).max())
    assert max(levels) == levels[2] > 0.05
    assert levels[3] == 0


def test_read_clip_float_sound_with_nan_and_overshoot_is_made_finite(tmp_path):
    waveform = np.tile(np.array([np.nan, np.inf, -5, 0.5], dtype=np.float32), 4000)[None]
    for sampling_rate in (16_000, 44_100):
        path = make_clip(tmp_path / "c.wav", video=False, audio_codec="pcm_f32le", sampling_rate=sampling_rate, waveform=waveform)
        result = read_clip(path).waveform
        assert np.isfinite(result).all()
        assert np.abs(result).max() <= 1


def test_read_clip_late_sound_stays_in_step_with_the_picture(tmp_path):
    clip = read_clip(make_clip(tmp_path / "c.mkv", seconds=1.0, audio_codec="pcm_s16le", audio_start=0.5))
    onset = np.flatnonzero(np.abs(clip.waveform) > 0.01)[0] / 16_000
    assert onset == pytest.approx(0.5, abs=0.01)
    assert clip.notes == []


@pytest.mark.parametrize("sampling_rate", [8000, 44_100, 47_999])
def test_read_clip_resamples_by_blocks_as_resample_does_at_once(tmp_path, monkeypatch, sampling_rate):
    monkeypatch.setattr(media, "_BLOCK_SECONDS", 0.5)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, int(sampling_rate * 3.3))).astype(np.float32)
    path = make_clip(tmp_path / "c.wav", video=False, audio_codec="pcm_f32le", sampling_rate=sampling_rate, waveform=noise)
    np.testing.assert_allclose(read_clip(path).waveform, resample(noise[0], sampling_rate), atol=1e-6)


def test_resample_equals_torchaudio_and_keeps_channels():
    from torchaudio.functional import resample as torchaudio_resample

    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 44_100)).astype(np.float32)
    result = resample(noise, 44_100)
    assert result.shape == (2, 16_000)
    np.testing.assert_array_equal(result, torchaudio_resample(torch.from_numpy(noise), 44_100, 16_000).numpy())
    np.testing.assert_array_equal(resample(noise[0], 16_000), noise[0])


def test_resample_impossible_rate_raises():
    with pytest.raises(ValueError, match="sampling rate in Hz, got 0"):
        resample(np.zeros(10, dtype=np.float32), 0)


@pytest.mark.parametrize(("seconds", "num_frames"), [(0.04, 1), (0.2, 5)])
def test_read_clip_very_short_clip_repeats_its_last_frame(tmp_path, seconds, num_frames):
    clip = read_clip(make_clip(tmp_path / "c.mp4", seconds=seconds))
    assert clip.frames.shape[0] == 8
    assert len(set(clip.frame_times)) == num_frames
    assert (clip.frames[num_frames - 1 :] == clip.frames[-1]).all()
    assert clip.duration == pytest.approx(seconds, abs=0.001)


def test_read_clip_only_what_is_wanted(tmp_path):
    path = make_clip(tmp_path / "c.mp4")
    picture_only, sound_only = read_clip(path, audio=False), read_clip(path, video=False)
    assert picture_only.waveform is None
    assert picture_only.notes == []
    assert sound_only.frames is None
    assert sound_only.frame_times == []
    assert sound_only.notes == []


def test_read_clip_without_sound_says_so(tmp_path):
    clip = read_clip(make_clip(tmp_path / "c.mp4", audio=False))
    assert clip.waveform is None
    assert clip.notes == ["The clip has no sound."]


def test_read_clip_silent_sound_says_so(tmp_path):
    clip = read_clip(make_clip(tmp_path / "c.mp4", waveform=np.zeros((1, 32_000), dtype=np.float32)))
    assert clip.waveform is not None
    assert clip.notes == ["The sound is silent."]


def test_read_clip_sound_track_without_samples_says_so(tmp_path):
    path = make_clip(tmp_path / "c.mkv", waveform=np.zeros((1, 0), dtype=np.float32))
    clip = read_clip(path)
    assert clip.frames is not None
    assert clip.waveform is None
    assert clip.notes == ["The clip has a sound track, but no sound can be read from it."]


def test_read_clip_picture_track_without_frames_says_so(tmp_path):
    path = make_clip(tmp_path / "c.mkv", frame_times=[])
    clip = read_clip(path)
    assert clip.frames is None
    assert clip.waveform is not None
    assert clip.notes == ["The clip has a picture track, but no frame of it can be read."]
    with pytest.raises(MediaError, match="expected a clip with picture, got none"):
        read_clip(path, audio=False)


@pytest.mark.parametrize(("name", "codec"), [("c.mp3", "libmp3lame"), ("c.flac", "flac")])
def test_read_clip_cover_art_is_no_picture(tmp_path, name, codec):
    sound = make_clip(tmp_path / ("plain" + name), video=False, audio_codec=codec)
    with av.open(str(sound)) as source, av.open(str(tmp_path / name), "w") as output:
        track = output.add_stream_from_template(source.streams.audio[0])
        cover = output.add_stream("mjpeg", rate=1)
        cover.width = cover.height = 64
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        image = av.VideoFrame.from_ndarray(picture(0, 1, (64, 64)), format="rgb24").reformat(format="yuvj420p")
        image.pts = 0
        output.mux([*cover.encode(image), *cover.encode(None)])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = track
                output.mux(packet)
    with av.open(str(tmp_path / name)) as written:
        assert len(written.streams.video) == 1
    clip = read_clip(tmp_path / name)
    assert clip.frames is None
    assert clip.waveform is not None
    assert clip.notes == ["The clip has no picture."]


def test_read_clip_file_without_header_duration_is_measured_and_limited(tmp_path):
    path = make_clip(tmp_path / "live.webm", video_codec="libvpx", options={"live": "1"})
    with av.open(str(path)) as container:
        assert container.duration is None
    assert read_clip(path).duration == pytest.approx(2.0, abs=0.05)
    with pytest.raises(MediaError, match="at most 1 s"):
        read_clip(path, max_duration=1)


def test_read_clip_too_long_is_refused_before_anything_is_decoded(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "c.mp4", seconds=3.0)
    assert read_clip(path, max_duration=3).duration == pytest.approx(3.0)
    monkeypatch.setattr(media, "_packets", None)
    with pytest.raises(MediaError, match=r"c\.mp4: expected a clip of at most 2\.5 s, got 3\.0 s"):
        read_clip(path, max_duration=2.5)


def test_read_clip_too_large_picture_is_refused(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "c.mp4")
    monkeypatch.setattr(media, "MAX_FRAME_PIXELS", 1000)
    with pytest.raises(MediaError, match="at most 1000 pixels, got 64 x 64"):
        read_clip(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.mp4", None, "got no file of this name"),
        ("empty.mp4", b"", "got an empty file"),
        ("text.mp4", b"I am no video.\n" * 50, "expected a video or sound file"),
        ("zeros.mp4", bytes(5000), "expected a video or sound file"),
        (
            "playlist.mp4",
            b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
            "expected a video",
        ),
        ("list.mp4", b"ffconcat version 1.0\nfile other.mp4\n", "expected a video or sound file"),
    ],
)
def test_read_clip_no_media_file_raises_naming_it(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(MediaError, match=message) as error:
        read_clip(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))


def test_read_clip_playlist_never_opens_other_files(tmp_path):
    make_clip(tmp_path / "secret.ts")
    for name, text in (
        ("hls.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.ts\n#EXT-X-ENDLIST\n"),
        ("concat.mp4", "ffconcat version 1.0\nfile secret.ts\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(MediaError):
            read_clip(tmp_path / name)


def test_read_clip_folder_raises(tmp_path):
    with pytest.raises(MediaError, match="got a folder"):
        read_clip(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="The superuser may read every file.")
def test_read_clip_without_permission_raises(tmp_path):
    path = make_clip(tmp_path / "c.mp4")
    path.chmod(0)
    with pytest.raises(MediaError, match="got no permission"):
        read_clip(path)


def test_read_clip_permission_denied_by_the_system_raises(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "c.mp4")
    monkeypatch.setattr(media.os, "access", lambda name, mode: False)
    with pytest.raises(MediaError, match="got no permission"):
        read_clip(path)


def test_read_clip_cut_before_its_index_raises(tmp_path):
    path = cut(make_clip(tmp_path / "whole.mp4"), tmp_path / "cut.mp4", 0.8)
    with pytest.raises(MediaError, match="lost its beginning or its index"):
        read_clip(path)


@pytest.mark.parametrize(("container", "video_codec"), [("mp4", "libx264"), ("webm", "libvpx"), ("mkv", "libx264")])
def test_read_clip_cut_in_half_is_judged_from_the_rest(tmp_path, container, video_codec):
    options = {"movflags": "faststart"} if container == "mp4" else None
    whole = make_clip(tmp_path / f"whole.{container}", seconds=6.0, video_codec=video_codec, options=options)
    clip = read_clip(cut(whole, tmp_path / f"cut.{container}", 0.5))
    assert clip.frames.shape == (8, 64, 64, 3)
    assert 1.5 < clip.duration < 4.5
    assert max(clip.frame_times) < clip.duration
    np.testing.assert_allclose(shown(clip.frames), np.array(clip.frame_times) * 25 / 149, atol=0.04)
    assert len(clip.waveform) / 16_000 == pytest.approx(clip.duration, abs=0.3)
    assert [note for note in clip.notes if note.startswith(f"The clip is cut or damaged after {clip.duration:.1f} s of 6.")]


@pytest.mark.parametrize("uses_decord", [True, False])
def test_read_clip_damaged_in_the_middle_is_judged_from_what_decodes(tmp_path, monkeypatch, uses_decord):
    if not uses_decord:
        monkeypatch.setitem(sys.modules, "decord", None)
    whole = make_clip(tmp_path / "whole.mp4", seconds=6.0, options={"movflags": "faststart"})
    clip = read_clip(damage(whole, tmp_path / "damaged.mp4", 0.5, 0.6))
    assert clip.frames.shape == (8, 64, 64, 3)
    assert clip.duration == pytest.approx(6.0)
    assert "The picture is damaged in places; only frames that can be read are used." in clip.notes
    assert len(clip.waveform) / 16_000 == pytest.approx(6.0, abs=0.2)
    assert any("of the sound are missing" in note for note in clip.notes)


def test_read_clip_damaged_at_random_never_fails_otherwise(tmp_path):
    rng = np.random.default_rng(0)
    for container, codec in (("mp4", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4"), ("mp4", "libsvtav1")):
        whole = make_clip(
            tmp_path / f"whole.{container}", video_codec=codec, audio_codec="libopus" if container == "webm" else None
        )
        for _ in range(15):
            data = bytearray(whole.read_bytes())
            for position in rng.integers(0, len(data), 20):
                data[position] = rng.integers(256)
            path = tmp_path / f"damaged.{container}"
            path.write_bytes(data)
            try:
                clip = read_clip(path, max_duration=60)
            except MediaError:
                continue
            assert clip.frames is not None or clip.waveform is not None
            assert clip.frames is None or len(clip.frames) == len(clip.frame_times) == 8


def test_read_clip_bad_file_prints_nothing(tmp_path, capfd):
    whole = make_clip(tmp_path / "whole.mp4", seconds=6.0, options={"movflags": "faststart"})
    damaged = damage(whole, tmp_path / "damaged.mp4", 0.5, 0.6)
    av1 = make_clip(tmp_path / "av1.mp4", video_codec="libsvtav1")
    capfd.readouterr()
    for path in (damaged, av1):
        read_clip(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["späß 漢字.mp4", "a:b.mp4", "100%d.mp4", "-i.mp4", "http:x.mp4"])
def test_read_clip_odd_name_is_only_a_name(tmp_path, monkeypatch, name):
    shutil.copy(make_clip(tmp_path / "c.mp4"), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert read_clip(name).frames is not None
    assert read_clip(Path(name)).path == str(tmp_path / name)


def test_read_clip_without_decord_reads_everything(tmp_path, no_decord):
    clip = read_clip(make_clip(tmp_path / "c.mp4"), size=(32, 32))
    assert clip.frames.shape == (8, 32, 32, 3)
    assert clip.notes == []


@needs_decord
def test_read_clip_with_a_decord_bridge_set_still_gives_arrays(tmp_path):
    path = make_clip(tmp_path / "c.mp4")
    expected = read_clip(path).frames
    decord.bridge.set_bridge("torch")
    try:
        frames = read_clip(path).frames
    finally:
        decord.bridge.reset_bridge()
    assert isinstance(frames, np.ndarray)
    np.testing.assert_array_equal(frames, expected)


def test_read_clip_variable_bit_rate_mp3_has_its_true_length(tmp_path):
    waveform = np.concatenate([np.zeros((1, 30_000), np.float32), tone(4.0, 16_000) * 3], axis=1)
    path = make_clip(tmp_path / "c.mp3", video=False, waveform=waveform, options={"write_xing": "0"})
    clip = read_clip(path)
    assert clip.duration == pytest.approx(5.9, abs=0.2)
    assert clip.notes == ["The clip has no picture."]


def test_read_clip_in_threads_and_processes_gives_the_same(tmp_path):
    path = make_clip(tmp_path / "c.mp4", sampling_rate=44_100)
    expected = read_clip(path)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        clips = list(threads.map(read_clip, [path] * 12))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        clips += pool.map(read_clip, [path] * 2)
    for clip in clips:
        np.testing.assert_array_equal(clip.frames, expected.frames)
        np.testing.assert_array_equal(clip.waveform, expected.waveform)


def test_read_clip_leaves_no_file_open(tmp_path):
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("Open files are counted through /proc.")
    paths = [make_clip(tmp_path / "c.mp4"), make_clip(tmp_path / "av1.mp4", video_codec="libsvtav1")]
    paths.append(damage(paths[0], tmp_path / "damaged.mp4", 0.3, 0.4))
    for path in paths:
        read_clip(path)
    assert not [link for link in descriptors.iterdir() if link.exists() and str(tmp_path) in os.readlink(link)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_frames": 0}, "num_frames"),
        ({"size": (0, 5)}, "size"),
        ({"size": (5,)}, "size"),
        ({"video": False, "audio": False}, "neither"),
    ],
)
def test_read_clip_senseless_argument_raises(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        read_clip(tmp_path / "c.mp4", **arguments)


def test_clip_notes_are_plain_strings(tmp_path):
    clip = read_clip(make_clip(tmp_path / "c.mp4", audio=False))
    assert json.loads(json.dumps([clip.path, clip.frame_times, clip.duration, clip.notes])) == [
        clip.path,
        clip.frame_times,
        clip.duration,
        clip.notes,
    ]
