"""`hub.push_space`: the Space's files to the last one, what Spaces accept, and that it starts from nothing but those files."""

import ast
import tomllib
from pathlib import Path

import pytest
import yaml
from hub_double import ROOT, HubDouble
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from affectgpt.explanation import NOTICE
from hub.push_space import front_matter, main, requirements, space_files

OPERATOR = ["--operator", "Jo Example, jo@example.org"]
PACKAGE = {
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "affectgpt").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}


def test_space_consists_of_app_package_card_licence_and_requirements():
    files = space_files()
    assert set(files) == PACKAGE | {"app.py", "LICENSE"}
    assert {path.suffix for path in map(Path, PACKAGE)} == {".py", ".json", ".jinja", ".md", ".mp4", ".safetensors", ".tsv"}
    assert {"affectgpt/assets/sketch-model/model.safetensors", "affectgpt/assets/examples/examples.json"} <= set(files)
    assert not [name for name in files if name.startswith(("tests/", "training/", "hub/", "runs/"))]


def test_space_requirements_are_the_ranges_of_the_package_without_what_the_space_brings():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {requirement.name: requirement for requirement in map(Requirement, requirements().splitlines())}
    assert set(found) >= {Requirement(line).name for line in project["dependencies"]} | {"mtcnn", "openai"}
    assert not {"gradio", "spaces"} & set(found)
    exact = [name for name, requirement in found.items() if any(part.operator == "==" for part in requirement.specifier)]
    assert exact == ["mtcnn"]  # its weights are checked by their hash
    decord = found["decord"].marker
    assert decord.evaluate({"sys_platform": "linux", "platform_machine": "x86_64"})
    assert not decord.evaluate({"sys_platform": "linux", "platform_machine": "aarch64"})


def test_space_header_has_versions_that_the_package_takes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (gradio,) = map(Requirement, project["optional-dependencies"]["app"])
    header = front_matter("org/model", "t4-medium")
    assert (header["sdk"], header["app_file"], header["models"]) == ("gradio", "app.py", ["org/model"])
    assert header["sdk_version"] in gradio.specifier
    assert header["python_version"] in SpecifierSet(project["requires-python"])
    assert header["suggested_hardware"] == "t4-medium"
    assert len(header["short_description"]) <= 60  # what Spaces take


def test_app_imports_spaces_before_anything_that_imports_torch():
    imported = []
    for node in ast.walk(ast.parse((ROOT / "app.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported.append((node.lineno, node.module))
    order = [name.partition(".")[0] for _, name in sorted(imported)]
    assert order.index("spaces") < min(order.index(name) for name in ("affectgpt", "gradio", "huggingface_hub"))


def test_space_without_someone_who_runs_it_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--repo", "org/space", "--dry-run"])
    assert main(["--operator", " ", "--repo", "org/space", "--dry-run"]) == 2
    assert "who runs the Space" in capsys.readouterr().err


def test_space_is_pushed_and_starts_from_its_own_files_alone(tmp_path):
    with HubDouble() as hub:
        hub.add_repo("org/space", {"affectgpt/old_module.py": b"", "picture.png": b"theirs"}, kind="space")
        code = "import sys; from hub.push_space import main; sys.exit(main(sys.argv[1:]))"
        done = hub.run(code, *OPERATOR, "--repo", "org/space", home=tmp_path, token="hf_alice")
        files = hub.repo("org/space", "space").files("v0.1.0")
    assert "It starts." in done.stdout
    assert set(files) == PACKAGE | {"app.py", "LICENSE", "README.md", "requirements.txt", "picture.png"}
    card = files["README.md"].decode()
    assert yaml.safe_load(card.split("---\n")[1])["sdk"] == "gradio"
    assert "Jo Example, jo@example.org" in card and NOTICE in card
