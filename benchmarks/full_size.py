"""Both generations of AffectGPT at full size: parameters, memory, placeholders; with a GPU also speed.

    python -m benchmarks.full_size                        # counts, on the meta device: no weights, no GPU
    python -m benchmarks.full_size --device cuda          # also load time, first token, tokens a second, peak memory (bf16)
    python -m benchmarks.full_size --device cuda --quantization 4bit

Weights are random: they take the same time and room as trained ones, and say nothing.
"""

import argparse
import platform
import tempfile
import time
from pathlib import Path

import torch

import affectgpt  # noqa: F401  (before transformers: see affectgpt/_torchaudio_guard.py)
from affectgpt import AffectGPTConfig, AffectGPTForConditionalGeneration
from affectgpt.generation import QUANTIZATIONS, loading_options

GIB = 2**30
NEW_TOKENS = 300
PROMPT_TOKENS = 160  # of text, about what the prompt, a subtitle of two sentences and the question take

POOLING = {"model_type": "affectgpt_pooling"}
CLIP_LARGE = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "projection_dim": 768,
}
HUBERT_LARGE = {
    "model_type": "hubert",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "do_stable_layer_norm": True,
}
QWEN_7B = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
}
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LORA_RANK = 16


def configurations() -> dict[str, AffectGPTConfig]:
    """The paper's model, and the authors' 2025 model with attention pooling and fusion."""
    return {
        "paper (2024)": AffectGPTConfig(),
        "2025": AffectGPTConfig(
            vision_config=CLIP_LARGE,
            audio_config=HUBERT_LARGE,
            video_resampler_config={**POOLING, "encoder_hidden_size": 768},
            audio_resampler_config={**POOLING, "encoder_hidden_size": 1024},
            image_resampler_config={**POOLING, "encoder_hidden_size": 768, "has_scores": False},
            prefusion_config={**POOLING, "encoder_hidden_size": 1024},
            text_config=QWEN_7B,
            num_image_query_tokens=1,
            num_video_query_tokens=1,
            num_audio_query_tokens=1,
            image_token_id=151665,
            audio_token_id=151666,
            video_token_id=151667,
            face_token_id=151668,
            fusion_token_id=151669,
        ),
    }


def count(config: AffectGPTConfig) -> dict[str, int]:
    """Parameters by what they belong to."""
    with torch.device("meta"):
        model = AffectGPTForConditionalGeneration(config)
    modules = {
        "picture, frozen": ("vision_tower", "image_qformer"),
        "sound, frozen": ("audio_tower",),
        "resamplers and fusion, trained": ("video_resampler", "audio_resampler", "image_resampler", "fusion"),
        "language model": ("language_model",),
    }
    counts = {
        name: sum(p.numel() for key in keys for p in (getattr(model.model, key) or torch.nn.Module()).parameters())
        for name, keys in modules.items()
    }
    counts["language model"] += model.lm_head.weight.numel()
    layers = model.model.language_model.layers
    linears = [m for layer in layers for name, m in layer.named_modules() if name.endswith(LORA_TARGETS)]
    counts["LoRA of rank 16"] = sum(LORA_RANK * (linear.in_features + linear.out_features) for linear in linears)
    return counts


def describe(name: str, config: AffectGPTConfig) -> str:
    """A table of counts and of the memory that weights and one clip take."""
    counts = count(config)
    lora = counts.pop("LoRA of rank 16")
    total, trained, text = sum(counts.values()), counts["resamplers and fusion, trained"], counts["language model"]
    text_config = config.text_config
    head_size = text_config.hidden_size // text_config.num_attention_heads
    placeholders = config.num_video_query_tokens + config.num_audio_query_tokens
    placeholders += config.num_fusion_query_tokens if config.prefusion_config else 0
    length = PROMPT_TOKENS + placeholders + NEW_TOKENS
    cache = 2 * 2 * text_config.num_hidden_layers * text_config.num_key_value_heads * head_size * length
    lines = [f"## {name}", "", "| part | parameters |", "|---|---:|"]
    lines += [f"| {part} | {number:,} |" for part, number in counts.items()]
    lines += [f"| together | {total:,} |", f"| LoRA of rank {LORA_RANK} on the language model, where wanted | {lora:,} |", ""]
    rest = total - text
    sizes = {
        "float32": 4 * total,
        "bfloat16 (what trains in float32)": 2 * (total - trained) + 4 * trained,
        # bitsandbytes' NF4: half a byte and, in blocks of 64, four bytes of scale, doubly quantised to about half a bit a weight.
        "language model in 4 bits, the rest in bfloat16": round(text * (4 + 0.127) / 8) + 2 * (rest - trained) + 4 * trained,
        "on disk in parts: trained weights alone": 4 * trained,
        "on disk in parts: trained weights and LoRA": 4 * (trained + lora),
    }
    lines += ["| weights | GiB |", "|---|---:|"] + [f"| {form} | {size / GIB:.2f} |" for form, size in sizes.items()]
    lines += ["", f"Placeholders in the prompt of one clip: {placeholders}. Keys and values of {length} tokens in bfloat16: "]
    lines[-1] += f"{cache / GIB:.2f} GiB."
    return "\n".join(lines)


def inputs_of(config: AffectGPTConfig, device: str) -> dict[str, torch.Tensor]:
    """One clip's inputs of the right shapes, with noise in them."""
    vision = config.vision_config
    pixels = torch.randn(1, 8, 3, vision.image_size, vision.image_size)
    tokens = {config.video_token_id: config.num_video_query_tokens, config.audio_token_id: config.num_audio_query_tokens}
    inputs = {"pixel_values_videos": pixels}
    if config.prefusion_config:
        tokens = {config.face_token_id: config.num_video_query_tokens, config.audio_token_id: config.num_audio_query_tokens}
        tokens[config.fusion_token_id] = config.num_fusion_query_tokens
        inputs = {"pixel_values_faces": pixels}
    if config.audio_config.model_type == "imagebind_audio":
        inputs["input_features"] = torch.randn(1, 8, config.audio_config.num_mel_bins, config.audio_config.num_frames)
    else:
        inputs["input_values"] = torch.randn(1, 8, 32_000)
    placeholders = [token for token, number in tokens.items() for _ in range(number)]
    inputs["input_ids"] = torch.tensor([[*placeholders, *range(10, 10 + PROMPT_TOKENS)]])
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def measure(config: AffectGPTConfig, folder: Path, device: str, quantization: str | None) -> str:
    """Write random weights, load them, explain one clip of noise to `NEW_TOKENS` tokens."""
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = AffectGPTForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    del model
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    options = loading_options(device=device, dtype="bfloat16", quantization=quantization)
    start = time.perf_counter()
    model = AffectGPTForConditionalGeneration.from_pretrained(folder, **options).eval()
    loading = time.perf_counter() - start
    inputs = inputs_of(config, device)
    seconds = {}
    for number in (1, 1, NEW_TOKENS):  # the first call warms up
        start = time.perf_counter()
        model.generate(**inputs, do_sample=False, min_new_tokens=number, max_new_tokens=number, pad_token_id=0)
        seconds[number] = time.perf_counter() - start
    speed = (NEW_TOKENS - 1) / (seconds[NEW_TOKENS] - seconds[1])
    peak = torch.cuda.max_memory_allocated() / GIB if device.startswith("cuda") else float("nan")
    return (
        f"{device}, {quantization or 'bfloat16'}: loaded in {loading:.1f} s; first token after {seconds[1] * 1000:.0f} ms, "
        f"{NEW_TOKENS} tokens in {seconds[NEW_TOKENS]:.1f} s ({speed:.1f} a second); peak memory {peak:.1f} GiB."
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", help='measure speed there, such as "cuda"; without it, only count')
    parser.add_argument("--quantization", choices=QUANTIZATIONS)
    args = parser.parse_args(arguments)
    if args.quantization and not args.device:
        parser.error("--quantization is about speed: name a --device too")
    for name, config in configurations().items():
        print(describe(name, config), end="\n\n", flush=True)
        if args.device:
            with tempfile.TemporaryDirectory() as folder:
                print(measure(config, Path(folder), args.device, args.quantization), end="\n\n", flush=True)
    machine = torch.cuda.get_device_name() if args.device and args.device.startswith("cuda") else platform.processor() or "CPU"
    print(f"PyTorch {torch.__version__}, {machine}. Weights are random.")


if __name__ == "__main__":
    main()
