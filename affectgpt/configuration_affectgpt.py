"""Configurations of AffectGPT and of its ImageBind audio tower.

The defaults are the paper's sizes (arXiv 2407.07653): EVA-CLIP ViT-g/14, BLIP-2's Q-Former, ImageBind-huge's audio trunk, LLaMA-7B.
"""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec


@strict
class ImageBindAudioConfig(PreTrainedConfig):
    """Audio trunk and head of ImageBind-huge: one `embed_dim` vector per clip of `num_mel_bins` x `num_frames` log-mels.

    Args:
        kernel_size, stride: of the patch convolution, in mel bins and mel frames; patches overlap when `stride < kernel_size`.
        num_frames: mel frames of one clip (204 for 2 s).
        embed_dim: width of the output.
        logit_scale_init: natural logarithm of the factor on the normalised output (a buffer, saved with the weights).
        logit_scale_max: upper bound of that factor.
        stem_norm_eps: of the norm after the patch convolution; blocks and head use `layer_norm_eps`.
    """

    model_type = "imagebind_audio"
    base_config_key = "audio_config"

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_mel_bins: int = 128
    num_frames: int = 204
    kernel_size: int = 16
    stride: int = 10
    embed_dim: int = 1024
    logit_scale_init: float = 2.995732273553991
    logit_scale_max: float = 100.0
    stem_norm_eps: float = 1e-5
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Patches along mel bins and along time."""
        return tuple((size - self.kernel_size) // self.stride + 1 for size in (self.num_mel_bins, self.num_frames))


@strict
class AffectGPTConfig(PreTrainedConfig):
    """
    Args:
        vision_config: of the frame encoder (`Blip2VisionConfig`: EVA-CLIP ViT-g/14).
        image_qformer_config: of the Q-Former that summarises one frame (`Blip2QFormerConfig`).
        audio_config: of the sound encoder; its output is one vector per sound clip.
        video_resampler_config: of the Q-Former over the frames' tokens; its `encoder_hidden_size` is the image Q-Former's width.
        audio_resampler_config: of the Q-Former over the sound clips; its `encoder_hidden_size` is the audio tower's output width.
        text_config: of the language model.
        num_image_query_tokens: tokens of one frame.
        num_video_query_tokens, num_audio_query_tokens: placeholders that a clip takes in the prompt.
        max_frames, max_audio_clips: rows of the learned time positions.
        video_token_id, audio_token_id: ids of `<ImageHere>` and `<AudioHere>`; they may lie past the embedding matrix.
        vision_norm_eps: of the vision tower's last norm, which differs from the tower's others (blip2.LayerNorm: 1e-5).
        drawings_only: the weights were trained on EMER-Sketch drawings and say nothing about people.
    """

    model_type = "affectgpt"
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(AutoConfig, model_type="blip_2_vision_model"),
        # Reference: what is frozen stays in evaluation mode while the resamplers train; here it has no dropout to begin with.
        "image_qformer_config": SubConfigSpec(
            AutoConfig,
            model_type="blip_2_qformer",
            init_kwargs={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        ),
        "audio_config": SubConfigSpec(AutoConfig, model_type="imagebind_audio"),
        "video_resampler_config": SubConfigSpec(
            AutoConfig,
            model_type="blip_2_qformer",
            init_kwargs={"num_hidden_layers": 2, "cross_attention_frequency": 1, "encoder_hidden_size": 768},
        ),
        "audio_resampler_config": SubConfigSpec(
            AutoConfig,
            model_type="blip_2_qformer",
            init_kwargs={"num_hidden_layers": 2, "cross_attention_frequency": 1, "encoder_hidden_size": 1024},
        ),
        "text_config": SubConfigSpec(AutoConfig, model_type="llama"),
    }

    vision_config: dict | PreTrainedConfig | None = None
    image_qformer_config: dict | PreTrainedConfig | None = None
    audio_config: dict | PreTrainedConfig | None = None
    video_resampler_config: dict | PreTrainedConfig | None = None
    audio_resampler_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    num_image_query_tokens: int = 32
    num_video_query_tokens: int = 32
    num_audio_query_tokens: int = 8
    max_frames: int = 32
    max_audio_clips: int = 8
    video_token_id: int = 32000
    audio_token_id: int = 32001
    vision_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    drawings_only: bool = False

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        widths = {
            "image_qformer_config": ("vision_config", self.vision_config.hidden_size),
            "video_resampler_config": ("image_qformer_config", self.image_qformer_config.hidden_size),
            "audio_resampler_config": ("audio_config", self.audio_config.embed_dim),
        }
        for name, (source, width) in widths.items():
            expected = getattr(self, name).encoder_hidden_size
            if expected != width:
                raise ValueError(
                    f"Expected `{name}.encoder_hidden_size` to be the width of what `{source}` gives, {width}, got {expected}. "
                    "Give sub-configurations whole: a partial dict is filled up with the class's own defaults."
                )


AutoConfig.register("imagebind_audio", ImageBindAudioConfig, exist_ok=True)
AutoConfig.register("affectgpt", AffectGPTConfig, exist_ok=True)
