"""The audio trunk of ImageBind as a `transformers` model: log-mels of a sound clip -> one vector.

Architecture of "ImageBind: One Embedding Space To Bind Them All" (arXiv 2305.05665), as Video-LLaMA uses it: a pre-norm vision
transformer over overlapping mel patches, whose attention has one learned extra key and value, and a head that gives a vector of
fixed length. transformers has no class for it. The reference's traits are marked `# Reference:`.
"""

from collections.abc import Callable

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.output_capturing import capture_outputs

from .configuration_affectgpt import ImageBindAudioConfig


class ImageBindAudioEmbeddings(nn.Module):
    """Mel patches, a class token before them, and learned positions: `(N, mel bins, frames)` -> `(N, 1 + patches, D)`."""

    def __init__(self, config: ImageBindAudioConfig):
        super().__init__()
        rows, columns = config.patch_grid
        self.patch_embedding = nn.Conv2d(1, config.hidden_size, kernel_size=config.kernel_size, stride=config.stride, bias=False)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.stem_norm_eps)
        self.class_embedding = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embedding = nn.Parameter(torch.zeros(1, 1 + rows * columns, config.hidden_size))

    def forward(self, input_features: torch.Tensor) -> torch.Tensor:
        patches = self.patch_embedding(input_features[:, None]).flatten(2).transpose(1, 2)
        # Reference: the norm is on the patches only, before class token and positions.
        patches = self.norm(patches)
        tokens = torch.cat([self.class_embedding.expand(len(patches), -1, -1), patches], dim=1)
        return tokens + self.position_embedding


def eager_attention_forward(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class ImageBindAudioAttention(nn.Module):
    """Self-attention with one learned key and value (`bias_k`, `bias_v`) beside those of the tokens."""

    def __init__(self, config: ImageBindAudioConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.bias_k = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.bias_v = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.projection = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        num_clips = len(hidden_states)
        query, key, value = self.qkv(hidden_states).chunk(3, dim=-1)
        # Reference: appended after the projection, so they carry no projection bias (`nn.MultiheadAttention(add_bias_kv=True)`).
        key = torch.cat([key, self.bias_k.expand(num_clips, -1, -1)], dim=1)
        value = torch.cat([value, self.bias_v.expand(num_clips, -1, -1)], dim=1)
        query, key, value = (states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for states in (query, key, value))

        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        output, weights = attention(self, query, key, value, attention_mask=None, scaling=self.scaling, **kwargs)
        return self.projection(output.flatten(2)), weights


class ImageBindAudioMLP(nn.Module):
    def __init__(self, config: ImageBindAudioConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(hidden_states)))


class ImageBindAudioLayer(GradientCheckpointingLayer):
    def __init__(self, config: ImageBindAudioConfig):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = ImageBindAudioAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = ImageBindAudioMLP(config)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        hidden_states = hidden_states + self.self_attn(self.layer_norm1(hidden_states), **kwargs)[0]
        return hidden_states + self.mlp(self.layer_norm2(hidden_states))


class ImageBindAudioPreTrainedModel(PreTrainedModel):
    config: ImageBindAudioConfig
    base_model_prefix = "audio_tower"
    main_input_name = "input_features"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["ImageBindAudioEmbeddings", "ImageBindAudioLayer"]
    _supports_sdpa = True
    _supports_attention_backend = True
    # The logarithm of a factor: in bfloat16, exp(log 20) would be 19.8.
    _keep_in_fp32_modules_strict = ["log_logit_scale"]
    _can_record_outputs = {"hidden_states": ImageBindAudioLayer, "attentions": ImageBindAudioAttention}

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, ImageBindAudioEmbeddings):
            init.normal_(module.class_embedding, mean=0.0, std=std)
            init.normal_(module.position_embedding, mean=0.0, std=std)
        elif isinstance(module, ImageBindAudioAttention):
            init.normal_(module.bias_k, mean=0.0, std=std)
            init.normal_(module.bias_v, mean=0.0, std=std)
        elif isinstance(module, ImageBindAudioModel):
            init.constant_(module.log_logit_scale, self.config.logit_scale_init)


class ImageBindAudioModel(ImageBindAudioPreTrainedModel):
    """ImageBind's audio trunk, head and logit scale."""

    def __init__(self, config: ImageBindAudioConfig):
        super().__init__(config)
        self.embeddings = ImageBindAudioEmbeddings(config)
        self.layers = nn.ModuleList([ImageBindAudioLayer(config) for _ in range(config.num_hidden_layers)])
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.hidden_size, config.embed_dim, bias=False)
        # Reference: not learned for audio, so a buffer; its value belongs to the checkpoint.
        self.register_buffer("log_logit_scale", torch.tensor(config.logit_scale_init))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embedding

    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, input_features: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BaseModelOutputWithPooling:
        """
        Args:
            input_features (`torch.Tensor` of shape `(N, C, mel bins, frames)` or `(N, mel bins, frames)`): normalised log-mels of C
                sound clips per row, as [`ImageBindAudioFeatureExtractor`] makes them.

        Returns:
            `pooler_output`, one vector per clip: `(N, C, embed_dim)` or `(N, embed_dim)`, of the length that the logit scale gives;
            `last_hidden_state`, the trunk's tokens before the head: `(N, C, 1 + patches, D)` or `(N, 1 + patches, D)`.

        Raises:
            ValueError: if the mels are not of the configured size.
        """
        size = (self.config.num_mel_bins, self.config.num_frames)
        if input_features.ndim not in (3, 4) or tuple(input_features.shape[-2:]) != size:
            raise ValueError(
                f"Expected `input_features` of shape (N, C, *{size}) or (N, *{size}), got {tuple(input_features.shape)}. Make them "
                "with the feature extractor that was saved with this model."
            )
        leading = input_features.shape[:-2]
        hidden_states = self.embeddings(input_features.reshape(-1, *size))
        for layer in self.layers:
            hidden_states = layer(hidden_states, **kwargs)
        # Only the class token is read, so only it is normalised (the norm works on each token for itself).
        pooled = nn.functional.normalize(self.projection(self.layernorm(hidden_states[:, 0])), dim=-1)
        pooled = pooled * self.log_logit_scale.exp().clamp(max=self.config.logit_scale_max).to(pooled.dtype)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states.unflatten(0, leading), pooler_output=pooled.unflatten(0, leading)
        )
