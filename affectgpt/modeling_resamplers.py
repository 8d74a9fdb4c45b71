"""What stands between AffectGPT's frozen encoders and its language model: Q-Formers, pooling, fusion. All that trains is here.

Shapes: N clips, T time steps, C sound clips, Q query tokens, D feature width, H language width.
"""

import torch
from torch import nn
from transformers import Blip2QFormerModel

from .configuration_affectgpt import AffectGPTConfig, AffectGPTPoolingConfig


class AffectGPTImageQFormer(nn.Module):
    """Summarise the tokens of one frame as `num_image_query_tokens` (BLIP-2's first stage)."""

    def __init__(self, config: AffectGPTConfig):
        super().__init__()
        width = config.image_qformer_config.hidden_size
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_image_query_tokens, width))
        self.qformer = Blip2QFormerModel(config.image_qformer_config)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`features` of shape `(frames, tokens, vision width)` -> `(frames, num_image_query_tokens, width)`."""
        queries = self.query_tokens.expand(len(features), -1, -1)
        return self.qformer(query_embeds=queries, encoder_hidden_states=features).last_hidden_state


class AffectGPTResampler(nn.Module):
    """Summarise a sequence of time steps as language-model embeddings: positions in time, a Q-Former, a projection.

    Source: Video-LLaMA `models/video_llama.py`, `encode_videoQformer_visual` and `encode_audioQformer`, commit 64888c0.
    """

    def __init__(self, qformer_config, num_query_tokens: int, max_time_steps: int, output_size: int):
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, num_query_tokens, qformer_config.hidden_size))
        self.position_embedding = nn.Embedding(max_time_steps, qformer_config.encoder_hidden_size)
        self.qformer = Blip2QFormerModel(qformer_config)
        self.projection = nn.Linear(qformer_config.hidden_size, output_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """
        Args:
            features (`torch.Tensor` of shape `(N, T, tokens, D)`): encoder output, `tokens` rows per time step.

        Returns:
            `torch.Tensor` of shape `(N, Q, H)`.

        Raises:
            ValueError: if `T` exceeds the learned time positions.
        """
        num_steps = features.shape[1]
        if num_steps > self.position_embedding.num_embeddings:
            raise ValueError(
                f"Expected at most {self.position_embedding.num_embeddings} time steps (`max_frames`, `max_audio_clips`), got "
                f"{num_steps}. Sample fewer frames or sound clips."
            )
        # The resamplers stay in float32 (see `_keep_in_fp32_modules_strict`) whatever the towers' dtype is.
        features = features.to(self.query_tokens.dtype) + self.position_embedding.weight[:num_steps, None]
        queries = self.query_tokens.expand(len(features), -1, -1)
        hidden = self.qformer(query_embeds=queries, encoder_hidden_states=features.flatten(1, 2)).last_hidden_state
        return self.projection(hidden)


class AffectGPTPooling(nn.Module):
    """Summarise a sequence of time steps as one language-model embedding: a weighted sum or a mean, and a projection.

    Source: the authors' `my_affectgpt/models/affectgpt.py`, `encode_{video,audio}_{attention,mean}` and `encode_image_mean`, commit
    d961cab.
    """

    def __init__(self, config: AffectGPTPoolingConfig, num_query_tokens: int, output_size: int):
        super().__init__()
        self.num_query_tokens = num_query_tokens
        self.score = nn.Linear(config.encoder_hidden_size, 1) if config.has_scores else None
        self.projection = nn.Linear(config.encoder_hidden_size, output_size)

    def pool(self, features: torch.Tensor) -> torch.Tensor:
        """`(N, T, D)` -> `(N, D)`."""
        if self.score is None:
            return features.mean(dim=1)
        # Reference: the scores are not normalised by a softmax; released weights were trained like this.
        return (self.score(features) * features).sum(dim=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`features` of shape `(N, T, tokens, D)` -> `(N, Q, H)`: one embedding, `Q` times."""
        pooled = self.pool(features.flatten(1, 2).to(self.projection.weight.dtype))
        return self.projection(pooled)[:, None].expand(-1, self.num_query_tokens, -1)


def is_pooling(config) -> bool:
    # By name: as custom code, transformers may load the module of the configurations twice, and its classes are two then.
    return config.model_type == AffectGPTPoolingConfig.model_type


def build_resampler(config, num_query_tokens: int, max_time_steps: int, output_size: int) -> AffectGPTResampler | AffectGPTPooling:
    if is_pooling(config):
        return AffectGPTPooling(config, num_query_tokens, output_size)
    return AffectGPTResampler(config, num_query_tokens, max_time_steps, output_size)


class AffectGPTFusion(nn.Module):
    """Merge picture and sound into language-model embeddings before the language model sees either.

    Both are brought to one width. With an [`AffectGPTPoolingConfig`] their means over time are added with two weights that depend
    on both; otherwise a Q-Former reads the steps of the picture, then those of the sound.

    Source: the authors' `my_affectgpt/models/affectgpt.py`, `encode_multi_{attention,qformer}`, commit d961cab.
    """

    def __init__(self, config: AffectGPTConfig):
        super().__init__()
        width, output_size = config.prefusion_config.encoder_hidden_size, config.text_config.hidden_size
        self.num_query_tokens = config.num_fusion_query_tokens
        self.video_projection = nn.Linear(config.frame_width, width)
        self.audio_projection = nn.Linear(config.sound_width, width)
        self.resampler = None
        if is_pooling(config.prefusion_config):
            self.attention_hidden = nn.Linear(2 * width, width)
            self.attention_score = nn.Linear(width, 2)
            self.projection = nn.Linear(width, output_size)
        else:
            self.resampler = AffectGPTResampler(
                config.prefusion_config, config.num_fusion_query_tokens, config.max_fusion_steps, output_size
            )

    def forward(self, video_features: torch.Tensor, audio_features: torch.Tensor) -> torch.Tensor:
        """`(N, T, tokens, D)` and `(N, C, D)` -> `(N, Q, H)`."""
        video = self.video_projection(video_features.flatten(1, 2).to(self.video_projection.weight.dtype))
        audio = self.audio_projection(audio_features.to(self.audio_projection.weight.dtype))
        if self.resampler is not None:
            return self.resampler(torch.cat([video, audio], dim=1)[:, :, None])
        video, audio = video.mean(dim=1), audio.mean(dim=1)
        # Reference: no activation between the two layers, and no softmax over the two weights.
        weights = self.attention_score(self.attention_hidden(torch.cat([video, audio], dim=-1)))
        fused = weights[:, :1] * video + weights[:, 1:] * audio
        return self.projection(fused)[:, None].expand(-1, self.num_query_tokens, -1)
