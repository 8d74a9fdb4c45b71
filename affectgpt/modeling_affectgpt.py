"""AffectGPT: a language model that explains a person's emotion from frames, voice and words.

Architecture of "AffectGPT: Dataset and Framework for Explainable Multimodal Emotion Recognition" (arXiv 2407.07653), which is
Video-LLaMA's two branches:

    frames -> vision tower -> image Q-Former, per frame -> + time positions -> video Q-Former -> projection --+
                                                                                                             +-> language model
    sound  -> audio tower, one vector per 2 s clip      -> + time positions -> audio Q-Former -> projection --+

Vision tower, Q-Formers and language model are transformers' own; what the authors' code does differently is marked `# Reference:`.
Shapes: B rows of a batch, V of them with video, A with audio, T frames, C sound clips, Q query tokens, S sequence, H language
width.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModel, Blip2QFormerModel, Blip2VisionModel, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple

from .configuration_affectgpt import AffectGPTConfig
from .modeling_imagebind_audio import ImageBindAudioModel

# Towers that transformers' AutoModel does not build.
TOWERS = {"blip_2_vision_model": Blip2VisionModel, "imagebind_audio": ImageBindAudioModel}


def build_tower(config) -> PreTrainedModel:
    return TOWERS[config.model_type](config) if config.model_type in TOWERS else AutoModel.from_config(config)


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


class AffectGPTPreTrainedModel(PreTrainedModel):
    config: AffectGPTConfig
    base_model_prefix = "model"
    input_modalities = ("video", "audio", "text")
    supports_gradient_checkpointing = True
    # They are what trains, and a step of 3e-5 is lost in a bfloat16 weight.
    _keep_in_fp32_modules_strict = ["video_resampler", "audio_resampler"]
    _no_split_modules = ["AffectGPTImageQFormer", "AffectGPTResampler"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, (AffectGPTImageQFormer, AffectGPTResampler)):
            init.normal_(module.query_tokens, mean=0.0, std=self.config.initializer_range)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, output_loading_info: bool = False, **kwargs):
        """As in transformers, but strict: weights that are missing, unexpected or of another shape are an error.

        Raises:
            ValueError: lists every key that does not fit.
        """
        kwargs["ignore_mismatched_sizes"] = True  # so that they come back here and are listed with the others
        model, info = super().from_pretrained(pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs)
        problems = [
            f"{len(info[kind])} {kind.removesuffix('_keys')}: {', '.join(sorted(str(key) for key in info[kind]))}"
            for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
            if info[kind]
        ]
        if problems:
            raise ValueError(
                f"Expected the weights of {pretrained_model_name_or_path} to fit {cls.__name__} exactly, got "
                f"{'; '.join(problems)}. Use the configuration that was saved with the weights, or convert the checkpoint first."
            )
        return (model, info) if output_loading_info else model


@dataclass
class AffectGPTModelOutputWithPast(BaseModelOutputWithPast):
    """
    Args:
        video_hidden_states (`torch.Tensor` of shape `(V, Q, H)`, *optional*): projected video tokens.
        audio_hidden_states (`torch.Tensor` of shape `(A, Q, H)`, *optional*): projected audio tokens.
    """

    video_hidden_states: torch.Tensor | None = None
    audio_hidden_states: torch.Tensor | None = None


@dataclass
class AffectGPTCausalLMOutputWithPast(CausalLMOutputWithPast):
    """`CausalLMOutputWithPast` and the projected tokens of [`AffectGPTModelOutputWithPast`]."""

    video_hidden_states: torch.Tensor | None = None
    audio_hidden_states: torch.Tensor | None = None


class AffectGPTModel(AffectGPTPreTrainedModel):
    """Encoders, resamplers and language model, without the language-modelling head."""

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]

    def __init__(self, config: AffectGPTConfig):
        super().__init__(config)
        self.vision_tower = build_tower(config.vision_config)
        if isinstance(self.vision_tower, Blip2VisionModel):
            # Reference: the last norm is blip2.LayerNorm with torch's default eps, unlike the norms of the blocks.
            self.vision_tower.post_layernorm.eps = config.vision_norm_eps
        self.image_qformer = AffectGPTImageQFormer(config)
        hidden_size = config.text_config.hidden_size
        self.video_resampler = AffectGPTResampler(
            config.video_resampler_config, config.num_video_query_tokens, config.max_frames, hidden_size
        )
        self.audio_tower = build_tower(config.audio_config)
        self.audio_resampler = AffectGPTResampler(
            config.audio_resampler_config, config.num_audio_query_tokens, config.max_audio_clips, hidden_size
        )
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def encode_frames(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """What is frozen of the video branch: `(V, T, 3, height, width)` -> `(V, T, num_image_query_tokens, D)`."""
        num_videos, num_frames = pixel_values_videos.shape[:2]
        pixel_values = pixel_values_videos.flatten(0, 1).to(self.vision_tower.dtype)
        frame_features = self.vision_tower(pixel_values).last_hidden_state
        return self.image_qformer(frame_features).unflatten(0, (num_videos, num_frames))

    def encode_sound(self, input_features: torch.Tensor) -> torch.Tensor:
        """What is frozen of the audio branch: `(A, C, mel bins, mel frames)` -> `(A, C, D)`."""
        return self.audio_tower(input_features.to(self.audio_tower.dtype)).pooler_output

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        video_features: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """
        Args:
            pixel_values_videos (`torch.Tensor` of shape `(V, T, 3, height, width)`): normalised frames.
            video_features (`torch.Tensor` of shape `(V, T, num_image_query_tokens, D)`): `encode_frames`' output, in their place.

        Returns:
            `last_hidden_state`: the frames' features, `(V, T, num_image_query_tokens, D)`; `pooler_output`: the video's tokens as
            language-model embeddings, `(V, Q, H)`.
        """
        if video_features is None:
            video_features = self.encode_frames(pixel_values_videos)
        return BaseModelOutputWithPooling(last_hidden_state=video_features, pooler_output=self.video_resampler(video_features))

    @can_return_tuple
    def get_audio_features(
        self,
        input_features: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """
        Args:
            input_features (`torch.Tensor` of shape `(A, C, mel bins, mel frames)`): normalised log-mels of the sound clips.
            audio_features (`torch.Tensor` of shape `(A, C, D)`): `encode_sound`'s output, in their place.

        Returns:
            `last_hidden_state`: the clips' features, `(A, C, D)`; `pooler_output`: the sound's tokens, `(A, Q, H)`.
        """
        if audio_features is None:
            audio_features = self.encode_sound(input_features)
        pooled = self.audio_resampler(audio_features[:, :, None])
        return BaseModelOutputWithPooling(last_hidden_state=audio_features, pooler_output=pooled)

    def get_placeholder_mask(
        self, input_ids: torch.LongTensor, token_id: int, features: torch.Tensor | None, name: str
    ) -> torch.Tensor:
        """Where `features` of shape `(N, Q, H)` go: the mask `(B, S)` of `token_id` in `input_ids`.

        Raises:
            ValueError: unless the rows that hold placeholders are as many as `features` and hold `Q` of them each.
        """
        mask = input_ids == token_id
        counts = mask.sum(dim=1)
        counts = counts[counts > 0].tolist()
        num_rows, num_tokens = (0, 0) if features is None else features.shape[:2]
        if counts != [num_tokens] * num_rows:
            raise ValueError(
                f"Expected {num_tokens} {name} placeholders (id {token_id}) in each of {num_rows} rows of `input_ids`, one row per "
                f"{name} given, got rows with {counts}. Build the prompt with the processor that was saved with this model."
            )
        return mask

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        video_features: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AffectGPTModelOutputWithPast:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(B, S)`): prompt with `Q` placeholders per medium in each row that has it.
            pixel_values_videos (`torch.Tensor` of shape `(V, T, 3, height, width)`): of the rows with video, in their order.
            input_features (`torch.Tensor` of shape `(A, C, mel bins, mel frames)`): of the rows with sound, in their order.
            video_features, audio_features: outputs of the frozen encoders, in place of the media (`get_video_features`).
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Expected exactly one of `input_ids` and `inputs_embeds`, got both or neither.")
        has_video = pixel_values_videos is not None or video_features is not None
        has_audio = input_features is not None or audio_features is not None
        if input_ids is None and (has_video or has_audio):
            raise ValueError("Expected `input_ids` beside media, to see where they belong, got `inputs_embeds`. Pass `input_ids`.")

        if inputs_embeds is None:
            # Reference: the placeholders' ids do not exist in the embedding matrix; 0 stands in until features overwrite them.
            is_placeholder = (input_ids == self.config.video_token_id) | (input_ids == self.config.audio_token_id)
            inputs_embeds = self.get_input_embeddings()(input_ids.masked_fill(is_placeholder, 0))

        video_tokens = audio_tokens = None
        if has_video:
            video_tokens = self.get_video_features(pixel_values_videos, video_features, return_dict=True).pooler_output
        if has_audio:
            audio_tokens = self.get_audio_features(input_features, audio_features, return_dict=True).pooler_output
        is_first_step = past_key_values is None or past_key_values.get_seq_length() == 0
        for name, token_id, tokens in (
            ("video", self.config.video_token_id, video_tokens),
            ("audio", self.config.audio_token_id, audio_tokens),
        ):
            if tokens is not None or (is_first_step and input_ids is not None):
                mask = self.get_placeholder_mask(input_ids, token_id, tokens, name)
                if tokens is not None:
                    inputs_embeds = inputs_embeds.masked_scatter(mask[..., None], tokens.to(inputs_embeds))

        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2 and is_first_step:
            # Positions count from the first real token, so that left and right padding agree. Reference: a masked token inside the
            # text still counts (an end-of-text token within an answer).
            num_left_padding = attention_mask.long().argmax(dim=1, keepdim=True)
            position_ids = (torch.arange(attention_mask.shape[1], device=attention_mask.device) - num_left_padding).clamp(min=0)

        outputs: BaseModelOutputWithPast = self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        return AffectGPTModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            video_hidden_states=video_tokens,
            audio_hidden_states=audio_tokens,
        )


class AffectGPTForConditionalGeneration(AffectGPTPreTrainedModel, GenerationMixin):
    """AffectGPT with its language-modelling head: what is trained, and what explains."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config: AffectGPTConfig):
        super().__init__(config)
        self.model = AffectGPTModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_video_features(self, *args, **kwargs):
        return self.model.get_video_features(*args, **kwargs)

    def get_audio_features(self, *args, **kwargs):
        return self.model.get_audio_features(*args, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        video_features: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AffectGPTCausalLMOutputWithPast:
        """
        Args:
            labels (`torch.LongTensor` of shape `(B, S)`): `input_ids` where the answer stands, -100 elsewhere. The loss is the mean
                over all answer tokens of the batch.

        The other arguments are those of [`AffectGPTModel`].
        """
        outputs = self.model(
            input_ids=input_ids,
            pixel_values_videos=pixel_values_videos,
            input_features=input_features,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            video_features=video_features,
            audio_features=audio_features,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs)
        return AffectGPTCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            video_hidden_states=outputs.video_hidden_states,
            audio_hidden_states=outputs.audio_hidden_states,
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        next_sequence_length: int | None = None,
        past_key_values: Cache | None = None,
        attention_mask: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs,
    ) -> dict:
        if not is_first_iteration and kwargs.get("use_cache", True):
            # transformers drops `pixel_values_videos` and `input_features` by name after the first step; these are ours.
            kwargs["video_features"] = kwargs["audio_features"] = None
        return super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
