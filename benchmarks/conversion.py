"""Peak memory and time of converting the 2025 model at full size, on a made-up file set of the real layout and sizes.

    python -m benchmarks.conversion [--form parts|full] [--layers 28] [--folder DIR]

The files are sparse (zeros that take no room on disk); the converter cannot tell. `--form full` writes about 16 GB below DIR, which
are deleted afterwards. Floor: the size of the largest file that is read, since weights pass through memory in its pieces.
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from pathlib import Path

import torch

import affectgpt  # noqa: F401  (before transformers: see affectgpt/_torchaudio_guard.py)
from benchmarks.full_size import CLIP_LARGE, HUBERT_LARGE, LORA_RANK, QWEN_7B
from hub.convert_affectgpt_2025 import convert

# isort: split
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPModel,
    HubertConfig,
    HubertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

GIB = 2**30
NUM_SHARDS = 4  # Qwen2.5-7B-Instruct's
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64"}


def write_sparse(tensors: dict[str, torch.Tensor], path: Path) -> int:
    """A safetensors file of zeros with the names, shapes and types of `tensors` (on the meta device); returns its size."""
    header, offset = {}, 0
    for name, tensor in tensors.items():
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)
    return offset


def write_model(kind: type[PreTrainedModel], config, folder: Path, dtype: torch.dtype, num_shards: int) -> int:
    """A model of transformers as `save_pretrained` would leave it; returns the size of its largest file."""
    folder.mkdir()
    with torch.device("meta"):
        model = kind(config)
    tensors = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()}
    config.architectures, config.dtype = [kind.__name__], dtype
    config.save_pretrained(folder)
    if num_shards == 1:
        return write_sparse(tensors, folder / "model.safetensors")
    names = list(tensors)
    size = -(-len(names) // num_shards)
    files, sizes = {}, []
    for number in range(num_shards):
        file = f"model-{number + 1:05}-of-{num_shards:05}.safetensors"
        shard = names[number * size : (number + 1) * size]
        files |= dict.fromkeys(shard, file)
        sizes.append(write_sparse({name: tensors[name] for name in shard}, folder / file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": sum(sizes)}, "weight_map": files}))
    return max(sizes)


def write_tokenizer(folder: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, extra_special_tokens=special).save_pretrained(folder)


def write_checkpoint(path: Path, num_layers: int) -> None:
    """What the authors' training code saves: projections, fusion and LoRA of face crops by attention."""
    width, inner, key = QWEN_7B["hidden_size"], QWEN_7B["intermediate_size"], 512
    attention = {"q_proj": (width, width), "k_proj": (key, width), "v_proj": (key, width), "o_proj": (width, width)}
    modules = {f"self_attn.{name}": shape for name, shape in attention.items()}
    modules |= {"mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width), "mlp.down_proj": (width, inner)}
    weights = {}
    for layer in range(num_layers):
        for module, (num_out, num_in) in modules.items():
            name = f"llama_model.base_model.model.model.layers.{layer}.{module}"
            weights[f"{name}.lora_A.default.weight"] = torch.zeros(LORA_RANK, num_in)
            weights[f"{name}.lora_B.default.weight"] = torch.zeros(num_out, LORA_RANK)
    linears = {
        "image_llama_proj": (width, 768),
        "video_attention_mlp": (1, 768),
        "affectgpt_proj": (width, 768),
        "audio_attention_mlp": (1, 1024),
        "audio_llama_proj": (width, 1024),
        "multi_audio_embs": (1024, 1024),
        "multi_video_embs": (1024, 768),
        "attention_mlp": (1024, 2048),
        "fc_att": (2, 1024),
        "multi_llama_proj": (width, 1024),
    }
    for name, (num_out, num_in) in linears.items():
        weights |= {f"{name}.weight": torch.zeros(num_out, num_in), f"{name}.bias": torch.zeros(num_out)}
    tokens = {f"num_{name}_query_token": 1 for name in ("video", "audio", "multi", "image")}
    settings = {"model": tokens, "datasets": {"mercaptionplus": {"face_or_frame": "multiface_audio_face_text"}}}
    torch.save({"model": weights, "optimizer": {}, "config": settings, "scaler": None, "epoch": 60}, path)


def run(sources: dict[str, Path], output: Path, form: str, results) -> None:
    start = time.perf_counter()
    convert(sources, output, form=form)
    results.put((time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=["parts", "full"], default="parts")
    parser.add_argument("--layers", type=int, default=QWEN_7B["num_hidden_layers"], help="of the language model")
    parser.add_argument("--folder", type=Path, help="where the files go and are deleted again; by default the temporary folder")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        clip = CLIPConfig(vision_config=CLIP_LARGE, projection_dim=CLIP_LARGE["projection_dim"])
        qwen = Qwen2Config(**{**QWEN_7B, "num_hidden_layers": args.layers})
        largest = max(
            write_model(CLIPModel, clip, folder / "clip", torch.float32, 1),
            write_model(HubertModel, HubertConfig(**HUBERT_LARGE), folder / "hubert", torch.float32, 1),
            write_model(Qwen2ForCausalLM, qwen, folder / "qwen", torch.bfloat16, NUM_SHARDS),
        )
        write_tokenizer(folder / "qwen")
        write_checkpoint(folder / "checkpoint.pth", args.layers)
        sources = {"vision": folder / "clip", "audio": folder / "hubert", "language": folder / "qwen"}
        sources["checkpoint"] = folder / "checkpoint.pth"
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        process = context.Process(target=run, args=(sources, folder / "output", args.form, results))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"The conversion failed with exit code {process.exitcode}.")
        seconds, peak = results.get()
        print(
            f"{args.form}, {args.layers} layers: {seconds:.0f} s, peak memory {peak / GIB:.1f} GiB (mapped files included), "
            f"{peak / largest:.2f} of the largest file ({largest / GIB:.1f} GiB)."
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
