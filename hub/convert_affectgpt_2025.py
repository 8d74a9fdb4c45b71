"""The authors' checkpoint of 2025 (CLIP, HuBERT, Qwen2.5 with LoRA) -> a checkpoint of [`AffectGPTForConditionalGeneration`].

    python -m hub.convert_affectgpt_2025 --checkpoint FILE.pth --vision DIR --audio DIR --language DIR --output DIR

FILE is `{"model": ..., "config": ..., ...}` of their code (`my_affectgpt`, commit d961cab): what trained, under its names. Encoders
and language model are folders in the layout of transformers. Sizes come from the tensors, what tensors do not tell (tokens of each
medium, faces or frames) from the settings that were saved with them.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig

from affectgpt import (
    AffectGPTConfig,
    AffectGPTImageProcessor,
    AffectGPTPoolingConfig,
    AffectGPTProcessor,
    WaveformClipFeatureExtractor,
)
from affectgpt.processing_affectgpt import CHAT_TEMPLATE_2025

from .conversion import (
    FORMS,
    Adapter,
    ConversionReport,
    check_sources,
    describe_part,
    qformer_config,
    qformer_dropped,
    qformer_names,
    read_checkpoint,
    read_config,
    read_part,
    rename,
    write_checkpoint,
)
from .sources import Origin

# fmt: off
# Source name -> name in the model. Frames and face crops share the weights that the source calls "video".
KEYS = {
    # Pooling: scores and projections
    r"video_attention_mlp\.(weight|bias)":      r"model.video_resampler.score.\1",
    r"affectgpt_proj\.(weight|bias)":           r"model.video_resampler.projection.\1",
    r"audio_attention_mlp\.(weight|bias)":      r"model.audio_resampler.score.\1",
    r"audio_llama_proj\.(weight|bias)":         r"model.audio_resampler.projection.\1",
    r"image_llama_proj\.(weight|bias)":         r"model.image_resampler.projection.\1",
    # Fusion of picture and sound by two weights
    r"multi_(video|audio)_embs\.(weight|bias)": r"model.fusion.\1_projection.\2",
    r"attention_mlp\.(weight|bias)":            r"model.fusion.attention_hidden.\1",
    r"fc_att\.(weight|bias)":                   r"model.fusion.attention_score.\1",
    # Q-Formers, in the place of pooling and of the two weights; what is "multi" here is the fusion's, see `convert_names`
    r"(video|audio|multi)_query_tokens":        r"model.\1_resampler.query_tokens",
    r"(video|audio|multi)_(?:frame_)?position_embedding\.weight":
        r"model.\1_resampler.position_embedding.weight",
    r"multi_llama_proj\.(weight|bias)":         r"model.multi_resampler.projection.\1",
    # LoRA
    r"llama_model\.base_model\.model\.model\.(layers\.\d+\.\w+\.\w+)\.lora_([AB])\.default\.weight":
        r"model.language_model.\1.weight:\2",
}
for _branch in ("video", "audio", "multi"):
    KEYS |= qformer_names(f"{_branch}_Qformer", f"model.{_branch}_resampler.qformer")

DROPPED = {
    r".+\.rotary_emb\.inv_freq":               "buffer that follows from the configuration",
    **{key: reason for branch in ("video", "audio", "multi") for key, reason in qformer_dropped(f"{branch}_Qformer").items()},
}

# What a prompt of each of the authors' modes (`face_or_frame`) speaks of.
MODES = {
    "faceframe":                       ["audio", "video", "face"],
    "face":                            ["audio", "face"],
    "frame":                           ["audio", "video"],
    "audioonly":                       ["audio"],
    "textonly":                        [],
    "faceonly":                        ["face"],
    "frameonly":                       ["video"],
    "image":                           ["image"],
    "audio_text":                      ["audio"],
    "face_text":                       ["face"],
    "frame_text":                      ["video"],
    "multiface_text":                  ["fusion"],
    "multiface_audio_face_text":       ["fusion", "audio", "face"],
    "multiframe_audio_frame_text":     ["fusion", "audio", "video"],
    "multiface_audio_face_frame_text": ["fusion", "audio", "face", "video"],
}
# fmt: on

# In the order in which the authors' code adds them to the tokenizer: their ids follow from it.
TOKENS = {
    "image": "<ImageHere>",
    "audio": "<AudioHere>",
    "video": "<FrameHere>",
    "face": "<FaceHere>",
    "fusion": "<MultiHere>",
}
BOS_TOKEN, EOS_TOKEN = "<|im_start|>", "<|im_end|>"
# Both are constants of the authors' code, and in no file.
LORA_ALPHA, LORA_DROPOUT = 32, 0.05
NUM_FRAMES, NUM_AUDIO_CLIPS, CLIP_DURATION_S = 8, 8, 2.0
# Their limit for an answer.
MAX_NEW_TOKENS = 1200
# Their question for a description; the other asks for labels alone.
QUESTION = "Please infer the person's emotional state and provide your reasoning process."

# Frozen part -> layout of its folder (`affectgpt.parts.LAYOUTS`).
PARTS = {"vision": "clip", "audio": "hubert", "language": "causal_lm"}
SOURCES = ("checkpoint", *PARTS)


def convert(
    sources: Mapping[str, Path],
    output: str | Path,
    *,
    form: str = "parts",
    origins: Mapping[str, Origin] | None = None,
    mode: str | None = None,
) -> ConversionReport:
    """Make a checkpoint out of the authors' file and the folders of the frozen parts.

    Args:
        sources (`dict[str, Path]`): "checkpoint", the `.pth` file; "vision", "audio" and "language", folders of CLIP, HuBERT and
            the language model; perhaps "qformer", a folder with the `config.json` of the BERT that the Q-Formers are made of, where
            its heads are not 64 wide.
        output (`str` or `Path`): new folder.
        form (`str`): "parts" (trained weights, LoRA as a `peft` adapter, and where the frozen parts lie) or "full" (everything,
            LoRA merged).
        origins (`dict[str, Origin]`, *optional*): source -> repository that its files came from, for the form "parts"; the local
            folder otherwise.
        mode (`str`, *optional*): one of `MODES`, where the settings in the file do not say or say it wrongly.

    Raises:
        FileNotFoundError: if a source is not there.
        ValueError: if a source is damaged, foreign, or does not fit the others; all that is wrong is listed.
        OSError: if the disk has no room.
    """
    paths = check_sources(sources, SOURCES, ("qformer",))
    origins = origins or {}
    original, settings = read_checkpoint(paths["checkpoint"])
    try:
        trained, left_out = convert_names(original)
    except ValueError as error:
        raise ValueError(
            f"{paths['checkpoint']}: expected a checkpoint of the authors' 2025 model, got {error}. Check which file this is."
        ) from error
    trained, adapter = split_adapter(trained)
    media = read_media(paths["checkpoint"], settings, mode)

    tokenizer = build_tokenizer(paths["language"])
    config = build_config(trained, settings, paths, tokenizer)
    weights, all_left_out = dict(trained), {"checkpoint": left_out}
    for part, layout in PARTS.items():
        part_weights, all_left_out[part] = read_part(layout, paths[part])
        weights.update(part_weights)
    if "model.language_model.embed_tokens.weight" in weights:  # else it is listed among what is missing
        config.dtype = weights["model.language_model.embed_tokens.weight"].dtype
    if config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    notes = []
    if "image" not in media:
        notes.append(
            "The branch of still pictures is converted, but this checkpoint was not trained on them: no prompt asks for it."
        )
    if not adapter:
        notes.append("The checkpoint has no LoRA: the language model is the one of its folder.")
    return write_checkpoint(
        output,
        form=form,
        config=config,
        weights=weights,
        adapter=adapter,
        parts={part: describe_part(layout, paths[part], origins.get(part)) for part, layout in PARTS.items()},
        processor=build_processor(config, settings, media, paths, tokenizer),
        generation_config=build_generation_config(paths["language"], tokenizer),
        left_out=all_left_out,
        notes=notes,
    )


def convert_names(original: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, list[str]]]:
    """`checkpoint["model"]` under this project's names, and what was left out, by reason.

    The two matrices of a LoRA update are called after the weight that they change, with ":A" and ":B" behind.

    Raises:
        ValueError: lists every name that no rule knows.
    """
    converted, left_out = rename(original, KEYS, DROPPED)
    # With a Q-Former the fusion is a resampler inside the fusion, else the projection is the fusion's own.
    owner = "model.fusion.resampler." if "model.multi_resampler.query_tokens" in converted else "model.fusion."
    return {name.replace("model.multi_resampler.", owner): tensor for name, tensor in converted.items()}, left_out


def split_adapter(weights: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], Adapter | None]:
    """What `convert_names` gives -> weights of the model, and its LoRA adapter."""
    halves = {name: tensor for name, tensor in weights.items() if name.endswith((":A", ":B"))}
    names = list(dict.fromkeys(name[:-2] for name in halves))
    alone = [name for name in halves if name[:-1] + {"A": "B", "B": "A"}[name[-1]] not in halves]
    if alone:
        raise ValueError(f"Expected two matrices of each LoRA update, got one of {', '.join(alone)}. The checkpoint is incomplete.")
    updates = {name: (halves[f"{name}:A"], halves[f"{name}:B"]) for name in names}
    others = {name: tensor for name, tensor in weights.items() if name not in halves}
    return others, Adapter(updates, LORA_ALPHA, LORA_DROPOUT) if updates else None


def read_media(path: Path, settings: Mapping, mode: str | None) -> list[str]:
    """What the checkpoint takes, by the mode that its data were prepared in.

    Raises:
        ValueError: if the settings do not say, or say several things.
    """
    modes = {mode} if mode else _values_of(settings.get("datasets"), "face_or_frame")
    if len(modes) != 1 or not modes <= MODES.keys():
        raise ValueError(
            f"{path}: expected settings with one `face_or_frame` among {', '.join(MODES)}, got "
            f"{', '.join(sorted(map(str, modes))) or 'none'}. Say with --mode which prompts it was trained with."
        )
    return MODES[modes.pop()]


def _values_of(settings, name: str) -> set:
    """All values of `name` in nested settings."""
    if not isinstance(settings, Mapping):
        return set()
    inner = set().union(*(_values_of(value, name) for value in settings.values())) if settings else set()
    return inner | ({settings[name]} if name in settings else set())


def build_config(trained: Mapping[str, torch.Tensor], settings: Mapping, paths: Mapping[str, Path], tokenizer) -> AffectGPTConfig:
    """The model's configuration, out of the trained weights, the settings saved with them, and those of the frozen parts."""
    clip = read_config(paths["vision"], "clip")
    vision = {**clip.vision_config.to_dict(), "projection_dim": clip.projection_dim}
    audio = read_config(paths["audio"], "hubert").to_dict()
    text = read_config(paths["language"]).to_dict()
    num_heads = read_config(paths["qformer"], "bert").num_attention_heads if "qformer" in paths else None
    branches = {
        "video_resampler": ("video", vision["projection_dim"]),
        "audio_resampler": ("audio", audio["hidden_size"]),
        "image_resampler": ("image", vision["projection_dim"]),
        "fusion": ("multi", len(trained.get("model.fusion.video_projection.weight", ()))),
    }
    configs, counts = dict.fromkeys(branches), dict.fromkeys(branches, 1)
    for name, (medium, width) in branches.items():
        if any(weight.startswith(f"model.{name}.") for weight in trained):
            configs[name] = _branch_config(trained, f"model.{name}", width, num_heads)
            counts[name] = _num_tokens(trained, f"model.{name}", medium, settings, paths["checkpoint"])

    def positions(module: str, default: int) -> int:
        name = f"{module}.position_embedding.weight"
        return len(trained[name]) if name in trained else default

    return AffectGPTConfig(
        vision_config=vision,
        audio_config=audio,
        text_config=text,
        video_resampler_config=configs["video_resampler"],
        audio_resampler_config=configs["audio_resampler"],
        image_resampler_config=configs["image_resampler"],
        prefusion_config=configs["fusion"],
        num_video_query_tokens=counts["video_resampler"],
        num_audio_query_tokens=counts["audio_resampler"],
        num_image_query_tokens=counts["image_resampler"],
        num_fusion_query_tokens=counts["fusion"],
        max_frames=positions("model.video_resampler", 32),
        max_audio_clips=positions("model.audio_resampler", NUM_AUDIO_CLIPS),
        max_fusion_steps=positions("model.fusion.resampler", 264),
        tie_word_embeddings=bool(text.get("tie_word_embeddings")),
        **{f"{medium}_token_id": tokenizer.convert_tokens_to_ids(token) for medium, token in TOKENS.items()},
    )


def _qformer_at(trained: Mapping[str, torch.Tensor], module: str) -> str | None:
    """The module with the query tokens of a branch; `None` where it has none."""
    return next((place for place in (module, f"{module}.resampler") if f"{place}.query_tokens" in trained), None)


def _branch_config(trained: Mapping[str, torch.Tensor], module: str, encoder_width: int, num_heads: int | None) -> dict:
    place = _qformer_at(trained, module)
    if place is not None:
        return qformer_config(trained, place, num_heads)
    has_scores = f"{module}.score.weight" in trained or module == "model.fusion"
    return AffectGPTPoolingConfig(encoder_hidden_size=encoder_width, has_scores=has_scores).to_dict()


def _num_tokens(trained: Mapping[str, torch.Tensor], module: str, medium: str, settings: Mapping, path: Path) -> int:
    place = _qformer_at(trained, module)
    if place is not None:
        return trained[f"{place}.query_tokens"].shape[1]
    model = settings.get("model")
    count = model.get(f"num_{medium}_query_token") if isinstance(model, Mapping) else None
    if not isinstance(count, int) or count < 1:
        raise ValueError(
            f"{path}: expected `num_{medium}_query_token` in the settings saved with the weights, got {count!r}. Without it the "
            "number of tokens in the prompt is unknown: get the checkpoint as the training code wrote it."
        )
    return count


def build_tokenizer(folder: Path):
    """The language model's tokenizer with the five placeholders, and with the roles that the authors' code gives its tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    missing = [token for token in (BOS_TOKEN, EOS_TOKEN) if token not in tokenizer.get_vocab()]
    if missing:
        raise ValueError(
            f"{folder}: expected a tokenizer of Qwen2 with {' and '.join(missing)}, got {type(tokenizer).__name__} without."
        )
    # Reference: the end of a turn serves as padding, its beginning as the start of a training row.
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = BOS_TOKEN, EOS_TOKEN, EOS_TOKEN
    tokenizer.add_tokens(list(TOKENS.values()), special_tokens=True)
    tokenizer.chat_template = None  # Qwen's own; the prompts here are the processor's
    return tokenizer


def build_processor(
    config: AffectGPTConfig, settings: Mapping, media: list[str], paths: Mapping[str, Path], tokenizer
) -> AffectGPTProcessor:
    pictures = _read_json(paths["vision"] / "preprocessor_config.json")
    size = config.vision_config.image_size
    sound = _read_json(paths["audio"] / "preprocessor_config.json")
    return AffectGPTProcessor(
        image_processor=AffectGPTImageProcessor(
            size={"height": size, "width": size},
            num_frames=_num_frames(settings),
            resample=pictures.get("resample", 3),
            **{name: pictures[name] for name in ("image_mean", "image_std") if name in pictures},
        ),
        feature_extractor=WaveformClipFeatureExtractor(
            num_clips=NUM_AUDIO_CLIPS,
            clip_duration=CLIP_DURATION_S,
            sampling_rate=sound.get("sampling_rate", 16_000),
            do_normalize=sound.get("do_normalize", True),
        ),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE_2025,
        media=media,
        **{f"{medium}_token": token for medium, token in TOKENS.items()},
        **{
            f"num_{name}_query_tokens": getattr(config, f"num_{name}_query_tokens")
            for name in ("video", "audio", "fusion", "image")
        },
        faces_are_bgr=True,
        faces_are_masked=True,
        bos_in_prompts=False,
        eos_after_answer=True,
        default_question=QUESTION,
    )


def _num_frames(settings: Mapping) -> int:
    counts = _values_of(settings, "n_frms")
    return counts.pop() if len(counts) == 1 else NUM_FRAMES


def _read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def build_generation_config(folder: Path, tokenizer) -> GenerationConfig:
    """Greedy decoding up to the stop string; of the language model's own settings only the ids that end a text are kept."""
    ends = _read_json(folder / "generation_config.json").get("eos_token_id", [])
    ends = [tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])]
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
        # Reference: the language model's own 1.05 is switched off.
        repetition_penalty=1.0,
        stop_strings=[AffectGPTProcessor.stop_string],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=list(dict.fromkeys(ends)),
        pad_token_id=tokenizer.pad_token_id,
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hub.convert_affectgpt_2025", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="the authors' .pth file")
    parser.add_argument("--vision", type=Path, required=True, metavar="DIR", help="folder of CLIP")
    parser.add_argument("--audio", type=Path, required=True, metavar="DIR", help="folder of HuBERT")
    parser.add_argument("--language", type=Path, required=True, metavar="DIR", help="folder of Qwen2.5")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new folder for the checkpoint")
    parser.add_argument(
        "--form", choices=FORMS, default="parts", help="parts (default): without the frozen models; full: everything"
    )
    parser.add_argument(
        "--qformer", type=Path, metavar="DIR", help="folder of the BERT of the Q-Formers, where it is not bert-base"
    )
    parser.add_argument("--mode", choices=MODES, help="the prompts it was trained with, where the file does not say")
    args = parser.parse_args(arguments)
    sources = {name: getattr(args, name) for name in (*SOURCES, "qformer") if getattr(args, name) is not None}
    try:
        print(convert(sources, args.output, form=args.form, mode=args.mode))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
