"""From a clip on disk to an explanation: what a viewer might read from picture, voice and words, and from which signs.

`explain` joins the parts for AffectGPT models: `media.read_clip`, the faces, the processor, `model.generate`, and the reading of
the answer by `labels`. The command line, the demo and the evaluation reach it, and all other kinds of models, through `explainers`.
"""

import dataclasses
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError

# Through the package: that tells transformers' Auto classes about them, which loading a processor needs.
from . import AffectGPTConfig, AffectGPTForConditionalGeneration, AffectGPTProcessor
from .drawings import DRAWING_SIZE, looks_drawn
from .generation import answer_ids, growing_answer, loading_options
from .labels import extract_labels, split_clues
from .media import Clip, read_clip
from .processing_affectgpt import IN_CHINESE
from .subtitles import Subtitle, as_subtitle

NOTICE = (
    "What a viewer might read from outward signs, not what the person feels. Often wrong; differs by culture, age and disability."
)

SHIPPED_MODEL = str(Path(__file__).parent / "assets" / "sketch-model")

# About 400 words; the longest description of EMER-Fine has 521, nineteen of twenty have at most 305.
MAX_NEW_TOKENS = 512

LANGUAGES = {"en": "English", "zh": "Chinese"}

NO_SUBTITLE = "No subtitle was given; the words were not judged."
NO_WORDS = "{source} gave no words; the words were not judged."
BROKEN_MARKUP = "The {what} held markup of the prompt or runs of #, which was broken up with spaces and read as plain text."
NO_ANSWER = "The model gave no answer."
CUT_OFF = "The answer was cut off after {count} tokens, before its end. Raise `max_new_tokens` for the whole of it."

_CHINESE = re.compile(r"[\u4e00-\u9fff](?:[^A-Za-z]*[\u4e00-\u9fff]){9}")  # ten characters: more than a quoted word
NOT_IN_CHINESE = "The answer was asked for in Chinese; the model gave it in another language."
# Parts of an AffectGPT model that 4-bit and 8-bit loading leave alone: small beside the language model, or trained here.
NOT_QUANTIZED = [
    "lm_head",
    "model.vision_tower",
    "model.image_qformer",
    "model.video_resampler",
    "model.audio_tower",
    "model.audio_resampler",
    "model.image_resampler",
    "model.fusion",
]
_REFUSAL = (
    "This clip was not explained. The model in use knows the drawings of EMER-Sketch only and has seen no real person: whatever it "
    "said about this clip would be made up. For people, give it the weights of a real AffectGPT model, a folder or a Hub id: "
    "`affectgpt explain --model <folder or id>`, or the environment variable `AFFECTGPT_MODEL`. None ships with this package. "
    "To see what the drawings' model says all the same, ask for it: `--explain-anyway`, or `explain_anyway=True` in Python."
)
_NO_DRAWING = "The model knows drawings only, and this clip does not look like one: about people, the answer is meaningless."


@dataclass(frozen=True)
class Explanation:
    """What the model says about a clip, and what it went by.

    Attributes:
        text (`str`): the answer.
        labels (`list[str]`): the emotions that the answer concludes, in lower case.
        clues (`dict[str, str]`): of "video", "audio" and "text" those that the answer speaks of, with its sentences about them; in
            the two-step protocol, what the video and the audio model said.
        frame_times (`list[float]`): seconds of the frames that the model saw.
        sound_spans (`list[tuple[float, float]]`): start and end in seconds of each piece of sound that it heard.
        duration (`float`): seconds of the clip.
        notes (`list[str]`): what was missing, damaged, altered or cut off, and where the clip was sent, as sentences.
        refused (`bool`): the model knows drawings only and was given something else; `text` says what to do.
        notice (`str`): what to keep in mind; shown with every result.
        model (`str`): which model answered; of several, their names and parts.
        protocol (`str`): "direct" (the model had the subtitle) or "two-step" (clues without it, then merged with it).
        host (`str`, *optional*): where the clip, or what was said about it, was sent; `None` if nothing left this machine.
        language (`str`): of the answer, "en" or "zh".
        subtitle (`str`, *optional*): the words that were used.
        subtitle_source (`str`, *optional*): how they are known: "given", "file NAME" or "ASR MODEL".
        faces (`str`, *optional*): how the face crops came about (`affectgpt.faces`), for models that look at faces.
    """

    text: str
    labels: list[str]
    clues: dict[str, str]
    frame_times: list[float]
    sound_spans: list[tuple[float, float]]
    duration: float
    notes: list[str]
    refused: bool
    notice: str = NOTICE
    model: str = field(default="", compare=False)  # two copies of a model say the same
    protocol: str = "direct"
    host: str | None = None
    language: str = "en"
    subtitle: str | None = None
    subtitle_source: str | None = None
    faces: str | None = None

    def to_dict(self) -> dict:
        """The fields as JSON knows them."""
        return {**dataclasses.asdict(self), "sound_spans": [list(span) for span in self.sound_spans]}

    def __str__(self) -> str:
        paragraphs = [self.notice, self.text]
        if self.labels:
            paragraphs.append("Labels: " + ", ".join(self.labels))
        paragraphs += [f"Note: {note}" for note in self.notes]
        return "\n\n".join(paragraphs)

    def with_text(self, text: str, *, is_complete: bool = True) -> "Explanation":
        """This explanation with an answer: its clues, and its labels once it is complete."""
        # By the answer's own language: a model asked for Chinese may answer in English.
        labels = extract_labels(text, "zh" if _CHINESE.search(text) else "en") if is_complete else []
        return dataclasses.replace(self, text=text, labels=labels, clues=split_clues(text))

    def with_notes(self, *notes: str) -> "Explanation":
        return dataclasses.replace(self, notes=[*self.notes, *notes])


def begin(
    clip: Clip,
    *,
    subtitle: str | Subtitle | None,
    model: str,
    sound_spans: list[tuple[float, float]],
    language: str = "en",
    protocol: str = "direct",
    host: str | None = None,
) -> Explanation:
    """An explanation without its answer: what is known of the clip before a model has said anything.

    Raises:
        ValueError: if the language is not one of `LANGUAGES`.
    """
    check_language(language)
    words = as_subtitle(subtitle)
    notes = list(clip.notes)
    if words is None:
        is_empty = isinstance(subtitle, Subtitle) and subtitle.source != "given"
        notes.append(NO_WORDS.format(source=f"The {subtitle.source}") if is_empty else NO_SUBTITLE)
    return Explanation(
        text="",
        labels=[],
        clues={},
        frame_times=[round(time, 3) for time in clip.frame_times],
        sound_spans=[(round(start, 3), round(end, 3)) for start, end in sound_spans],
        duration=round(clip.duration, 3),
        notes=notes,
        refused=False,
        model=model,
        protocol=protocol,
        host=host,
        language=language,
        subtitle=words.text if words else None,
        subtitle_source=words.source if words else None,
    )


def check_language(language: str) -> None:
    """Raise `ValueError` for a language in which nothing is explained."""
    if language not in LANGUAGES:
        raise ValueError(f"Expected a language among {', '.join(LANGUAGES)}, got {language!r}.")


def load_model(
    name_or_path: str | os.PathLike = SHIPPED_MODEL,
    *,
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    quantization: str | None = None,
) -> tuple[AffectGPTForConditionalGeneration, AffectGPTProcessor]:
    """Load an AffectGPT checkpoint for explaining.

    Args:
        name_or_path (`str`): local folder or Hub id; by default the model that ships with the package, which knows drawings only.
        device (`str`, *optional*): where the model goes, such as "cpu" or "cuda:1"; by default the GPU if there is one.
        dtype (`str` or `torch.dtype`, *optional*): by default bfloat16 on a GPU that computes in it, else as saved.
        quantization (`str`, *optional*): "4bit" or "8bit", of the language model; needs bitsandbytes.

    Returns:
        The model, in evaluation mode, and its processor.

    Raises:
        FileNotFoundError: if `name_or_path` is a path and no folder is there.
        OSError: if the Hub has no such repository or cannot be reached, or the checkpoint lacks a file.
        ImportError: if quantization is asked for without bitsandbytes.
        ValueError: if it holds another kind of model or weights that do not fit, or if this machine has no such device.
    """
    name = os.path.expanduser(os.fspath(name_or_path))
    if (os.path.isabs(name) or name.startswith(".") or os.path.isfile(name)) and not os.path.isdir(name):
        found = "a file" if os.path.exists(name) else "nothing"
        raise FileNotFoundError(
            f"{name}: expected the folder of an AffectGPT checkpoint, got {found}. Give its folder or a Hub id."
            + (" A .pth file of the authors must be converted first (hub/)." if name.endswith(".pth") else "")
        )
    options = loading_options(device=device, dtype=dtype, quantization=quantization, keep=NOT_QUANTIZED)
    kind = AffectGPTConfig.get_config_dict(name)[0].get("model_type")
    if kind != AffectGPTConfig.model_type:
        raise ValueError(f"{name}: expected an AffectGPT checkpoint, got a model of type {kind!r}. Give another folder or Hub id.")
    try:
        processor = AffectGPTProcessor.from_pretrained(name)
        model = AffectGPTForConditionalGeneration.from_pretrained(name, **options)
    # What transformers raises for files of a checkpoint that are missing, cut off or not what their names say.
    except (SafetensorError, ValueError, TypeError, AttributeError, KeyError, RuntimeError) as error:
        if isinstance(error, ValueError) and name in str(error):
            raise
        raise ValueError(
            f"{name}: expected a whole AffectGPT checkpoint (config, processor, tokenizer, weights), got one that cannot be loaded "
            f"({type(error).__name__}: {error}). Copy or convert it again."
        ) from error
    return model.eval(), processor


def explain(
    model: AffectGPTForConditionalGeneration,
    processor: AffectGPTProcessor,
    path: str | os.PathLike,
    *,
    subtitle: str | Subtitle | None = None,
    question: str | None = None,
    language: str = "en",
    faces: str | os.PathLike | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    max_duration: float | None = None,
    explain_anyway: bool = False,
    **generation_kwargs,
) -> Explanation:
    """Explain what the person in a clip seems to feel.

    A model that was trained on drawings only (`model.config.drawings_only`) refuses every clip that does not look like one of them.

    Args:
        model, processor: from [`load_model`] or `from_pretrained`.
        path (`str` or `os.PathLike`): a video or sound file.
        subtitle (`str` or [`Subtitle`], *optional*): what is said in the clip.
        question (`str`, *optional*): what to ask; by default the processor's question, which the model was trained with.
        language (`str`): of the answer, "en" or "zh".
        faces (`str` or `os.PathLike`, *optional*): precomputed face crops for a model that looks at faces, a file or a folder as
            in `faces.read_face_crops`; by default they are cut out of the frames.
        max_new_tokens (`int`): an answer is cut off after so many tokens.
        max_duration (`float`, *optional*): seconds; a longer clip is refused before it is decoded.
        explain_anyway (`bool`): let a drawings-only model answer about anything; a note says what that is worth.
        generation_kwargs: for `model.generate`. Decoding is greedy unless `do_sample=True` is among them.

    Returns:
        [`Explanation`]

    Raises:
        MediaError: if the file cannot be read as a clip; the message names it and says what to do.
        ValueError: if the language is unknown.
    """
    request = _Request(model, processor, path, subtitle, question, language, faces, max_duration, explain_anyway)
    if request.inputs is None:
        return request.base
    ids = answer_ids(model, processor.tokenizer, request.inputs, max_new_tokens=max_new_tokens, **generation_kwargs)
    return request.finish(ids)


def explain_stream(
    model: AffectGPTForConditionalGeneration,
    processor: AffectGPTProcessor,
    path: str | os.PathLike,
    *,
    subtitle: str | Subtitle | None = None,
    question: str | None = None,
    language: str = "en",
    faces: str | os.PathLike | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    max_duration: float | None = None,
    explain_anyway: bool = False,
    **generation_kwargs,
) -> Iterator[Explanation]:
    """Explain a clip while the answer is being written.

    Takes what [`explain`] takes, and yields an [`Explanation`] whenever its text has grown. The last one is complete and equals
    what `explain` returns; those before it have no labels yet. Closing the iterator stops the generation.

    Raises:
        MediaError: as `explain`; raised, like any error of the generation, when the iterator is advanced.
    """
    request = _Request(model, processor, path, subtitle, question, language, faces, max_duration, explain_anyway)
    if request.inputs is None:
        yield request.base
        return
    options = {"max_new_tokens": max_new_tokens, **generation_kwargs}
    ids = yield from _growing(request, growing_answer(model, processor.tokenizer, request.inputs, **options))
    yield request.finish(ids)


class _Request:
    """One clip as a model is asked about it.

    Attributes:
        base ([`Explanation`]): without its answer; the whole of it where the clip is refused.
        inputs (`dict`, *optional*): for `generate`; `None` where the clip is refused.
    """

    def __init__(self, model, processor, path, subtitle, question, language, faces, max_duration, explain_anyway):
        self.processor = processor
        size, num_frames = processor.image_processor.size, processor.image_processor.num_frames
        clip = read_clip(path, num_frames=num_frames, size=(size["height"], size["width"]), max_duration=max_duration)
        spans = [] if clip.waveform is None else processor.feature_extractor.clip_spans(len(clip.waveform))
        base = begin(clip, subtitle=subtitle, model=model.config.name_or_path, sound_spans=spans, language=language)
        question = " ".join((question or "").split()) or None
        for what, text in (("subtitle", base.subtitle), ("question", question)):
            if text is not None and processor.clean_user_text(text)[1]:
                base = base.with_notes(BROKEN_MARKUP.format(what=what))
        self.base, self.inputs = base, None
        if model.config.drawings_only and not _is_drawing(clip, num_frames):
            if not explain_anyway:
                self.base = dataclasses.replace(base, text=_REFUSAL, refused=True)
                return
            self.base = self.base.with_notes(_NO_DRAWING)
        if language == "zh":
            question = f"{question or processor.default_question} {IN_CHINESE}"
        media = {"waveform": clip.waveform, "frames": clip.frames}
        if processor.takes_faces:
            media["faces"] = self._face_crops(clip, faces)
            if "video" not in processor.media:
                del media["frames"]
        batch = processor(**media, subtitle=self.base.subtitle, question=question, return_tensors="pt")
        self.inputs = dict(batch.to(model.device, dtype=model.dtype))

    def _face_crops(self, clip: Clip, faces: str | os.PathLike | None) -> np.ndarray | None:
        from .faces import find_faces, mask_background, read_face_crops

        num_frames, size = self.processor.image_processor.num_frames, self.processor.image_processor.size["height"]
        if faces is not None:
            track = read_face_crops(faces, clip=clip.path, num_frames=num_frames, size=size)
        elif clip.frames is not None:
            # At their own size: a face in a frame that was stretched to the model's square is small and out of proportion.
            track = find_faces(read_clip(clip.path, num_frames=num_frames, audio=False).frames, size=size)
        else:
            return None
        self.base = dataclasses.replace(self.base, faces=track.source).with_notes(*track.notes)
        is_masked_here = self.processor.faces_are_masked and track.source == "detector"
        return mask_background(track.crops) if is_masked_here else track.crops

    def finish(self, ids: torch.LongTensor) -> Explanation:
        processor = self.processor
        written = processor.tokenizer.decode(ids, skip_special_tokens=True)
        explanation = self.base.with_text(self.answer_in(written))
        if not explanation.text:
            explanation = explanation.with_notes(NO_ANSWER)
        elif self.base.language == "zh" and not _CHINESE.search(explanation.text):
            explanation = explanation.with_notes(NOT_IN_CHINESE)
        if processor.stop_string not in written and processor.tokenizer.eos_token_id not in ids:
            explanation = explanation.with_notes(CUT_OFF.format(count=len(ids)))
        return explanation

    def answer_in(self, written: str) -> str:
        """The answer in what was written so far: up to the stop string, without the beginning of one or half a character."""
        answer, stop, _ = written.partition(self.processor.stop_string)
        return answer.strip() if stop else answer.rstrip("\ufffd#").strip()


def _growing(request: _Request, pieces):
    """Yield the explanation whenever its text has grown; the value is that of `pieces`, the token ids of the answer."""
    shown = ""
    while True:
        try:
            written = next(pieces)
        except StopIteration as end:
            return end.value
        text = request.answer_in(written)
        if len(text) > len(shown):
            shown = text
            yield request.base.with_text(text, is_complete=False)


def _is_drawing(clip: Clip, num_frames: int) -> bool:
    if clip.frames is None:
        return False
    if clip.frames.shape[1:3] == (DRAWING_SIZE, DRAWING_SIZE):
        return looks_drawn(clip.frames)
    return looks_drawn(read_clip(clip.path, num_frames=num_frames, size=(DRAWING_SIZE, DRAWING_SIZE), audio=False).frames)
