"""Names of the weights in the authors' 2023/24 code (VideoLLAMA's `state_dict`) -> names in [`AffectGPTForConditionalGeneration`].

The original names are those of `checkpoint["model"]`, with the frozen parts under `visual_encoder.`, `ln_vision.`, `Qformer.`,
`audio_encoder.` (ImageBind, whose other modalities are left out) and `llama_model.`.
"""

import re
from collections.abc import Mapping

import torch

# fmt: off
_KEYS = {
    # EVA-CLIP ViT-g
    r"visual_encoder\.cls_token":                                   r"model.vision_tower.embeddings.class_embedding",
    r"visual_encoder\.pos_embed":                                   r"model.vision_tower.embeddings.position_embedding",
    r"visual_encoder\.patch_embed\.proj\.(weight|bias)":            r"model.vision_tower.embeddings.patch_embedding.\1",
    r"visual_encoder\.blocks\.(\d+)\.norm([12])\.(weight|bias)":    r"model.vision_tower.encoder.layers.\1.layer_norm\2.\3",
    r"visual_encoder\.blocks\.(\d+)\.attn\.qkv\.weight":            r"model.vision_tower.encoder.layers.\1.self_attn.qkv.weight",
    r"visual_encoder\.blocks\.(\d+)\.attn\.([qv])_bias":            r"model.vision_tower.encoder.layers.\1.self_attn.\2_bias",
    r"visual_encoder\.blocks\.(\d+)\.attn\.proj\.(weight|bias)":    r"model.vision_tower.encoder.layers.\1.self_attn.projection.\2",
    r"visual_encoder\.blocks\.(\d+)\.mlp\.(fc[12])\.(weight|bias)": r"model.vision_tower.encoder.layers.\1.mlp.\2.\3",
    r"ln_vision\.(weight|bias)":                                    r"model.vision_tower.post_layernorm.\1",
    # Queries, time positions and projections; `(|video_|audio_)` stays in angle brackets until `_OWNERS` replaces it
    r"(|video_|audio_)query_tokens":                                r"model.<\1>.query_tokens",
    r"(video_|audio_)(?:frame_)?position_embedding\.weight":        r"model.<\1>.position_embedding.weight",
    r"llama_proj\.(weight|bias)":                                   r"model.<video_>.projection.\1",
    r"(audio_)llama_proj\.(weight|bias)":                           r"model.<\1>.projection.\2",
    # BLIP-2 Q-Formers
    r"(|video_|audio_)Qformer\.bert\.embeddings\.LayerNorm\.(weight|bias)":
        r"model.<\1>.qformer.layernorm.\2",
    r"(|video_|audio_)Qformer\.bert\.encoder\.layer\.(\d+)\.(attention|crossattention)\.self\.(query|key|value)\.(weight|bias)":
        r"model.<\1>.qformer.encoder.layer.\2.\3.attention.\4.\5",
    r"(|video_|audio_)Qformer\.bert\.encoder\.layer\.(\d+)\.(attention|crossattention)\.output\.(dense|LayerNorm)\.(weight|bias)":
        r"model.<\1>.qformer.encoder.layer.\2.\3.output.\4.\5",
    r"(|video_|audio_)Qformer\.bert\.encoder\.layer\.(\d+)\.(intermediate_query|output_query)\.(dense|LayerNorm)\.(weight|bias)":
        r"model.<\1>.qformer.encoder.layer.\2.\3.\4.\5",
    # ImageBind's audio trunk and head
    r"audio_encoder\.modality_preprocessors\.audio\.cls_token":     r"model.audio_tower.embeddings.class_embedding",
    r"audio_encoder\.modality_preprocessors\.audio\.pos_embedding_helper\.pos_embed":
        r"model.audio_tower.embeddings.position_embedding",
    r"audio_encoder\.modality_preprocessors\.audio\.rgbt_stem\.proj\.weight":
        r"model.audio_tower.embeddings.patch_embedding.weight",
    r"audio_encoder\.modality_preprocessors\.audio\.rgbt_stem\.norm_layer\.(weight|bias)":
        r"model.audio_tower.embeddings.norm.\1",
    r"audio_encoder\.modality_trunks\.audio\.blocks\.(\d+)\.norm_([12])\.(weight|bias)":
        r"model.audio_tower.layers.\1.layer_norm\2.\3",
    r"audio_encoder\.modality_trunks\.audio\.blocks\.(\d+)\.attn\.in_proj_(weight|bias)":
        r"model.audio_tower.layers.\1.self_attn.qkv.\2",
    r"audio_encoder\.modality_trunks\.audio\.blocks\.(\d+)\.attn\.(bias_[kv])":
        r"model.audio_tower.layers.\1.self_attn.\2",
    r"audio_encoder\.modality_trunks\.audio\.blocks\.(\d+)\.attn\.out_proj\.(weight|bias)":
        r"model.audio_tower.layers.\1.self_attn.projection.\2",
    r"audio_encoder\.modality_trunks\.audio\.blocks\.(\d+)\.mlp\.(fc[12])\.(weight|bias)":
        r"model.audio_tower.layers.\1.mlp.\2.\3",
    r"audio_encoder\.modality_heads\.audio\.0\.(weight|bias)":      r"model.audio_tower.layernorm.\1",
    r"audio_encoder\.modality_heads\.audio\.2\.weight":             r"model.audio_tower.projection.weight",
    r"audio_encoder\.modality_postprocessors\.audio\.1\.log_logit_scale":
        r"model.audio_tower.log_logit_scale",
    # LLaMA
    r"llama_model\.model\.(embed_tokens|norm)\.weight":             r"model.language_model.\1.weight",
    r"llama_model\.model\.layers\.(\d+)\.self_attn\.([qkvo]_proj)\.weight":
        r"model.language_model.layers.\1.self_attn.\2.weight",
    r"llama_model\.model\.layers\.(\d+)\.mlp\.(gate_proj|up_proj|down_proj)\.weight":
        r"model.language_model.layers.\1.mlp.\2.weight",
    r"llama_model\.model\.layers\.(\d+)\.(input_layernorm|post_attention_layernorm)\.weight":
        r"model.language_model.layers.\1.\2.weight",
    r"llama_model\.lm_head\.weight":                                r"lm_head.weight",
}
_OWNERS = {"<>": "image_qformer", "<video_>": "video_resampler", "<audio_>": "audio_resampler"}

# What a checkpoint may hold and the model does not: rule -> reason.
_DROPPED = {
    r"(|video_|audio_)Qformer\.bert\.embeddings\.position_ids":                   "buffer of numbers 0, 1, 2, ...",
    r"llama_model\.model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq":          "buffer that follows from the configuration",
    r"(|video_|audio_)Qformer\.bert\.embeddings\.(word|position)_embeddings\.weight": "text input, removed from all Q-Formers",
    r"(|video_|audio_)Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\..*": "text half of the layers, likewise",
    r"(|video_|audio_)Qformer\.cls\..*":                                          "text head, likewise",
    r"audio_encoder\.modality_\w+\.(vision|text|depth|thermal|imu)\..*":          "ImageBind's other modalities",
}
# fmt: on


def convert_key(key: str) -> str | None:
    """The name of an original weight in this project's model; `None` if it has no place there by a rule of `_DROPPED`.

    `q_bias` and `v_bias` of the vision tower keep their names: `convert_state_dict` joins them.

    Raises:
        KeyError: if no rule knows the name.
    """
    if any(re.fullmatch(pattern, key) for pattern in _DROPPED):
        return None
    for pattern, replacement in _KEYS.items():
        match = re.fullmatch(pattern, key)
        if match:
            return re.sub(r"<\w*>", lambda owner: _OWNERS[owner[0]], match.expand(replacement))
    raise KeyError(key)


def convert_state_dict(original: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename `original`, drop what the model does not have, and join the vision tower's attention biases.

    The result may hold a part of the model only, as the authors' checkpoints do; load it with `strict=True` once it is whole.

    Raises:
        ValueError: lists every name that no rule knows, and every bias without its other half.
    """
    converted, problems = {}, []
    for key, tensor in original.items():
        try:
            name = convert_key(key)
        except KeyError:
            problems.append(key)
            continue
        if name is not None:
            converted[name] = tensor
    for name in [name for name in converted if name.endswith((".q_bias", ".v_bias"))]:
        attention = name.rpartition(".")[0]
        if f"{attention}.q_bias" in converted and f"{attention}.v_bias" in converted:
            query, value = converted.pop(f"{attention}.q_bias"), converted.pop(f"{attention}.v_bias")
            # EVA-CLIP's keys have no bias.
            converted[f"{attention}.qkv.bias"] = torch.cat([query, torch.zeros_like(query), value])
        elif name in converted:
            problems.append(f"{name} without its other half")
    if problems:
        raise ValueError(
            f"Expected the weights of VideoLLAMA (`checkpoint['model']`), got {len(problems)} names that it does not have: "
            f"{', '.join(sorted(problems))}. Check which checkpoint this is."
        )
    return converted
