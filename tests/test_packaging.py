"""What gets installed: exact pins within the ranges, one version, and the package's data in the wheel."""

import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import affectgpt

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINES = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
PINS = [Requirement(line) for line in LINES if line and not line.startswith("#")]


def test_requirements_are_exact_and_within_the_ranges():
    extras = PROJECT["optional-dependencies"]
    ranges = [Requirement(line) for line in [*PROJECT["dependencies"], *extras["app"], *extras["faces"], *extras["llm"]]]
    ranges = {requirement.name: requirement for requirement in ranges}
    for pin in PINS:
        (exact,) = pin.specifier
        assert exact.operator == "==", f"{pin} is not exact"
        assert exact.version in ranges[pin.name].specifier, f"{pin} is outside of {ranges[pin.name]}"
        assert str(pin.marker) == str(ranges[pin.name].marker)


@pytest.mark.parametrize(
    ("system", "machine", "has_wheel"),
    [
        ("linux", "x86_64", True),
        ("linux", "aarch64", False),
        ("win32", "AMD64", True),
        ("darwin", "arm64", False),
        ("darwin", "x86_64", False),
    ],
)
def test_decord_is_required_only_where_it_has_wheels(system, machine, has_wheel):
    (decord,) = [pin for pin in PINS if pin.name == "decord"]
    assert decord.marker.evaluate({"sys_platform": system, "platform_machine": machine}) is has_wheel


def test_dev_extra_holds_the_other_extras():
    extras = PROJECT["optional-dependencies"]
    (own,) = [Requirement(line) for line in extras["dev"] if Requirement(line).name == PROJECT["name"]]
    assert own.extras == set(extras) - {"dev"}


def test_installed_version_is_that_of_the_package():
    try:
        installed = metadata.version("affectgpt")
    except metadata.PackageNotFoundError:
        pytest.skip("affectgpt is not installed here (`pip install -e .`).")
    assert installed == affectgpt.__version__


def test_wheel_holds_the_package_with_its_data_and_the_command(tmp_path):
    pytest.importorskip("hatchling", reason="hatchling, of the extra `dev`, is not installed.")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.whl")
    assert path.name == f"affectgpt-{affectgpt.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        (commands,) = [wheel.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    files = {str(file.relative_to(ROOT)) for file in (ROOT / "affectgpt").rglob("*") if file.is_file()}
    files = {name.replace("\\", "/") for name in files if "__pycache__" not in name}
    assert {name for name in names if ".dist-info/" not in name} == files
    assert "affectgpt = affectgpt.cli:main" in commands
