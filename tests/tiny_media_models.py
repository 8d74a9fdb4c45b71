"""Checkpoints of a few thousand parameters of models that see and hear, in the files that the Hub has of the real ones."""

import json
from pathlib import Path

import torch
from tiny import make_tiny_tokenizer
from transformers import (
    AutoModelForMultimodalLM,
    GenerationConfig,
    LlavaNextVideoConfig,
    Qwen2_5_VLConfig,
    Qwen2_5OmniConfig,
    Qwen2AudioConfig,
    VideoLlavaConfig,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

QWEN_VISION_TOKENS = {
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
}
QWEN_AUDIO_TOKENS = {"audio_token": "<|AUDIO|>", "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>"}
TURN = {"turn_start": "<|im_start|>", "turn_end": "<|im_end|>"}

QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_bos|><|IMAGE|><|vision_eos|>"
    "{% elif part.type == 'video' %}<|vision_bos|><|VIDEO|><|vision_eos|>"
    "{% elif part.type == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message.role | upper }}: {% for part in message.content %}"
    "{% if part.type == 'image' %}<image>\n{% elif part.type == 'video' %}<video>\n{% else %}{{ part.text }}{% endif %}"
    "{% endfor %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "max_position_embeddings": 8192,
}
QWEN_VISION = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_heads": 2,
    "out_hidden_size": 16,
    "fullatt_block_indexes": [0],
    "patch_size": 14,
    "window_size": 56,
}
AUDIO = {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "d_model": 16, "num_mel_bins": 16}
CLIP_VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "projection_dim": 16,
}
CLIP_PROCESSOR = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
VIDEO_PROCESSORS = {
    "Qwen2_5OmniProcessor": "Qwen2VLVideoProcessor",
    "Qwen2_5_VLProcessor": "Qwen2VLVideoProcessor",
    "LlavaNextVideoProcessor": "LlavaNextVideoVideoProcessor",
    "VideoLlavaProcessor": "VideoLlavaVideoProcessor",
}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}


def make_qwen2_5_omni(folder: Path) -> Path:
    """Sees pictures and hears; the talker, which is not loaded, is left out of the file."""
    tokenizer = _tokenizer({**QWEN_VISION_TOKENS, **QWEN_AUDIO_TOKENS, **TURN}, eos="<|im_end|>")
    thinker = {
        "text_config": {**TEXT, "vocab_size": len(tokenizer), "rope_parameters": MROPE},
        "vision_config": {**QWEN_VISION},
        "audio_config": {**AUDIO, "output_dim": 16, "max_source_positions": 1500, "n_window": 100},
        "image_token_index": tokenizer.convert_tokens_to_ids("<|IMAGE|>"),
        "video_token_index": tokenizer.convert_tokens_to_ids("<|VIDEO|>"),
        "audio_token_index": tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
        "vision_start_token_id": tokenizer.convert_tokens_to_ids("<|vision_bos|>"),
        "vision_end_token_id": tokenizer.convert_tokens_to_ids("<|vision_eos|>"),
        "audio_start_token_id": tokenizer.convert_tokens_to_ids("<|audio_bos|>"),
        "audio_end_token_id": tokenizer.convert_tokens_to_ids("<|audio_eos|>"),
    }
    config = Qwen2_5OmniConfig(thinker_config=thinker, enable_audio_output=False)
    preprocessor = {"image_processor_type": "Qwen2VLImageProcessor", **_qwen_vision(), **_whisper(chunk_length=300)}
    return _save(folder, config, tokenizer, "Qwen2_5OmniProcessor", preprocessor, QWEN_TEMPLATE)


def make_qwen2_audio(folder: Path) -> Path:
    """Hears 30 s."""
    tokenizer = _tokenizer({**QWEN_AUDIO_TOKENS, **TURN}, eos="<|im_end|>")
    config = Qwen2AudioConfig(
        audio_config={**AUDIO, "model_type": "qwen2_audio_encoder", "max_source_positions": 1500},
        text_config={**TEXT, "model_type": "qwen2", "vocab_size": len(tokenizer)},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    return _save(folder, config, tokenizer, "Qwen2AudioProcessor", _whisper(chunk_length=30), QWEN_TEMPLATE)


def make_qwen2_5_vl(folder: Path) -> Path:
    """Sees."""
    tokenizer = _tokenizer({**QWEN_VISION_TOKENS, **TURN}, eos="<|im_end|>")
    config = Qwen2_5_VLConfig(
        text_config={**TEXT, "vocab_size": len(tokenizer), "rope_parameters": MROPE},
        vision_config={**QWEN_VISION},
        image_token_id=tokenizer.convert_tokens_to_ids("<|IMAGE|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|VIDEO|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_bos|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_eos|>"),
    )
    preprocessor = {"image_processor_type": "Qwen2VLImageProcessor", **_qwen_vision()}
    return _save(folder, config, tokenizer, "Qwen2_5_VLProcessor", preprocessor, QWEN_TEMPLATE)


def make_llava_next_video(folder: Path) -> Path:
    """Sees; the oldest kind of video model that transformers has, with Video-LLaVA."""
    tokenizer = _tokenizer({"image_token": "<image>", "video_token": "<video>"}, eos="</s>")
    config = LlavaNextVideoConfig(
        vision_config=CLIP_VISION,
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]],
        vision_feature_layer=-2,
    )
    preprocessor = {"image_processor_type": "LlavaNextImageProcessor", "image_grid_pinpoints": [[28, 56], [56, 28], [56, 56]]}
    options = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return _save(folder, config, tokenizer, "LlavaNextVideoProcessor", {**preprocessor, **CLIP_PROCESSOR}, LLAVA_TEMPLATE, options)


def make_video_llava(folder: Path) -> Path:
    """Sees."""
    tokenizer = _tokenizer({"image_token": "<image>", "video_token": "<video>"}, eos="</s>")
    config = VideoLlavaConfig(
        vision_config=CLIP_VISION,
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_seq_length=4,
        video_seq_length=40,
    )
    preprocessor = {"image_processor_type": "VideoLlavaImageProcessor", **CLIP_PROCESSOR}
    options = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return _save(folder, config, tokenizer, "VideoLlavaProcessor", preprocessor, LLAVA_TEMPLATE, options)


def make_whisper(folder: Path) -> Path:
    """Recognises nothing, as long as it takes; knows English and Chinese."""
    specials = ["<|startoftranscript|>", "<|en|>", "<|zh|>", "<|transcribe|>", "<|translate|>", "<|notimestamps|>"]
    times = [f"<|{index * 0.02:.2f}|>" for index in range(1501)]
    tokenizer = make_tiny_tokenizer()
    tokenizer.add_tokens(specials, special_tokens=True)
    tokenizer.add_tokens(times, special_tokens=True)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in specials}
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        d_model=16,
        init_std=0.3,
        max_target_positions=64,
        decoder_start_token_id=ids["<|startoftranscript|>"],
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        is_multilingual=True,
        lang_to_id={"<|en|>": ids["<|en|>"], "<|zh|>": ids["<|zh|>"]},
        task_to_id={"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
        no_timestamps_token_id=ids["<|notimestamps|>"],
        max_initial_timestamp_index=50,
        max_length=24,
        decoder_start_token_id=ids["<|startoftranscript|>"],
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    preprocessor = {**_whisper(chunk_length=30), "processor_class": "WhisperProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def _tokenizer(specials: dict[str, str], *, eos: str):
    tokenizer = make_tiny_tokenizer()
    tokenizer.add_tokens([token for token in specials.values() if token not in tokenizer.get_vocab()], special_tokens=True)
    tokenizer.eos_token = eos
    tokenizer.named_tokens = specials
    return tokenizer


def _qwen_vision() -> dict:
    return {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, "min_pixels": 56 * 56, "max_pixels": 56 * 56}


def _whisper(*, chunk_length: int) -> dict:
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": AUDIO["num_mel_bins"],
        "chunk_length": chunk_length,
        "hop_length": 160,
        "n_fft": 400,
        "sampling_rate": 16_000,
        "return_attention_mask": True,
    }


def _save(folder: Path, config, tokenizer, processor: str, preprocessor: dict, template: str, options: dict | None = None) -> Path:
    torch.manual_seed(0)
    model = AutoModelForMultimodalLM.from_config(config).eval()
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    described = json.loads(file.read_text())
    # Under the names by which processors ask for them, as in the real repositories.
    file.write_text(json.dumps({**described, "extra_special_tokens": tokenizer.named_tokens, "eos_token": tokenizer.eos_token}))
    preprocessor = {**preprocessor, "processor_class": processor}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    # A part that is made with torchvision only.
    video = {**preprocessor, "video_processor_type": VIDEO_PROCESSORS.get(processor), "image_processor_type": None}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": processor, **(options or {})}))
    (folder / "chat_template.jinja").write_text(template)
    return folder
