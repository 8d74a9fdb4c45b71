"""AffectGPT: a language model that explains a person's emotion from frames, faces, voice and words.

Two generations in one class. The model of "AffectGPT: Dataset and Framework for Explainable Multimodal Emotion Recognition"
(arXiv 2407.07653), which is Video-LLaMA's two branches:

    frames -> vision tower -> image Q-Former, per frame -> + time positions -> video Q-Former -> projection --+
                                                                                                             +-> language model
    sound  -> audio tower, one vector per 2 s clip      -> + time positions -> audio Q-Former -> projection --+

and the authors' 2025 model, where one vector per frame or face crop and per sound clip is pooled (or read by a Q-Former), and a
fusion of both goes to the language model beside them:

    faces or frames -> CLIP   -> pooling -> projection --+
                          +----> fusion  -> projection --+-> language model with LoRA
    sound           -> HuBERT -> pooling -> projection --+

Towers, Q-Formers and language model are transformers' own; what the authors' code does differently is marked `# Reference:`.
Shapes: B rows of a batch, V of them with frames, F with faces, A with sound, I with a picture, T frames, C sound clips, Q query
tokens, S sequence, D feature width, H language width.
"""

import copy
import os
from dataclasses import dataclass

import torch
from huggingface_hub import snapshot_download
from torch import nn
from transformers import AutoModel, Blip2VisionModel, CLIPVisionModelWithProjection, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.generation import GenerationConfig, GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple

from .configuration_affectgpt import AffectGPTConfig
from .modeling_imagebind_audio import ImageBindAudioModel
from .modeling_resamplers import AffectGPTFusion, AffectGPTImageQFormer, AffectGPTResampler, build_resampler
from .parts import assemble, prefixes

# Where the Auto classes find the model without its head in a saved checkpoint, which holds this file.
AUTO_MODEL = "modeling_affectgpt.AffectGPTModel"
DOWNLOAD_KWARGS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")

# Towers that transformers' AutoModel does not build, or builds without the projection that is meant here.
TOWERS = {
    "blip_2_vision_model": Blip2VisionModel,
    "clip_vision_model": CLIPVisionModelWithProjection,
    "imagebind_audio": ImageBindAudioModel,
}


def build_tower(config) -> PreTrainedModel:
    return TOWERS[config.model_type](config) if config.model_type in TOWERS else AutoModel.from_config(config)


class AffectGPTPreTrainedModel(PreTrainedModel):
    config: AffectGPTConfig
    base_model_prefix = "model"
    input_modalities = ("video", "audio", "text")
    supports_gradient_checkpointing = True
    # They are what trains, and a step of 3e-5 is lost in a bfloat16 weight.
    _keep_in_fp32_modules_strict = ["video_resampler", "audio_resampler", "image_resampler", "fusion"]
    _no_split_modules = ["AffectGPTImageQFormer", "AffectGPTResampler", "AffectGPTPooling", "AffectGPTFusion"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, (AffectGPTImageQFormer, AffectGPTResampler)):
            init.normal_(module.query_tokens, mean=0.0, std=self.config.initializer_range)

    def enable_input_require_grads(self) -> None:
        """As in transformers, for gradient checkpointing, but not of encoders, which would keep all activations for no gradient."""
        language_model = self.base_model.language_model
        language_model.enable_input_require_grads()
        self._require_grads_hooks = language_model._require_grads_hooks  # for `disable_input_require_grads`

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path, *model_args, output_loading_info: bool = False, merge_adapter: bool = True, **kwargs
    ):
        """As in transformers, but strict: weights that are missing, unexpected or of another shape are an error.

        A checkpoint in parts (`affectgpt.parts`) is put together: its frozen parts are fetched from where they live, and come
        without gradients. The LoRA adapter that it may hold is merged into the language model; with `merge_adapter=False` it is
        left out, for `peft` to load from its folder and train on.

        Raises:
            ValueError: lists every key that does not fit.
        """
        name, config = pretrained_model_name_or_path, kwargs.get("config")
        kwargs["ignore_mismatched_sizes"] = True  # so that they come back here and are listed with the others
        download_kwargs = {key: kwargs[key] for key in DOWNLOAD_KWARGS if kwargs.get(key) is not None}
        if name is not None and config is None:
            config = cls.config_class.from_pretrained(name, **download_kwargs)
        if name is None or not config.parts:
            model, info = super().from_pretrained(name, *model_args, output_loading_info=True, **kwargs)
        else:
            model, info = cls._assemble(name, merge_adapter, download_kwargs, *model_args, **kwargs)
        problems = [
            f"{len(info[kind])} {kind.removesuffix('_keys')}: {', '.join(sorted(str(key) for key in info[kind]))}"
            for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
            if info[kind]
        ]
        if problems:
            raise ValueError(
                f"Expected the weights of {name} to fit {cls.__name__} exactly, got {'; '.join(problems)}. Use the configuration "
                "that was saved with the weights, or convert the checkpoint first."
            )
        return (model, info) if output_loading_info else model

    @classmethod
    def _assemble(cls, name, adapter_is_merged: bool, download_kwargs: dict, *model_args, **kwargs):
        config = copy.deepcopy(kwargs.pop("config", None))
        if config is None:
            # The configuration would take a precision such as "auto" for its own.
            precision = {key: kwargs.pop(key) for key in ("dtype", "torch_dtype") if key in kwargs}
            config, kwargs = cls.config_class.from_pretrained(name, return_unused_kwargs=True, **kwargs)
            kwargs |= precision
        subfolder = download_kwargs.pop("subfolder", "")
        folder = name
        if not os.path.isdir(name):
            folder = snapshot_download(name, allow_patterns=["*.safetensors", "*.json"], **download_kwargs)
        folder = os.path.join(folder, subfolder)
        download_kwargs.pop("revision", None)  # the parts have their own
        weights, config.parts = assemble(folder, config.parts, adapter_is_merged=adapter_is_merged, **download_kwargs)
        kwargs = {key: value for key, value in kwargs.items() if key not in DOWNLOAD_KWARGS}
        model, info = super().from_pretrained(
            None, *model_args, config=config, state_dict=weights, output_loading_info=True, **kwargs
        )
        if model.can_generate() and os.path.isfile(os.path.join(folder, "generation_config.json")):
            model.generation_config = GenerationConfig.from_pretrained(folder)
        model.config.name_or_path = model.name_or_path = str(name)
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.startswith(prefixes(config.parts)):
                parameter.requires_grad_(False)
        return model, info

    def save_pretrained(self, save_directory, state_dict: dict[str, torch.Tensor] | None = None, **kwargs):
        """As in transformers. Of a model that came in parts only what can differ from its parts is saved, and where those are.

        A part counts as unchanged while none of its parameters has gradients; a part that was set to learn is saved whole.
        """
        if self.is_remote_code():  # transformers names the Auto class of the saved class alone, but without its head it loads, too
            self.config.auto_map = {**(getattr(self.config, "auto_map", None) or {}), "AutoModel": AUTO_MODEL}
        parts = self.config.parts
        if not parts:
            return super().save_pretrained(save_directory, state_dict=state_dict, **kwargs)
        learning = [name for name, parameter in self.named_parameters() if parameter.requires_grad]
        kept = {key: part for key, part in parts.items() if not any(name.startswith(prefixes([key])) for name in learning)}
        if self.base_model_prefix not in dict(self.named_children()):
            kept = {}  # the model without its head, whose names do not match those of the parts
        weights = self.state_dict() if state_dict is None else state_dict
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith(prefixes(kept))}
        try:
            self.config.parts = kept or None
            return super().save_pretrained(save_directory, state_dict=weights, **kwargs)
        finally:
            self.config.parts = parts


@dataclass
class AffectGPTModelOutputWithPast(BaseModelOutputWithPast):
    """
    Args:
        media_hidden_states (`dict[str, torch.Tensor]`, *optional*): projected tokens of shape `(N, Q, H)` of what was given among
            "video", "face", "audio", "image" and, where picture and sound are merged, "fusion".
    """

    media_hidden_states: dict[str, torch.Tensor] | None = None


@dataclass
class AffectGPTCausalLMOutputWithPast(CausalLMOutputWithPast):
    """`CausalLMOutputWithPast` and the projected tokens of [`AffectGPTModelOutputWithPast`]."""

    media_hidden_states: dict[str, torch.Tensor] | None = None


class AffectGPTModel(AffectGPTPreTrainedModel):
    """Encoders, resamplers and language model, without the language-modelling head."""

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]

    def __init__(self, config: AffectGPTConfig):
        super().__init__(config)
        self.vision_tower = build_tower(config.vision_config)
        if isinstance(self.vision_tower, Blip2VisionModel):
            # Reference: the last norm is blip2.LayerNorm with torch's default eps, unlike the norms of the blocks.
            self.vision_tower.post_layernorm.eps = config.vision_norm_eps
        self.image_qformer = AffectGPTImageQFormer(config) if config.image_qformer_config else None
        hidden_size = config.text_config.hidden_size
        self.video_resampler = build_resampler(
            config.video_resampler_config, config.num_video_query_tokens, config.max_frames, hidden_size
        )
        self.audio_tower = build_tower(config.audio_config)
        self.audio_resampler = build_resampler(
            config.audio_resampler_config, config.num_audio_query_tokens, config.max_audio_clips, hidden_size
        )
        self.image_resampler = None
        if config.image_resampler_config:
            self.image_resampler = build_resampler(config.image_resampler_config, config.num_image_query_tokens, 1, hidden_size)
        self.fusion = AffectGPTFusion(config) if config.prefusion_config else None
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def train(self, mode: bool = True) -> "AffectGPTModel":
        """As in PyTorch, but encoders that do not learn stay in evaluation mode.

        Reference: the authors' 2025 code trains with the dropout and masking of its frozen sound encoder switched on.
        """
        super().train(mode)
        for encoder in (self.vision_tower, self.image_qformer, self.audio_tower):
            if encoder is not None and not any(parameter.requires_grad for parameter in encoder.parameters()):
                encoder.eval()
        return self

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def encode_frames(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What is frozen of the picture's branch: `(N, T, 3, height, width)` -> `(N, T, tokens, D)`.

        `tokens` is `num_image_query_tokens` with an image Q-Former, else 1.
        """
        num_clips, num_frames = pixel_values.shape[:2]
        outputs = self.vision_tower(pixel_values.flatten(0, 1).to(self.vision_tower.dtype))
        if self.image_qformer is not None:
            features = self.image_qformer(outputs.last_hidden_state)
        elif isinstance(self.vision_tower, CLIPVisionModelWithProjection):
            # Reference: not normalised to unit length.
            features = outputs.image_embeds[:, None]
        else:
            features = outputs.pooler_output[:, None]
        return features.unflatten(0, (num_clips, num_frames))

    def encode_sound(self, sound: torch.Tensor) -> torch.Tensor:
        """What is frozen of the sound's branch: `(A, C, mel bins, mel frames)` or `(A, C, samples)` -> `(A, C, D)`."""
        sound = sound.to(self.audio_tower.dtype)
        if isinstance(self.audio_tower, ImageBindAudioModel):
            return self.audio_tower(sound).pooler_output
        num_sounds, num_clips = sound.shape[:2]
        outputs = self.audio_tower(sound.flatten(0, 1), output_hidden_states=True)
        # Reference: the last of the layers is taken after the encoder's final norm, those before it are not normalised.
        layers = [*outputs.hidden_states[:-1], outputs.last_hidden_state][-self.config.num_audio_layers :]
        return torch.stack(layers).mean(dim=0).mean(dim=1).unflatten(0, (num_sounds, num_clips))

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
            video_features (`torch.Tensor` of shape `(V, T, tokens, D)`): `encode_frames`' output, in their place.

        Returns:
            `last_hidden_state`: the frames' features, `(V, T, tokens, D)`; `pooler_output`: the video's tokens as language-model
            embeddings, `(V, Q, H)`.
        """
        if video_features is None:
            video_features = self.encode_frames(pixel_values_videos)
        return BaseModelOutputWithPooling(last_hidden_state=video_features, pooler_output=self.video_resampler(video_features))

    def get_face_features(
        self,
        pixel_values_faces: torch.Tensor | None = None,
        face_features: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """As `get_video_features`, of face crops `(F, T, 3, height, width)`: faces and frames share all weights."""
        return self.get_video_features(pixel_values_faces, face_features, **kwargs)

    @can_return_tuple
    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BaseModelOutputWithPooling:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(I, 3, height, width)`): normalised still pictures.

        Returns:
            `last_hidden_state`: `(I, 1, tokens, D)`; `pooler_output`: `(I, num_image_query_tokens, H)`.
        """
        features = self.encode_frames(pixel_values[:, None])
        return BaseModelOutputWithPooling(last_hidden_state=features, pooler_output=self.image_resampler(features))

    @can_return_tuple
    def get_audio_features(
        self,
        input_features: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """
        Args:
            input_features (`torch.Tensor` of shape `(A, C, mel bins, mel frames)`): normalised log-mels of the sound clips.
            input_values (`torch.Tensor` of shape `(A, C, samples)`): their normalised samples, for encoders that take those.
            audio_features (`torch.Tensor` of shape `(A, C, D)`): `encode_sound`'s output, in their place.

        Returns:
            `last_hidden_state`: the clips' features, `(A, C, D)`; `pooler_output`: the sound's tokens, `(A, Q, H)`.
        """
        if audio_features is None:
            audio_features = self.encode_sound(input_values if input_features is None else input_features)
        pooled = self.audio_resampler(audio_features[:, :, None])
        return BaseModelOutputWithPooling(last_hidden_state=audio_features, pooler_output=pooled)

    def get_fusion_features(
        self, video_features: torch.Tensor, audio_features: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPooling:
        """
        Args:
            video_features (`torch.Tensor` of shape `(N, T, tokens, D)`): `encode_frames`' output, of faces or frames.
            audio_features (`torch.Tensor` of shape `(N, C, D)`): `encode_sound`'s output.

        Returns:
            `pooler_output`: picture and sound merged, `(N, num_fusion_query_tokens, H)`.
        """
        return BaseModelOutputWithPooling(pooler_output=self.fusion(video_features, audio_features))

    def get_placeholder_mask(
        self, input_ids: torch.LongTensor, token_id: int | None, features: torch.Tensor | None, name: str
    ) -> torch.Tensor:
        """Where `features` of shape `(N, Q, H)` go: the mask `(B, S)` of `token_id` in `input_ids`.

        Raises:
            ValueError: unless the rows that hold placeholders are as many as `features` and hold `Q` of them each.
        """
        mask = self._is_placeholder(input_ids, token_id)
        counts = mask.sum(dim=1)
        counts = counts[counts > 0].tolist()
        num_rows, num_tokens = (0, 0) if features is None else features.shape[:2]
        if counts != [num_tokens] * num_rows:
            raise ValueError(
                f"Expected {num_tokens} {name} placeholders (id {token_id}) in each of {num_rows} rows of `input_ids`, one row per "
                f"{name} given, got rows with {counts}. Build the prompt with the processor that was saved with this model."
            )
        return mask

    @staticmethod
    def _is_placeholder(input_ids: torch.LongTensor, token_id: int | None) -> torch.Tensor:
        return torch.zeros_like(input_ids, dtype=torch.bool) if token_id is None else input_ids == token_id

    def _token_ids(self) -> dict[str, int | None]:
        names = ("video", "face", "audio", "image", "fusion")
        return {name: getattr(self.config, f"{name}_token_id") for name in names}

    def _fuse(self, input_ids: torch.LongTensor, media: dict[str, BaseModelOutputWithPooling]) -> torch.Tensor | None:
        """The merged tokens `(N, Q, H)` of the rows that have fusion placeholders; `None` if there are none.

        A row's faces are taken before its frames. Where a medium has no placeholder of its own in any row, the rows with fusion
        placeholders are its rows.
        """
        is_fused = self._is_placeholder(input_ids, self.config.fusion_token_id).any(dim=1)
        if not is_fused.any():
            return None
        visual = sound = None
        has_visual, has_sound = torch.zeros_like(is_fused), torch.zeros_like(is_fused)
        for name in ("video", "face", "audio"):
            if name not in media:
                continue
            features = media[name].last_hidden_state
            is_row = self._is_placeholder(input_ids, self._token_ids()[name]).any(dim=1)
            is_row = is_row if is_row.any() else is_fused
            if is_row.sum() != len(features):
                raise ValueError(
                    f"Expected {name} features of {int(is_row.sum())} rows, those with its or fusion's placeholders, got "
                    f"{len(features)}. Build the prompt with the processor that was saved with this model."
                )
            if name == "audio":
                sound = features.new_zeros(len(input_ids), *features.shape[1:])
                sound[is_row], has_sound = features, is_row
            else:
                if visual is None:
                    visual = features.new_zeros(len(input_ids), *features.shape[1:])
                visual[is_row], has_visual = features, has_visual | is_row
        if (is_fused & ~(has_visual & has_sound)).any():
            raise ValueError(
                "Expected faces or frames, and sound, in every row that has placeholders for their fusion (id "
                f"{self.config.fusion_token_id}), got rows without. Build the prompt with the processor saved with this model."
            )
        return self.get_fusion_features(visual[is_fused], sound[is_fused]).pooler_output

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        pixel_values_faces: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        video_features: torch.Tensor | None = None,
        face_features: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AffectGPTModelOutputWithPast:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(B, S)`): prompt with `Q` placeholders per medium in each row that has it.
            pixel_values_videos (`torch.Tensor` of shape `(V, T, 3, height, width)`): of the rows with frames, in their order.
            pixel_values_faces (`torch.Tensor` of shape `(F, T, 3, height, width)`): of the rows with face crops.
            pixel_values (`torch.Tensor` of shape `(I, 3, height, width)`): of the rows with a still picture.
            input_features (`torch.Tensor` of shape `(A, C, mel bins, mel frames)`) or input_values (`torch.Tensor` of shape
                `(A, C, samples)`), whichever the sound encoder takes: of the rows with sound.
            video_features, face_features, audio_features: outputs of the frozen encoders, in place of the media
                (`get_video_features`, `get_audio_features`).
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Expected exactly one of `input_ids` and `inputs_embeds`, got both or neither.")
        media = {}
        if pixel_values_videos is not None or video_features is not None:
            media["video"] = self.get_video_features(pixel_values_videos, video_features, return_dict=True)
        if pixel_values_faces is not None or face_features is not None:
            media["face"] = self.get_face_features(pixel_values_faces, face_features, return_dict=True)
        if input_features is not None or input_values is not None or audio_features is not None:
            media["audio"] = self.get_audio_features(input_features, input_values, audio_features, return_dict=True)
        if pixel_values is not None:
            media["image"] = self.get_image_features(pixel_values, return_dict=True)
        if input_ids is None and media:
            raise ValueError("Expected `input_ids` beside media, to see where they belong, got `inputs_embeds`. Pass `input_ids`.")

        tokens = {name: output.pooler_output for name, output in media.items()}
        # A prompt has more than one token. For one, a static cache need not be asked, whose length is a tensor on the device.
        length = (input_ids if inputs_embeds is None else inputs_embeds).shape[1]
        is_first_step = past_key_values is None or (length > 1 and past_key_values.get_seq_length() == 0)
        if inputs_embeds is None:
            is_placeholder = torch.zeros_like(input_ids, dtype=torch.bool)
            for token_id in self._token_ids().values():
                is_placeholder |= self._is_placeholder(input_ids, token_id)
            # Reference: the placeholders' ids do not exist in the embedding matrix; 0 stands in until features overwrite them.
            inputs_embeds = self.get_input_embeddings()(input_ids.masked_fill(is_placeholder, 0))
            if is_first_step or media:
                inputs_embeds = self._fill_in(inputs_embeds, input_ids, media, tokens)

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
            media_hidden_states=tokens or None,
        )

    def _fill_in(
        self,
        inputs_embeds: torch.Tensor,
        input_ids: torch.LongTensor,
        media: dict[str, BaseModelOutputWithPooling],
        tokens: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        """Put the media's tokens, and their fusion, in the place of their placeholders. Adds "fusion" to `tokens`."""
        fused = self._fuse(input_ids, media)
        if fused is not None:
            tokens["fusion"] = fused
        for name, token_id in self._token_ids().items():
            if fused is not None and name in media and not self._is_placeholder(input_ids, token_id).any():
                continue  # it is there for the fusion alone
            mask = self.get_placeholder_mask(input_ids, token_id, tokens.get(name), name)
            if name in tokens:
                inputs_embeds = inputs_embeds.masked_scatter(mask[..., None], tokens[name].to(inputs_embeds))
        return inputs_embeds


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

    def get_face_features(self, *args, **kwargs):
        return self.model.get_face_features(*args, **kwargs)

    def get_image_features(self, *args, **kwargs):
        return self.model.get_image_features(*args, **kwargs)

    def get_audio_features(self, *args, **kwargs):
        return self.model.get_audio_features(*args, **kwargs)

    def get_fusion_features(self, *args, **kwargs):
        return self.model.get_fusion_features(*args, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        pixel_values_faces: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        video_features: torch.Tensor | None = None,
        face_features: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AffectGPTCausalLMOutputWithPast:
        """
        Args:
            labels (`torch.LongTensor` of shape `(B, S)`): `input_ids` where the answer stands, -100 elsewhere. The loss is the mean
                over all answer tokens of the batch. In training mode with labels, `logits` are not returned.

        The other arguments are those of [`AffectGPTModel`].
        """
        outputs = self.model(
            input_ids=input_ids,
            pixel_values_videos=pixel_values_videos,
            pixel_values_faces=pixel_values_faces,
            pixel_values=pixel_values,
            input_features=input_features,
            input_values=input_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            video_features=video_features,
            face_features=face_features,
            audio_features=audio_features,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        loss, logits, vocab_size = None, None, self.config.text_config.vocab_size
        if labels is not None and self.training:
            # Most positions are of prompts, which the loss passes over; logits of all would be the largest tensor of a step.
            next_labels = nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
            answered = next_labels != -100
            answer_logits = self.lm_head(outputs.last_hidden_state[answered])
            loss = self.loss_function(answer_logits, None, vocab_size, shift_labels=next_labels[answered], **kwargs)
        else:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(outputs.last_hidden_state[:, kept])
            if labels is not None:
                loss = self.loss_function(logits=logits, labels=labels, vocab_size=vocab_size, **kwargs)
        return AffectGPTCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            media_hidden_states=outputs.media_hidden_states,
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        inputs_embeds: torch.Tensor | None = None,  # transformers looks for its name here
        is_first_iteration: bool | None = False,
        **kwargs,
    ) -> dict:
        if not is_first_iteration and kwargs.get("use_cache", True):
            # transformers drops pixel values, features and samples by name after the first step; these are ours.
            kwargs["pixel_values_faces"] = None
            kwargs["video_features"] = kwargs["face_features"] = kwargs["audio_features"] = None
        return super().prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
