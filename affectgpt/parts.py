"""Checkpoints in parts: what was trained lies in one place, each frozen part stays in its own home and is fetched from there.

Vicuna, LLaMA, ImageBind, CLIP, HuBERT and Qwen have their own repositories and licences; what this project adds to them are 20 to
60 million weights. `config.parts` says where the rest is:

    {"vision": {"repo_id": "openai/clip-vit-large-patch14", "revision": "<commit>", "layout": "clip",
                "files": {"pytorch_model.bin": "<sha256>"}}, "audio": {...}, "language": {..., "adapter": "adapter"}}

`repo_id` may be a local folder. `layout` names the way in which the files' weights are called; `adapter` is the folder, beside the
trained weights, of a LoRA adapter of that part.
"""

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from safetensors import safe_open
from transformers.utils import logging

logger = logging.get_logger(__name__)

# fmt: off
_IMAGEBIND = {
    r"modality_preprocessors\.audio\.cls_token":                        r"embeddings.class_embedding",
    r"modality_preprocessors\.audio\.pos_embedding_helper\.pos_embed":  r"embeddings.position_embedding",
    r"modality_preprocessors\.audio\.rgbt_stem\.proj\.weight":          r"embeddings.patch_embedding.weight",
    r"modality_preprocessors\.audio\.rgbt_stem\.norm_layer\.(weight|bias)": r"embeddings.norm.\1",
    r"modality_trunks\.audio\.blocks\.(\d+)\.norm_([12])\.(weight|bias)": r"layers.\1.layer_norm\2.\3",
    r"modality_trunks\.audio\.blocks\.(\d+)\.attn\.in_proj_(weight|bias)": r"layers.\1.self_attn.qkv.\2",
    r"modality_trunks\.audio\.blocks\.(\d+)\.attn\.(bias_[kv])":        r"layers.\1.self_attn.\2",
    r"modality_trunks\.audio\.blocks\.(\d+)\.attn\.out_proj\.(weight|bias)": r"layers.\1.self_attn.projection.\2",
    r"modality_trunks\.audio\.blocks\.(\d+)\.mlp\.(fc[12])\.(weight|bias)": r"layers.\1.mlp.\2.\3",
    r"modality_heads\.audio\.0\.(weight|bias)":                         r"layernorm.\1",
    r"modality_heads\.audio\.2\.weight":                                r"projection.weight",
    r"modality_postprocessors\.audio\.1\.log_logit_scale":              r"log_logit_scale",
}

# Layout -> (name in its files -> name in `AffectGPTForConditionalGeneration`, names without a place there -> reason).
LAYOUTS = {
    # transformers' CLIPModel
    "clip": (
        {
            r"(vision_model\..+|visual_projection\.weight)": r"model.vision_tower.\1",
        },
        {
            r"text_model\..+|text_projection\.weight":      "the text tower",
            r"logit_scale":                                 "of CLIP's own objective",
            r"vision_model\.embeddings\.position_ids":      "buffer of numbers 0, 1, 2, ...",
        },
    ),
    # transformers' HubertModel, or a fine-tuned one; older files have the two halves of the weight norm under other names
    "hubert": (
        {
            r"(?:hubert\.)?(encoder\.pos_conv_embed\.conv)\.weight_g": r"model.audio_tower.\1.parametrizations.weight.original0",
            r"(?:hubert\.)?(encoder\.pos_conv_embed\.conv)\.weight_v": r"model.audio_tower.\1.parametrizations.weight.original1",
            r"(?:hubert\.)?((?:encoder|feature_extractor|feature_projection)\..+|masked_spec_embed)": r"model.audio_tower.\1",
        },
        {
            r"(lm_head|classifier|projector|final_proj|label_embs_concat|quantizer|project_q|project_hid)(\..+)?":
                "heads of other objectives",
        },
    ),
    # Any causal language model of transformers
    "causal_lm": (
        {
            r"model\.(.+)":       r"model.language_model.\1",
            r"lm_head\.weight":   r"lm_head.weight",
        },
        {
            r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq": "buffer that follows from the configuration",
        },
    ),
    # transformers' Blip2ForConditionalGeneration: vision tower and image Q-Former
    "blip2": (
        {
            r"vision_model\.(.+)": r"model.vision_tower.\1",
            r"qformer\.(.+)":      r"model.image_qformer.qformer.\1",
            r"query_tokens":       r"model.image_qformer.query_tokens",
        },
        {
            r"language_model\..+|language_projection\..+": "BLIP-2's own language model",
            r"vision_model\.embeddings\.position_ids|qformer\.embeddings\.position_ids": "buffer of numbers 0, 1, 2, ...",
        },
    ),
    # The authors' imagebind_huge.pth
    "imagebind": (
        {pattern: rf"model.audio_tower.{name}" for pattern, name in _IMAGEBIND.items()},
        {
            r"modality_\w+\.(vision|text|depth|thermal|imu)\..*": "ImageBind's other modalities",
        },
    ),
}

# Part -> modules that it fills.
MODULES = {
    "vision": ("model.vision_tower.", "model.image_qformer."),
    "audio": ("model.audio_tower.",),
    "language": ("model.language_model.", "lm_head."),
}
# fmt: on

INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")


def convert_name(layout: str, name: str) -> str | None:
    """Our name of a weight of a layout; `None` if it has no place here by a rule of the layout.

    Raises:
        KeyError: if no rule knows the name.
    """
    names, dropped = LAYOUTS[layout]
    if any(re.fullmatch(pattern, name) for pattern in dropped):
        return None
    for pattern, replacement in names.items():
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    raise KeyError(name)


def convert_part(layout: str, original: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the weights of a part and leave out those that have no place here.

    Raises:
        ValueError: lists every name that no rule of the layout knows.
    """
    converted, unknown = {}, []
    for name, tensor in original.items():
        try:
            target = convert_name(layout, name)
        except KeyError:
            unknown.append(name)
            continue
        if target is not None:
            converted[target] = tensor
    if unknown:
        raise ValueError(
            f'Expected weights of the layout "{layout}", got {len(unknown)} names that it does not have: '
            f"{', '.join(sorted(unknown))}. Check that this is the file that was meant."
        )
    return converted


def find_weights(folder: str | os.PathLike) -> list[Path]:
    """The weight files of a local checkpoint: those of its index, the single one, or the only `.pth`; a file is its own.

    Raises:
        FileNotFoundError: if there are none, or one that the index names is missing.
    """
    folder = Path(folder)
    if folder.is_file():
        return [folder]
    for name in INDEX_FILES:
        if (folder / name).is_file():
            index = json.loads((folder / name).read_text(encoding="utf-8"))
            files = [folder / file for file in sorted(set(index["weight_map"].values()))]
            missing = [str(file) for file in files if not file.is_file()]
            if missing:
                raise FileNotFoundError(f"{folder / name}: expected the files that it names, did not find {', '.join(missing)}.")
            return files
    for name in SINGLE_FILES:
        if (folder / name).is_file():
            return [folder / name]
    found = sorted(folder.glob("*.pth"))
    if len(found) != 1:
        raise FileNotFoundError(
            f"{folder}: expected {', '.join((*INDEX_FILES, *SINGLE_FILES))} or one .pth file, got {len(found)} .pth files. Name "
            "the file itself."
        )
    return found


def read_weights(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The tensors of a `.safetensors`, `.bin` or `.pth` file, mapped into memory rather than read where the format allows it.

    A dictionary under "model" or "state_dict", as training code saves it, is unwrapped. Nothing but tensors and plain values is
    unpickled.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file of weights, got nothing of this name.")
    content = read_file(path)
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    items = content.items() if isinstance(content, Mapping) else ()
    weights = {name: value for name, value in items if isinstance(value, torch.Tensor)}
    if not weights:
        raise ValueError(f"{path}: expected a dictionary of weights, got {type(content).__name__} without any. Name another file.")
    return weights


def read_file(path: Path):
    """What is in a `.safetensors` file or a pickle of PyTorch's; `ValueError` if it is damaged or would run code."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        # Only archives (PyTorch 1.6 and later) can be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged file can make anything of itself
        code = re.search(r"[Uu]nsupported (?:global: GLOBAL|class) (\S+)", str(error))
        if code:
            # PyTorch's own words tell how to run it all the same.
            raise ValueError(
                f"{path}: expected weights (plain tensors), got a file that would run code when it is read ({code[1]}). It was not "
                "read. Get it from the repository of its authors."
            ) from error
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{path}: expected weights (plain tensors, no code), but the file cannot be read: {reason} Fetch it again, and check "
            "where it comes from."
        ) from error


def assemble(
    folder: str | os.PathLike, parts: Mapping[str, Mapping], *, adapter_is_merged: bool, **download_kwargs
) -> tuple[dict[str, torch.Tensor], dict[str, dict]]:
    """All weights of the checkpoint in parts that lies in the local `folder`, its adapters merged if so asked.

    Returns:
        The weights, and `parts` without those that an adapter changed: they are no longer what lies at their home.
    """
    weights = load_parts(parts, **download_kwargs)
    for file in find_weights(folder):
        weights.update(read_weights(file))
    unchanged = {}
    for name, part in parts.items():
        if adapter_is_merged and "adapter" in part:
            merge_adapter(weights, Path(folder) / part["adapter"])
        else:
            unchanged[name] = {key: value for key, value in part.items() if key != "adapter"}
    return weights, unchanged


def prefixes(parts: Iterable[str]) -> tuple[str, ...]:
    """What the names of the weights of these parts begin with."""
    return tuple(prefix for part in parts for prefix in MODULES[part])


def load_parts(parts: Mapping[str, Mapping], **download_kwargs) -> dict[str, torch.Tensor]:
    """The weights of all `parts`, under the names of `AffectGPTForConditionalGeneration`.

    Args:
        parts: as in `config.parts`.
        download_kwargs: `cache_dir`, `token`, `local_files_only`, ... for the Hub.

    Raises:
        ValueError: if a file changed since the checkpoint was made, or a name is unknown; the message names it.
    """
    weights = {}
    for name, part in parts.items():
        logger.info("Loading part %s from %s.", name, part["repo_id"])
        for file, sha256 in part["files"].items():
            path = _local_file(part, file, download_kwargs)
            if sha256 is not None:
                _check_hash(path, sha256, part["repo_id"], file)
            try:
                weights.update(convert_part(part["layout"], read_weights(path)))
            except ValueError as error:
                raise ValueError(f"Part {name}, {file} of {part['repo_id']}: {error}") from error
    return weights


def merge_adapter(weights: dict[str, torch.Tensor], folder: str | os.PathLike) -> None:
    """Add a LoRA adapter, a folder as `peft` saves it, to the weights that it is for, in place.

    Raises:
        ValueError: if the adapter is of a kind other than plain LoRA, or for weights that are not there.
    """
    folder = Path(folder)
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    special = [name for name in ("use_dora", "use_rslora", "fan_in_fan_out", "rank_pattern", "alpha_pattern") if config.get(name)]
    if config.get("peft_type") != "LORA" or special:
        raise ValueError(
            f"{folder}: expected a plain LoRA adapter, got {config.get('peft_type')} {' '.join(special)}. Load with "
            "`merge_adapter=False` and let `peft` load the adapter."
        )
    adapter = read_weights(folder / "adapter_model.safetensors")
    for name in [name for name in adapter if name.endswith(".lora_A.weight")]:
        module = name.removesuffix(".lora_A.weight")
        target = module.removeprefix("base_model.model.") + ".weight"
        if target not in weights:
            raise ValueError(f"{folder}: expected an adapter of this model, got one for {target}, which it does not have.")
        down, up = adapter[name].float(), adapter[f"{module}.lora_B.weight"].float()
        merged = weights[target].float() + config["lora_alpha"] / len(down) * (up @ down)
        weights[target] = merged.to(weights[target].dtype)


def sha256_of(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _local_file(part: Mapping, file: str, download_kwargs: dict) -> Path:
    if os.path.isdir(part["repo_id"]):
        path = Path(part["repo_id"]) / file
        if not path.is_file():
            raise FileNotFoundError(f"{path}: expected a file of a frozen part there, got nothing. Put it back or fetch it again.")
        return path
    return Path(hf_hub_download(part["repo_id"], file, revision=part.get("revision"), **download_kwargs))


def _check_hash(path: Path, sha256: str, repo_id: str, file: str) -> None:
    # In the Hub's cache a large file is called after its hash; elsewhere it has to be computed.
    blob = path.resolve().name
    found = blob if re.fullmatch("[0-9a-f]{64}", blob) else sha256_of(path)
    if found != sha256:
        raise ValueError(
            f"{file} of {repo_id}: expected the content that this checkpoint was made with (SHA-256 {sha256}), got {found}. Load "
            "another revision, or assemble the checkpoint anew."
        )
