"""Tiny checkpoints of both generations, full and in parts, and the repositories that the parts come from."""

import shutil
from pathlib import Path

import torch
from tiny import make_tiny_model, make_tiny_model_2025, make_tiny_processor, make_tiny_processor_2025
from transformers import CLIPConfig, CLIPModel, HubertModel, LlamaForCausalLM, Qwen2ForCausalLM

from affectgpt import parts

# As the 2025 model's parts are called on the Hub: their licences are known by these names.
CLIP, HUBERT, QWEN = "openai/clip-vit-large-patch14", "TencentGameMate/chinese-hubert-large", "Qwen/Qwen2.5-7B-Instruct"
LLAMA = "meta-llama/Llama-2-7b-chat-hf"


def save_full(folder: Path, generation: int):
    """A full checkpoint with its processor; returns the model."""
    model, processor = (
        (make_tiny_model(), make_tiny_processor()) if generation == 2024 else (make_tiny_model_2025(), make_tiny_processor_2025())
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


def make_homes(folder: Path, generation: int) -> dict[str, tuple[str, str, Path]]:
    """The parts of the tiny model in the layouts of their publishers: name -> (repository, layout, folder).

    Of the model of 2024 only the language model.
    """
    if generation == 2024:
        model = make_tiny_model()
        llama = LlamaForCausalLM(model.config.text_config)
        llama.model.load_state_dict(model.model.language_model.state_dict())
        llama.lm_head.load_state_dict(model.lm_head.state_dict())
        llama.save_pretrained(folder / "llama")
        return {"language": (LLAMA, "causal_lm", folder / "llama")}
    model = make_tiny_model_2025()
    text = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}
    vision = model.config.vision_config.to_dict()
    clip = CLIPModel(CLIPConfig(vision_config=vision, text_config={**text, "projection_dim": 12}, projection_dim=12))
    clip.vision_model.load_state_dict(model.model.vision_tower.vision_model.state_dict())
    clip.visual_projection.load_state_dict(model.model.vision_tower.visual_projection.state_dict())
    clip.save_pretrained(folder / "clip")
    hubert = HubertModel(model.config.audio_config)
    hubert.load_state_dict(model.model.audio_tower.state_dict())
    hubert.save_pretrained(folder / "hubert")
    qwen = Qwen2ForCausalLM(model.config.text_config)
    qwen.model.load_state_dict(model.model.language_model.state_dict())
    qwen.lm_head.load_state_dict(model.lm_head.state_dict())
    qwen.save_pretrained(folder / "qwen")
    return {
        "vision": (CLIP, "clip", folder / "clip"),
        "audio": (HUBERT, "hubert", folder / "hubert"),
        "language": (QWEN, "causal_lm", folder / "qwen"),
    }


def save_parts(folder: Path, homes: dict[str, tuple[str, str, Path]], hub, generation: int):
    """Put the homes into the double and save a checkpoint in parts that names them; returns the model."""
    model = make_tiny_model() if generation == 2024 else make_tiny_model_2025()
    processor = make_tiny_processor() if generation == 2024 else make_tiny_processor_2025()
    noted = {}
    for name, (repo_id, layout, home) in homes.items():
        repo = hub.add_repo(repo_id, home)
        files = {file.name: parts.sha256_of(file) for file in parts.find_weights(home)}
        noted[name] = {"repo_id": repo_id, "revision": repo.resolve("main"), "layout": layout, "files": files}
    model.requires_grad_(False)
    model.config.parts = noted
    model.save_pretrained(folder)
    model.config.parts = None
    processor.save_pretrained(folder)
    return model


def example_inputs(generation: int) -> dict[str, torch.Tensor]:
    """What the processor of the tiny model makes of a noise clip; the same everywhere."""
    arrays = example_arrays()
    if generation == 2024:
        return make_tiny_processor()(frames=arrays["frames"], waveform=arrays["waveform"], subtitle="hello")
    return make_tiny_processor_2025()(faces=arrays["frames"], waveform=arrays["waveform"], subtitle="hello")


def example_arrays() -> dict:
    generator = torch.Generator().manual_seed(0)
    return {
        "frames": torch.randint(0, 256, (3, 28, 28, 3), generator=generator, dtype=torch.uint8).numpy(),
        "waveform": torch.randn(40_000, generator=generator).mul(0.1).numpy(),
    }


def remove_code(folder: Path) -> None:
    """As checkpoints were saved before they took their code along."""
    for path in folder.glob("*.py"):
        path.unlink()
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
