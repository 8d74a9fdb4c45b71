"""Checkpoints in parts: saved small, put together from local homes, strict about what they hold."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file
from tiny import make_tiny_model_2025, make_tiny_processor_2025
from transformers import AutoModel, CLIPConfig, CLIPModel, GenerationConfig, HubertModel, Qwen2ForCausalLM

from affectgpt import AffectGPTForConditionalGeneration, parts


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """Folders as CLIP, HuBERT and Qwen have them, and the model that they make up."""
    folder = tmp_path_factory.mktemp("homes")
    model = make_tiny_model_2025()
    text = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}
    clip = CLIPModel(
        CLIPConfig(
            vision_config=model.config.vision_config.to_dict(),
            text_config={**text, "projection_dim": 12},
            projection_dim=12,
        )
    )
    clip.vision_model.load_state_dict(model.model.vision_tower.vision_model.state_dict())
    clip.visual_projection.load_state_dict(model.model.vision_tower.visual_projection.state_dict())
    clip.save_pretrained(folder / "clip")
    hubert = HubertModel(model.config.audio_config)
    hubert.load_state_dict(model.model.audio_tower.state_dict())
    # The way in which the published repository keeps it: a pickle, with the old names of weight norm.
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = hubert.state_dict()
    for new, old in names.items():
        state[f"encoder.pos_conv_embed.conv.{old}"] = state.pop(f"encoder.pos_conv_embed.conv.{new}")
    (folder / "hubert").mkdir()
    torch.save(state, folder / "hubert" / "pytorch_model.bin")
    qwen = Qwen2ForCausalLM(model.config.text_config)
    qwen.model.load_state_dict(model.model.language_model.state_dict())
    qwen.lm_head.load_state_dict(model.lm_head.state_dict())
    qwen.save_pretrained(folder / "qwen", max_shard_size="20KB")
    return folder, model


def part(home, layout: str) -> dict:
    files = {file.name: parts.sha256_of(file) for file in parts.find_weights(home)}
    return {"repo_id": str(home), "revision": None, "layout": layout, "files": files}


@pytest.fixture
def checkpoint(homes, tmp_path):
    """A checkpoint in parts, as the converters write it."""
    folder, model = homes
    model.requires_grad_(False)
    model.config.parts = {
        "vision": part(folder / "clip", "clip"),
        "audio": part(folder / "hubert", "hubert"),
        "language": part(folder / "qwen", "causal_lm"),
    }
    model.save_pretrained(tmp_path / "checkpoint")
    model.config.parts = None
    return tmp_path / "checkpoint"


def logits_of(model) -> torch.Tensor:
    processor = make_tiny_processor_2025()
    generator = torch.Generator().manual_seed(0)
    faces = torch.randint(0, 256, (3, 28, 28, 3), generator=generator, dtype=torch.uint8).numpy()
    waveform = torch.randn(8000, generator=generator).mul(0.1).numpy()
    with torch.no_grad():
        return model(**processor(faces=faces, waveform=waveform, subtitle="hello")).logits


def test_checkpoint_in_parts_holds_trained_weights_only_and_loads_to_the_same_logits(homes, checkpoint):
    model = homes[1]
    saved = parts.read_weights(checkpoint / "model.safetensors")

    loaded = AffectGPTForConditionalGeneration.from_pretrained(checkpoint)

    assert {name.split(".")[1] for name in saved} == {"video_resampler", "audio_resampler", "image_resampler", "fusion"}
    torch.testing.assert_close(logits_of(loaded), logits_of(model), atol=1e-5, rtol=1e-5)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert loaded.generation_config.stop_strings == ["###"]
    assert {name for name, parameter in loaded.named_parameters() if parameter.requires_grad} == set(saved)


@pytest.mark.parametrize("dtype", ["auto", torch.bfloat16])
def test_precision_is_the_saved_one_or_the_one_asked_for(checkpoint, dtype):
    loaded = AffectGPTForConditionalGeneration.from_pretrained(checkpoint, dtype=dtype, device_map="cpu")

    assert loaded.lm_head.weight.dtype == (torch.float32 if dtype == "auto" else dtype)
    assert loaded.model.fusion.projection.weight.dtype == torch.float32  # what trains stays in full precision


def test_sharded_language_model_is_read_through_its_index(homes):
    assert len(parts.find_weights(homes[0] / "qwen")) > 1


def test_trained_part_is_saved_whole(checkpoint, tmp_path):
    model = AffectGPTForConditionalGeneration.from_pretrained(checkpoint)
    model.lm_head.requires_grad_(True)
    torch.nn.init.zeros_(model.lm_head.weight)

    model.save_pretrained(tmp_path / "again")

    again = AffectGPTForConditionalGeneration.from_pretrained(tmp_path / "again")
    assert set(again.config.parts) == {"vision", "audio"}
    assert not logits_of(again).any()


def test_loaded_parts_are_saved_in_parts_again(checkpoint, tmp_path):
    model = AffectGPTForConditionalGeneration.from_pretrained(checkpoint)
    model.model.fusion.projection.bias.data.add_(1)

    model.save_pretrained(tmp_path / "again")

    assert (tmp_path / "again" / "model.safetensors").stat().st_size == (checkpoint / "model.safetensors").stat().st_size
    again = AffectGPTForConditionalGeneration.from_pretrained(tmp_path / "again")
    torch.testing.assert_close(logits_of(again), logits_of(model), atol=1e-5, rtol=1e-5)


def test_adapter_is_merged_and_equals_peft(homes, checkpoint):
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(1)
    targets = r"model\.language_model\..*\.(q_proj|down_proj)"
    adapted = get_peft_model(
        AffectGPTForConditionalGeneration.from_pretrained(checkpoint),
        LoraConfig(r=2, lora_alpha=32, target_modules=targets, init_lora_weights=False),
    )
    adapted.save_pretrained(checkpoint / "adapter")
    config = json.loads((checkpoint / "config.json").read_text())
    config["parts"]["language"]["adapter"] = "adapter"
    (checkpoint / "config.json").write_text(json.dumps(config))

    merged = AffectGPTForConditionalGeneration.from_pretrained(checkpoint)
    plain = AffectGPTForConditionalGeneration.from_pretrained(checkpoint, merge_adapter=False)

    expected = logits_of(adapted.eval())
    torch.testing.assert_close(logits_of(merged), expected, atol=1e-3, rtol=1e-3)
    assert (logits_of(homes[1]) - expected).abs().max() > 0.5
    torch.testing.assert_close(logits_of(plain), logits_of(homes[1]), atol=1e-5, rtol=1e-5)
    kept = PeftModel.from_pretrained(plain, checkpoint, subfolder="adapter", is_trainable=True)
    torch.testing.assert_close(logits_of(kept.eval()), expected)
    assert set(merged.config.parts) == {"vision", "audio"}


def test_base_model_without_head_loads_from_parts(homes, checkpoint):
    model = homes[1]

    base = AutoModel.from_pretrained(checkpoint)

    assert torch.equal(base.language_model.embed_tokens.weight, model.model.language_model.embed_tokens.weight)


def test_changed_file_of_a_part_raises_and_names_it(homes, checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    config["parts"]["audio"]["files"]["pytorch_model.bin"] = "0" * 64
    (checkpoint / "config.json").write_text(json.dumps(config))

    with pytest.raises(ValueError, match=r"pytorch_model.bin of .*hubert: expected the content"):
        AffectGPTForConditionalGeneration.from_pretrained(checkpoint)


def test_missing_weight_of_a_part_raises_and_names_it(homes, checkpoint, tmp_path):
    state = parts.read_weights(homes[0] / "hubert" / "pytorch_model.bin")
    del state["encoder.layer_norm.weight"]
    torch.save(dict(state), tmp_path / "pytorch_model.bin")
    config = json.loads((checkpoint / "config.json").read_text())
    config["parts"]["audio"] |= {"repo_id": str(tmp_path), "files": {"pytorch_model.bin": None}}
    (checkpoint / "config.json").write_text(json.dumps(config))

    with pytest.raises(ValueError, match=r"1 missing: model.audio_tower.encoder.layer_norm.weight"):
        AffectGPTForConditionalGeneration.from_pretrained(checkpoint)


def test_foreign_weights_raise_and_name_every_key(tmp_path):
    save_file({"blocks.0.weight": torch.zeros(2), "blocks.1.weight": torch.zeros(2)}, tmp_path / "model.safetensors")

    with pytest.raises(ValueError, match=r"2 names that it does not have: blocks.0.weight, blocks.1.weight"):
        parts.convert_part("clip", parts.read_weights(tmp_path / "model.safetensors"))


class Trap:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "checkpoint.pth"])
def test_file_that_is_no_weights_raises_and_names_it(tmp_path, name, capsys):
    for content in (b"", b"text, not weights", pickle.dumps({"model": Trap()})):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}: expected weights"):
            parts.read_weights(tmp_path / name)
    assert "executed" not in capsys.readouterr().out


def test_weights_under_model_are_unwrapped_and_other_entries_ignored(tmp_path):
    torch.save({"model": {"a": torch.ones(1)}, "epoch": 30, "optimizer": {}}, tmp_path / "checkpoint.pth")

    assert list(parts.read_weights(tmp_path / "checkpoint.pth")) == ["a"]


def test_generation_config_of_the_checkpoint_is_used(checkpoint):
    GenerationConfig(max_new_tokens=77).save_pretrained(checkpoint)

    assert AffectGPTForConditionalGeneration.from_pretrained(checkpoint).generation_config.max_new_tokens == 77
