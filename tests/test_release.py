"""What users get: one version, a wheel that works where only it is installed, and clips without decord."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
from pathlib import Path

import pytest
from hub_double import ROOT
from media_files import make_clip
from packaging.requirements import Requirement
from tiny import make_tiny_model, make_tiny_processor

import affectgpt
from affectgpt import corpus
from affectgpt.explanation import SHIPPED_MODEL

EXAMPLES = Path(SHIPPED_MODEL).parent / "examples"
SUBTITLES = json.loads((EXAMPLES / "examples.json").read_text(encoding="utf-8"))


def test_version_is_stated_once_and_the_changelog_knows_what_is_new():
    assert re.fullmatch(r"\d+\.\d+\.\d+", affectgpt.__version__)
    stated = [
        path
        for path in (*ROOT.glob("*.toml"), *ROOT.glob("*.cff"), *(ROOT / "affectgpt").glob("*.py"))
        if re.search(
            rf"^\W*(__)?version(__)?\W+{re.escape(affectgpt.__version__)}\b", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    ]
    assert stated == [ROOT / "affectgpt" / "__init__.py"]
    headings = re.findall(r"^## \[?([^\]\s]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"Unreleased", affectgpt.__version__} & set(headings[:2])


def test_ranges_leave_out_versions_that_were_tried_and_do_not_work():
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    ranges = {requirement.name: requirement.specifier for requirement in map(Requirement, lines)}
    assert "17.1.0" not in ranges["av"]  # its AudioResampler takes no `options`
    assert "19.0.2" not in ranges["av"]  # opens no file with `metadata_errors`
    assert "2.15.0" not in ranges["torch"]  # of another CUDA version than torchaudio 2.11


def test_explanation_without_decord_is_the_same(monkeypatch):
    name, subtitle = next(iter(SUBTITLES.items()))
    model, processor = affectgpt.load_model()
    expected = affectgpt.explain(model, processor, EXAMPLES / name, subtitle=subtitle)
    monkeypatch.setitem(sys.modules, "decord", None)
    assert affectgpt.explain(model, processor, EXAMPLES / name, subtitle=subtitle) == expected


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """What the release command builds, and an environment that has the wheel, and of this project nothing else."""
    pytest.importorskip("hatchling", reason="hatchling, of the extra `dev`, is not installed.")
    folder = tmp_path_factory.mktemp("release")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)], cwd=ROOT, check=True, capture_output=True
    )
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    venv.create(folder / "env", with_pip=False, symlinks=os.name != "nt")
    python = folder / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    (site,) = (folder / "env").rglob("site-packages")
    # The packages that this one needs, as installed here.
    (site / "needed.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")) + "\n")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return folder, python, sdist


def run_installed(program: Path, *arguments, cwd: Path) -> subprocess.CompletedProcess:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([str(program), *map(str, arguments)], cwd=cwd, env=variables, capture_output=True, text=True)


def test_wheel_alone_explains_a_clip_with_a_model_of_the_user(release, tmp_path):
    folder, python, _ = release
    name, subtitle = next(iter(SUBTITLES.items()))
    command = python.parent / ("affectgpt.exe" if os.name == "nt" else "affectgpt")
    assert command.exists()
    shutil.copytree(SHIPPED_MODEL, tmp_path / "model")
    clip = ("explain", EXAMPLES / name, "--subtitle", subtitle, "--json")

    done = run_installed(command, *clip, "--model", tmp_path / "model", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["labels"]
    where = run_installed(python, "-c", "import affectgpt; print(affectgpt.__file__, affectgpt.__version__)", cwd=tmp_path)
    path, version = where.stdout.split()
    assert Path(path).is_relative_to(folder) and version == affectgpt.__version__


def test_evaluation_of_the_source_archive_runs_on_the_wheel(release, tmp_path):
    _, python, sdist = release
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("affectgpt-*")
    assert {"training", "hub", "tests", "app.py", "README.md", "LICENSE", "CHANGELOG.md"} <= {
        path.name for path in source.iterdir()
    }
    assert (source / "hub" / "cards" / "model.md").is_file()
    (source / "training").rename(tmp_path / "training")  # away from the archive's own copy of the package
    make_tiny_model().save_pretrained(tmp_path / "model")
    make_tiny_processor().save_pretrained(tmp_path / "model")
    row = {"name": "a", "video": str(make_clip(tmp_path / "a.mp4", seconds=0.4, size=(32, 32))), "labels": ["calm"]}
    data = corpus.write_split([row], tmp_path / "corpus" / "data", "test")
    corpus.write_card(tmp_path / "corpus", {"Tiny": {"test": f"data/{data.name}"}}, "Tiny.", licence="cc0-1.0")

    arguments = ("--model", "model", "--dataset", "corpus", "--dataset-config", "Tiny", "--output", "results/test")
    done = run_installed(python, "-m", "training.evaluate", *arguments, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "Avg | Accuracy_s | Recall_s" in done.stdout
    assert (tmp_path / "results" / "test.json").is_file()
