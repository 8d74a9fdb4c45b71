"""Models and processors of a few thousand parameters, made from configurations: what most tests run on."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast

from affectgpt import (
    AffectGPTConfig,
    AffectGPTForConditionalGeneration,
    AffectGPTImageProcessor,
    AffectGPTProcessor,
    ImageBindAudioFeatureExtractor,
    WaveformClipFeatureExtractor,
)
from affectgpt.processing_affectgpt import CHAT_TEMPLATE_2025

NUM_FRAMES = 3
NUM_AUDIO_CLIPS = 2


def make_tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte level without merges: any text is encodable, one id a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=["<ImageHere>", "<AudioHere>", "<FrameHere>", "<FaceHere>", "<MultiHere>"],
    )


def make_tiny_processor() -> AffectGPTProcessor:
    return AffectGPTProcessor(
        image_processor=AffectGPTImageProcessor(size={"height": 28, "width": 28}, num_frames=NUM_FRAMES),
        feature_extractor=ImageBindAudioFeatureExtractor(num_clips=NUM_AUDIO_CLIPS),
        tokenizer=make_tiny_tokenizer(),
        num_video_query_tokens=4,
        num_audio_query_tokens=2,
    )


def make_tiny_config(**changes) -> AffectGPTConfig:
    tokenizer = make_tiny_tokenizer()
    qformer = {"model_type": "blip_2_qformer", "num_attention_heads": 2, "intermediate_size": 32, "initializer_range": 0.2}
    sizes = {
        "vision_config": {
            "model_type": "blip_2_vision_model",
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
            "initializer_range": 0.2,
        },
        "image_qformer_config": {**qformer, "hidden_size": 24, "num_hidden_layers": 2, "encoder_hidden_size": 16},
        "audio_config": {
            "model_type": "imagebind_audio",
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "stride": 16,
            "embed_dim": 20,
            "initializer_range": 0.2,
        },
        "video_resampler_config": {
            **qformer,
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "encoder_hidden_size": 24,
            "cross_attention_frequency": 1,
        },
        "audio_resampler_config": {
            **qformer,
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "encoder_hidden_size": 20,
            "cross_attention_frequency": 1,
        },
        "text_config": {
            "model_type": "llama",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "vocab_size": tokenizer.vocab_size,
            "max_position_embeddings": 4096,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "initializer_range": 0.2,
        },
        "num_image_query_tokens": 5,
        "num_video_query_tokens": 4,
        "num_audio_query_tokens": 2,
        "max_frames": 8,
        "max_audio_clips": 4,
        "video_token_id": tokenizer.convert_tokens_to_ids("<ImageHere>"),
        "audio_token_id": tokenizer.convert_tokens_to_ids("<AudioHere>"),
        "initializer_range": 0.2,
    }
    return AffectGPTConfig(**{**sizes, **changes})


def make_tiny_model(seed: int = 0, **changes) -> AffectGPTForConditionalGeneration:
    torch.manual_seed(seed)
    config = make_tiny_config(**changes)
    model = AffectGPTForConditionalGeneration(config).eval()
    model.generation_config = GenerationConfig(
        max_new_tokens=16,
        stop_strings=["###"],
        bos_token_id=config.text_config.bos_token_id,
        eos_token_id=config.text_config.eos_token_id,
        pad_token_id=config.text_config.pad_token_id,
    )
    return model


def make_tiny_processor_2025(media=("fusion", "audio", "face"), **changes) -> AffectGPTProcessor:
    return AffectGPTProcessor(
        image_processor=AffectGPTImageProcessor(size={"height": 28, "width": 28}, num_frames=NUM_FRAMES),
        feature_extractor=WaveformClipFeatureExtractor(num_clips=NUM_AUDIO_CLIPS, clip_duration=0.25),
        tokenizer=make_tiny_tokenizer(),
        chat_template=CHAT_TEMPLATE_2025,
        media=media,
        video_token="<FrameHere>",
        **{
            "face_token": "<FaceHere>",
            "fusion_token": "<MultiHere>",
            "image_token": "<ImageHere>",
            "num_video_query_tokens": 1,
            "num_audio_query_tokens": 1,
            "faces_are_bgr": True,
            "bos_in_prompts": False,
            "eos_after_answer": True,
            **changes,
        },
    )


def make_tiny_config_2025(**changes) -> AffectGPTConfig:
    """The 2025 model: CLIP, HuBERT, pooling and fusion by attention. Widths differ so that none can stand for another."""
    tokenizer = make_tiny_tokenizer()
    sizes = {
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
            "projection_dim": 12,
            "initializer_range": 0.2,
        },
        "audio_config": {
            "model_type": "hubert",
            "hidden_size": 20,
            "intermediate_size": 32,
            "num_hidden_layers": 5,
            "num_attention_heads": 2,
            "conv_dim": [8, 8, 8],
            "conv_kernel": [10, 8, 8],
            "conv_stride": [8, 8, 8],
            "conv_bias": True,
            "feat_extract_norm": "layer",
            "do_stable_layer_norm": True,
            "num_conv_pos_embeddings": 4,
            "num_conv_pos_embedding_groups": 2,
            "initializer_range": 0.2,
        },
        "video_resampler_config": {"model_type": "affectgpt_pooling", "encoder_hidden_size": 12},
        "audio_resampler_config": {"model_type": "affectgpt_pooling", "encoder_hidden_size": 20},
        "image_resampler_config": {"model_type": "affectgpt_pooling", "encoder_hidden_size": 12, "has_scores": False},
        "prefusion_config": {"model_type": "affectgpt_pooling", "encoder_hidden_size": 20},
        "text_config": {
            "model_type": "qwen2",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": len(tokenizer) + 7,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "initializer_range": 0.2,
        },
        "num_image_query_tokens": 1,
        "num_video_query_tokens": 1,
        "num_audio_query_tokens": 1,
        "max_frames": 8,
        "max_audio_clips": 4,
        "max_fusion_steps": 16,
        "video_token_id": tokenizer.convert_tokens_to_ids("<FrameHere>"),
        "audio_token_id": tokenizer.convert_tokens_to_ids("<AudioHere>"),
        "face_token_id": tokenizer.convert_tokens_to_ids("<FaceHere>"),
        "fusion_token_id": tokenizer.convert_tokens_to_ids("<MultiHere>"),
        "image_token_id": tokenizer.convert_tokens_to_ids("<ImageHere>"),
        "initializer_range": 0.2,
    }
    return AffectGPTConfig(**{**sizes, **changes})


def make_tiny_model_2025(seed: int = 0, **changes) -> AffectGPTForConditionalGeneration:
    torch.manual_seed(seed)
    model = AffectGPTForConditionalGeneration(make_tiny_config_2025(**changes)).eval()
    model.generation_config = GenerationConfig(
        max_new_tokens=12,
        stop_strings=["###"],
        eos_token_id=model.config.text_config.eos_token_id,
        pad_token_id=model.config.text_config.pad_token_id,
    )
    return model
