"""Chat models that see a clip, hear it, or both: any that transformers can build, and those behind OpenAI-compatible endpoints.

Both kinds have `name`, `host`, `sees`, `hears` and the methods `notes`, `spans`, `answer` (about a clip) and `ask` (about text).
Which media a local model takes follows from its class and its processor, not from its name.
"""

import base64
import io
import json
import mimetypes
import os
import wave
from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import PushToHubMixin
from transformers.video_utils import VideoMetadata

from .chat import Answer, ChatError, ChatModel, Messages, without_thoughts
from .generation import growing_answer, loading_options
from .media import SAMPLING_RATE, Clip, MediaError

NUM_FRAMES = 8  # as the paper's model looks at
# Pixels of a frame's longer side. Faces are still large in it, and a model that cuts pictures into patches stays affordable.
LONGEST_SIDE = 448
MAX_NEW_TOKENS = 1024
# What is sent to an endpoint at most: seconds of sound (16 kHz, 16 bits: 13 MB as base64), and bytes of a whole clip.
MAX_SENT_SECONDS = 300
MAX_SENT_BYTES = 50_000_000
JPEG_QUALITY = 90

_MANY_PICTURES = "These are {count} frames of one video clip, evenly spaced and in their order.\n"
_DEAF = "The model does not hear; the sound was not judged."
_BLIND = "The model does not see; the picture was not judged."
_NO_TORCHVISION = "The model saw the frames as single pictures: to see a video it needs torchvision, which is not installed."
_SOUND_CUT = "Only the first {seconds:g} s of the sound were heard, which is all that the model takes at a time."


class OmniModel:
    """A chat model of transformers that takes pictures, video or sound, such as Qwen2.5-Omni, Qwen2-Audio or SmolVLM2.

    Args:
        name_or_path (`str` or `os.PathLike`): folder or Hub id.
        device, dtype, quantization: as in `generation.loading_options`.

    Raises:
        OSError: if the Hub has no such repository or cannot be reached.
        ValueError: if the model neither sees nor hears, cannot chat, or its weights are not complete.
    """

    host: str | None = None

    def __init__(
        self,
        name_or_path: str | os.PathLike,
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        quantization: str | None = None,
    ):
        self.name = os.fspath(name_or_path)
        options = loading_options(device=device, dtype=dtype, quantization=quantization)
        config = AutoConfig.from_pretrained(self.name)
        # Of a model that also speaks, the part that reads and writes; the speaking part is not even loaded.
        config = getattr(config, "thinker_config", None) or config
        if type(config) not in AutoModelForMultimodalLM._model_mapping:
            raise ValueError(
                f"{self.name}: expected a chat model that sees or hears, got a model of type {config.model_type!r}. "
                "Give another folder or Hub id."
            )
        self._processor = _load_processor(self.name)
        if not isinstance(self._processor, ProcessorMixin) or self._processor.chat_template is None:
            raise ValueError(f"{self.name}: expected a processor with a chat template, got none. Give an instruction-tuned model.")
        self._model, loading = AutoModelForMultimodalLM.from_pretrained(
            self.name, config=config, output_loading_info=True, **options
        )
        if loading["missing_keys"] or loading["mismatched_keys"]:
            missing = sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in loading[kind])
            raise ValueError(
                f"{self.name}: expected all weights of the model, got none for {len(missing)}, such as {', '.join(missing[:3])}. "
                "Download or convert it again."
            )
        self._model.eval()
        self._tokenizer = self._processor.tokenizer
        modalities = set(self._model.input_modalities)
        parts = {name: getattr(self._processor, name, None) for name in ("image_processor", "video_processor", "feature_extractor")}
        self._takes_video = parts["video_processor"] is not None and not isinstance(parts["video_processor"], _NoVideo)
        self._lacks_torchvision = isinstance(parts["video_processor"], _NoVideo)
        self.sees = bool({"image", "video"} & modalities) and (self._takes_video or parts["image_processor"] is not None)
        self._ears = parts["feature_extractor"] or getattr(self._processor, "audio_processor", None)
        self.hears = "audio" in modalities and self._ears is not None
        if not (self.sees or self.hears):
            taken = ", ".join(sorted(modalities))
            raise ValueError(f"{self.name}: expected a model that sees or hears, got one that takes {taken}.")

    def notes(self, clip: Clip, *, picture: bool, sound: bool) -> list[str]:
        """What a user should know of how the model takes the `picture` and the `sound` of `clip`, as sentences."""
        notes = []
        if picture and clip.frames is not None and self._lacks_torchvision:
            notes.append(_NO_TORCHVISION)
        if sound and clip.waveform is not None and len(self._heard(clip)) < len(clip.waveform):
            notes.append(_SOUND_CUT.format(seconds=len(self._heard(clip)) / SAMPLING_RATE))
        return notes

    def spans(self, clip: Clip) -> list[tuple[float, float]]:
        """Start and end in seconds of the sound that the model hears."""
        return [] if clip.waveform is None or not self.hears else [(0.0, len(self._heard(clip)) / SAMPLING_RATE)]

    def answer(
        self, clip: Clip, prompt: str, *, picture: bool, sound: bool, max_new_tokens: int | None = None
    ) -> Generator[str, None, Answer]:
        """Ask `prompt` about the picture, the sound or both of a clip. Yields the text so far; the value is the [`Answer`]."""
        content, options = [], {}
        if picture and clip.frames is not None:
            frames = shrink(clip.frames)
            if self._takes_video:
                content.append({"type": "video", "video": frames})
                options = _video_options(frames, clip)
            else:
                content += [{"type": "image", "image": Image.fromarray(frame)} for frame in frames]
                prompt = _MANY_PICTURES.format(count=len(frames)) + prompt
        if sound and clip.waveform is not None:
            content.append({"type": "audio", "audio": self._at_own_rate(self._heard(clip))})
        return (yield from self._written([{"role": "user", "content": [*content, _text(prompt)]}], options, max_new_tokens))

    def ask(self, messages: Messages) -> Answer:
        """The answer to a conversation of text."""
        messages = [
            {**message, "content": [_text(message["content"])]} if isinstance(message["content"], str) else message
            for message in messages
        ]
        pieces = self._written(messages, {}, None)
        while True:
            try:
                next(pieces)
            except StopIteration as end:
                return end.value

    def _written(self, messages: Messages, options: dict, max_new_tokens: int | None) -> Generator[str, None, Answer]:
        inputs = self._processor.apply_chat_template(
            messages,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=options,
            sanitize_control_tokens=True,  # a user's words never become a placeholder or a special token
        ).to(self._model.device, dtype=self._model.dtype)
        ends = self._model.generation_config.eos_token_id
        ends = {*(ends if isinstance(ends, list) else [ends]), self._tokenizer.eos_token_id} - {None}
        ids = yield from growing_answer(
            self._model,
            self._tokenizer,
            dict(inputs),
            max_new_tokens=max_new_tokens or MAX_NEW_TOKENS,
            eos_token_id=sorted(ends),
            pad_token_id=self._tokenizer.pad_token_id,
        )
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        return Answer(without_thoughts(text), is_cut=ends.isdisjoint(ids.tolist()))

    def _heard(self, clip: Clip) -> np.ndarray:
        # Whisper's feature extractors, which most of these models have, silently drop what is beyond their window.
        window = getattr(self._ears, "n_samples", None)
        if window is None:
            return clip.waveform
        return clip.waveform[: window * SAMPLING_RATE // self._ears.sampling_rate]

    def _at_own_rate(self, waveform: np.ndarray) -> np.ndarray:
        rate = self._ears.sampling_rate
        if rate == SAMPLING_RATE:
            return waveform
        from torchaudio.functional import resample

        return resample(torch.from_numpy(waveform.copy()), SAMPLING_RATE, rate).numpy()


class EndpointModel:
    """A chat model behind an endpoint that sees, hears or both; frames go as JPEG pictures, sound as a WAV file.

    Which of the two it takes is not known before it is asked: an endpoint that refuses sound is asked again without.

    Args:
        chat ([`ChatModel`]): the endpoint.
        send_clip (`bool`): send the file itself (`video_url`, as vLLM takes it) instead of frames and sound.
    """

    sees = True

    def __init__(self, chat: ChatModel, *, send_clip: bool = False):
        self.name = chat.name
        self.host = chat.host
        self.hears = True
        self._chat = chat
        self._send_clip = send_clip
        self.ask = chat.ask

    def notes(self, clip: Clip, *, picture: bool, sound: bool) -> list[str]:
        """Where the clip goes, and what of it."""
        if self._send_clip:
            return [f"The clip was sent to {self.host}."]
        seconds = self.spans(clip)[0][1] if sound and self.spans(clip) else 0.0
        parts = [f"{len(clip.frames)} frames"] if picture and clip.frames is not None else []
        parts += [f"{seconds:.1f} s of its sound"] if seconds else []
        notes = [f"Of the clip, {' and '.join(parts)} were sent to {self.host}."] if parts else []
        if seconds and seconds * SAMPLING_RATE < len(clip.waveform):
            notes.append(_SOUND_CUT.format(seconds=seconds))
        return notes

    def spans(self, clip: Clip) -> list[tuple[float, float]]:
        """As [`OmniModel.spans`]."""
        if clip.waveform is None or not self.hears:
            return []
        return [(0.0, min(len(clip.waveform) / SAMPLING_RATE, float(MAX_SENT_SECONDS)))]

    def answer(
        self, clip: Clip, prompt: str, *, picture: bool, sound: bool, max_new_tokens: int | None = None
    ) -> Generator[str, None, Answer]:
        """As [`OmniModel.answer`]; the text comes in one piece. `max_new_tokens` is the [`ChatModel`]'s own."""
        pictures = _pictures(clip) if picture and clip.frames is not None and not self._send_clip else []
        sounds = [_sound(clip)] if sound and self.hears and clip.waveform is not None and not self._send_clip else []
        if pictures:
            prompt = _MANY_PICTURES.format(count=len(pictures)) + prompt
        media = [_whole_clip(clip)] if self._send_clip else [*pictures, *sounds]
        try:
            answer = self._chat.ask([{"role": "user", "content": [*media, _text(prompt)]}])
        except ChatError as error:
            if not (pictures and sounds and error.status in (400, 415, 422, 500, 501)):
                raise
            answer = self._chat.ask([{"role": "user", "content": [*pictures, _text(prompt)]}])
            self.hears = False
        yield answer.text
        return answer


def shrink(frames: np.ndarray) -> np.ndarray:
    """Frames `(T, height, width, 3)` uint8 with their longer side at most `LONGEST_SIDE`, their shape kept."""
    height, width = frames.shape[1:3]
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return frames
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in frames])


def what_was_not_judged(model: OmniModel | EndpointModel, clip: Clip) -> list[str]:
    """Sentences about the parts of `clip` that `model` has no sense for."""
    notes = [_BLIND] if clip.frames is not None and not model.sees else []
    return [*notes, _DEAF] if clip.waveform is not None and not model.hears else notes


class _NoVideo(transformers.BaseVideoProcessor, PushToHubMixin):
    """Stands where a processor has its video part, which transformers builds with torchvision only."""

    def __init__(self):
        """Unlike the class that it stands for, it can be made."""

    def to_dict(self) -> dict:
        return {}


def _load_processor(name: str):
    """The processor of a checkpoint; without torchvision, one that takes pictures and sound but no video."""
    kind = _processor_class(name)
    if transformers.utils.is_torchvision_available() or kind is None or "video_processor" not in kind.get_attributes():
        return AutoProcessor.from_pretrained(name)

    class OtherParts(kind):
        @classmethod
        def get_attributes(cls):
            return [part for part in kind.get_attributes() if part != "video_processor"]

    # No option of transformers leaves a part out: loading the parts is the one step that differs.
    class WithoutVideo(kind):
        @classmethod
        def _get_arguments_from_pretrained(cls, *args, **kwargs):
            others = iter(OtherParts._get_arguments_from_pretrained(*args, **kwargs))
            return [_NoVideo() if part == "video_processor" else next(others) for part in kind.get_attributes()]

        def check_argument_for_proper_class(self, argument_name, argument):
            if not isinstance(argument, _NoVideo):
                super().check_argument_for_proper_class(argument_name, argument)

    return WithoutVideo.from_pretrained(name)


def _processor_class(name: str):
    for file_name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        path = transformers.utils.cached_file(name, file_name, _raise_exceptions_for_missing_entries=False)
        kind = json.loads(Path(path).read_text(encoding="utf-8")).get("processor_class") if path else None
        if kind is not None:
            return getattr(transformers, kind, None)
    return PROCESSOR_MAPPING.get(type(AutoConfig.from_pretrained(name)), None)


def _video_options(frames: np.ndarray, clip: Clip) -> dict:
    """What a video processor must know of frames that were chosen already, with their times as far as it can tell them."""
    fps = len(frames) / clip.duration if clip.duration > 0 else 1.0
    metadata = VideoMetadata(
        total_num_frames=len(frames),
        fps=fps,
        width=frames.shape[2],
        height=frames.shape[1],
        duration=clip.duration,
        frames_indices=list(range(len(frames))),
    )
    return {"do_sample_frames": False, "fps": fps, "video_metadata": [[metadata]]}


def _pictures(clip: Clip) -> list[dict]:
    parts = []
    for frame in shrink(clip.frames):
        file = io.BytesIO()
        Image.fromarray(frame).save(file, format="JPEG", quality=JPEG_QUALITY)
        parts.append({"type": "image_url", "image_url": {"url": _data_url("image/jpeg", file.getvalue())}})
    return parts


def _sound(clip: Clip) -> dict:
    samples = clip.waveform[: MAX_SENT_SECONDS * SAMPLING_RATE]
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLING_RATE)
        sound.writeframes((np.clip(samples, -1.0, 1.0) * 32767).round().astype("<i2").tobytes())
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(file.getvalue()).decode(), "format": "wav"}}


def _whole_clip(clip: Clip) -> dict:
    size = os.path.getsize(clip.path)
    if size > MAX_SENT_BYTES:
        raise MediaError(f"{clip.path}: expected a clip of at most {MAX_SENT_BYTES} bytes to send, got {size}. Cut or shrink it.")
    kind = mimetypes.guess_type(clip.path)[0] or "video/mp4"
    return {"type": "video_url", "video_url": {"url": _data_url(kind, Path(clip.path).read_bytes())}}


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _text(text: str) -> dict:
    return {"type": "text", "text": text}
