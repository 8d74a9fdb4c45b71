"""The double of the Hub against the real clients: what they need of a server, and how refusals and cuts reach them."""

import json

import pytest
from hub_double import HubDouble


@pytest.fixture
def hub():
    with HubDouble() as double:
        yield double


def test_client_creates_uploads_lists_tags_and_downloads(hub, tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "weights.safetensors").write_bytes(bytes(range(256)) * 40)
    code = """
import json, sys
from pathlib import Path
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
api = HfApi()
assert api.whoami()["name"] == "alice"
for kind in ("model", "dataset", "space"):
    arguments = {"space_sdk": "gradio"} if kind == "space" else {}
    api.create_repo("alice/thing", repo_type=kind, private=True, **arguments)
    api.create_repo("alice/thing", repo_type=kind, exist_ok=True, **arguments)
    api.upload_folder(repo_id="alice/thing", repo_type=kind, folder_path=sys.argv[1])
    api.create_tag("alice/thing", repo_type=kind, tag="v1")
    api.upload_file(repo_id="alice/thing", repo_type=kind, path_or_fileobj=b"new", path_in_repo="config.json")
    assert sorted(api.list_repo_files("alice/thing", repo_type=kind)) == ["config.json", "sub/weights.safetensors"]
    (info,) = api.get_paths_info("alice/thing", ["sub/weights.safetensors"], repo_type=kind)
    assert info.lfs.size == info.size == 256 * 40
    assert [tag.name for tag in api.list_repo_refs("alice/thing", repo_type=kind).tags] == ["v1"]
    assert Path(hf_hub_download("alice/thing", "config.json", repo_type=kind)).read_text() == "new"
    assert Path(hf_hub_download("alice/thing", "config.json", repo_type=kind, revision="v1")).read_text() == "{}"
    local = Path(snapshot_download("alice/thing", repo_type=kind))
    assert (local / "sub" / "weights.safetensors").read_bytes() == bytes(range(256)) * 40
    api.delete_file("config.json", repo_id="alice/thing", repo_type=kind)
    assert not api.file_exists("alice/thing", "config.json", repo_type=kind)
print(len(api.list_repo_commits("alice/thing")))
"""
    done = hub.run(code, folder, home=tmp_path / "home", token="hf_alice")
    assert done.stdout.strip() == "4"
    assert set(hub.repo("alice/thing").files("v1")) == {"config.json", "sub/weights.safetensors"}
    assert hub.unknown == []


def test_client_without_rights_gets_the_error_of_each_kind(hub, tmp_path):
    hub.add_repo("org/private", {"config.json": b"{}"}, private=True)
    hub.add_repo("org/gated", {"config.json": b"{}"}, gated="manual", readers={"bob"})
    hub.add_repo("org/open", {"config.json": b"{}"})
    code = """
import json, sys
from huggingface_hub import HfApi, hf_hub_download
def outcome(call, *arguments, **settings):
    try:
        call(*arguments, **settings)
    except Exception as error:
        return type(error).__name__, getattr(getattr(error, "response", None), "status_code", None)
    return "fine", None
api = HfApi()
print(json.dumps({
    "private": outcome(hf_hub_download, "org/private", "config.json"),
    "gated": outcome(hf_hub_download, "org/gated", "config.json"),
    "gated listing": outcome(api.list_repo_files, "org/gated"),
    "gated check": outcome(api.auth_check, "org/gated"),
    "missing": outcome(hf_hub_download, "org/missing", "config.json"),
    "missing file": outcome(hf_hub_download, "org/open", "missing.json"),
    "missing revision": outcome(hf_hub_download, "org/open", "config.json", revision="v9"),
    "whoami": outcome(api.whoami),
    "write": outcome(api.upload_file, repo_id="org/open", path_or_fileobj=b"", path_in_repo="x"),
}))
"""
    outcomes = {
        token: json.loads(hub.run(code, home=tmp_path / str(token), token=token).stdout)
        for token in (None, "hf_alice", "hf_bob", "hf_wrong")
    }
    everyone = {
        "gated listing": ["fine", None],
        "missing file": ["RemoteEntryNotFoundError", 404],
        "missing revision": ["RevisionNotFoundError", 404],
    }
    assert outcomes[None] == everyone | {
        "private": ["RepositoryNotFoundError", 401],
        "gated": ["GatedRepoError", 401],
        "gated check": ["GatedRepoError", 401],
        "missing": ["RepositoryNotFoundError", 401],
        "whoami": ["LocalTokenNotFoundError", None],
        "write": ["HfHubHTTPError", 401],
    } | {"write": outcomes[None]["write"]}
    assert outcomes[None]["write"][1] == 401
    owner = {name: ["fine", None] for name in ("private", "gated", "gated check", "whoami", "write")}
    assert outcomes["hf_alice"] == everyone | owner | {"missing": ["RepositoryNotFoundError", 404]}
    assert outcomes["hf_bob"]["gated"] == ["fine", None]
    assert outcomes["hf_bob"]["private"] == ["RepositoryNotFoundError", 404]
    assert outcomes["hf_bob"]["write"][1] == 403
    assert {outcome[1] for outcome in outcomes["hf_wrong"].values()} == {401}


def test_client_whose_download_is_cut_resumes_by_range(hub, tmp_path):
    content = bytes(range(256)) * 50_000
    hub.add_repo("org/model", {"model.safetensors": content})
    hub.cut_download("model.safetensors", after=12_000_000)
    code = "import sys; from huggingface_hub import hf_hub_download as get; print(get('org/model', 'model.safetensors'))"
    path = hub.run(code, home=tmp_path).stdout.strip()
    with open(path, "rb") as file:
        assert file.read() == content
    # The client writes 10 MiB at a time.
    assert hub.downloads == [("model.safetensors", None), ("model.safetensors", "bytes=10485760-")]


def test_client_whose_upload_is_cut_sends_the_file_again(hub, tmp_path):
    content = bytes(range(256)) * 4000
    (tmp_path / "model.safetensors").write_bytes(content)
    hub.add_repo("alice/model")
    hub.cut_upload(after=100_000)
    code = """
import sys
from huggingface_hub import HfApi
HfApi().upload_file(repo_id="alice/model", path_or_fileobj=sys.argv[1], path_in_repo="model.safetensors")
"""
    hub.run(code, tmp_path / "model.safetensors", home=tmp_path / "home", token="hf_alice")
    assert hub.repo("alice/model").files() == {"model.safetensors": content}
    assert sum(method == "PUT" for method, _, _ in hub.requests) == 2


def test_commit_on_an_outdated_parent_is_refused(hub, tmp_path):
    repo = hub.add_repo("alice/model", {"config.json": b"1"})
    parent = repo.resolve("main")
    hub.commit(repo, {"config.json": b"2"})
    code = """
import sys
from huggingface_hub import HfApi
HfApi().upload_file(repo_id="alice/model", path_or_fileobj=b"3", path_in_repo="config.json", parent_commit=sys.argv[1])
"""
    done = hub.run(code, parent, home=tmp_path, token="hf_alice", check=False)
    assert done.returncode != 0 and "412" in done.stderr
    assert repo.files() == {"config.json": b"2"}


def test_datasets_pushes_loads_and_streams_both_configurations(hub, tmp_path):
    code = """
import affectgpt
from datasets import Dataset, load_dataset
for name, count in (("EMER-Fine", 3), ("EMER-Coarse", 5)):
    rows = {"name": [f"clip{index}" for index in range(count)], "labels": [["happy"]] * count}
    Dataset.from_dict(rows).push_to_hub("alice/emer", name, split="train", private=True)
fine = load_dataset("alice/emer", "EMER-Fine", split="train")
assert fine["name"] == ["clip0", "clip1", "clip2"] and fine[0]["labels"] == ["happy"]
streamed = load_dataset("alice/emer", "EMER-Coarse", split="train", streaming=True)
assert [row["name"] for row in streamed] == [f"clip{index}" for index in range(5)]
"""
    hub.run(code, home=tmp_path, token="hf_alice")
    assert "README.md" in hub.repo("alice/emer", "dataset").files()


def test_transformers_pushes_and_loads_a_model(hub, tmp_path):
    code = """
import affectgpt, torch
from transformers import AutoModel, Qwen2Config, Qwen2Model
sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
config = Qwen2Config(**sizes, num_attention_heads=2, num_key_value_heads=2)
model = Qwen2Model(config)
model.push_to_hub("alice/tiny", private=True)
again = AutoModel.from_pretrained("alice/tiny")
for name, tensor in model.state_dict().items():
    assert torch.equal(tensor, again.state_dict()[name])
"""
    hub.run(code, home=tmp_path, token="hf_alice")
    assert {"config.json", "model.safetensors"} <= set(hub.repo("alice/tiny").files())
    assert hub.repo("alice/tiny").private
