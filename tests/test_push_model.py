"""`hub.push_model` with the real client: what gets to the Hub, what its card says, who is refused, what a cut costs."""

import hashlib
import json
import subprocess
import sys

import pytest
import torch
import yaml
from datasets import Dataset
from hub_double import ROOT, HubDouble
from parts_files import CLIP, HUBERT, QWEN, make_homes, remove_code, save_full, save_parts
from tiny import make_tiny_model_2025

from affectgpt import AffectGPTForConditionalGeneration, corpus, parts
from affectgpt.explanation import NOTICE, SHIPPED_MODEL
from hub.push_model import main
from hub.results import read_result
from training.evaluate import evaluate

CODE = {
    "configuration_affectgpt.py",
    "image_processing_affectgpt.py",
    "modeling_affectgpt.py",
    "modeling_imagebind_audio.py",
    "modeling_resamplers.py",
    "parts.py",
    "processing_affectgpt.py",
    "sound_clips.py",
}
PROCESSOR = {"chat_template.jinja", "processor_config.json", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture
def hub():
    with HubDouble() as double:
        yield double


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A full checkpoint of 2025 as a training run leaves it, with what is nobody's business."""
    folder = tmp_path_factory.mktemp("full")
    save_full(folder, 2025)
    (folder / "training_args.bin").write_bytes(b"settings of this machine")
    (folder / "checkpoint-8").mkdir()
    (folder / "checkpoint-8" / "optimizer.pt").write_bytes(b"large")
    return folder


def push(hub, *arguments, home, token="hf_alice", **variables) -> subprocess.CompletedProcess:
    """Run the command in a process of its own, as its users do."""
    command = [sys.executable, "-m", "hub.push_model", *map(str, arguments)]
    environment = hub.environment(home, token) | variables
    return subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def header_of(card: bytes | str) -> dict:
    text = card.decode() if isinstance(card, bytes) else card
    return yaml.safe_load(text.split("---\n")[1])


def write_result(path, *, model="runs/stage2", modalities="LVA", shuffled=False) -> str:
    """A record as `training.evaluate` writes it; the clips are left out, since no card shows them."""
    facts = {"models": {"model": model}, "shuffled": shuffled}
    figures = {
        "num_clips": 66,
        "num_runs": 1,
        "groups": "lexicon",
        "avg": 41.237,
        "avg_interval_95": [38.0, 44.5],
        "accuracy": 40.0,
        "recall": 42.474,
        "best_constant_avg": 12.5,
    }
    system = {"model": model, "modalities": modalities, "protocol": "direct", "facts": facts}
    path.write_text(json.dumps({"what": "evaluation", "systems": [system], "figures": figures}))
    return f"EMER-Fine={path}"


def test_checkpoint_in_parts_is_pushed_in_parts_with_code_card_gate_and_version(hub, tmp_path):
    homes = make_homes(tmp_path / "homes", 2025)
    model = save_parts(tmp_path / "model", homes, hub, 2025)
    remove_code(tmp_path / "model")

    # The user's cache has one of the frozen parts already.
    code = """
import sys
from huggingface_hub import snapshot_download
from hub.push_model import main
snapshot_download(sys.argv.pop(1))
sys.exit(main(sys.argv[1:]))
"""
    done = hub.run(
        code,
        *(QWEN, "--model", tmp_path / "model", "--repo", "org/affectgpt", "--licence", "non-commercial"),
        *("--dataset", "org/corpus", "--results", write_result(tmp_path / "test.json")),
        home=tmp_path / "home",
        token="hf_alice",
    )

    repo = hub.repo("org/affectgpt")
    files = repo.files("v0.1.0")
    code = CODE | {"feature_extraction_waveform.py"}
    assert set(files) == code | PROCESSOR | {"README.md", "config.json", "generation_config.json", "model.safetensors"}
    assert len(files["model.safetensors"]) < sum(tensor.nbytes for tensor in model.state_dict().values()) / 2
    assert set(json.loads(files["config.json"])["parts"]) == {"vision", "audio", "language"}
    assert set(json.loads(files["config.json"])["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForMultimodalLM"}
    assert repo.gated == "auto" and not repo.private
    header = header_of(files["README.md"])
    assert (header["license"], header["license_name"]) == ("other", "non-commercial")
    assert set(header["base_model"]) == {CLIP, HUBERT, QWEN}
    assert header["datasets"] == ["org/corpus"]
    assert "extra_gated_prompt" in header and len(header["extra_gated_fields"]) > 2
    figures = {metric["type"]: metric["value"] for metric in header["model-index"][0]["results"][0]["metrics"]}
    assert figures == {"set_avg": 41.24, "set_accuracy": 40.0, "set_recall": 42.47}
    text = files["README.md"].decode()
    assert NOTICE in text and "article 5(1)(f)" in text and "| vision | openai/clip-vit-large-patch14 |" in text
    assert "It loads and answers" in done.stdout
    assert hub.unknown == []
    weights = [path for method, path, _ in hub.requests if method == "HEAD" and path.endswith("/model.safetensors")]
    assert [sum(repo_id in path for path in weights) for repo_id in (QWEN, CLIP, "org/affectgpt")] == [1, 1, 1], weights


def test_dry_run_shows_card_and_files_and_asks_nothing(capsys, full, monkeypatch):
    monkeypatch.setattr("httpx2.Client.send", lambda *_, **__: pytest.fail("The Hub was asked."))
    assert main(["--model", str(full), "--repo", "org/name", "--licence", "mit", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "license: mit" in shown and "model.safetensors" in shown and "dry run" in shown
    assert "optimizer" not in shown and "training_args" not in shown


def test_shipped_model_is_pushed_under_its_own_licence_without_a_gate(capsys):
    card = f"{SHIPPED_MODEL}/README.md"
    assert main(["--model", SHIPPED_MODEL, "--repo", "org/affectgpt-sketch", "--about", card, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "license: cc0-1.0" in shown and "extra_gated" not in shown
    assert "has never seen a person" in shown
    assert "model-index" not in shown  # its card has figures, but no result file was given


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repo", "name"], "expected ORG/NAME"),
        (["--repo", "org/na me"], "expected ORG/NAME"),
        (["--repo", "org/name", "--model", "nowhere"], "expected the folder of a checkpoint"),
        (["--repo", "org/name", "--form", "parts"], "expected a checkpoint in parts"),
        (["--repo", "org/name"], "Give --base with what training began from, or --licence"),
        (["--repo", "org/name", "--results", "test.json"], "expected NAME=FILE"),
        (["--repo", "org/name", "--results", "EMER-Fine=nowhere.json"], "could not read it"),
    ],
)
def test_call_that_cannot_be_right_is_refused_before_anything_is_asked(capsys, full, arguments, message):
    assert main(["--model", str(full), "--dry-run", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_results_of_two_checkpoints_are_refused(capsys, full, tmp_path):
    results = [write_result(tmp_path / f"{number}.json", model=f"runs/{number}") for number in range(2)]
    arguments = ["--model", str(full), "--repo", "org/name", "--licence", "mit", "--dry-run"]
    assert main([*arguments, "--results", results[0], "--results", results[1]]) == 2
    assert "those of runs/0, runs/1" in capsys.readouterr().err


def test_record_that_the_evaluation_writes_is_read(tmp_path):
    rows = Dataset.from_list([dict.fromkeys(corpus.FEATURES) | {"name": "a", "labels": ["happy"]}], features=corpus.FEATURES)
    predictions = tmp_path / "predictions.jsonl"
    predictions.write_text(json.dumps({"name": "a", "labels": ["happy", "sad"]}) + "\n")
    evaluate(predictions, rows, tmp_path / "test")
    result = read_result(f"EMER-Fine={tmp_path / 'test.json'}")
    assert (result.avg, result.accuracy, result.recall) == (75, 50, 100)
    assert (result.num_clips, result.given, result.groups) == (1, "picture and voice and words", "lexicon")


def test_results_without_all_modalities_stand_in_the_table_only(capsys, full, tmp_path):
    result = write_result(tmp_path / "test.json", modalities="A")
    assert main(["--model", str(full), "--repo", "org/name", "--licence", "mit", "--results", result, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "| EMER-Fine | 66 | voice alone | lexicon | 41.2 [38.0, 44.5] | 40.0 | 42.5 | 12.5 |" in shown
    assert "model-index" not in shown


def test_trained_checkpoint_inherits_the_strictest_licence_of_what_it_began_from(capsys, full, tmp_path):
    entries = {
        "audio": {"licence": "CC BY-NC-SA 4.0", "repo_id": "org/imagebind", "revision": "0" * 40},
        "language": {"licence": "research only", "local": "vicuna"},
        "vision": {"licence": "MIT", "repo_id": "org/eva", "revision": "1" * 40},
    }
    (tmp_path / "sources.json").write_text(json.dumps({"assembly": "paper-vicuna", "licence": "research only", "parts": entries}))
    arguments = ["--model", str(full), "--repo", "org/name", "--base", str(tmp_path), "--licence", "mit", "--dry-run"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "license_name: research-only" in shown
    assert "| audio | org/imagebind | 000000000000 | CC BY-NC-SA 4.0 |" in shown
    assert "sources.json" in shown


def test_parts_that_lie_on_this_machine_are_refused_unless_everything_is_put_in(capsys, tmp_path):
    homes = make_homes(tmp_path / "homes", 2025)
    model = make_tiny_model_2025()
    model.config.parts = {
        name: {
            "repo_id": str(home),
            "revision": None,
            "layout": layout,
            "files": {file.name: parts.sha256_of(file) for file in parts.find_weights(home)},
        }
        for name, (_, layout, home) in homes.items()
    }
    model.requires_grad_(False)
    save_full(tmp_path / "model", 2025)
    (tmp_path / "model" / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "model")
    arguments = ["--model", str(tmp_path / "model"), "--repo", "org/name", "--licence", "mit", "--dry-run"]

    assert main(arguments) == 2
    assert "--form full" in capsys.readouterr().err

    assert main([*arguments, "--form", "full"]) == 0
    assert "It holds all its weights." in capsys.readouterr().out


def test_full_form_holds_all_weights_and_replaces_old_ones_but_not_what_others_put_there(hub, tmp_path):
    old = {"model-00001-of-00002.safetensors": b"old", "old_module.py": b"old", "figures/plot.png": b"theirs"}
    hub.add_repo("org/full", old)
    model = save_parts(tmp_path / "model", make_homes(tmp_path / "homes", 2025), hub, 2025)
    done = push(
        hub,
        *("--model", tmp_path / "model", "--repo", "org/full", "--licence", "mit", "--form", "full", "--skip-check"),
        home=tmp_path / "home",
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "back").mkdir()
    files = hub.repo("org/full").files("v0.1.0")
    assert set(old) & set(files) == {"figures/plot.png"}
    for path, data in files.items():
        if "/" in path:
            continue
        (tmp_path / "back" / path).write_bytes(data)
    back = AffectGPTForConditionalGeneration.from_pretrained(tmp_path / "back")
    assert not back.config.parts
    assert all(torch.equal(tensor, back.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_push_without_rights_ends_with_what_to_do(hub, full, tmp_path):
    hub.add_repo("org/public")
    tagged = hub.add_repo("org/tagged")
    tagged.tags["v0.1.0"] = tagged.resolve("main")
    code = """
import contextlib, io, json, os, sys
import huggingface_hub.constants
from hub.push_model import main
calls = (["--repo", "org/new"], ["--repo", "org/public", "--private"], ["--repo", "org/tagged"], ["--repo", "bob/new"])
found = {}
for name, token in (("none", ""), ("wrong", "hf_wrong"), ("good", "hf_alice"), ("offline", "x")):
    os.environ["HF_TOKEN"], huggingface_hub.constants.HF_HUB_OFFLINE = token, name == "offline"
    found[name] = []
    for arguments in calls:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
            code = main(["--model", sys.argv[1], "--licence", "mit", "--skip-check", *arguments])
        found[name].append([code, errors.getvalue()])
print(json.dumps(found))
"""
    found = json.loads(hub.run(code, full, home=tmp_path / "home").stdout)

    codes = {name: [code for code, _ in outcomes] for name, outcomes in found.items()}
    assert codes == {"none": [1] * 4, "wrong": [1] * 4, "good": [0, 2, 2, 1], "offline": [1] * 4}
    assert all("hf auth login" in error for name in ("none", "wrong") for _, error in found[name])
    assert all("HF_HUB_OFFLINE is set" in error for _, error in found["offline"])
    _, public, tagged, elsewhere = (error for _, error in found["good"])
    assert "expected a private repository, got a public one" in public
    assert "there is a version v0.1.0 already" in tagged
    assert "may not write there" in elsewhere
    assert set(hub.repo("org/public").files()) == set(hub.repo("org/tagged").files()) == set()


def test_private_push_is_loaded_back_and_one_that_does_not_load_gets_no_version(hub, full, tmp_path):
    code = """
import sys
import hub.push_model as command
print(command.main(["--model", sys.argv[1], "--repo", "org/secret", "--licence", "mit", "--private"]))
command.copy_code = lambda folder: (folder / "config.json").write_text("{}")
print(command.main(["--model", sys.argv[1], "--repo", "org/broken", "--licence", "mit"]))
"""
    done = hub.run(code, full, home=tmp_path, token="hf_alice")
    secret, broken = hub.repo("org/secret"), hub.repo("org/broken")
    assert secret.private and not secret.gated
    assert done.stdout.count("It loads and answers") == 1
    assert "org/broken" in done.stderr and "does not load from there" in done.stderr
    assert set(secret.tags) == {"v0.1.0"} and broken.tags == {}


def test_upload_that_was_cut_is_resumed_and_what_had_arrived_is_not_sent_again(hub, tmp_path):
    save_full(tmp_path / "model", 2025)
    model = AffectGPTForConditionalGeneration.from_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model", max_shard_size="40KB")
    (tmp_path / "model" / "model.safetensors").unlink(missing_ok=True)
    shards = sorted((tmp_path / "model").glob("model-*.safetensors"))
    assert len(shards) > 1
    last = hashlib.sha256(shards[-1].read_bytes()).hexdigest()
    hub.cut_upload(last, after=100, times=1000)
    code = """
import sys, time
import hub.publish, hub.push_model
hub.publish.MAX_FAILURES = 1
time.sleep = lambda seconds: None
sys.exit(hub.push_model.main(["--model", sys.argv[1], "--repo", "org/large", "--licence", "mit", "--skip-check"]))
"""
    arguments = (code, tmp_path / "model")
    done = hub.run(*arguments, home=tmp_path / "home", token="hf_alice", check=False)
    assert done.returncode == 1
    assert "the same command goes on" in done.stderr
    assert hub.repo("org/large").files() == {}

    hub.cut_upload(last, after=100, times=1)
    before = len(hub.requests)
    hub.run(*arguments, home=tmp_path / "home", token="hf_alice")
    sent = [path.rpartition("/")[2] for method, path, _ in hub.requests[before:] if method == "PUT" and "/objects/" in path]
    assert set(sent) == {last}
    files = hub.repo("org/large").files("v0.1.0")
    assert {shard.name: shard.read_bytes() for shard in shards}.items() <= files.items()
