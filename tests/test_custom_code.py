"""A saved checkpoint loads anywhere: without this package by its own code, with it without a question about trust."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hub_double import ROOT, HubDouble
from parts_files import example_arrays, example_inputs, make_homes, save_full, save_parts
from transformers import AutoProcessor

from affectgpt import AffectGPTForConditionalGeneration, AffectGPTProcessor

REPOS = [(generation, form) for generation in (2024, 2025) for form in ("full", "parts")]
MEL_TOLERANCE = 5e-4

# What a script in an environment without this package and without torchaudio begins with.
STRANGER = """
import json, sys
sys.modules["torchaudio"] = sys.modules["affectgpt"] = None  # neither can be imported, installed or not
import numpy as np, torch
from transformers import AutoConfig, AutoModel, AutoModelForMultimodalLM, AutoProcessor
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The double with all four checkpoints, each as `org/<generation>-<form>` with the version v1."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with HubDouble() as double:
        for generation, form in REPOS:
            place = folder / f"{generation}-{form}"
            if form == "full":
                save_full(place, generation)
            else:
                save_parts(place, make_homes(folder / f"homes-{generation}", generation), double, generation)
            repo = double.add_repo(f"org/{generation}-{form}", place)
            repo.tags["v1"] = repo.resolve("main")
        yield double


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


def run_elsewhere(hub, code, *arguments, home, check=True, **variables) -> subprocess.CompletedProcess:
    """Run code where nothing of this project is on the path."""
    environment = hub.environment(home) | {"PYTHONPATH": "", "PYTHONSAFEPATH": "1"} | variables
    done = subprocess.run(
        [sys.executable, "-c", STRANGER + code, *map(str, arguments)],
        env=environment,
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not (check and done.returncode), f"{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def elsewhere(hub, home):
    """What a stranger's process made of each repository: outputs by name."""
    np.savez(home / "arrays.npz", **example_arrays())
    code = """
arrays, found = np.load("arrays.npz"), {}
for repo in sys.argv[1:]:
    trusted = {"trust_remote_code": True, "revision": "v1"}
    processor = AutoProcessor.from_pretrained(repo, **trusted)
    model = AutoModelForMultimodalLM.from_pretrained(repo, **trusted).eval()
    body = AutoModel.from_pretrained(repo, **trusted).eval()
    pictures = {"faces" if processor.takes_faces else "frames": arrays["frames"]}
    inputs = processor(**pictures, waveform=arrays["waveform"], subtitle="hello")
    with torch.no_grad():
        logits = model(**inputs).logits
        ids = model.generate(**inputs, tokenizer=processor.tokenizer, do_sample=False)
        hidden = body(**inputs).last_hidden_state
        assert torch.allclose(model.lm_head(hidden), logits, atol=1e-4)
    found |= {f"{repo} {name}": value.numpy() for name, value in inputs.items()}
    found |= {f"{repo} logits": logits.numpy(), f"{repo} ids": ids.numpy()}
    parts = (model, body, processor, processor.image_processor, processor.feature_extractor, model.config)
    classes = [type(part) for part in parts]
    assert all(part.__module__.startswith("transformers_modules.") for part in classes), classes
    assert [part.__name__ for part in classes[:3]] == ["AffectGPTForConditionalGeneration", "AffectGPTModel", "AffectGPTProcessor"]
imported = [name for name, module in sys.modules.items() if module is not None]
assert not [name for name in imported if name.partition(".")[0] in ("affectgpt", "av", "decord")]
np.savez("outputs.npz", **found)
"""
    run_elsewhere(hub, code, *(f"org/{generation}-{form}" for generation, form in REPOS), home=home)
    return np.load(home / "outputs.npz")


@pytest.mark.parametrize(("generation", "form"), REPOS)
def test_checkpoint_loads_by_its_own_code_and_computes_the_same(elsewhere, hub, tmp_path, generation, form):
    for path, data in hub.repo(f"org/{generation}-full").files().items():
        (tmp_path / path).write_bytes(data)
    model = AffectGPTForConditionalGeneration.from_pretrained(tmp_path).eval()
    processor = AffectGPTProcessor.from_pretrained(tmp_path)
    inputs = example_inputs(generation)
    with torch.no_grad():
        expected = {
            "logits": model(**inputs).logits,
            "ids": model.generate(**inputs, tokenizer=processor.tokenizer, do_sample=False),
        }

    found = {name.split()[1]: elsewhere[name] for name in elsewhere.files if name.startswith(f"org/{generation}-{form} ")}

    assert set(found) == {*inputs, *expected}
    for name, value in inputs.items():
        tolerance = MEL_TOLERANCE if value.is_floating_point() else 0
        np.testing.assert_allclose(found[name], value.numpy(), atol=tolerance, rtol=0)
    np.testing.assert_allclose(found["logits"], expected["logits"].numpy(), atol=1e-3)
    assert np.array_equal(found["ids"], expected["ids"].numpy())


def test_checkpoint_in_the_cache_loads_offline_and_on_the_devices_that_there_are(elsewhere, hub, home):
    before = len(hub.requests)
    code = """
for repo in sys.argv[1:]:
    options = {"trust_remote_code": True, "revision": "v1"}
    AutoProcessor.from_pretrained(repo, **options)
    model = AutoModelForMultimodalLM.from_pretrained(repo, device_map="auto", dtype=torch.bfloat16, **options)
    kinds = {name.split(".")[1]: parameter.dtype for name, parameter in model.named_parameters() if name.startswith("model.")}
    print(json.dumps([str(model.device), str(kinds["language_model"]), str(kinds["video_resampler"])]))
"""
    repos = [f"org/{generation}-{form}" for generation, form in REPOS]
    done = run_elsewhere(hub, code, *repos, home=home, HF_HUB_OFFLINE="1")
    loaded = [json.loads(line) for line in done.stdout.splitlines()]
    assert loaded == [[loaded[0][0], "torch.bfloat16", "torch.float32"]] * len(REPOS)
    assert len(hub.requests) == before


def test_revision_names_the_weights_that_are_loaded(elsewhere, hub, home):
    repo = hub.repo("org/2024-full")
    old = repo.resolve("main")
    config = json.loads(repo.files()["config.json"])
    hub.commit(repo, {"config.json": json.dumps(config | {"num_audio_layers": 7}).encode()})
    code = """
for revision in sys.argv[1:]:
    print(AutoConfig.from_pretrained("org/2024-full", revision=revision, trust_remote_code=True).num_audio_layers)
"""
    done = run_elsewhere(hub, code, "v1", "main", old, home=home)
    repo.branches["main"] = old
    assert done.stdout.split() == ["4", "7", "4"]


def test_custom_code_is_not_run_unless_it_is_trusted(elsewhere, hub, home):
    done = run_elsewhere(hub, "AutoModel.from_pretrained('org/2025-parts')", home=home, check=False)
    assert done.returncode != 0
    assert "trust_remote_code=True" in done.stderr


# Every Auto class is asked first in a process of its own: none may count on what another has imported.
AUTO_CLASSES = {
    "AutoConfig": "AffectGPTConfig",
    "AutoProcessor": "AffectGPTProcessor",
    "AutoImageProcessor": "AffectGPTImageProcessor",
    "AutoFeatureExtractor": "WaveformClipFeatureExtractor",
    "AutoModel": "AffectGPTModel",
    "AutoModelForMultimodalLM": "AffectGPTForConditionalGeneration",
}


@pytest.mark.parametrize(
    "imports",
    [
        "import affectgpt, transformers",
        "from transformers import AutoModel, AutoProcessor; import affectgpt",
    ],
)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="Needs os.fork to start processes from one that has imported everything.")
def test_auto_classes_know_the_package_after_its_import_alone(tmp_path, imports):
    save_full(tmp_path / "model", 2025)
    code = f"""
import os, sys
from affectgpt._torchaudio_guard import guard_torchaudio
for name in [name for name in sys.modules if name.partition(".")[0] == "affectgpt"]:
    del sys.modules[name]
sys.modules.pop("transformers.models.affectgpt")
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "_TablesFinder"]
{imports}
import torch, transformers
from transformers import AutoImageProcessor, Blip2VisionModel, CLIPVisionModelWithProjection, HubertModel, Qwen2Model
assert "affectgpt.registration" not in sys.modules
torch.set_num_threads(1)
for auto_class, expected in {AUTO_CLASSES}.items():
    if os.fork() == 0:
        loaded = getattr(transformers, auto_class).from_pretrained(sys.argv[1])
        assert (type(loaded).__module__.partition(".")[0], type(loaded).__name__) == ("affectgpt", expected), type(loaded)
        os._exit(0)
    assert os.wait()[1] == 0, auto_class
"""
    command = [sys.executable, "-c", code, str(tmp_path / "model")]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "trust" not in done.stderr


def test_package_is_imported_without_torch_or_transformers(tmp_path):
    code = "import affectgpt, affectgpt.metrics, sys; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_trusted_code_gives_way_to_the_installed_package(hub, tmp_path):
    code = """
import affectgpt
from transformers import AutoModelForMultimodalLM, AutoProcessor
model = AutoModelForMultimodalLM.from_pretrained("org/2024-full", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("org/2024-full", trust_remote_code=True)
print(type(model).__module__, type(processor.image_processor).__module__)
"""
    done = hub.run(code, home=tmp_path)
    assert done.stdout.split() == ["affectgpt.modeling_affectgpt", "affectgpt.image_processing_affectgpt"]


def test_checkpoint_loaded_and_saved_again_keeps_its_code(tmp_path):
    save_full(tmp_path / "first", 2025)
    AffectGPTForConditionalGeneration.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    AutoProcessor.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).glob("*.py")} for name in ("first", "second")]
    assert files[0] == files[1]
    maps = [json.loads((tmp_path / name / "config.json").read_text())["auto_map"] for name in ("first", "second")]
    assert maps[0] == maps[1]
    assert set(maps[0]) == {"AutoConfig", "AutoModel", "AutoModelForMultimodalLM"}


def test_repositories_that_are_closed_or_missing_say_so_and_open_for_those_who_may(hub, tmp_path):
    files = hub.repo("org/2025-full").files()
    hub.add_repo("org/private", files, private=True)
    hub.add_repo("org/gated", files, gated="manual", readers={"bob"})
    code = """
import json
import affectgpt
from transformers import AutoModelForMultimodalLM, AutoProcessor
def outcome(repo, token):
    try:
        AutoProcessor.from_pretrained(repo, token=token)
        return type(AutoModelForMultimodalLM.from_pretrained(repo, token=token)).__name__
    except OSError as error:
        return str(error)
repos, tokens = ("org/private", "org/gated", "org/missing", "org/2025-full"), (False, "hf_wrong", "hf_bob", "hf_alice")
print(json.dumps([[outcome(repo, token) for token in tokens] for repo in repos]))
"""
    found = json.loads(hub.run(code, home=tmp_path).stdout)
    loaded = "AffectGPTForConditionalGeneration"
    kinds = {
        "not a valid model identifier": "not found",
        "trying to access a gated repo": "gated",
        "401 Unauthorized": "wrong token",
        loaded: loaded,
    }
    found = [[next(kind for words, kind in kinds.items() if words in text) for text in row] for row in found]
    assert found == [
        ["not found", "wrong token", "not found", loaded],
        ["gated", "wrong token", loaded, loaded],
        ["not found", "wrong token", "not found", "not found"],
        [loaded, "wrong token", loaded, loaded],
    ]
