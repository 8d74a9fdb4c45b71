"""The words of a clip: from subtitle files as people have them, and from a speech recogniser."""

import numpy as np
import pytest
from media_files import make_clip, tone
from tiny_media_models import make_whisper

from affectgpt.explanation import NO_SUBTITLE, begin
from affectgpt.media import Clip
from affectgpt.subtitles import Subtitle, Transcriber, as_subtitle, find_subtitle, read_subtitle

SRT = """1
00:00:00,000 --> 00:00:01,500
I thought you

2
00:00:01,500 --> 00:00:03,000
<i>would</i> {\\an8}call.
Twice.
"""
VTT = """WEBVTT - a title

NOTE not said

STYLE
::cue { color: red }

first
00:00.000 --> 00:01.500 align:start
<v Roger>Tom &amp; <00:00.500>Jerry

00:01.500 --> 01:00:03.000
Tom & Jerry
are here.
"""


def written(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_srt_cues_are_joined(tmp_path, line_end):
    path = written(tmp_path / "clip.srt", SRT.replace("\n", line_end))
    assert read_subtitle(path) == Subtitle("I thought you would call. Twice.", "file clip.srt")


def test_srt_without_empty_lines_between_cues_is_read(tmp_path):
    path = written(tmp_path / "clip.srt", SRT.replace("\n\n", "\n"))
    assert read_subtitle(path).text == "I thought you would call. Twice."


def test_vtt_headers_markup_and_repeats_are_left_out(tmp_path):
    assert read_subtitle(written(tmp_path / "clip.vtt", VTT)).text == "Tom & Jerry are here."


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_chinese_is_read_in_usual_encodings(tmp_path, encoding):
    path = written(tmp_path / "clip.srt", SRT.replace("call.", "打电话。"), encoding)
    assert read_subtitle(path).text == "I thought you would 打电话。 Twice."


def test_number_that_is_said_stays(tmp_path):
    path = written(tmp_path / "clip.srt", "1\n00:00:00,000 --> 00:00:01,000\n42\n\n2\n00:00:01,000 --> 00:00:02,000\nYes\n")
    assert read_subtitle(path).text == "42 Yes"


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"just text", "expected cues with times"),
        (b"", "expected cues"),
        (b"\xff\xfe\xff", "expected text in UTF-8"),
        (b"\0" * 9, "expected text"),
    ],
)
def test_file_that_is_no_subtitle_raises_naming_it(tmp_path, content, expected):
    (tmp_path / "bad.srt").write_bytes(content)
    with pytest.raises(ValueError, match=f"bad.srt: {expected}"):
        read_subtitle(tmp_path / "bad.srt")


def test_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match="no.srt: expected a subtitle file"):
        read_subtitle(tmp_path / "no.srt")


def test_find_subtitle_goes_by_the_name_of_the_clip(tmp_path):
    written(tmp_path / "a.b.vtt", VTT)
    assert find_subtitle(tmp_path, "clips/a.b.mp4") == tmp_path / "a.b.vtt"
    assert find_subtitle(tmp_path, "clips/a.mp4") is None


def test_as_subtitle_of_no_words_is_none():
    assert as_subtitle(None) is as_subtitle(" \n") is as_subtitle(Subtitle("", "ASR x")) is None
    assert as_subtitle("a\n b") == Subtitle("a b", "given")


def test_begin_says_why_there_are_no_words():
    clip = Clip(path="x", frames=None, frame_times=[], waveform=None, duration=0.0)
    options = {"model": "m", "sound_spans": []}
    assert begin(clip, subtitle=None, **options).notes == [NO_SUBTITLE]
    assert begin(clip, subtitle=Subtitle("", "ASR w"), **options).notes == ["The ASR w gave no words; the words were not judged."]
    given = begin(clip, subtitle=Subtitle("Hi", "ASR w"), **options)
    assert (given.notes, given.subtitle, given.subtitle_source) == ([], "Hi", "ASR w")


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return make_whisper(tmp_path_factory.mktemp("whisper"))


def test_transcriber_gives_text_and_its_name(whisper):
    subtitle = Transcriber(whisper, device="cpu", language="en").transcribe(tone(1.0, 16_000)[0])
    assert subtitle.source == f"ASR {whisper}"
    assert "<|" not in subtitle.text


def test_transcriber_hears_all_of_a_long_sound(whisper):
    transcriber = Transcriber(whisper, device="cpu")
    starts = []
    original = transcriber._model.generate

    def spy(**inputs):
        starts.append((inputs["input_features"].shape[-1], inputs.get("return_timestamps")))
        return original(**inputs)

    transcriber._model.generate = spy
    transcriber.transcribe(tone(65.0, 16_000)[0])
    transcriber.transcribe(tone(5.0, 16_000)[0])
    assert starts == [(6500, True), (3000, None)]


def test_transcriber_silence_has_no_words(whisper):
    assert Transcriber(whisper, device="cpu").transcribe(np.zeros(16_000, dtype=np.float32)).text == ""


def test_transcriber_clip_without_sound_is_none(whisper, tmp_path):
    transcriber = Transcriber(whisper, device="cpu", language="zh")
    assert transcriber.transcribe_clip(make_clip(tmp_path / "mute.mp4", audio=False)) is None
    assert transcriber.transcribe_clip(make_clip(tmp_path / "voice.mp4")).source == f"ASR {whisper}"


def test_transcriber_unknown_language_raises(whisper):
    with pytest.raises(ValueError, match="klingon|tlh"):
        Transcriber(whisper, device="cpu", language="tlh").transcribe(tone(1.0, 16_000)[0])


def test_transcriber_of_another_kind_raises(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="expected a speech recogniser such as openai/whisper-small, got a model of type 'llama'"):
        Transcriber(tmp_path, device="cpu")
