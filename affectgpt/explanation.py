"""From a clip on disk to an explanation: what a viewer might read from picture, voice and words, and from which signs.

`explain` joins the parts: `media.read_clip`, the processor, `model.generate`, and the reading of the answer by `labels`. The
command line, the demo and the evaluation call it.
"""

import dataclasses
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import StoppingCriteria, TextIteratorStreamer

# Through the package: that tells transformers' Auto classes about them, which loading a processor needs.
from . import AffectGPTConfig, AffectGPTForConditionalGeneration, AffectGPTProcessor
from .labels import split_clues, stated_labels
from .media import Clip, read_clip

NOTICE = (
    "What a viewer might read from outward signs, not what the person feels. Often wrong; differs by culture, age and disability."
)

SHIPPED_MODEL = str(Path(__file__).parent / "assets" / "sketch-model")

# About 400 words; the longest description of EMER-Fine has 521, nineteen of twenty have at most 305.
MAX_NEW_TOKENS = 512

_NO_SUBTITLE = "No subtitle was given; the words were not judged."
_BROKEN_MARKUP = "The {what} held markup of the prompt or runs of #, which was broken up with spaces and read as plain text."
_NO_ANSWER = "The model gave no answer."
_CUT_OFF = "The answer was cut off after {count} tokens, before its end. Raise `max_new_tokens` for the whole of it."
_REFUSAL = (
    "This clip was not explained. The model in use knows the drawings of EMER-Sketch only and has seen no real person: whatever it "
    "said about this clip would be made up. For people, give it the weights of a real AffectGPT model, a folder or a Hub id: "
    "`affectgpt explain --model <folder or id>`, or the environment variable `AFFECTGPT_MODEL`. None ships with this package. "
    "To see what the drawings' model says all the same, ask for it: `--explain-anyway`, or `explain_anyway=True` in Python."
)
_NO_DRAWING = "The model knows drawings only, and this clip does not look like one: about people, the answer is meaningless."

# How a clip of EMER-Sketch is told from a camera's, on frames of 112 x 112 pixels as `read_clip` gives them. Each bound is outside
# the range of the drawings that it was chosen on (H.264 at crf 18 to 35); together they shut out photographs (a portrait, animals,
# objects, textures: cropped, blurred, sharpened, dark, overexposed, grey, gaudy, compressed, before plain walls).
DRAWING_SIZE = 112
# Share of pixels of which no channel differs by more than FLAT_STEP from the neighbours to the right and below. Drawings are wide
# fills, camera pictures have texture; above the upper bound it is a plain wall.
FLAT_STEP = 2
FLAT_SHARE = (0.29, 0.68)
# Share of pixels within FILL_TOLERANCE of one of the NUM_FILLS commonest colours.
NUM_FILLS = 10
FILL_TOLERANCE = 4
MIN_FILL_SHARE = 0.38
# The same without the largest fill, black and white: a wall or a clipped exposure is one fill, a drawing has many.
MIN_MINOR_FILL_SHARE = 0.13
BLACK, WHITE = 24, 240
MAX_BLACK_OR_WHITE_SHARE = 0.10
# Mean distance between the strongest and the weakest channel.
MAX_CHROMA = 97.0
# In the middle, where the face is: share of steps that only ink makes, and of texture, which is weaker and farther than two pixels
# from any ink.
OUTLINE_STEP = 24
MIN_FACE_OUTLINE_SHARE = 0.14
TEXTURE_STEP = 4
MAX_FACE_TEXTURE_SHARE = 0.20
MAX_FACE_BLACK_OR_WHITE_SHARE = 0.05
MIN_FACE_CHROMA = 32.0


@dataclass(frozen=True)
class Explanation:
    """What the model says about a clip, and what it went by.

    Attributes:
        text (`str`): the answer.
        labels (`list[str]`): the emotions that the answer concludes, in lower case.
        clues (`dict[str, str]`): of "video", "audio" and "text" those that the answer speaks of, with its sentences about them.
        frame_times (`list[float]`): seconds of the frames that the model saw.
        sound_spans (`list[tuple[float, float]]`): start and end in seconds of each piece of sound that it heard.
        duration (`float`): seconds of the clip.
        notes (`list[str]`): what was missing, damaged, altered or cut off, as sentences.
        refused (`bool`): the model knows drawings only and was given something else; `text` says what to do.
        notice (`str`): what to keep in mind; shown with every result.
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

    def to_dict(self) -> dict:
        """The fields as JSON knows them."""
        return {**dataclasses.asdict(self), "sound_spans": [list(span) for span in self.sound_spans]}

    def __str__(self) -> str:
        paragraphs = [self.notice, self.text]
        if self.labels:
            paragraphs.append("Labels: " + ", ".join(self.labels))
        paragraphs += [f"Note: {note}" for note in self.notes]
        return "\n\n".join(paragraphs)


def load_model(
    name_or_path: str | os.PathLike = SHIPPED_MODEL, *, device: str | None = None
) -> tuple[AffectGPTForConditionalGeneration, AffectGPTProcessor]:
    """Load an AffectGPT checkpoint for explaining.

    Args:
        name_or_path (`str`): local folder or Hub id; by default the model that ships with the package, which knows drawings only.
        device (`str`, *optional*): where the model goes, such as "cpu" or "cuda:1"; by default the GPU if there is one.

    Returns:
        The model, in evaluation mode and in the precision it was saved in, and its processor.

    Raises:
        FileNotFoundError: if `name_or_path` is a path and no folder is there.
        OSError: if the Hub has no such repository or cannot be reached.
        ValueError: if it holds another kind of model or weights that do not fit, or if this machine has no such device.
    """
    name = os.path.expanduser(os.fspath(name_or_path))
    if (os.path.isabs(name) or name.startswith(".") or os.path.isfile(name)) and not os.path.isdir(name):
        found = "a file" if os.path.exists(name) else "nothing"
        raise FileNotFoundError(
            f"{name}: expected the folder of an AffectGPT checkpoint, got {found}. Give its folder or a Hub id."
        )
    has_gpu = torch.cuda.is_available()
    if device is not None and device.startswith("cuda") and not has_gpu:
        raise ValueError(
            f'Expected a device of this machine, got "{device}", but PyTorch sees no GPU here. Leave it out or say "cpu".'
        )
    kind = AffectGPTConfig.get_config_dict(name)[0].get("model_type")
    if kind != AffectGPTConfig.model_type:
        raise ValueError(f"{name}: expected an AffectGPT checkpoint, got a model of type {kind!r}. Give another folder or Hub id.")
    processor = AffectGPTProcessor.from_pretrained(name)
    device = device or ("cuda" if has_gpu else "cpu")
    return AffectGPTForConditionalGeneration.from_pretrained(name, dtype="auto", device_map=device).eval(), processor


def explain(
    model: AffectGPTForConditionalGeneration,
    processor: AffectGPTProcessor,
    path: str | os.PathLike,
    *,
    subtitle: str | None = None,
    question: str | None = None,
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
        subtitle (`str`, *optional*): what is said in the clip.
        question (`str`, *optional*): what to ask; by default the processor's question, which the model was trained with.
        max_new_tokens (`int`): an answer is cut off after so many tokens.
        max_duration (`float`, *optional*): seconds; a longer clip is refused before it is decoded.
        explain_anyway (`bool`): let a drawings-only model answer about anything; a note says what that is worth.
        generation_kwargs: for `model.generate`. Decoding is greedy unless `do_sample=True` is among them.

    Returns:
        [`Explanation`]

    Raises:
        MediaError: if the file cannot be read as a clip; the message names it and says what to do.
    """
    base, inputs = _prepare(model, processor, path, subtitle, question, max_duration, explain_anyway)
    if base.refused:
        return base
    return _finish(base, processor, _generate(model, processor, inputs, max_new_tokens=max_new_tokens, **generation_kwargs))


def explain_stream(
    model: AffectGPTForConditionalGeneration,
    processor: AffectGPTProcessor,
    path: str | os.PathLike,
    *,
    subtitle: str | None = None,
    question: str | None = None,
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
    base, inputs = _prepare(model, processor, path, subtitle, question, max_duration, explain_anyway)
    if base.refused:
        yield base
        return
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    stop = _StopWhenAsked()
    criteria = [*generation_kwargs.pop("stopping_criteria", []), stop]
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="affectgpt") as executor:
        generation = executor.submit(
            _generate,
            model,
            processor,
            inputs,
            max_new_tokens=max_new_tokens,
            stopping_criteria=criteria,
            streamer=streamer,
            **generation_kwargs,
        )
        # If generation dies, it does not end the stream itself, and the loop below would wait for ever.
        generation.add_done_callback(lambda _: streamer.text_queue.put(streamer.stop_signal))
        try:
            written, shown = "", ""
            for piece in streamer:
                written += piece
                text = _answer_in(written, processor.stop_string)
                if len(text) > len(shown):
                    shown = text
                    yield dataclasses.replace(base, text=text, clues=split_clues(text))
        finally:
            stop.asked.set()
        answer_ids = generation.result()
    yield _finish(base, processor, answer_ids)


def looks_drawn(frames: np.ndarray) -> bool:
    """Whether frames look like EMER-Sketch: wide flat fills of few colours, ink outlines, a coloured face. In doubt, no.

    Args:
        frames (`np.ndarray` of shape `(T, 112, 112, 3)`): uint8 RGB, as [`read_clip`] resizes them.

    Raises:
        ValueError: if the frames have another size, for which the bounds are not made.
    """
    if frames.shape[1:] != (DRAWING_SIZE, DRAWING_SIZE, 3):
        raise ValueError(
            f"Expected frames of {DRAWING_SIZE} x {DRAWING_SIZE} pixels, got {frames.shape}. Use `read_clip(size=...)`."
        )
    frames = frames.astype(np.int16)
    steps = np.maximum(np.abs(np.diff(frames, axis=1))[:, :, :-1], np.abs(np.diff(frames, axis=2))[:, :-1]).max(axis=-1)
    is_near_ink = torch.nn.functional.max_pool2d(torch.from_numpy(steps).float(), 5, stride=1, padding=2).numpy() > OUTLINE_STEP
    is_texture = (steps > TEXTURE_STEP) & ~is_near_ink
    chroma = frames.max(axis=-1) - frames.min(axis=-1)
    is_black_or_white = _is_black_or_white(frames)
    face = np.s_[:, DRAWING_SIZE * 3 // 10 : DRAWING_SIZE * 7 // 10, DRAWING_SIZE * 3 // 10 : DRAWING_SIZE * 7 // 10]
    is_like_a_drawing = (
        FLAT_SHARE[0] <= (steps <= FLAT_STEP).mean() <= FLAT_SHARE[1]
        and is_black_or_white.mean() <= MAX_BLACK_OR_WHITE_SHARE
        and chroma.mean() <= MAX_CHROMA
        and (steps[face] > OUTLINE_STEP).mean() >= MIN_FACE_OUTLINE_SHARE
        and is_texture[face].mean() <= MAX_FACE_TEXTURE_SHARE
        and is_black_or_white[face].mean() <= MAX_FACE_BLACK_OR_WHITE_SHARE
        and chroma[face].mean() >= MIN_FACE_CHROMA
    )
    if not is_like_a_drawing:
        return False
    fill_share, minor_fill_share = np.mean([_fill_shares(frame) for frame in frames], axis=0)
    return bool(fill_share >= MIN_FILL_SHARE and minor_fill_share >= MIN_MINOR_FILL_SHARE)


def _fill_shares(picture: np.ndarray) -> tuple[float, float]:
    """Shares of the pixels that the commonest colours cover: all of them, and those but the largest, black and white."""
    pixels = rest = picture.reshape(-1, 3).astype(np.int32)
    shares, minor = [], []
    while len(shares) < NUM_FILLS and len(rest):
        codes = rest // FILL_TOLERANCE @ np.array([256 * 256, 256, 1])
        values, counts = np.unique(codes, return_counts=True)
        fill = rest[codes == values[counts.argmax()]].mean(axis=0)
        is_covered = np.abs(rest - fill).max(axis=1) <= FILL_TOLERANCE
        shares.append(is_covered.sum() / len(pixels))
        minor.append(len(shares) > 1 and not _is_black_or_white(fill))
        rest = rest[~is_covered]
    return sum(shares), sum(share for share, is_minor in zip(shares, minor, strict=True) if is_minor)


def _is_black_or_white(colors: np.ndarray) -> np.ndarray:
    return (colors.max(axis=-1) <= BLACK) | (colors.min(axis=-1) >= WHITE)


class _StopWhenAsked(StoppingCriteria):
    def __init__(self):
        self.asked = threading.Event()

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs) -> torch.BoolTensor:
        return torch.full((len(input_ids),), self.asked.is_set(), device=input_ids.device)


def _prepare(model, processor, path, subtitle, question, max_duration, explain_anyway) -> tuple[Explanation, dict | None]:
    """The explanation without its answer, and what `generate` needs for it; `None` where the clip is refused."""
    size = processor.image_processor.size
    num_frames = processor.image_processor.num_frames
    clip = read_clip(path, num_frames=num_frames, size=(size["height"], size["width"]), max_duration=max_duration)
    notes = list(clip.notes)
    subtitle = " ".join((subtitle or "").split()) or None
    question = " ".join((question or "").split()) or None
    if subtitle is None:
        notes.append(_NO_SUBTITLE)
    for what, text in (("subtitle", subtitle), ("question", question)):
        if text is not None and processor.clean_user_text(text)[1]:
            notes.append(_BROKEN_MARKUP.format(what=what))
    spans = [] if clip.waveform is None else processor.feature_extractor.clip_spans(len(clip.waveform))
    base = Explanation(
        text="",
        labels=[],
        clues={},
        frame_times=[round(time, 3) for time in clip.frame_times],
        sound_spans=[(round(start, 3), round(end, 3)) for start, end in spans],
        duration=round(clip.duration, 3),
        notes=notes,
        refused=False,
    )
    if model.config.drawings_only and not _is_drawing(clip, num_frames):
        if not explain_anyway:
            return dataclasses.replace(base, text=_REFUSAL, refused=True), None
        notes.append(_NO_DRAWING)
    batch = processor(frames=clip.frames, waveform=clip.waveform, subtitle=subtitle, question=question, return_tensors="pt")
    return base, dict(batch.to(model.device, dtype=model.dtype))


def _is_drawing(clip: Clip, num_frames: int) -> bool:
    if clip.frames is None:
        return False
    if clip.frames.shape[1:3] == (DRAWING_SIZE, DRAWING_SIZE):
        return looks_drawn(clip.frames)
    return looks_drawn(read_clip(clip.path, num_frames=num_frames, size=(DRAWING_SIZE, DRAWING_SIZE), audio=False).frames)


def _generate(model, processor, inputs: dict, **options) -> torch.LongTensor:
    """Token ids of the answer, without the prompt."""
    options.setdefault("do_sample", False)
    return model.generate(**inputs, tokenizer=processor.tokenizer, **options)[0, inputs["input_ids"].shape[1] :].cpu()


def _finish(base: Explanation, processor, answer_ids: torch.LongTensor) -> Explanation:
    written = processor.tokenizer.decode(answer_ids, skip_special_tokens=True)
    text = _answer_in(written, processor.stop_string)
    notes = base.notes
    if not text:
        notes = [*notes, _NO_ANSWER]
    if processor.stop_string not in written and processor.tokenizer.eos_token_id not in answer_ids:
        notes = [*notes, _CUT_OFF.format(count=len(answer_ids))]
    return dataclasses.replace(base, text=text, labels=stated_labels(text), clues=split_clues(text), notes=notes)


def _answer_in(written: str, stop_string: str) -> str:
    """The answer in what was written so far: up to the stop string, without the beginning of one or half a character at its end."""
    answer, stop, _ = written.partition(stop_string)
    return answer.strip() if stop else answer.rstrip("\ufffd#").strip()
