"""What trains also reaches the Hub: `--push_to_hub`, `push_to_hub` of model and processor, LoRA adapters alone."""

import json

import pytest
import yaml
from hub_double import HubDouble
from media_files import make_clip
from parts_files import save_full

from affectgpt import corpus
from affectgpt.explanation import NOTICE

# Model and processor as their own methods push them, a run of the trainer, and an adapter by peft and by this project's command.
PUSHES = """
import sys
import torch
import affectgpt
from affectgpt import AffectGPTForConditionalGeneration, AffectGPTProcessor
from hub.push_model import main as push_model
from peft import LoraConfig, PeftModel, get_peft_model
from training.train import main as train

folder = sys.argv[1]
model = AffectGPTForConditionalGeneration.from_pretrained(f"{folder}/model").eval()
processor = AffectGPTProcessor.from_pretrained(f"{folder}/model")
model.push_to_hub("org/direct", private=True)
processor.push_to_hub("org/direct")

train([
    *("--output_dir", f"{folder}/trained", "--model_name_or_path", f"{folder}/model"),
    *("--dataset_name", f"{folder}/corpus", "--dataset_config", "EMER-Tiny"),
    *("--per_device_train_batch_size", "2", "--max_steps", "2", "--learning_rate", "0.01", "--use_cpu", "True"),
    *("--report_to", "none", "--disable_tqdm", "True"),
    *("--push_to_hub", "True", "--hub_model_id", "org/trained", "--hub_private_repo", "True"),
])

torch.manual_seed(0)
targets = r"model\\.language_model\\..*\\.(q_proj|v_proj)"
adapted = get_peft_model(AffectGPTForConditionalGeneration.from_pretrained("org/direct"), LoraConfig(r=2, target_modules=targets))
for name, parameter in adapted.named_parameters():
    if "lora_B" in name:
        torch.nn.init.normal_(parameter)
adapted.push_to_hub("org/by-peft")
adapted.save_pretrained(f"{folder}/adapter")
assert push_model(["--model", f"{folder}/adapter", "--repo", "org/adapter", "--licence", "mit", "--gate", "none"]) == 0

inputs = processor(subtitle="hello")
with torch.no_grad():
    expected, plain = adapted.eval()(**inputs).logits, model(**inputs).logits
    assert not torch.allclose(expected, plain, atol=1e-3)
    for repo in ("org/by-peft", "org/adapter"):
        base = AffectGPTForConditionalGeneration.from_pretrained("org/direct")
        found = PeftModel.from_pretrained(base, repo).eval()(**inputs).logits
        assert torch.allclose(found, expected, atol=1e-5)
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trainer")
    save_full(folder / "model", 2024)
    rows = []
    for index in range(4):
        make_clip(folder / f"{index}.mp4", seconds=0.4, size=(32, 32))
        rows.append({"name": f"row{index}", "video": str(folder / f"{index}.mp4"), "description": "The person seems calm."})
    data = corpus.write_split(rows, folder / "corpus/data", "train")
    corpus.write_card(folder / "corpus", {"EMER-Tiny": {"train": f"data/{data.name}"}}, "A tiny corpus.", licence="cc0-1.0")
    with HubDouble() as double:
        double.run(PUSHES, folder, home=folder / "home", token="hf_alice")
        yield double


def test_model_and_processor_push_themselves_with_their_code(hub):
    files = hub.repo("org/direct").files()
    assert hub.repo("org/direct").private
    assert {"config.json", "model.safetensors", "processor_config.json", "modeling_affectgpt.py", "processing_affectgpt.py"} <= set(
        files
    )


def test_training_run_pushes_what_loads_anywhere_and_its_card_says_what_it_must_not_be_used_for(hub):
    files = hub.repo("org/trained").files()
    assert {"config.json", "model.safetensors", "processor_config.json", "modeling_affectgpt.py"} <= set(files)
    assert set(json.loads(files["config.json"])["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForMultimodalLM"}
    assert not [name for name in files if name.endswith(".mp4") or "optimizer" in name]
    assert hub.repo("org/trained").private
    assert NOTICE in files["README.md"].decode() and "hiring" in files["README.md"].decode()


@pytest.mark.parametrize("repo", ["org/by-peft", "org/adapter"])
def test_adapter_is_pushed_alone_and_names_its_base(hub, repo):
    files = hub.repo(repo).files()
    assert set(files) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "org/direct"


def test_card_of_an_adapter_has_its_base_its_licence_and_the_notice(hub):
    header, body = hub.repo("org/adapter").files("v0.1.0")["README.md"].decode().split("---\n")[1:3]
    header = yaml.safe_load(header)
    assert (header["base_model"], header["library_name"], header["license"]) == (["org/direct"], "peft", "mit")
    assert NOTICE in body
