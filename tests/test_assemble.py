"""`python -m hub.assemble` over HTTP, against repositories with the real names and layouts, tiny in size."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hub_double import ROOT, HubDouble
from safetensors.numpy import load_file, save

VISION, AUDIO, LANGUAGE = "openai/clip-vit-large-patch14", "TencentGameMate/chinese-hubert-large", "Qwen/Qwen2.5-7B-Instruct"
CHECKPOINTS, BLIP2, LLAMA_2 = "MERChallenge/AffectGPT", "Salesforce/blip2-flan-t5-xxl", "meta-llama/Llama-2-7b-chat-hf"
VIDEO_LLAMA, VIDEO_LLAMA_2 = "DAMO-NLP-SG/Video-LLaMA-Series", "DAMO-NLP-SG/Video-LLaMA-2-7B-Finetuned"
FACE_CHECKPOINT = "face/checkpoint_000030.pth"
SHARD, INDEX = "model-00002-of-00004.safetensors", "model.safetensors.index.json"

# Runs the command once for each line of JSON, with a converter that only notes what it was given. One process for all tests, for
# importing the clients takes longer than what they do here.
CLIENT = """
import io, json, os, signal, sys, traceback
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch
import hub.assemble
from huggingface_hub import constants

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell ignores it
constants.DOWNLOAD_CHUNK_SIZE = 50  # the client writes no less at a time

@dataclass
class Report:
    output: Path

    def __str__(self):
        return f"Converted to {self.output}."

def run(arguments, seen, cache, environment, stdin="", free=10**15, min_saving=2**28, unfit="", silent=""):
    def convert(sources, output, *, form, origins, **options):
        sources = {part: str(path) for part, path in sources.items()}
        origins = {part: vars(origin) for part, origin in origins.items()}
        given = {"sources": sources, "form": form, "origins": origins, "options": options}
        Path(seen).write_text(json.dumps(given))
        if unfit:
            raise ValueError(unfit)
        (output / "config.json").write_text("{}")
        return Report(output)

    def explain(folder, device):
        if silent:
            raise ValueError(silent)
        return "It explained the clip."

    out, errors = io.StringIO(), io.StringIO()
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, environment))
        stack.enter_context(patch("huggingface_hub.constants.HF_HUB_CACHE", cache))
        stack.enter_context(patch("hub.fetch.MIN_SAVING", min_saving))
        stack.enter_context(patch("shutil.disk_usage", lambda folder: SimpleNamespace(free=free)))
        stack.enter_context(patch("sys.stdin", io.StringIO(stdin)))
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(errors))
        try:
            code = hub.assemble.main(arguments, convert=convert, explain=explain)
        except SystemExit as stop:
            code = stop.code
        except Exception:
            code = traceback.format_exc()
    return {"code": code, "out": out.getvalue(), "errors": errors.getvalue()}

if len(sys.argv) > 1:
    done = run(**json.loads(sys.argv[1]))
    print(done["out"])
    print(done["errors"], file=sys.stderr)
    sys.exit(done["code"])
for line in sys.stdin:
    print(json.dumps(run(**json.loads(line))), flush=True)
"""


def tensors(*names: str, size: int = 64) -> dict[str, np.ndarray]:
    return {name: np.full(size, index + len(name), dtype=np.float32) for index, name in enumerate(names)}


def sharded(shards: dict[str, dict[str, np.ndarray]], index: str) -> dict[str, bytes]:
    """Files of weights in shards, with their index; what is no safetensors file holds any bytes."""
    files = {
        shard: save(content) if shard.endswith(".safetensors") else b"".join(tensor.tobytes() for tensor in content.values())
        for shard, content in shards.items()
    }
    weight_map = {name: shard for shard, content in shards.items() for name in content}
    return files | {index: json.dumps({"metadata": {}, "weight_map": weight_map}).encode()}


def add_tokenizer(files: dict[str, bytes]) -> dict[str, bytes]:
    return files | {"tokenizer.json": b"{}", "tokenizer_config.json": b"{}", "generation_config.json": b"{}"}


@pytest.fixture(scope="module")
def server():
    with HubDouble() as double:
        yield double


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT],
        env=server.environment(tmp_path_factory.mktemp("home")),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.stdin.close()
    process.wait(timeout=60)


@pytest.fixture
def hub(server, client):
    server.clear()
    server.client = client
    add_repositories(server)
    return server


def add_repositories(double):
    small = {
        "config.json": b"{}",
        "preprocessor_config.json": b"{}",
        ".gitattributes": b"",
        "README.md": b"---\nlicense: mit\n---\n",
    }
    other_frameworks = {"tf_model.h5": b"tf", "flax_model.msgpack": b"flax", "pytorch_model.bin": b"bin"}
    double.add_repo(VISION, small | other_frameworks | {"model.safetensors": save(tensors("vision_model.a", "text_model.a"))})
    fairseq = {"chinese-hubert-large-fairseq-ckpt.pt": b"fairseq"}
    double.add_repo(AUDIO, small | fairseq | {"pytorch_model.bin": b"hubert" * 50})
    shards = {f"model-0000{number}-of-00004.safetensors": tensors(f"model.layers.{number}") for number in range(1, 5)}
    qwen = {"config.json": b'{"model_type": "qwen2"}', "vocab.json": b"{}", "merges.txt": b"", "LICENSE": b"Apache"}
    double.add_repo(LANGUAGE, add_tokenizer(qwen | sharded(shards, "model.safetensors.index.json")))
    double.add_repo(CHECKPOINTS, {FACE_CHECKPOINT: b"face" * 100, "frame/checkpoint_000030.pth": b"frame", "README.md": b""})
    blip2 = {
        "model-00001-of-00003.safetensors": tensors("query_tokens", "vision_model.a", "vision_model.b"),
        "model-00002-of-00003.safetensors": tensors("vision_model.c", "qformer.a", "language_model.a"),
        "model-00003-of-00003.safetensors": tensors("language_model.b", "language_projection.weight"),
    }
    double.add_repo(BLIP2, small | sharded(blip2, "model.safetensors.index.json"))
    vicuna = {f"pytorch_model-0000{number}-of-00002.bin": tensors(f"model.layers.{number}") for number in (1, 2)}
    double.add_repo(
        "Vision-CAIR/vicuna-7b",
        {"config.json": b"{}", "tokenizer.model": b"sp"} | sharded(vicuna, "pytorch_model.bin.index.json"),
    )
    llama = {f"model-0000{number}-of-00002.safetensors": tensors(f"model.layers.{number}") for number in (1, 2)}
    files = add_tokenizer({"config.json": b"{}"}) | sharded(llama, "model.safetensors.index.json")
    double.add_repo(LLAMA_2, files | {"pytorch_model-00001-of-00002.bin": b"same"}, gated="manual", readers={"bob"})
    branches = {
        "finetune-vicuna7b-v2.pth": b"video",
        "finetune_vicuna7b_audiobranch.pth": b"audio",
        "pretrain-vicuna7b.pth": b"no",
    }
    double.add_repo(VIDEO_LLAMA, branches)
    branches = {
        "VL_LLaMA_2_7B_Finetuned.pth": b"video",
        "AL_LLaMA_2_7B_Finetuned.pth": b"audio",
        "imagebind_huge.pth": b"sound",
    }
    double.add_repo(VIDEO_LLAMA_2, branches | {"llama-2-7b-chat-hf/config.json": b"{}"})


def assemble(hub, tmp_path, *arguments, token=None, **call):
    """Run the command with `--output tmp_path/out`.

    Returns:
        Exit code, output, errors, and what the converter was given (`None` if it was not called).
    """
    seen = tmp_path / "seen.json"
    seen.unlink(missing_ok=True)
    hub.client.stdin.write(json.dumps(describe_call(tmp_path, arguments, token) | call) + "\n")
    hub.client.stdin.flush()
    answer = json.loads(hub.client.stdout.readline())
    given = json.loads(seen.read_text()) if seen.exists() else None
    seen.unlink(missing_ok=True)
    assert isinstance(answer["code"], int), answer["code"]
    return answer["code"], answer["out"], answer["errors"], given


def describe_call(tmp_path, arguments, token=None) -> dict:
    environment = {"AFFECTGPT_CACHE": str(tmp_path / "cache"), **({"HF_TOKEN": token} if token else {})}
    return {
        "arguments": [*arguments, "--output", str(tmp_path / "out")],
        "seen": str(tmp_path / "seen.json"),
        "cache": str(tmp_path / "home" / "hub"),
        "environment": environment,
    }


def content_below(folder: str) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


MODEL_2025 = ("affectgpt-2025", "--checkpoint", "face")


def test_dry_run_lists_everything_and_writes_nothing(hub, tmp_path):
    code, out, errors, seen = assemble(hub, tmp_path, *MODEL_2025, "--dry-run")
    assert code == 0 and seen is None
    for word in (VISION, AUDIO, LANGUAGE, CHECKPOINTS, SHARD, FACE_CHECKPOINT, "Apache-2.0", "the Hub says: mit", "gate: none"):
        assert word in out
    for word in ("fairseq", "tf_model", "flax", "frame/", ".gitattributes"):
        assert word not in out
    assert "  400 B  face/checkpoint_000030.pth" in out
    assert "Strictest licence: non-commercial." in out
    assert "untrained" not in out
    assert sorted(path.name for path in tmp_path.iterdir()) == []
    # Beside the index of the shards, one byte of each repository is asked for: does the Hub give it?
    assert {span for _, span in hub.downloads} <= {"bytes=0-0", f"bytes=0-{len(hub.repo(LANGUAGE).files()[INDEX]) - 1}"}


def test_assembly_fetches_what_is_needed_and_converts_it(hub, tmp_path):
    code, out, errors, seen = assemble(hub, tmp_path, *MODEL_2025, "--yes")
    assert code == 0, errors
    assert f"Converted to {tmp_path / 'out'}." in out
    assert "It explained the clip." in out
    vision = content_below(seen["sources"]["vision"])
    assert vision == {
        name: hub.repo(VISION).files()[name] for name in ("config.json", "preprocessor_config.json", "model.safetensors")
    }
    audio = content_below(seen["sources"]["audio"])
    assert set(audio) == {"config.json", "preprocessor_config.json", "pytorch_model.bin"}
    language = hub.repo(LANGUAGE).files()
    assert content_below(seen["sources"]["language"]) == language
    assert Path(seen["sources"]["checkpoint"]).read_bytes() == b"face" * 100
    assert seen["form"] == "parts"
    origin = seen["origins"]["language"]
    assert origin["repo_id"] == LANGUAGE and origin["revision"] == hub.repo(LANGUAGE).branches["main"]
    assert origin["sha256"] == {name: hashlib.sha256(data).hexdigest() for name, data in language.items()}
    record = json.loads((tmp_path / "out" / "sources.json").read_text())
    assert record["licence"] == "non-commercial" and set(record["parts"]) == {"vision", "audio", "language", "checkpoint"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "sources.json"]

    code, out, errors, _ = assemble(hub, tmp_path, *MODEL_2025, "--yes")
    assert code == 2 and "there is a checkpoint already" in errors


def test_transformers_finds_fetched_files_in_its_cache(hub, tmp_path):
    assemble(hub, tmp_path, *MODEL_2025, "--yes")
    find = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download(sys.argv[1], revision=sys.argv[2], local_files_only=True))
"""
    folder = hub.run(find, LANGUAGE, hub.repo(LANGUAGE).branches["main"], home=tmp_path / "home").stdout.strip()
    assert SHARD in content_below(folder)


def test_several_checkpoints_asks_which(hub, tmp_path):
    code, out, errors, _ = assemble(hub, tmp_path, "affectgpt-2025", "--yes")
    assert code == 1
    assert FACE_CHECKPOINT in errors and "frame/checkpoint_000030.pth" in errors and "--checkpoint FILE" in errors
    assert not (tmp_path / "out").exists()


def test_of_the_released_checkpoints_that_of_the_results_is_taken(hub, tmp_path):
    run = "emercoarse_highlevelfilter4_outputhybird_bestsetup_bestfusion_lz"
    files = {f"{run}_20250110100/checkpoint_0000{epoch}_loss_0.5.pth": b"face" * epoch for epoch in (30, 60)}
    hub.commit(hub.repo(CHECKPOINTS), files)

    code, out, errors, seen = assemble(hub, tmp_path, "affectgpt-2025", "--yes")

    assert code == 0, errors
    assert Path(seen["sources"]["checkpoint"]).read_bytes() == b"face" * 60


def test_connection_cut_in_the_middle_goes_on_behind_what_arrived(hub, tmp_path):
    shard = hub.repo(LANGUAGE).files()[SHARD]
    hub.cut_download(SHARD, after=100, times=2)
    code, out, errors, seen = assemble(hub, tmp_path, *MODEL_2025, "--yes")
    assert code == 0, errors
    assert content_below(seen["sources"]["language"])[SHARD] == shard
    last = len(shard) - 1
    asked = [span for name, span in hub.downloads if name == SHARD]
    assert asked == [f"bytes=0-{last}", f"bytes=100-{last}", f"bytes=200-{last}"]


def test_interrupt_and_the_same_command_goes_on(hub, tmp_path):
    """Also after the repository has a new commit: the model is not mixed from two."""
    shard = hub.repo(LANGUAGE).files()[SHARD]
    hub.cut_download(SHARD, after=100, stall=True)
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, json.dumps(describe_call(tmp_path, [*MODEL_2025, "--yes"]))],
        env=hub.environment(tmp_path / "home"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not [path for path in (tmp_path / "home").rglob("*.incomplete") if path.stat().st_size == 100]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130 and "the same command goes on" in errors
    assert not (tmp_path / "out" / "config.json").exists()

    hub.commit(hub.repo(LANGUAGE), {SHARD: b"a newer shard"})
    hub.downloads.clear()
    code, out, errors, seen = assemble(hub, tmp_path, *MODEL_2025, "--yes")
    assert code == 0, errors
    assert content_below(seen["sources"]["language"])[SHARD] == shard
    assert [span for name, span in hub.downloads if name == SHARD] == [f"bytes=100-{len(shard) - 1}"]
    assert "pytorch_model.bin" not in [name for name, span in hub.downloads if span != "bytes=0-0"]


def test_file_that_changed_since_it_was_recorded_is_named(hub, tmp_path):
    code, out, errors, _ = assemble(hub, tmp_path, *MODEL_2025, "--yes", unfit="vision_model.embeddings has 3 rows")
    assert code == 1 and "vision_model.embeddings has 3 rows" in errors
    repo = hub.repo(CHECKPOINTS)
    hub.forget_history(repo)
    code, out, errors, seen = assemble(hub, tmp_path, *MODEL_2025, "--yes", unfit="vision_model.embeddings has 3 rows")
    assert seen["origins"]["checkpoint"]["revision"] == repo.branches["main"], "the same files under another commit do no harm"

    hub.commit(repo, {FACE_CHECKPOINT: b"other weights"})
    hub.forget_history(repo)
    code, out, errors, seen = assemble(hub, tmp_path, *MODEL_2025, "--yes")
    assert code == 1 and seen is None
    assert f"{CHECKPOINTS} changed" in errors and FACE_CHECKPOINT in errors and "sources.json" in errors


def test_damaged_content_is_named_and_not_kept(hub, tmp_path):
    data = hub.repo(LANGUAGE).files()[SHARD]
    sha256 = hashlib.sha256(data).hexdigest()
    hub.damage(sha256, bytes(len(data)))
    code, out, errors, seen = assemble(hub, tmp_path, *MODEL_2025, "--yes")
    assert code == 1 and seen is None
    assert SHARD in errors and sha256 in errors
    assert not list((tmp_path / "home").rglob("*.incomplete"))
    hub.damage(sha256, data)
    code, out, errors, seen = assemble(hub, tmp_path, *MODEL_2025, "--yes")
    assert code == 0 and content_below(seen["sources"]["language"])[SHARD] == data


def test_gated_repository_without_consent_says_where_to_give_it(hub, tmp_path):
    code, out, errors, seen = assemble(hub, tmp_path, "paper-llama2", "--yes")
    assert code == 1 and seen is None
    assert f"Accept the terms at {hub.url}/{LLAMA_2}" in errors and "hf auth login" in errors
    assert not (tmp_path / "out").exists() and not (tmp_path / "home").exists()
    code, out, errors, _ = assemble(hub, tmp_path, "paper-llama2", "--dry-run")
    assert code == 1 and f"Accept the terms at {hub.url}/{LLAMA_2}" in out
    assert "VL_LLaMA_2_7B_Finetuned.pth" in out and "about 13.5 GB" in out, "the rest is listed all the same"
    code, out, errors, _ = assemble(hub, tmp_path, "paper-llama2", "--yes", token="hf_alice")
    assert code == 1 and "does not have access yet" in errors
    code, out, errors, _ = assemble(hub, tmp_path, "paper-llama2", "--yes", token="hf_wrong")
    assert code == 1 and "does not know the token" in errors
    code, out, errors, _ = assemble(hub, tmp_path, "paper-llama2", "--dry-run", token="hf_bob")
    assert code == 0 and f"consent asked at {hub.url}/{LLAMA_2}" in out
    assert "LLAMA 2 Community License" in out and "pytorch_model-00001" not in out


def test_paper_model_takes_only_the_shards_it_needs(hub, tmp_path):
    code, out, errors, seen = assemble(hub, tmp_path, "paper-vicuna", "--yes")
    assert code == 0, errors
    names = {name for name in content_below(seen["sources"]["vision"]) if name.startswith("model-")}
    assert names == {"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"}
    index = json.loads(content_below(seen["sources"]["vision"])[INDEX])["weight_map"]
    assert set(index) == {"query_tokens", "vision_model.a", "vision_model.b", "vision_model.c", "qformer.a"}
    assert set(seen["origins"]["image_qformer"]["sha256"]) >= names
    assert set(content_below(seen["sources"]["language"])) == set(hub.repo("Vision-CAIR/vicuna-7b").files())
    assert Path(seen["sources"]["audio"]).read_bytes() == b"sound"
    assert Path(seen["sources"]["video_branch"]).name == "finetune-vicuna7b-v2.pth"
    assert out.count("This is an untrained assembly") == 2 and "28.64" in out
    assert "research only" in out


def test_full_form_reads_single_tensors_out_of_huge_shards(hub, tmp_path):
    shard = hub.repo(BLIP2).files()["model-00002-of-00003.safetensors"]
    hub.cut_download("model-00002-of-00003.safetensors", after=90)
    code, out, errors, seen = assemble(hub, tmp_path, "paper-vicuna", "--form", "full", "--yes", min_saving=1)
    assert code == 0, errors
    found = {}
    for path in Path(seen["sources"]["vision"]).glob("*.safetensors"):
        found |= load_file(path)
    expected = tensors("query_tokens", "vision_model.a", "vision_model.b") | tensors("vision_model.c", "qformer.a")
    assert set(found) == set(expected)
    assert all((found[name] == expected[name]).all() for name in found)
    index = json.loads((Path(seen["sources"]["image_qformer"]) / INDEX).read_text())["weight_map"]
    assert index["query_tokens"] == "model-00001-of-00003.safetensors" and set(index) == set(expected)
    spans = [span for name, span in hub.downloads if name == "model-00002-of-00003.safetensors"]
    assert f"bytes=0-{len(shard) - 1}" not in spans
    assert "model-00003-of-00003.safetensors" not in [name for name, _ in hub.downloads]


def test_trained_checkpoint_makes_it_no_untrained_assembly(hub, tmp_path):
    (tmp_path / "mine.pth").write_bytes(b"trained")
    code, out, errors, seen = assemble(hub, tmp_path, "paper-vicuna", "--yes", "--checkpoint", str(tmp_path / "mine.pth"))
    assert code == 0, errors
    assert "untrained" not in out
    assert seen["sources"]["checkpoint"] == str(tmp_path / "mine.pth") and "checkpoint" not in seen["origins"]
    assert str(tmp_path) not in (tmp_path / "out" / "sources.json").read_text()


def test_licence_is_asked_once_and_a_no_fetches_nothing(hub, tmp_path):
    for answer in ("no\n", ""):
        code, out, errors, seen = assemble(hub, tmp_path, *MODEL_2025, stdin=answer)
        assert code == 2 and seen is None and "--yes" in errors
        assert list(tmp_path.iterdir()) == []
    code, out, errors, seen = assemble(hub, tmp_path, *MODEL_2025, stdin="yes\n")
    assert code == 0 and seen is not None
    assert out.count("Type yes") == 1


def test_too_small_disk_is_told_before_anything_is_fetched(hub, tmp_path):
    code, out, errors, seen = assemble(hub, tmp_path, *MODEL_2025, "--yes", free=1000)
    assert code == 2 and seen is None
    assert "of free space and has 1.0 kB" in errors
    assert list(tmp_path.iterdir()) == []


def test_source_can_be_taken_from_elsewhere(hub, tmp_path):
    folder = tmp_path / "my-clip"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    other = hub.add_repo("someone/audio", {"sub/config.json": b"{}", "sub/model.safetensors": save(tensors("a"))})
    other.tags["v1"] = other.branches["main"]
    hub.commit(other, {"sub/model.safetensors": save(tensors("b"))})
    options = ("--source", f"vision={folder}", "--source", "audio=someone/audio@v1:sub", "--yes")
    code, out, errors, seen = assemble(hub, tmp_path, *MODEL_2025, *options, "--form", "full")
    assert code == 0, errors
    assert seen["sources"]["vision"] == str(folder) and "vision" not in seen["origins"]
    assert set(load_file(Path(seen["sources"]["audio"]) / "model.safetensors")) == {"a"}
    assert seen["origins"]["audio"]["revision"] == other.tags["v1"]

    shutil.rmtree(tmp_path / "out")
    code, out, errors, _ = assemble(hub, tmp_path, *MODEL_2025, *options)
    assert code == 0 and "it works on this machine only" in out and "Strictest licence: non-commercial." in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--source", "nose=org/x"), "expected PART=WHERE with a part out of vision, audio, language, checkpoint"),
        (("--source", "vision=./missing"), "expected a file or folder that exists"),
        (("--source", "vision=org/missing"), "there is no such repository on the Hub"),
        (("--source", f"vision={LANGUAGE}@v9"), "it has no such revision"),
        (("--source", f"language={VISION}"), "a tokenizer missing"),
        (("--source", f"vision={CHECKPOINTS}"), "expected a model in the layout of transformers"),
        (("--checkpoint", "nothing.pth"), "expected a file nothing.pth, got README.md"),
    ],
)
def test_mistake_in_the_call_is_one_clear_error(hub, tmp_path, arguments, expected):
    model = MODEL_2025[:1] if "--checkpoint" in arguments else MODEL_2025
    code, out, errors, seen = assemble(hub, tmp_path, *model, *arguments, "--yes")
    assert code in (1, 2) and seen is None
    assert expected in errors
    assert list(tmp_path.iterdir()) == []


def test_unreachable_hub_is_one_clear_error(hub, tmp_path):
    call = json.dumps(describe_call(tmp_path, [*MODEL_2025, "--yes"]))
    for variables, expected in (
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9 cannot be reached"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
    ):
        done = hub.run(CLIENT, call, home=tmp_path, check=False, **variables)
        assert done.returncode == 1 and expected in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_that_cannot_explain_is_a_failure_and_stays(hub, tmp_path):
    code, out, errors, _ = assemble(hub, tmp_path, *MODEL_2025, "--yes", silent="it answered nothing")
    assert code == 1 and "it answered nothing" in errors and "Done" not in out
    assert (tmp_path / "out" / "config.json").exists()


def add_working_2025_repositories(hub, folder: Path) -> None:
    """The repositories of the 2025 model with tiny models that work, and a checkpoint under the authors' names."""
    import torch
    from tiny import make_tiny_model_2025, make_tiny_tokenizer
    from transformers import CLIPConfig, CLIPModel, Qwen2ForCausalLM

    model = make_tiny_model_2025()
    text = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}
    vision = model.config.vision_config.to_dict()
    clip = CLIPModel(CLIPConfig(vision_config=vision, text_config=text | {"projection_dim": 12}, projection_dim=12))
    clip.save_pretrained(folder / "clip")
    model.model.audio_tower.config.save_pretrained(folder / "hubert")
    torch.save(model.model.audio_tower.state_dict(), folder / "hubert" / "pytorch_model.bin")
    for name in ("clip", "hubert"):
        (folder / name / "preprocessor_config.json").write_text('{"do_normalize": true}')
    tokenizer = make_tiny_tokenizer()
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.save_pretrained(folder / "qwen")
    Qwen2ForCausalLM(model.config.text_config).save_pretrained(folder / "qwen", max_shard_size="20KB")

    names = {
        "video_resampler.score": "video_attention_mlp",
        "video_resampler.projection": "affectgpt_proj",
        "audio_resampler.score": "audio_attention_mlp",
        "audio_resampler.projection": "audio_llama_proj",
        "image_resampler.projection": "image_llama_proj",
        "fusion.video_projection": "multi_video_embs",
        "fusion.audio_projection": "multi_audio_embs",
        "fusion.attention_hidden": "attention_mlp",
        "fusion.attention_score": "fc_att",
        "fusion.projection": "multi_llama_proj",
    }
    weights = {}
    for ours, theirs in names.items():
        for name, tensor in model.model.get_submodule(ours).state_dict().items():
            weights[f"{theirs}.{name}"] = tensor
    query = "llama_model.base_model.model.model.layers.0.self_attn.q_proj"
    weights |= {f"{query}.lora_A.default.weight": torch.ones(2, 32), f"{query}.lora_B.default.weight": torch.ones(32, 2)}
    tokens = {f"num_{name}_query_token": 1 for name in ("video", "audio", "multi", "image")}
    settings = {"model": tokens, "datasets": {"mercaptionplus": {"face_or_frame": "multiface_audio_face_text"}}}
    content = {"model": weights, "optimizer": {}, "config": settings, "scaler": None, "epoch": 30}
    (folder / "affectgpt").mkdir()
    torch.save(content, folder / "affectgpt" / "checkpoint_000030.pth")
    for repo_id, name in ((VISION, "clip"), (AUDIO, "hubert"), (LANGUAGE, "qwen"), (CHECKPOINTS, "affectgpt")):
        hub.add_repo(repo_id, folder / name)


def test_2025_model_is_assembled_in_both_forms_and_explains_a_clip(hub, tmp_path):
    add_working_2025_repositories(hub, tmp_path / "homes")
    code = """
import sys
import hub.assemble
for form in ("parts", "full"):
    arguments = ["affectgpt-2025", "--form", form, "--output", f"{sys.argv[1]}/{form}", "--device", "cpu", "--yes"]
    if code := hub.assemble.main(arguments):
        sys.exit(code)
"""
    done = hub.run(code, tmp_path, home=tmp_path / "home", check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.count("What a viewer might read") == 2
    parts = json.loads((tmp_path / "parts" / "config.json").read_text())["parts"]
    assert parts["vision"]["repo_id"] == VISION and parts["vision"]["revision"] == hub.repo(VISION).branches["main"]
    sizes = [sum(file.stat().st_size for file in (tmp_path / form).rglob("*.safetensors")) for form in ("parts", "full")]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("form", ["parts", "full"])
def test_paper_model_is_assembled_and_said_to_be_untrained(hub, tmp_path, form):
    """The repositories of the paper's model, each file under its released name, with tiny weights of the released layouts."""
    import test_convert_video_llama as released
    import torch

    torch.manual_seed(0)
    homes = tmp_path / "homes"
    released.write_blip2(homes / "blip2")
    released.write_llama(homes / "vicuna")
    for folder, weights in {
        "series/finetune-vicuna7b-v2.pth": {"model": released.branch_file("video")},
        "series/finetune_vicuna7b_audiobranch.pth": {"model": released.branch_file("audio")},
        "series/pretrain-vicuna7b.pth": {"model": {}},
        "finetuned/imagebind_huge.pth": released.imagebind_file(),
    }.items():
        (homes / folder).parent.mkdir(exist_ok=True)
        torch.save(weights, homes / folder)
    for repo_id, name in (
        (BLIP2, "blip2"),
        (VIDEO_LLAMA, "series"),
        (VIDEO_LLAMA_2, "finetuned"),
        ("Vision-CAIR/vicuna-7b", "vicuna"),
    ):
        hub.add_repo(repo_id, homes / name)
    code = "import sys, hub.assemble; sys.exit(hub.assemble.main(sys.argv[1:]))"
    arguments = ["paper-vicuna", "--form", form, "--output", str(tmp_path / "out"), "--device", "cpu", "--yes"]

    done = hub.run(code, *arguments, home=tmp_path / "home", check=False)

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "untrained assembly" in done.stdout and "28.64" in done.stdout
    assert "What a viewer might read" in done.stdout
    assert "research only" in done.stdout
    parts = json.loads((tmp_path / "out" / "config.json").read_text())["parts"]
    if form == "parts":
        assert parts["language"]["repo_id"] == "Vision-CAIR/vicuna-7b" and parts["audio"]["repo_id"] == VIDEO_LLAMA_2
    else:
        assert parts is None
