"""Both generations of AffectGPT at full size: parameters, memory, placeholders; with a GPU also speed.

    python -m benchmarks.full_size                   # counts, on the meta device: no weights, no GPU
    python -m benchmarks.full_size --device cuda     # also what an explanation and a training step take there

Weights are random: they take the same time and room as trained ones, and say nothing.
"""

import argparse
import gc
import importlib.util
import platform
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

import affectgpt  # noqa: F401  (before transformers: see affectgpt/_torchaudio_guard.py)
from affectgpt import AffectGPTConfig, AffectGPTForConditionalGeneration
from affectgpt.explanation import NOT_QUANTIZED
from affectgpt.generation import loading_options
from training.train import train_only

GIB = 2**30
NEW_TOKENS = 300
PROMPT_TOKENS = 160  # of text, about what the prompt, a subtitle of two sentences and the question take
TRAINED = ("video_resampler", "audio_resampler", "image_resampler", "fusion")
TRAINED_ROWS = 3  # the paper's batch
COPIED = 2**28  # bytes, more than any cache holds

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


def inputs_of(config: AffectGPTConfig, device: str, num_rows: int = 1) -> dict[str, torch.Tensor]:
    """Inputs of so many clips, of the right shapes, with noise in them."""
    vision = config.vision_config
    pixels = torch.randn(num_rows, 8, 3, vision.image_size, vision.image_size)
    tokens = {config.video_token_id: config.num_video_query_tokens, config.audio_token_id: config.num_audio_query_tokens}
    inputs = {"pixel_values_videos": pixels}
    if config.prefusion_config:
        tokens = {config.face_token_id: config.num_video_query_tokens, config.audio_token_id: config.num_audio_query_tokens}
        tokens[config.fusion_token_id] = config.num_fusion_query_tokens
        inputs = {"pixel_values_faces": pixels}
    if config.audio_config.model_type == "imagebind_audio":
        inputs["input_features"] = torch.randn(num_rows, 8, config.audio_config.num_mel_bins, config.audio_config.num_frames)
    else:
        inputs["input_values"] = torch.randn(num_rows, 8, 32_000)
    placeholders = [token for token, number in tokens.items() for _ in range(number)]
    inputs["input_ids"] = torch.tensor([[*placeholders, *range(10, 10 + PROMPT_TOKENS)]]).repeat(num_rows, 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def rows_of(config: AffectGPTConfig, device: str) -> dict[str, torch.Tensor]:
    """`TRAINED_ROWS` rows to learn from, with answers of `NEW_TOKENS` tokens."""
    inputs = inputs_of(config, device, TRAINED_ROWS)
    answers = (10 + torch.arange(NEW_TOKENS, device=device) % PROMPT_TOKENS).repeat(TRAINED_ROWS, 1)
    inputs["labels"] = torch.cat([torch.full_like(inputs["input_ids"], -100), answers], dim=1)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], answers], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return inputs


def seconds_of(call, device: str) -> float:
    """How long `call` takes, with what it leaves running on the device."""
    start = time.perf_counter()
    call()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_since_reset(device: str) -> str:
    """The most memory of the GPU that tensors took since the last call, in GiB."""
    if not device.startswith("cuda"):
        return "-"
    peak = torch.cuda.max_memory_allocated() / GIB
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return f"{peak:.1f}"


def copy_speed(device: str) -> float:
    """Bytes a second that the device reads and writes while it copies."""
    source = torch.ones(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = min(seconds_of(lambda: target.copy_(source), device) for _ in range(5))
    return 2 * COPIED / seconds


def measure(config: AffectGPTConfig, device: str) -> str:
    """Write random weights and load them in each form that there is; explain one clip of noise to `NEW_TOKENS` tokens; train."""
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = AffectGPTForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    text_bytes = 2 * sum(p.numel() for p in (*model.model.language_model.layers.parameters(), *model.lm_head.parameters()))
    lines = ["| weights | loaded in | first token | tokens a second | peak GiB |", "|---|---:|---:|---:|---:|"]
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        is_quantizable = device.startswith("cuda") and importlib.util.find_spec("bitsandbytes") is not None
        for form in ("4bit", None) if is_quantizable else (None,):
            model = None  # the one before makes room
            peak_since_reset(device)
            start = time.perf_counter()
            options = loading_options(device=device, dtype="bfloat16", quantization=form, keep=NOT_QUANTIZED)
            model = AffectGPTForConditionalGeneration.from_pretrained(folder, **options).eval()
            told = f"| {form or 'bfloat16'} | {time.perf_counter() - start:.1f} s |"
            first, speed = _answering(model, config, device)
            lines.append(f"{told} {1000 * first:.0f} ms | {speed:.1f} | {peak_since_reset(device)} |")
    floor = copy_speed(device) / text_bytes
    training = [f"| training step of {TRAINED_ROWS} rows, {NEW_TOKENS} tokens each | seconds | peak GiB |", "|---|---:|---:|"]
    train_only(model, [f"model.{name}" for name in TRAINED if getattr(model.model, name) is not None])
    for title in ("bfloat16", "with gradient checkpointing"):
        training.append(f"| {title} | {_training(model.train(), config, device)} |")
        model.activation_checkpointing_enable()
    model.activation_checkpointing_disable()
    start = time.perf_counter()  # last, since what is compiled keeps memory
    _, speed = _answering(model.eval(), config, device, first, cache_implementation="static")
    lines.append(f"| bfloat16, static cache | | | {speed:.1f} | |")
    lines += ["", f"The last row took {time.perf_counter() - start:.0f} s for two answers: on a GPU it is compiled."]
    lines += [f"Reading the language model's bfloat16 weights once a token would allow {floor:.0f} tokens a second.", ""]
    return "\n".join([*lines, *training])


def _answering(model, config: AffectGPTConfig, device: str, first: float | None = None, **options) -> tuple[float, float]:
    """Seconds to the first token, unless they are known, and tokens a second after it."""
    inputs = inputs_of(config, device)

    def seconds_for(number: int) -> float:
        answering = {"do_sample": False, "min_new_tokens": number, "max_new_tokens": number, "pad_token_id": 0, **options}
        return seconds_of(lambda: model.generate(**inputs, **answering), device)

    seconds_for(2 if first is None else NEW_TOKENS)  # warms up; it is for its length that a static cache is compiled
    first = seconds_for(1) if first is None else first
    return first, (NEW_TOKENS - 1) / (seconds_for(NEW_TOKENS) - first)


def _training(model: AffectGPTForConditionalGeneration, config: AffectGPTConfig, device: str) -> str:
    """Seconds and peak memory of a step, the second of two, as `training.train --bf16 True` takes it."""
    rows = rows_of(config, device)
    optimizer = torch.optim.AdamW(parameter for parameter in model.parameters() if parameter.requires_grad)

    def step() -> None:
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
            loss = model(**rows, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds = [seconds_of(step, device) for _ in range(2)]
    return f"{seconds[-1]:.2f} | {peak_since_reset(device)}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", help='measure speed there, such as "cuda"; without it, only count')
    args = parser.parse_args(arguments)
    for name, config in configurations().items():
        print(describe(name, config), end="\n\n", flush=True)
        if args.device:
            # In a process of its own: nothing of one model is in the other's memory.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                print(pool.submit(measure, config, args.device).result(), end="\n\n", flush=True)
    machine = torch.cuda.get_device_name() if args.device and args.device.startswith("cuda") else platform.processor() or "CPU"
    print(f"PyTorch {torch.__version__}, {machine}. Weights are random.")


if __name__ == "__main__":
    main()
