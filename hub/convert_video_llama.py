"""The authors' model of the paper (2023/24, Video-LLaMA's two branches) -> a checkpoint of [`AffectGPTForConditionalGeneration`].

    python -m hub.convert_video_llama --vision DIR --image-qformer DIR --audio imagebind_huge.pth --language DIR \
        --video-branch finetune-vicuna7b-v2.pth --audio-branch finetune_vicuna7b_audiobranch.pth --output DIR

What was trained comes from Video-LLaMA's branch files, from a checkpoint of the authors' training (`--checkpoint`), or both: as in
their code, what is read later wins. What is frozen comes from its own home, either as transformers has it (a folder of BLIP-2, of
LLaMA) or as the files that the authors' code reads: `eva_vit_g.pth`, `blip2_pretrained_flant5xxl.pth`, `imagebind_huge.pth`.
"""

import argparse
import math
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig

from affectgpt import (
    AffectGPTConfig,
    AffectGPTImageProcessor,
    AffectGPTProcessor,
    ImageBindAudioConfig,
    ImageBindAudioFeatureExtractor,
)
from affectgpt.parts import LAYOUTS, prefixes, read_weights

from .conversion import (
    FORMS,
    ConversionReport,
    Weight,
    check_sources,
    compute,
    describe_part,
    qformer_config,
    qformer_dropped,
    qformer_names,
    read_config,
    read_part,
    rename,
    stored_tensors,
    write_checkpoint,
)
from .sources import Origin

# fmt: off
# EVA-CLIP ViT-g, as `eva_vit_g.pth` calls its weights. `q_bias` and `v_bias` keep their names: `join_attention_biases` joins them.
EVA = {
    r"cls_token":                                   r"model.vision_tower.embeddings.class_embedding",
    r"pos_embed":                                   r"model.vision_tower.embeddings.position_embedding",
    r"patch_embed\.proj\.(weight|bias)":            r"model.vision_tower.embeddings.patch_embedding.\1",
    r"blocks\.(\d+)\.norm([12])\.(weight|bias)":    r"model.vision_tower.encoder.layers.\1.layer_norm\2.\3",
    r"blocks\.(\d+)\.attn\.qkv\.weight":            r"model.vision_tower.encoder.layers.\1.self_attn.qkv.weight",
    r"blocks\.(\d+)\.attn\.([qv])_bias":            r"model.vision_tower.encoder.layers.\1.self_attn.\2_bias",
    r"blocks\.(\d+)\.attn\.proj\.(weight|bias)":    r"model.vision_tower.encoder.layers.\1.self_attn.projection.\2",
    r"blocks\.(\d+)\.mlp\.(fc[12])\.(weight|bias)": r"model.vision_tower.encoder.layers.\1.mlp.\2.\3",
}
EVA_DROPPED = {
    # Reference: the tower is built with 39 blocks, and the file's fortieth is passed over.
    r"blocks\.39\..+":             "the last block, whose output BLIP-2 does not use",
    r"(norm|fc_norm|head)\..+":    "of EVA's own objectives",
    r"mask_token|lm_head\..+":     "of EVA's own objectives",
}

# What BLIP-2's file adds to the tower, and what Video-LLaMA adds to both.
BLIP2 = {
    r"ln_vision\.(weight|bias)":                    r"model.vision_tower.post_layernorm.\1",
    r"query_tokens":                                r"model.image_qformer.query_tokens",
    **qformer_names("Qformer", "model.image_qformer.qformer"),
}
BRANCHES = {
    r"(video|audio)_query_tokens":                  r"model.\1_resampler.query_tokens",
    r"(video|audio)_(?:frame_)?position_embedding\.weight": r"model.\1_resampler.position_embedding.weight",
    r"llama_proj\.(weight|bias)":                   r"model.video_resampler.projection.\1",
    r"audio_llama_proj\.(weight|bias)":             r"model.audio_resampler.projection.\1",
    **qformer_names("video_Qformer", "model.video_resampler.qformer"),
    **qformer_names("audio_Qformer", "model.audio_resampler.qformer"),
}


def _under(prefix: str, patterns: Mapping[str, str]) -> dict[str, str]:
    """Patterns of the same names behind a prefix."""
    return {rf"{prefix}\.(?:{pattern})": value for pattern, value in patterns.items()}


# VideoLLAMA's `state_dict`, of which a checkpoint holds what trained and some buffers.
KEYS = {
    **_under("visual_encoder", EVA),
    **BLIP2,
    **BRANCHES,
    **_under("audio_encoder", LAYOUTS["imagebind"][0]),
    **_under("llama_model", LAYOUTS["causal_lm"][0]),
}
DROPPED = {
    **{key: reason for branch in ("", "video_", "audio_") for key, reason in qformer_dropped(f"{branch}Qformer").items()},
    **_under("visual_encoder", EVA_DROPPED),
    **_under("audio_encoder", LAYOUTS["imagebind"][1]),
    **_under("llama_model", LAYOUTS["causal_lm"][1]),
}

# The two files of the picture's frozen half may be one, with or without Video-LLaMA's prefix.
VISION_FILE = {**EVA, **_under("visual_encoder", EVA), **BLIP2}
VISION_FILE_DROPPED = {
    **EVA_DROPPED,
    **_under("visual_encoder", EVA_DROPPED),
    **qformer_dropped("Qformer"),
    r"t5_proj\..+|opt_proj\..+":                      "BLIP-2's projection to its own language model",
    r"(vision|text)_proj\..+|itm_head\..+|temp":    "of BLIP-2's own objectives",
}
# fmt: on

# Widths of a head in EVA-CLIP ViT-g (1408 / 16) and in ImageBind's audio trunk (768 / 12): they are in no tensor.
EVA_HEAD_WIDTH, IMAGEBIND_HEAD_WIDTH = 88, 64
# In the order in which the authors' code adds them to the tokenizer: their ids follow from it.
VIDEO_TOKEN, AUDIO_TOKEN = "<ImageHere>", "<AudioHere>"
NUM_FRAMES, NUM_AUDIO_CLIPS = 8, 8
# Their limit for an answer.
MAX_NEW_TOKENS = 300

SOURCES = ("vision", "audio", "language")
TRAINED = ("video_branch", "audio_branch", "checkpoint")
OPTIONAL = ("image_qformer", *TRAINED)


def convert(
    sources: Mapping[str, Path],
    output: str | Path,
    *,
    form: str = "parts",
    origins: Mapping[str, Origin] | None = None,
) -> ConversionReport:
    """Make a checkpoint out of the frozen parts and what was trained between them.

    Args:
        sources (`dict[str, Path]`): "vision", a folder of transformers' BLIP-2 or `eva_vit_g.pth`; "image_qformer", likewise or
            `blip2_pretrained_flant5xxl.pth` (not needed where "vision" holds it); "audio", `imagebind_huge.pth`; "language", a
            folder of a LLaMA; and of "video_branch", "audio_branch" and "checkpoint" those that together hold all that was trained.
        output (`str` or `Path`): new folder.
        form (`str`): "parts" (what was trained, and where the frozen parts lie) or "full" (everything).
        origins (`dict[str, Origin]`, *optional*): source -> repository that its files came from, for the form "parts"; the local
            folder otherwise.

    Raises:
        FileNotFoundError: if a source is not there.
        ValueError: if a source is damaged, foreign, or does not fit the others; all that is wrong is listed.
        OSError: if the disk has no room.
    """
    paths, origins = check_sources(sources, SOURCES, OPTIONAL), origins or {}
    if not any(name in paths for name in TRAINED):
        raise ValueError(f"Expected what was trained, in one or more of the sources {', '.join(TRAINED)}, got none.")
    read_config(paths["language"])
    weights, left_out = {}, {}
    for name in ("vision", "image_qformer"):
        if name in paths:
            part, left_out[name] = read_vision(paths[name])
            weights.update(part)
    for name, layout in (("audio", "imagebind"), ("language", "causal_lm")):
        part, left_out[name] = read_part(layout, paths[name])
        weights.update(part)
    parts = describe_parts(paths, origins)
    notes, frozen = [], dict(weights)
    for name in TRAINED:
        if name in paths:
            part, left_out[name] = read_trained(paths[name])
            weights.update(part)
    for name in list(parts):
        owned = [weight for weight in frozen if weight.startswith(prefixes([name]))]
        given = [weight for weight in owned if weights[weight] is not frozen[weight]]
        if any(not torch.equal(compute(weights[weight]), compute(frozen[weight])) for weight in given):
            del parts[name]
            notes.append(f"The trained files hold other weights of the part {name} than its own file: theirs are kept.")
    if form == "parts" and "vision" not in parts:
        notes.append("Vision tower and image Q-Former do not lie together in a folder of BLIP-2: the checkpoint holds them itself.")

    tokenizer = build_tokenizer(paths["language"])
    config = build_config(weights, paths, tokenizer)
    if config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    return write_checkpoint(
        output,
        form=form,
        config=config,
        weights=weights,
        adapter=None,
        parts=parts,
        processor=build_processor(config, tokenizer),
        generation_config=GenerationConfig(
            do_sample=False,
            max_new_tokens=MAX_NEW_TOKENS,
            stop_strings=[AffectGPTProcessor.stop_string],
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        left_out=left_out,
        notes=notes,
    )


# ---- names


def convert_key(key: str) -> str | None:
    """The name of a weight of VideoLLAMA's `state_dict` in this project's model; `None` if it has no place there by a rule.

    Raises:
        KeyError: if no rule knows the name.
    """
    if any(re.fullmatch(pattern, key) for pattern in DROPPED):
        return None
    for pattern, replacement in KEYS.items():
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(replacement)
    raise KeyError(key)


def convert_state_dict(original: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename `original`, drop what the model does not have, and join the vision tower's attention biases.

    The result may hold a part of the model only, as the authors' checkpoints do; load it with `strict=True` once it is whole.

    Raises:
        ValueError: lists every name that no rule knows, and every bias without its other half.
    """
    return _convert(original, KEYS, DROPPED)[0]


def _convert(original, names, dropped) -> tuple[dict[str, Weight], dict[str, list[str]]]:
    try:
        converted, left_out = rename(original, names, dropped)
    except ValueError as error:
        raise ValueError(f"Expected weights of VideoLLAMA or of a part of it, got {error}. Check which file this is.") from error
    return join_attention_biases(converted), left_out


def join_attention_biases(weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """`weights` with one bias for each attention of the vision tower in place of its queries' and its values'.

    Raises:
        ValueError: lists every bias without its other half.
    """
    joined, alone = dict(weights), []
    for name in [name for name in weights if name.endswith((".q_bias", ".v_bias"))]:
        attention = name.rpartition(".")[0]
        query, value = weights.get(f"{attention}.q_bias"), weights.get(f"{attention}.v_bias")
        del joined[name]
        if query is None or value is None:
            alone.append(name)
        else:
            # EVA-CLIP's keys have no bias.
            query, value = compute(query), compute(value)
            joined[f"{attention}.qkv.bias"] = torch.cat([query, torch.zeros_like(query), value])
    if alone:
        raise ValueError(f"Expected biases of queries and of values, got one without the other: {', '.join(sorted(alone))}.")
    return joined


# ---- reading


def read_vision(path: Path) -> tuple[dict[str, Weight], dict[str, list[str]]]:
    """Weights of vision tower, image Q-Former or both, of a folder of transformers' BLIP-2 or one of the authors' files."""
    if path.is_dir():
        return read_part("blip2", path)
    return _read_file(path, stored_tensors, VISION_FILE, VISION_FILE_DROPPED)


def read_trained(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, list[str]]]:
    """Weights of a branch file of Video-LLaMA or of a checkpoint of the authors' training."""
    return _read_file(path, read_weights, KEYS, DROPPED)


def _read_file(path: Path, read: Callable, names, dropped) -> tuple[dict[str, Weight], dict[str, list[str]]]:
    try:
        return _convert(read(path), names, dropped)
    except ValueError as error:
        # What cannot be read names its file already.
        raise error if str(path) in str(error) else ValueError(f"{path}: {error}") from error


def describe_parts(paths: Mapping[str, Path], origins: Mapping[str, Origin]) -> dict[str, dict]:
    """Where the frozen parts stay. The picture's half is one part, where both of its sources are one folder of BLIP-2."""
    parts = {
        "audio": describe_part("imagebind", paths["audio"], origins.get("audio")),
        "language": describe_part("causal_lm", paths["language"], origins.get("language")),
    }
    if paths["vision"].is_dir():
        entries = [describe_part("blip2", paths[name], origins.get(name)) for name in ("vision", "image_qformer") if name in paths]
        if len({(entry["repo_id"], entry["revision"]) for entry in entries}) == 1:
            files = {file: sha256 for entry in entries for file, sha256 in entry["files"].items()}
            parts["vision"] = {**entries[0], "files": files}
    return parts


# ---- configuration


def build_config(weights: Mapping[str, Weight], paths: Mapping[str, Path], tokenizer) -> AffectGPTConfig:
    """The model's configuration, out of its weights and the configurations of the folders among the sources."""
    blip2 = next((read_config(paths[name], "blip-2") for name in ("vision", "image_qformer") if _is_folder(paths, name)), None)
    num_heads = blip2.qformer_config.num_attention_heads if blip2 else None
    language = read_config(paths["language"])
    # Reference: what is frozen has no dropout while the rest trains.
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    needed = [f"model.{name}_resampler.position_embedding.weight" for name in ("video", "audio")]
    if missing := [name for name in needed if name not in weights]:
        raise ValueError(
            f"Expected both branches among what was trained, got no {', '.join(missing)}. Check which files were given."
        )
    return AffectGPTConfig(
        vision_config=blip2.vision_config.to_dict() if paths["vision"].is_dir() else _eva_config(weights),
        image_qformer_config={**qformer_config(weights, "model.image_qformer", num_heads), **no_dropout},
        audio_config=_imagebind_config(weights),
        video_resampler_config=qformer_config(weights, "model.video_resampler", num_heads),
        audio_resampler_config=qformer_config(weights, "model.audio_resampler", num_heads),
        text_config=language.to_dict(),
        num_image_query_tokens=weights["model.image_qformer.query_tokens"].shape[1],
        num_video_query_tokens=weights["model.video_resampler.query_tokens"].shape[1],
        num_audio_query_tokens=weights["model.audio_resampler.query_tokens"].shape[1],
        max_frames=weights[needed[0]].shape[0],
        max_audio_clips=weights[needed[1]].shape[0],
        video_token_id=tokenizer.convert_tokens_to_ids(VIDEO_TOKEN),
        audio_token_id=tokenizer.convert_tokens_to_ids(AUDIO_TOKEN),
        tie_word_embeddings=bool(language.tie_word_embeddings),
        dtype=next(tensor.dtype for name, tensor in weights.items() if name.startswith("model.language_model.")),
    )


def _is_folder(paths: Mapping[str, Path], name: str) -> bool:
    return name in paths and paths[name].is_dir()


def _num_layers(weights: Mapping[str, Weight], prefix: str) -> int:
    return 1 + max(int(name.removeprefix(prefix).partition(".")[0]) for name in weights if name.startswith(prefix))


def _eva_config(weights: Mapping[str, Weight]) -> dict:
    embeddings, layers = "model.vision_tower.embeddings", "model.vision_tower.encoder.layers."
    needed = [f"{embeddings}.patch_embedding.weight", f"{embeddings}.position_embedding", f"{layers}0.mlp.fc1.weight"]
    if missing := [name for name in needed if name not in weights]:
        raise ValueError(f"Expected the weights of EVA-CLIP, got no {', '.join(missing)}. Check the file given as vision.")
    patches, positions, hidden = (weights[name] for name in needed)
    width, patch_size = patches.shape[0], patches.shape[-1]
    if width % EVA_HEAD_WIDTH:
        raise ValueError(
            f"Expected a vision tower of a multiple of {EVA_HEAD_WIDTH} in width, as EVA-CLIP's heads are, got {width}."
        )
    return {
        "model_type": "blip_2_vision_model",
        "hidden_size": width,
        "intermediate_size": hidden.shape[0],
        "num_hidden_layers": _num_layers(weights, layers),
        "num_attention_heads": width // EVA_HEAD_WIDTH,
        "image_size": math.isqrt(positions.shape[1] - 1) * patch_size,
        "patch_size": patch_size,
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu",
        "qkv_bias": True,
    }


def _imagebind_config(weights: Mapping[str, Weight]) -> dict:
    tower = "model.audio_tower"
    needed = [f"{tower}.embeddings.patch_embedding.weight", f"{tower}.layers.0.mlp.fc1.weight", f"{tower}.projection.weight"]
    if missing := [name for name in needed if name not in weights]:
        raise ValueError(f"Expected the weights of ImageBind, got no {', '.join(missing)}. Check the file given as audio.")
    patches, hidden, head = (weights[name] for name in needed)
    width = patches.shape[0]
    if width % IMAGEBIND_HEAD_WIDTH:
        raise ValueError(f"Expected a sound tower of a multiple of {IMAGEBIND_HEAD_WIDTH} in width, as its heads are, got {width}.")
    return ImageBindAudioConfig(
        hidden_size=width,
        intermediate_size=hidden.shape[0],
        num_hidden_layers=_num_layers(weights, f"{tower}.layers."),
        num_attention_heads=width // IMAGEBIND_HEAD_WIDTH,
        kernel_size=patches.shape[-1],
        embed_dim=head.shape[0],
    ).to_dict()


def build_tokenizer(folder: Path):
    """The language model's tokenizer with the two placeholders. Reference: the end of a text serves as padding."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    vocabulary = tokenizer.get_vocab()
    # Early conversions of LLaMA leave their roles empty.
    if not tokenizer.bos_token and "<s>" in vocabulary:
        tokenizer.bos_token = "<s>"
    if not tokenizer.eos_token and "</s>" in vocabulary:
        tokenizer.eos_token = "</s>"
    if not tokenizer.bos_token or not tokenizer.eos_token:
        raise ValueError(f"{folder}: expected a tokenizer with tokens for the start and the end of a text, got none. Complete it.")
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.add_tokens([VIDEO_TOKEN, AUDIO_TOKEN], special_tokens=True)
    tokenizer.chat_template = None  # the language model's own; the prompts here are the processor's
    return tokenizer


def build_processor(config: AffectGPTConfig, tokenizer) -> AffectGPTProcessor:
    size, audio = config.vision_config.image_size, config.audio_config
    return AffectGPTProcessor(
        image_processor=AffectGPTImageProcessor(size={"height": size, "width": size}, num_frames=NUM_FRAMES),
        feature_extractor=ImageBindAudioFeatureExtractor(
            num_clips=NUM_AUDIO_CLIPS, num_mel_bins=audio.num_mel_bins, num_frames=audio.num_frames
        ),
        tokenizer=tokenizer,
        video_token=VIDEO_TOKEN,
        audio_token=AUDIO_TOKEN,
        num_video_query_tokens=config.num_video_query_tokens,
        num_audio_query_tokens=config.num_audio_query_tokens,
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hub.convert_video_llama", description=__doc__.partition("\n\n")[0])
    # fmt: off
    parser.add_argument("--vision", type=Path, required=True, metavar="PATH", help="folder of BLIP-2, or eva_vit_g.pth")
    parser.add_argument("--image-qformer", type=Path, metavar="PATH", help="folder of BLIP-2, or blip2_pretrained_flant5xxl.pth")
    parser.add_argument("--audio", type=Path, required=True, metavar="FILE", help="imagebind_huge.pth")
    parser.add_argument("--language", type=Path, required=True, metavar="DIR", help="folder of a LLaMA")
    parser.add_argument("--video-branch", type=Path, metavar="FILE", help="Video-LLaMA's branch file")
    parser.add_argument("--audio-branch", type=Path, metavar="FILE", help="likewise")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="what the authors' training saved; wins over the branches")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new folder for the checkpoint")
    parser.add_argument("--form", choices=FORMS, default="parts", help="parts (default): without frozen models; full: everything")
    # fmt: on
    args = parser.parse_args(arguments)
    sources = {name: getattr(args, name) for name in (*SOURCES, *OPTIONAL) if getattr(args, name) is not None}
    try:
        print(convert(sources, args.output, form=args.form))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
