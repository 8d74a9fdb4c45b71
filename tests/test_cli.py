"""The `affectgpt` command: what it prints, and how it ends."""

import json
import subprocess
import sys

import pytest
from fake_endpoint import fails, fake_endpoint, says
from media_files import make_clip
from tiny import make_tiny_model, make_tiny_processor
from tiny_media_models import make_whisper

import affectgpt
from affectgpt import explanation as explanation_module
from affectgpt.cli import main
from affectgpt.explanation import NOTICE


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    make_tiny_model().save_pretrained(folder)
    make_tiny_processor().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4"))


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.mp4"
    path.write_text("no film")
    return str(path)


def explain(*arguments):
    return main(["explain", *arguments, "--max-new-tokens", "3", "--device", "cpu"])


def test_explain_piped_prints_the_explanation(checkpoint, clip, capsys):
    assert explain(clip, "--model", checkpoint, "--subtitle", "Hello.") == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(NOTICE)
    assert "cut off after 3 tokens" in printed.out
    assert f"Loading the model {checkpoint}" in printed.err


def test_explain_to_a_terminal_streams_the_same_text(checkpoint, clip, capsys, monkeypatch):
    explain(clip, "--model", checkpoint)
    piped = capsys.readouterr().out
    streamed = []
    monkeypatch.setattr(explanation_module, "explain_stream", _spy(explanation_module.explain_stream, streamed))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    explain(clip, "--model", checkpoint)
    assert capsys.readouterr().out == piped
    assert streamed


def _spy(function, calls):
    def spy(*arguments, **options):
        calls.append(options)
        return function(*arguments, **options)

    return spy


def test_explain_json_prints_a_line_per_clip_with_its_subtitle(checkpoint, clip, capsys):
    assert explain(clip, clip, "--model", checkpoint, "--json", "--subtitle", "One.", "--subtitle", "<ImageHere>") == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["clip"] == second["clip"] == clip
    assert first["notice"] == NOTICE
    assert not any("plain text" in note for note in first["notes"])
    assert any("plain text" in note for note in second["notes"])


def test_explain_bad_clip_is_one_line_and_exit_code_2(checkpoint, broken, capsys):
    assert explain(broken, "--model", checkpoint) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    complaint = printed.err.splitlines()[-1]
    assert complaint.startswith("affectgpt: error: ") and broken in complaint and "Traceback" not in printed.err


def test_explain_continues_after_a_bad_clip_and_ends_with_1(checkpoint, broken, clip, capsys):
    assert explain(broken, clip, "--model", checkpoint, "--json") == 1
    printed = capsys.readouterr()
    assert [json.loads(line)["clip"] for line in printed.out.splitlines()] == [clip]
    assert broken in printed.err


def test_explain_missing_clip_needs_no_model(tmp_path, capsys):
    assert explain(str(tmp_path / "nowhere.mp4"), "--model", "never-loaded") == 2
    printed = capsys.readouterr()
    assert "nowhere.mp4: expected" in printed.err and "Loading" not in printed.err


def test_explain_fewer_subtitles_than_clips_is_a_mistake(clip, capsys):
    assert explain(clip, clip, "--subtitle", "Whose?") == 2
    assert "expected one --subtitle for each of the 2 clips" in capsys.readouterr().err


def test_explain_model_that_is_not_there_is_one_line_and_exit_code_2(clip, tmp_path, capsys):
    assert explain(clip, "--model", str(tmp_path / "no-model")) == 2
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert complaint.startswith("affectgpt: error: could not load the model") and "no-model" in complaint


def test_explain_takes_the_model_of_the_environment(clip, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AFFECTGPT_MODEL", str(tmp_path / "from-environment"))
    assert explain(clip) == 2
    assert "from-environment" in capsys.readouterr().err


def test_explain_anyway_is_passed_on_only_when_asked(checkpoint, clip, monkeypatch):
    calls = []
    monkeypatch.setattr(explanation_module, "explain", _spy(explanation_module.explain, calls))
    explain(clip, "--model", checkpoint)
    explain(clip, "--model", checkpoint, "--explain-anyway", "--question", "Why?")
    assert [call["explain_anyway"] for call in calls] == [False, True]
    assert [call["question"] for call in calls] == [None, "Why?"]


def test_explain_interrupted_ends_with_130_and_no_traceback(checkpoint, clip, capsys, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(explanation_module, "explain", interrupted)
    assert explain(clip, "--model", checkpoint) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["explain"], ["explain", "x.mp4", "--max-new-tokens", "0"], ["explain", "x.mp4", "--modle", "y"]]
)
def test_wrong_arguments_end_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: affectgpt" in capsys.readouterr().err


def test_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"affectgpt {affectgpt.__version__}\n"


def test_help_needs_no_torch():
    code = (
        "import sys; from affectgpt.cli import main\n"
        "try: main(['explain', '--help'])\n"
        "finally: assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_package_runs_as_a_module():
    ended = subprocess.run([sys.executable, "-m", "affectgpt", "--help"], capture_output=True, text=True)
    assert ended.returncode == 0
    assert "explain" in ended.stdout


def test_output_to_a_closed_pipe_ends_quietly(checkpoint, clip):
    command = [
        sys.executable,
        "-m",
        "affectgpt",
        "explain",
        clip,
        "--model",
        checkpoint,
        "--max-new-tokens",
        "2",
        "--device",
        "cpu",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait() == 1
    assert "Traceback" not in errors and "BrokenPipe" not in errors


# Folders, subtitles, other models


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "clips"
    (folder / "more").mkdir(parents=True)
    for name in ("b.mp4", "a.mp4", "more/c.MP4"):
        make_clip(folder / name.lower(), seconds=0.4).rename(folder / name)
    (folder / "notes.txt").write_text("no clip")
    return folder


@pytest.fixture
def predictions(tmp_path):
    """The quickest model: a file."""
    path = tmp_path / "predictions.csv"
    path.write_text("name,text\na,So he seems sad.\nb,So he seems glad.\n")
    return str(path)


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_folder_is_explained_sorted_and_a_stopped_run_goes_on(folder, predictions, tmp_path, capsys):
    output = tmp_path / "out.jsonl"
    arguments = [str(folder), "--model", predictions, "--output", str(output)]
    assert explain(*arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "[1/3]" in printed.err and "expected a prediction for 'c'" in printed.err
    assert [(row["clip"], row["labels"]) for row in rows_of(output)] == [
        (str(folder / "a.mp4"), ["sad"]),
        (str(folder / "b.mp4"), ["glad"]),
    ]
    # Stopped in the middle of a line, and what was missing is there now.
    whole = output.read_text()
    output.write_text(whole[:-20])
    with open(predictions, "a") as file:
        file.write("c,So he seems calm.\n")
    assert explain(*arguments) == 0
    assert "1 of 3 clips are explained there" in capsys.readouterr().err
    assert [row["labels"] for row in rows_of(output)] == [["sad"], ["glad"], ["calm"]]
    before = output.read_text()
    assert explain(*arguments) == 0
    assert output.read_text() == before


def test_output_of_another_model_or_language_is_a_mistake(folder, predictions, tmp_path, capsys):
    output = tmp_path / "out.jsonl"
    clip = str(folder / "a.mp4")
    assert explain(clip, "--model", predictions, "--output", str(output)) == 0
    assert explain(clip, "--model", predictions, "--output", str(output), "--language", "zh") == 2
    assert "got those of" in capsys.readouterr().err
    output.write_text("something\n")
    assert explain(clip, "--model", predictions, "--output", str(output)) == 2
    assert "expected a file that `affectgpt explain --output` wrote" in capsys.readouterr().err
    assert output.read_text() == "something\n"


def test_folder_without_clips_is_a_mistake(tmp_path, capsys):
    assert explain(str(tmp_path)) == 2
    assert "expected a folder of video or sound files" in capsys.readouterr().err


def test_subtitle_file_is_read(checkpoint, clip, tmp_path, capsys):
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nWell, well.\n")
    assert explain(clip, "--model", checkpoint, "--json", "--subtitle", str(tmp_path / "words.srt")) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["subtitle"], row["subtitle_source"]) == ("Well, well.", "file words.srt")


def test_subtitle_folder_gives_each_clip_its_own(folder, predictions, tmp_path, capsys):
    (tmp_path / "subtitles").mkdir()
    (tmp_path / "subtitles" / "b.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nFor b.\n")
    clips = [str(folder / "a.mp4"), str(folder / "b.mp4")]
    assert explain(*clips, "--model", predictions, "--json", "--subtitle", str(tmp_path / "subtitles")) == 0
    assert [json.loads(line)["subtitle"] for line in capsys.readouterr().out.splitlines()] == [None, "For b."]


@pytest.mark.parametrize("subtitle", ["missing.srt", "bad.srt"])
def test_subtitle_file_that_cannot_be_read_is_a_mistake(clip, tmp_path, subtitle, capsys):
    (tmp_path / "bad.srt").write_text("no cues")
    assert explain(clip, "--subtitle", str(tmp_path / subtitle)) == 2
    assert subtitle in capsys.readouterr().err


def test_endpoint_is_named_before_a_clip_is_sent(clip, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AFFECTGPT_CACHE", str(tmp_path))
    with fake_endpoint(lambda request, number: says("So he seems sad.")) as endpoint:
        assert explain(clip, "--model", endpoint.spec, "--json") == 0
    printed = capsys.readouterr()
    assert f"are sent to {endpoint.host}." in printed.err
    row = json.loads(printed.out)
    assert (row["host"], row["model"], row["protocol"], row["labels"]) == (endpoint.host, "fake", "direct", ["sad"])


def test_endpoint_with_a_wrong_key_ends_the_run(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AFFECTGPT_CACHE", str(tmp_path))
    with fake_endpoint(lambda request, number: fails(401, "wrong key")) as endpoint:
        assert explain(str(folder), "--model", endpoint.spec, "--json") == 1
        assert len(endpoint.requests) == 1
    assert "wrong key" in capsys.readouterr().err


def test_two_steps_by_endpoints(clip, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AFFECTGPT_CACHE", str(tmp_path))
    with fake_endpoint(lambda request, number: says("So he seems sad.")) as endpoint:
        models = [f"{endpoint.base_url}#{name}" for name in ("v", "a", "m")]
        options = ["--video-model", models[0], "--audio-model", models[1], "--merge-model", models[2], "--subtitle", "Hi."]
        assert explain(clip, *options, "--language", "zh", "--json") == 0
        assert [request["model"] for request in endpoint.requests] == ["v", "a", "m"]
    row = json.loads(capsys.readouterr().out)
    assert (row["protocol"], row["model"], row["language"]) == ("two-step", "video v + audio a + merge m", "zh")


def test_model_beside_a_video_model_is_a_mistake(clip, capsys):
    assert explain(clip, "--model", "a", "--video-model", "b") == 2
    assert "got both" in capsys.readouterr().err


def test_asr_gives_the_words_where_none_are_given(folder, predictions, tmp_path, capsys):
    whisper = make_whisper(tmp_path / "whisper")
    clips = [str(folder / "a.mp4"), str(folder / "b.mp4")]
    options = ["--model", predictions, "--json", "--asr", str(whisper)]
    assert explain(*clips, *options) == 0
    printed = capsys.readouterr()
    assert f"Loading the speech recogniser {whisper}" in printed.err
    assert explain(*clips, *options, "--subtitle", "One", "--subtitle", "Two") == 0
    printed = capsys.readouterr()
    assert "Loading the speech recogniser" not in printed.err
    assert [json.loads(line)["subtitle_source"] for line in printed.out.splitlines()] == ["given", "given"]


def test_asr_model_that_is_not_there_is_one_line(folder, predictions, tmp_path, capsys):
    assert explain(str(folder / "a.mp4"), "--model", predictions, "--asr", str(tmp_path / "none")) == 2
    assert "could not load the speech recogniser" in capsys.readouterr().err.splitlines()[-1]


def test_quantization_without_its_package_is_one_line(checkpoint, clip, capsys, monkeypatch):
    monkeypatch.setattr("affectgpt.generation.importlib.util.find_spec", lambda name: None)
    assert explain(clip, "--model", checkpoint, "--quantization", "4bit") == 2
    assert "affectgpt[quantization]" in capsys.readouterr().err.splitlines()[-1]
