"""The words of a clip: a subtitle that is given, read from a subtitle file, or recognised in the sound by a Whisper-class model."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .predictions import clip_name

SUBTITLE_SUFFIXES = (".srt", ".vtt")
# Longer ones are not subtitles of a clip; what a model reads is far shorter.
MAX_SUBTITLE_BYTES = 4 * 1024 * 1024

# Largest sample of what counts as silence, as in `media`.
SILENCE = 1e-3

_TIMING = re.compile(r"(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}\s*-->\s*(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}")
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&nbsp;": " ", "&lrm;": "", "&rlm;": ""}


@dataclass(frozen=True)
class Subtitle:
    """What is said in a clip, and how that is known.

    Attributes:
        text (`str`): the words, on one line; empty if nothing is said.
        source (`str`): "given", "file NAME" or "ASR MODEL".
    """

    text: str
    source: str = "given"


def as_subtitle(subtitle: "str | Subtitle | None") -> Subtitle | None:
    """A subtitle on one line; `None` if there are no words in it."""
    if subtitle is None:
        return None
    subtitle = subtitle if isinstance(subtitle, Subtitle) else Subtitle(subtitle)
    text = " ".join(subtitle.text.split())
    return Subtitle(text, subtitle.source) if text else None


def read_subtitle(path: str | os.PathLike) -> Subtitle:
    """Read a SubRip (.srt) or WebVTT (.vtt) file: the text of its cues in their order, joined, without times and markup.

    A cue that repeats the line before it, as in captions that roll, counts once.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no subtitle file: too large, not text, or without cues.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a subtitle file, got no file of this name. Check the path.")
    if path.stat().st_size > MAX_SUBTITLE_BYTES:
        raise ValueError(f"{path}: expected subtitles of at most {MAX_SUBTITLE_BYTES} bytes, got {path.stat().st_size}. Cut them.")
    lines = _decode(path).splitlines()
    starts = [number for number, line in enumerate(lines) if _TIMING.search(line)]
    if not starts:
        raise ValueError(f"{path}: expected cues with times (00:00:01,000 --> 00:00:02,000), got none. Give an .srt or .vtt file.")
    said: list[str] = []
    for start in starts:
        for line in lines[start + 1 :]:
            if not line.strip() or _TIMING.search(line):
                break
            text = _plain(line)
            # The number of the next cue, where the empty line before it is missing.
            is_number = text.isdigit() and _is_before_timing(lines, start, line)
            if text and not is_number and (not said or said[-1] != text):
                said.append(text)
    return Subtitle(" ".join(said), f"file {path.name}")


def find_subtitle(folder: str | os.PathLike, clip: str | os.PathLike) -> Path | None:
    """The subtitle file in `folder` that has the name of `clip`; `None` if there is none."""
    candidates = [Path(folder) / f"{clip_name(clip)}{suffix}" for suffix in SUBTITLE_SUFFIXES]
    return next((path for path in candidates if path.is_file()), None)


def _decode(path: Path) -> str:
    data = path.read_bytes()
    encodings = ["utf-16"] if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ["utf-8-sig", "gb18030", "cp1252"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise ValueError(f"{path}: expected text in UTF-8, UTF-16, GB 18030 or Windows-1252, got something else. Save it as UTF-8.")


def _plain(line: str) -> str:
    text = _TAG.sub("", line)
    for entity, character in _ENTITIES.items():
        text = text.replace(entity, character)
    return " ".join(text.split())


def _is_before_timing(lines: list[str], start: int, line: str) -> bool:
    position = next(number for number in range(start + 1, len(lines)) if lines[number] is line)
    return position + 1 < len(lines) and _TIMING.search(lines[position + 1]) is not None


class Transcriber:
    """A Whisper-class speech recogniser from transformers: the sound of a clip -> its words.

    Args:
        name_or_path (`str`): folder or Hub id, such as "openai/whisper-large-v3".
        language (`str`, *optional*): code of the language spoken, such as "en" or "zh"; by default the model finds out.
        device, dtype: as in `generation.loading_options`.

    Raises:
        OSError: if the Hub has no such repository or cannot be reached.
        ValueError: if the model is no speech recogniser.
    """

    def __init__(self, name_or_path: str | os.PathLike, *, language: str | None = None, device: str | None = None, dtype=None):
        from transformers import AutoConfig, AutoModelForSpeechSeq2Seq, AutoProcessor

        from .generation import loading_options

        self.name = os.fspath(name_or_path)
        self.language = language
        options = loading_options(device=device, dtype=dtype)
        config = AutoConfig.from_pretrained(self.name)
        if type(config) not in AutoModelForSpeechSeq2Seq._model_mapping:
            raise ValueError(
                f"{self.name}: expected a speech recogniser such as openai/whisper-small, got a model of type "
                f"{config.model_type!r}. Give another one to `--asr`."
            )
        self._processor = AutoProcessor.from_pretrained(self.name)
        self._model = AutoModelForSpeechSeq2Seq.from_pretrained(self.name, **options).eval()
        self._is_multilingual = getattr(self._model.generation_config, "is_multilingual", False)
        if language not in (None, "en") and not self._is_multilingual:
            raise ValueError(f"{self.name}: expected a model that knows the language {language!r}, got one for English only.")

    def transcribe(self, waveform: np.ndarray, sampling_rate: int = 16_000) -> Subtitle:
        """The words in a sound of any length.

        Args:
            waveform (`np.ndarray` of shape `(num_samples,)`): float32 in [-1, 1].
            sampling_rate (`int`): of `waveform` in Hz; the recogniser's, 16 kHz for Whisper.

        Raises:
            ValueError: if the rate is not the recogniser's, or the model does not know the language.
        """
        source = f"ASR {self.name}"
        if np.abs(waveform).max(initial=0.0) < SILENCE:
            return Subtitle("", source)  # Whisper makes words up for silence
        extractor = self._processor.feature_extractor
        # Beyond one window (30 s) Whisper moves along the sound by the times that it predicts, which needs all of it, untrimmed.
        is_long = len(waveform) > getattr(extractor, "n_samples", len(waveform))
        options = {"truncation": False, "padding": "longest"} if is_long else {}
        inputs = extractor(waveform, sampling_rate=sampling_rate, return_tensors="pt", return_attention_mask=True, **options).to(
            self._model.device, dtype=self._model.dtype
        )
        generate = {"return_timestamps": True} if is_long else {}
        if self._is_multilingual:
            generate |= {"task": "transcribe", "language": self.language}
        ids = self._model.generate(**inputs, do_sample=False, **generate)
        text = self._processor.batch_decode(ids, skip_special_tokens=True)[0]
        return Subtitle(" ".join(text.split()), source)

    def transcribe_clip(self, path: str | os.PathLike, *, max_duration: float | None = None) -> Subtitle | None:
        """The words of a video or sound file; `None` if it has no sound.

        Raises:
            MediaError: if the file cannot be read as a clip.
        """
        from .media import read_clip

        waveform = read_clip(path, num_frames=1, max_duration=max_duration).waveform
        return None if waveform is None else self.transcribe(waveform)
