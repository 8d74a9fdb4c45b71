"""The `affectgpt` command: what it prints, and how it ends."""

import json
import subprocess
import sys

import pytest
from media_files import make_clip
from tiny import make_tiny_model, make_tiny_processor

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
