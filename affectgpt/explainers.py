"""Whatever turns a clip into an explanation: AffectGPT, any model that sees or hears, two of them and a text model, or a file.

    explainer = load_explainer("Qwen/Qwen2.5-Omni-7B")
    print(explainer.explain("clip.mp4", subtitle="I thought you would call."))

Every explainer has `name`, `host` (where clips are sent; `None` if nowhere), `protocol`, `drawings_only`, and the methods `explain`
and `stream`, which take what `explanation.explain` takes; what a kind of explainer has no use for is ignored.

The two protocols are the paper's (arXiv 2407.07653, sections 3 and 5): "direct" gives one model the clip with its subtitle;
"two-step" asks for clues without the subtitle and has a text model merge them with it. Unlike there, nothing is translated: the
merge answers in the language asked for.
"""

import dataclasses
import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path

import torch
from transformers import PreTrainedConfig

from . import AffectGPTConfig, explanation
from .chat import Answer, ChatModel, LocalChatModel, is_endpoint, load_chat_model
from .explanation import BROKEN_MARKUP, CUT_OFF, LANGUAGES, NO_ANSWER, SHIPPED_MODEL, Explanation, begin
from .media import Clip, read_clip
from .media_models import MAX_NEW_TOKENS, NUM_FRAMES, EndpointModel, OmniModel, what_was_not_judged
from .predictions import PREDICTION_SUFFIXES, clip_name, read_predictions

# The question that the authors' 2025 model was trained with, for descriptions.
DIRECT_QUESTION = "Please infer the person's emotional state and provide your reasoning process."
# In the words of the authors' code for EMER-Coarse and for plain models; of the merge only the request is theirs.
AUDIO_CLUE_PROMPT = (
    "As an expert in the field of emotions, please focus on the acoustic information in the audio to discern clues related to the "
    "emotions of the individual. Please provide a detailed description and ultimately predict the emotional state of the "
    "individual."
)
VIDEO_CLUE_PROMPT = (
    "As an expert in the field of emotions, please focus on the facial expressions, body movements, environment, etc., in the "
    "video to discern clues related to the emotions of the individual. Please provide a detailed description and ultimately "
    "predict the emotional state of the individual in the video."
)
MERGE_REQUEST = (
    "Please merge all these information to infer the emotional states of the characters, and provide reasoning for your inferences."
)
NOTHING_TO_MERGE = "Unable to judge the emotional state."  # the authors' words where there is neither clue nor subtitle
CONCLUDE = 'End with one sentence that names the emotions, beginning with "Therefore, the person seems".'
CONCLUDE_ZH = "最后用一句话说出这些情绪，以“因此，人物的情绪是”开头。"

_CHAT_MARKUP = re.compile(
    r"<\|[^<>|\n]*\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:image|video|audio|think)>", re.IGNORECASE
)
_READ_FROM_FILE = "No model saw or heard the clip: the explanation was read from {file}."
_NO_CLUE = "The {what} model was given nothing: the clip has no {medium}."
_KEPT_CLUE = "Without a subtitle there was nothing to merge; the clue stands as the explanation."


class AffectGPTExplainer:
    """An AffectGPT checkpoint: `explanation.explain` with its model and processor.

    Args:
        model, processor: from `explanation.load_model`.
        name (`str`): folder or Hub id, for the record.
    """

    host: str | None = None
    protocol = "direct"

    def __init__(self, model, processor, name: str):
        self.model = model
        self.processor = processor
        self.name = name

    @property
    def drawings_only(self) -> bool:
        return self.model.config.drawings_only

    def explain(self, path: str | os.PathLike, **options) -> Explanation:
        """As `explanation.explain`."""
        found = explanation.explain(self.model, self.processor, path, **_without_open_limit(options))
        return dataclasses.replace(found, model=self.name)

    def stream(self, path: str | os.PathLike, **options) -> Iterator[Explanation]:
        """As `explanation.explain_stream`."""
        for found in explanation.explain_stream(self.model, self.processor, path, **_without_open_limit(options)):
            yield dataclasses.replace(found, model=self.name)


class _Streaming:
    """An explainer whose `explain` is the last of what it streams."""

    drawings_only = False

    def explain(self, path: str | os.PathLike, **options) -> Explanation:
        """The explanation of a clip; see `explanation.explain` for what may be given."""
        *_, last = self.stream(path, **options)
        return last


class _DirectExplainer(_Streaming):
    protocol = "direct"

    def __init__(self, model: OmniModel | EndpointModel):
        self._model = model
        self.name = model.name
        self.host = model.host

    def stream(
        self,
        path: str | os.PathLike,
        *,
        subtitle=None,
        question: str | None = None,
        language: str = "en",
        max_new_tokens: int | None = None,
        max_duration: float | None = None,
        **ignored,
    ) -> Iterator[Explanation]:
        """Explain a clip while the answer is being written; the last one is complete.

        Raises:
            MediaError: if the file cannot be read as a clip.
            ChatError: if an endpoint gives no answer.
            ValueError: if the language is unknown.
        """
        model = self._model
        clip = _read(path, model.sees, model.hears, max_duration)
        base = _begin(self, clip, subtitle, model.spans(clip), language)
        base, words = _harmless(base, "subtitle", base.subtitle)
        base, asked = _harmless(base, "question", " ".join((question or "").split()) or DIRECT_QUESTION)
        prompt = "\n".join([f'The subtitle of this video is: "{words}"'] * bool(words) + [asked, _answer_in(language)])
        notes = model.notes(clip, picture=True, sound=True)
        pieces = model.answer(clip, prompt, picture=True, sound=True, max_new_tokens=max_new_tokens)
        answer = yield from _growing(base, pieces)
        # Only now is it known whether an endpoint hears.
        spans = [(round(start, 3), round(end, 3)) for start, end in model.spans(clip)]
        base = dataclasses.replace(base, sound_spans=spans).with_notes(*notes, *what_was_not_judged(model, clip))
        yield _finished(base, answer, max_new_tokens)


class OmniExplainer(_DirectExplainer):
    """One transformers chat model that sees, hears or both, given the clip with its subtitle.

    Args:
        name_or_path (`str`): folder or Hub id.
        device, dtype, quantization: as in `generation.loading_options`.

    Raises:
        OSError, ValueError: as [`OmniModel`].
    """

    def __init__(self, name_or_path: str | os.PathLike, *, device=None, dtype=None, quantization: str | None = None):
        super().__init__(OmniModel(name_or_path, device=device, dtype=dtype, quantization=quantization))


class ChatExplainer(_DirectExplainer):
    """A model behind an OpenAI-compatible endpoint that sees or hears, given the clip with its subtitle.

    Args:
        chat ([`ChatModel`]): the endpoint.
        send_clip (`bool`): send the file itself instead of frames and sound.
    """

    def __init__(self, chat: ChatModel, *, send_clip: bool = False):
        super().__init__(EndpointModel(chat, send_clip=send_clip))


class TwoStepExplainer(_Streaming):
    """The paper's recipe for plain models: clues without the subtitle, merged with it by a text model.

    Args:
        video, audio ([`OmniModel`] or [`EndpointModel`], *optional*): at least one; one model may be both.
        merge: a chat model, or one of the two above.

    Raises:
        ValueError: if no model is given, or one for a medium that it does not take.
    """

    protocol = "two-step"

    def __init__(
        self,
        video: OmniModel | EndpointModel | None,
        audio: OmniModel | EndpointModel | None,
        merge: ChatModel | LocalChatModel | OmniModel | EndpointModel,
    ):
        if video is None and audio is None:
            raise ValueError("Expected a video model, an audio model or both, got none.")
        if video is not None and not video.sees:
            raise ValueError(f"Expected a video model that sees, got {video.name}, which does not.")
        if audio is not None and not audio.hears:
            raise ValueError(f"Expected an audio model that hears, got {audio.name}, which does not.")
        self._video, self._audio, self.merge_model = video, audio, merge
        parts = {"video": video, "audio": audio, "merge": merge}
        self.name = " + ".join(f"{part} {model.name}" for part, model in parts.items() if model is not None)
        hosts = dict.fromkeys(model.host for model in parts.values() if model is not None and model.host)
        self.host: str | None = ", ".join(hosts) or None

    def stream(
        self,
        path: str | os.PathLike,
        *,
        subtitle=None,
        question: str | None = None,
        language: str = "en",
        max_new_tokens: int | None = None,
        max_duration: float | None = None,
        **ignored,
    ) -> Iterator[Explanation]:
        """Explain a clip. Yields what is known after each clue, and then the whole; errors as of the models."""
        clip = _read(path, self._video is not None, self._audio is not None, max_duration)
        base = _begin(self, clip, subtitle, self._audio.spans(clip) if self._audio else [], language)
        for what, medium, model, is_there, prompt in (
            ("video", "picture", self._video, clip.frames is not None, VIDEO_CLUE_PROMPT),
            ("audio", "sound", self._audio, clip.waveform is not None, AUDIO_CLUE_PROMPT),
        ):
            if model is None:
                continue
            if not is_there:
                base = base.with_notes(_NO_CLUE.format(what=what, medium=medium))
                continue
            options = {"picture": what == "video", "sound": what == "audio"}
            base = base.with_notes(*model.notes(clip, **options))
            answer = _last(model.answer(clip, prompt, max_new_tokens=max_new_tokens, **options))
            if answer.text:
                base = dataclasses.replace(base, clues={**base.clues, what: answer.text})
            yield base
        yield self.merged(base, question)

    def merged(self, base: Explanation, question: str | None) -> Explanation:
        """`base` with what the merge model makes of its clues and its subtitle."""
        base, words = _harmless(base, "subtitle", base.subtitle)
        base, asked = _harmless(base, "question", " ".join((question or "").split()) or None)
        clues = base.clues
        if not clues and not words:
            return dataclasses.replace(base.with_text(NOTHING_TO_MERGE), clues={})
        if len(clues) == 1 and not words and base.language == "en":
            # As in the authors' code. In another language the merge has to translate.
            return dataclasses.replace(base.with_text(*clues.values()), clues=clues).with_notes(_KEPT_CLUE)
        prompt = merge_prompt(clues, words, base.language) + (f"\n{asked}" if asked else "")
        if self.merge_model.host is not None:
            what = " and ".join(["the clues"] * bool(clues) + ["the subtitle"] * bool(words))
            base = base.with_notes(f"To be merged, {what} were sent to {self.merge_model.host}.")
        answer = self.merge_model.ask([{"role": "user", "content": prompt}])
        return dataclasses.replace(_finished(base, answer, None), clues=clues)


def merge_prompt(clues: dict[str, str], subtitle: str | None, language: str = "en") -> str:
    """What the merge model is asked: clues by "video" and "audio", and the subtitle, as far as there are any."""
    parts = {f"clues from the {medium}": clues[medium] for medium in ("video", "audio") if medium in clues}
    if subtitle:
        parts["the subtitle of the video"] = f'"{subtitle}"'
    *names, last = parts
    given = f"{', '.join(names)} and {last}" if names else last
    role = f"Please assume the role of an expert in the field of emotions. We provide {given}."
    listed = [f"{name[0].upper()}{name[1:]}: {text}" for name, text in parts.items()]
    return "\n\n".join([role, *listed, MERGE_REQUEST]) + f"\n{_answer_in(language)}"


class PredictionsExplainer(_Streaming):
    """Explanations that another system wrote down, looked up by the name of the clip.

    Args:
        path (`str` or `os.PathLike`): see `predictions.read_predictions`.
        protocol (`str`): how they were made, where the file does not say.

    Raises:
        FileNotFoundError, ValueError: as `predictions.read_predictions`.
    """

    host: str | None = None

    def __init__(self, path: str | os.PathLike, *, protocol: str = "direct"):
        self.name = os.fspath(path)
        self.protocol = protocol
        self._rows = read_predictions(path)

    def __len__(self) -> int:
        return len(self._rows)

    def stream(self, path: str | os.PathLike, *, subtitle=None, language: str = "en", **ignored) -> Iterator[Explanation]:
        """The explanation that the file has for a clip, which need not be there.

        Raises:
            LookupError: if it has none.
        """
        name = clip_name(path)
        if name not in self._rows:
            known = ", ".join(sorted(self._rows)[:3])
            raise LookupError(f"{self.name}: expected a prediction for {name!r}, got {len(self)} for other clips, such as {known}.")
        row = self._rows[name]
        clip = Clip(path=os.fspath(path), frames=None, frame_times=[], waveform=None, duration=0.0)
        base = _begin(self, clip, subtitle or row.subtitle, [], row.language or language).with_text(row.text)
        yield dataclasses.replace(
            base,
            labels=base.labels if row.labels is None else row.labels,
            protocol=row.protocol or self.protocol,
            notes=[_READ_FROM_FILE.format(file=Path(self.name).name)],  # of a missing subtitle, nothing is known here
        )


Explainer = AffectGPTExplainer | OmniExplainer | ChatExplainer | TwoStepExplainer | PredictionsExplainer


def load_explainer(
    model: str | os.PathLike | None = None,
    *,
    video_model: str | None = None,
    audio_model: str | None = None,
    merge_model: str | None = None,
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    quantization: str | None = None,
    send_clip: bool = False,
) -> Explainer:
    """The explainer that the names ask for.

    Args:
        model (`str`): an AffectGPT checkpoint or another model that sees or hears (folder or Hub id), an endpoint as
            "https://HOST/v1#MODEL", or a file of predictions; by default the model that ships with the package.
        video_model, audio_model (`str`, *optional*): instead of `model`, for the two-step protocol: folder, Hub id or endpoint.
        merge_model (`str`, *optional*): the text model of the two-step protocol; by default the video model, else the audio model.
        device, dtype, quantization: as in `generation.loading_options`, for all that run here.
        send_clip (`bool`): give endpoints the file itself instead of frames and sound.

    Raises:
        OSError: if a file, a folder or a repository is not there.
        ImportError: if a package is missing; the message names it.
        ValueError: if the names make no explainer, or a checkpoint is not of the kind it is named for.
    """
    options = {"device": device, "dtype": dtype, "quantization": quantization}
    if video_model is None and audio_model is None:
        if merge_model is not None:
            raise ValueError("Expected a video model, an audio model or both beside the merge model, got neither.")
        return _load_direct(os.fspath(model or SHIPPED_MODEL), options, send_clip)
    if model is not None:
        raise ValueError("Expected one model, or a video and an audio model, got both. Leave one out.")
    loaded: dict[str, OmniModel | EndpointModel] = {}  # one model may have several parts
    for name in (video_model, audio_model):
        if name is not None and name not in loaded:
            loaded[name] = _load_media_model(name, options, send_clip)
    video, audio = loaded.get(video_model), loaded.get(audio_model)
    if merge_model is None:
        merge = video or audio
    elif merge_model in loaded:
        merge = loaded[merge_model]
    elif is_endpoint(merge_model):
        merge = load_chat_model(merge_model)
    else:
        merge = _load_merge_model(merge_model, options)
    return TwoStepExplainer(video, audio, merge)


def _load_direct(name: str, options: dict, send_clip: bool) -> Explainer:
    if name.lower().endswith(PREDICTION_SUFFIXES):
        return PredictionsExplainer(name)
    if is_endpoint(name):
        return ChatExplainer(load_chat_model(name), send_clip=send_clip)
    if _model_type(name) in (AffectGPTConfig.model_type, None):
        # None: `load_model` says what is wrong.
        return AffectGPTExplainer(*explanation.load_model(name, **options), name=name)
    return OmniExplainer(name, **options)


def _load_media_model(name: str, options: dict, send_clip: bool) -> OmniModel | EndpointModel:
    if is_endpoint(name):
        return EndpointModel(load_chat_model(name), send_clip=send_clip)
    if _model_type(name) == AffectGPTConfig.model_type:
        raise ValueError(
            f"{name}: expected a plain model for the two-step protocol, got an AffectGPT checkpoint, which answers directly. "
            "Give it as the one model."
        )
    return OmniModel(name, **options)


def _load_merge_model(name: str, options: dict) -> LocalChatModel | OmniModel:
    try:
        return LocalChatModel(name, max_new_tokens=MAX_NEW_TOKENS, **options)
    except ValueError:
        if _model_type(name) is None:
            raise
        return OmniModel(name, **options)


def _model_type(name: str) -> str | None:
    """What kind of model a folder or repository holds; `None` where none is found, which loading it will explain."""
    path = os.path.expanduser(name)
    if os.path.isabs(path) or path.startswith("."):
        config = Path(path) / "config.json"
        if not config.is_file():
            return None
    return PreTrainedConfig.get_config_dict(path)[0].get("model_type")


def _without_open_limit(options: dict) -> dict:
    return {name: value for name, value in options.items() if name != "max_new_tokens" or value is not None}


def _read(path, video: bool, audio: bool, max_duration: float | None) -> Clip:
    return read_clip(path, num_frames=NUM_FRAMES, video=video, audio=audio, max_duration=max_duration)


def _begin(explainer, clip: Clip, subtitle, spans, language: str) -> Explanation:
    return begin(
        clip,
        subtitle=subtitle,
        model=explainer.name,
        sound_spans=spans,
        language=language,
        protocol=explainer.protocol,
        host=explainer.host,
    )


def _answer_in(language: str) -> str:
    return f"Answer in {LANGUAGES[language]}. {CONCLUDE}" if language == "en" else f"请用中文回答。{CONCLUDE_ZH}"


def _harmless(base: Explanation, what: str, text: str | None) -> tuple[Explanation, str | None]:
    """A user's text with chat markup broken up, and the explanation with a note if there was any."""
    if text is None or not _CHAT_MARKUP.search(text):
        return base, text
    text = _CHAT_MARKUP.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
    return base.with_notes(BROKEN_MARKUP.format(what=what)), text


def _growing(base: Explanation, pieces: Generator[str, None, Answer]) -> Generator[Explanation, None, Answer]:
    shown = ""
    while True:
        try:
            text = next(pieces).rstrip("\ufffd").strip()
        except StopIteration as end:
            return end.value
        if len(text) > len(shown):
            shown = text
            yield base.with_text(text, is_complete=False)


def _last(pieces: Generator[str, None, Answer]) -> Answer:
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value


def _finished(base: Explanation, answer: Answer, max_new_tokens: int | None) -> Explanation:
    found = base.with_text(answer.text)
    if not answer.text:
        found = found.with_notes(NO_ANSWER)
    if answer.is_cut:
        found = found.with_notes(CUT_OFF.format(count=max_new_tokens or MAX_NEW_TOKENS))
    return found
