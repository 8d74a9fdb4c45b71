"""Configurations of AffectGPT, of its pooling, and of its ImageBind audio tower.

The defaults are the paper's sizes (arXiv 2407.07653): EVA-CLIP ViT-g/14, BLIP-2's Q-Former, ImageBind-huge's audio trunk, LLaMA-7B.
The authors' 2025 model is CLIP, HuBERT and Qwen2.5 with [`AffectGPTPoolingConfig`] in place of the Q-Formers, and a fusion.
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
class AffectGPTPoolingConfig(PreTrainedConfig):
    """Weighted sum of time steps, in the place of a Q-Former: the 2025 model's resampler.

    Args:
        encoder_hidden_size: width of the features that are pooled.
        has_scores: each step is weighed by a learned linear score of it; without, the mean over the steps is taken.
    """

    model_type = "affectgpt_pooling"

    encoder_hidden_size: int = 768
    has_scores: bool = True


@strict
class AffectGPTConfig(PreTrainedConfig):
    """
    Args:
        vision_config: of the frame encoder (`Blip2VisionConfig`: EVA-CLIP ViT-g/14). Any vision encoder of transformers will do.
        image_qformer_config: of the Q-Former that summarises one frame (`Blip2QFormerConfig`). `None`: a frame is one vector, the
            tower's projected or pooled output; that is the default for all but BLIP-2's vision tower.
        audio_config: of the sound encoder. Its output is one vector per sound clip: ImageBind's embedding, or of any other encoder
            the mean over time of the mean of its last `num_audio_layers` layers.
        video_resampler_config: of what summarises the frames, a Q-Former (`Blip2QFormerConfig`) or an [`AffectGPTPoolingConfig`];
            its `encoder_hidden_size` is the width of a frame's features. Face crops share it with whole frames.
        audio_resampler_config: of what summarises the sound clips; its `encoder_hidden_size` is the width of a clip's vector.
        image_resampler_config: of what takes a still picture (an [`AffectGPTPoolingConfig`]); `None` where there are none.
        prefusion_config: of what merges picture and sound before the language model, by weights (an [`AffectGPTPoolingConfig`]) or
            a Q-Former; its `encoder_hidden_size` is the width that both are brought to. `None`: nothing does.
        text_config: of the language model.
        num_image_query_tokens: tokens of one frame (the image Q-Former's), or placeholders of a still picture (2025).
        num_video_query_tokens, num_audio_query_tokens, num_fusion_query_tokens: placeholders that a clip takes in the prompt.
        max_frames, max_audio_clips, max_fusion_steps: rows of the learned time positions of the Q-Formers.
        num_audio_layers: last layers of a sound encoder that are averaged; ImageBind's own head does without.
        video_token_id, audio_token_id: ids of the frames' and the sound's placeholders; they may lie past the embedding matrix.
        face_token_id, fusion_token_id, image_token_id: likewise; `None` where a model has no such input.
        vision_norm_eps: of the BLIP-2 vision tower's last norm, which differs from the tower's others (blip2.LayerNorm: 1e-5).
        parts: of a checkpoint in parts, where each frozen part comes from (`affectgpt.parts`); `None` where all is in one place.
        drawings_only: the weights were trained on EMER-Sketch drawings and say nothing about people.
    """

    model_type = "affectgpt"
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(AutoConfig, model_type="blip_2_vision_model"),
        "image_qformer_config": SubConfigSpec(AutoConfig, model_type="blip_2_qformer", optional=True),
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
        "image_resampler_config": SubConfigSpec(AutoConfig, model_type="affectgpt_pooling", optional=True),
        "prefusion_config": SubConfigSpec(AutoConfig, model_type="affectgpt_pooling", optional=True),
        "text_config": SubConfigSpec(AutoConfig, model_type="llama"),
    }

    vision_config: dict | PreTrainedConfig | None = None
    image_qformer_config: dict | PreTrainedConfig | None = None
    audio_config: dict | PreTrainedConfig | None = None
    video_resampler_config: dict | PreTrainedConfig | None = None
    audio_resampler_config: dict | PreTrainedConfig | None = None
    image_resampler_config: dict | PreTrainedConfig | None = None
    prefusion_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    num_image_query_tokens: int = 32
    num_video_query_tokens: int = 32
    num_audio_query_tokens: int = 8
    num_fusion_query_tokens: int = 1
    max_frames: int = 32
    max_audio_clips: int = 8
    max_fusion_steps: int = 264
    num_audio_layers: int = 4
    video_token_id: int = 32000
    audio_token_id: int = 32001
    face_token_id: int | None = None
    fusion_token_id: int | None = None
    image_token_id: int | None = None
    vision_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    parts: dict | None = None
    drawings_only: bool = False

    def __post_init__(self, **kwargs):
        vision = self.vision_config or {}
        vision_type = vision.get("model_type") if isinstance(vision, dict) else vision.model_type
        if self.image_qformer_config is None and vision_type in (None, "blip_2_vision_model"):
            # Reference: what is frozen stays in evaluation mode while the resamplers train; here it has no dropout to begin with.
            self.image_qformer_config = {
                "model_type": "blip_2_qformer",
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
            }
        super().__post_init__(**kwargs)
        widths = {
            "image_qformer_config": ("vision_config", self.vision_config.hidden_size),
            "video_resampler_config": ("image_qformer_config" if self.image_qformer_config else "vision_config", self.frame_width),
            "image_resampler_config": ("vision_config", self.frame_width),
            "audio_resampler_config": ("audio_config", self.sound_width),
        }
        for name, (source, width) in widths.items():
            if getattr(self, name) is None:
                continue
            expected = getattr(self, name).encoder_hidden_size
            if expected != width:
                raise ValueError(
                    f"Expected `{name}.encoder_hidden_size` to be the width of what `{source}` gives, {width}, got {expected}. "
                    "Give sub-configurations whole: a partial dict is filled up with the class's own defaults."
                )

    @property
    def frame_width(self) -> int:
        """Width of the features of one frame."""
        if self.image_qformer_config is not None:
            return self.image_qformer_config.hidden_size
        # CLIP's tower is built with its projection.
        is_clip = self.vision_config.model_type == "clip_vision_model"
        return self.vision_config.projection_dim if is_clip else self.vision_config.hidden_size

    @property
    def sound_width(self) -> int:
        """Width of the vector of one sound clip."""
        return self.audio_config.embed_dim if self.audio_config.model_type == "imagebind_audio" else self.audio_config.hidden_size


AutoConfig.register("imagebind_audio", ImageBindAudioConfig, exist_ok=True)
AutoConfig.register("affectgpt_pooling", AffectGPTPoolingConfig, exist_ok=True)
AutoConfig.register("affectgpt", AffectGPTConfig, exist_ok=True)
