"""From corpus rows to training batches.

Whatever is drawn (the question, the kind of answer, the modalities left out) is a function of the collator's seed and the row's
`position` in the run alone: workers, their number and a resumed run change nothing.
"""

import dataclasses
import re
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from .corpus import has_clip, media_path
from .lexicon import is_chinese, synonym_set_of, synonym_sets
from .media import Clip, MediaError, read_clip
from .processing_affectgpt import IN_CHINESE, AffectGPTProcessor
from .subtitles import as_subtitle

MODALITIES = ("video", "audio", "text")
# What the processor takes of each.
_PARTS = {"video": ("frames", "faces"), "audio": ("waveform",), "text": ("subtitle",)}
# What the model takes in place of each.
_FEATURES = {"frames": "video_features", "faces": "face_features", "waveform": "audio_features"}

# Asked when the answer is a list of labels, and that answer: the authors' of 2025 (my_affectgpt/datasets/datasets/base_dataset.py,
# commit d961cab). A clip whose annotators found no label is "neutral" there.
LABEL_QUESTION = "Please recognize all possible emotional states of the character."
_LABEL_ANSWER = "The character's emotional state is {labels}."
_LABEL_ANSWER_ZH = "人物的情感状态是{labels}。"
_NO_LABEL, _NO_LABEL_ZH = "neutral", "中性"

# Other ways to ask for an explanation, for `questions`.
QUESTIONS = (
    "From what clues can we infer the person's emotional state?",  # the paper's
    "Please infer the person's emotional state and provide your reasoning process.",  # the authors' of 2025
    "How does the person seem to feel, and which signs speak for it?",
    "What do face, voice and words tell about the person's feelings?",
    "Describe the signs of emotion in this clip and conclude what the person feels.",
    "Which emotions does the person show? Explain how you can tell.",
    "Look, listen and read: what is the emotional state of the person, and why do you think so?",
    "Explain step by step what the person in the clip is likely to feel.",
)

_SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s|$)|[。！？；…]+[”’」』）)\"]*")
_ABBREVIATION = re.compile(r"(?:^|[\s(\"“])(?:Mr|Mrs|Ms|Dr|Prof|St|vs|e\.g|i\.e)\.$")
_WORD = re.compile(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+")


@dataclass
class AffectGPTCollator:
    """Read each row's clip and make one batch, labels included.

    Args:
        processor: the checkpoint's.
        modalities: what the model may have of a clip; a row's picture, sound or subtitle is left out if not named here.
        with_answers: whether rows are to be learnt from; without, batches are ready for `generate`.
        language: of the answers, "en" or "zh"; the subtitle is in the same language if the row has it.
        label_share: share of the rows that answer with their labels instead of their explanation: 0 none, 1 all, 0.5 about half
            (the authors' "hybrid" of 2025), each with the question that belongs to it. Between 0 and 1, a row that has only one of
            both gives that.
        questions: asked for explanations, one of them drawn for each row; none for the processor's own.
        label_questions: asked for labels, likewise.
        dropout: probability with which a row loses a modality, e.g. `{"audio": 0.1, "text": 0.2}`. It never loses its last.
        max_length: tokens of a row. A longer explanation is cut at the end of a sentence, or of a word if its first sentence is too
            long; the prompt never is. `cut_rows` tells beforehand, `num_cut` counts in this process.
        faces_folder: face crops by the names of rows (`faces.read_face_crops`), for models that look at faces; without it, they are
            cut out of the frames.
        features: gives, of a row's `video`, what the frozen encoders make of the clip: a tensor each of those of `video_features`,
            `face_features` and `audio_features` that it has (`training.cache_features`). No clip is opened then.
        seed: of the draws.

    Takes rows of `affectgpt.corpus.FEATURES` and, where anything is drawn, their `position`, an integer that no two draws of a run
    share. Gives what [`AffectGPTProcessor`] gives for them: `input_ids`, `attention_mask`, `labels`, and the media that rows have,
    or their features.
    """

    processor: AffectGPTProcessor
    modalities: Sequence[str] = MODALITIES
    with_answers: bool = True
    language: str = "en"
    label_share: float = 0.0
    questions: Sequence[str] = ()
    label_questions: Sequence[str] = (LABEL_QUESTION,)
    dropout: Mapping[str, float] = field(default_factory=dict)
    max_length: int | None = None
    faces_folder: str | Path | None = None
    features: Callable[[Mapping], Mapping[str, torch.Tensor]] | None = None
    seed: int = 0
    num_cut: int = field(default=0, init=False)

    def __post_init__(self):
        for what, given in (("modalities", self.modalities), ("the modalities of `dropout`", self.dropout)):
            unknown = set(given) - set(MODALITIES)
            if unknown:
                raise ValueError(f"Expected {what} among {', '.join(MODALITIES)}, got {', '.join(sorted(unknown))}.")
        if self.language not in ("en", "zh"):
            raise ValueError(f'Expected the language "en" or "zh", got {self.language!r}.')
        for what, value in (("label_share", self.label_share), *self.dropout.items()):
            if not 0 <= value <= 1:
                raise ValueError(f"Expected `{what}` between 0 and 1, got {value}.")
        if self.label_share > 0 and not self.label_questions:
            raise ValueError("Expected `label_questions` beside a `label_share`, got none.")

    def __call__(self, rows: list[dict]) -> dict:
        requests = [{"image": None} | self._request(row) for row in rows]
        columns = {name: [request[name] for request in requests] for name in requests[0]}
        if self.features is None:
            return dict(self.processor(**columns | {"answer": columns["answer"] if self.with_answers else None}))
        present = {name: [tensor for tensor in columns[part] if tensor is not None] for part, name in _FEATURES.items()}
        return self.processor.encode_texts(columns) | {name: torch.stack(tensors) for name, tensors in present.items() if tensors}

    def cut_rows(self, rows) -> list[str]:
        """The names of the rows whose explanation `max_length` cuts if they keep all their modalities and get the longest question.

        No clip is opened.

        Raises:
            ValueError: if a prompt alone is too long, naming the row.
        """
        if self.max_length is None or self.label_share == 1:
            return []
        names = []
        for row in rows:
            answer = self._description(row)
            if answer is None:
                continue
            has_media = has_clip(row["video"])
            media = {
                part: True if has_media and modality in self.modalities else None
                for modality in ("video", "audio")
                for part in _PARTS[modality]
            }
            prompts = [
                media | {"subtitle": self._subtitle(row), "question": self._in_language(question)}
                for question in self.questions or (self.processor.default_question,)
            ]
            if self._fitted(answer, max(self._prompt_length(prompt) for prompt in prompts), row["name"]) != answer:
                names.append(row["name"])
        return names

    def _request(self, row: dict) -> dict:
        """What the processor takes, of one row."""
        question_draw, kind_draw, *dropout_draws = self._draws(row)
        request = self.read(row) | {"subtitle": self._subtitle(row)}
        request = self._dropped(request, dict(zip(MODALITIES, dropout_draws, strict=True)), row["name"])

        description = self._description(row)
        wants_labels = kind_draw < self.label_share
        if 0 < self.label_share < 1:
            wants_labels = (wants_labels and row["labels"] is not None) or description is None
        questions = self.label_questions if wants_labels else self.questions or (self.processor.default_question,)
        request["question"] = self._in_language(questions[int(question_draw * len(questions))])
        if not self.with_answers:
            return request | {"answer": None}
        answer = self._label_answer(row["labels"]) if wants_labels else description
        if answer is None:
            expected = "labels" if wants_labels else "description" if self.language == "en" else "description_zh"
            raise ValueError(f"Expected `{expected}` in row {row['name']!r}, got none. Leave such rows out.")
        if self.max_length is not None:
            fitted = self._fitted(answer, self._prompt_length(request), row["name"])
            self.num_cut += fitted != answer
            answer = fitted
        return request | {"answer": answer}

    def _draws(self, row: dict) -> Sequence[float]:
        """Five numbers in [0, 1): for the question, the kind of answer, and the dropout of picture, sound and words."""
        is_random = (
            len(self.questions) > 1
            or (self.label_share > 0 and len(self.label_questions) > 1)
            or 0 < self.label_share < 1
            or any(self.dropout.values())
        )
        if not is_random:
            return (0.0,) * 5
        if row.get("position") is None:
            raise ValueError(
                "Expected the `position` of each row in the run, from which questions, kinds of answers and dropout are drawn, got "
                f"row {row['name']!r} without. Add it to the rows, or draw nothing."
            )
        return np.random.default_rng([self.seed, row["position"]]).random(5)

    def _dropped(self, media: dict, draws: Mapping[str, float], name: str) -> dict:
        """A row's media without those that dropout takes."""
        present = [modality for modality in MODALITIES if any(media[part] is not None for part in _PARTS[modality])]
        if not present:
            raise MediaError(
                f"Row {name}: expected {' or '.join(self.modalities)}, got none of it. Join clips by "
                "`affectgpt.corpus.attach_media`, or leave the row out."
            )
        kept = [modality for modality in present if draws[modality] >= self.dropout.get(modality, 0.0)]
        if not kept:  # the one that came nearest to staying
            kept = [max(present, key=lambda modality: draws[modality] - self.dropout[modality])]
        return {part: media[part] if modality in kept else None for modality in MODALITIES for part in _PARTS[modality]}

    def read(self, row: dict) -> dict:
        """Frames, waveform and face crops of a row's clip, or their features: what it has and the model takes of `modalities`."""
        media = dict.fromkeys(("frames", "waveform", "faces"))
        takes = self.processor.media
        with_faces = "video" in self.modalities and self.processor.takes_faces
        with_frames = "video" in self.modalities and ("video" in takes or ("fusion" in takes and not with_faces))
        with_sound = "audio" in self.modalities and ("audio" in takes or "fusion" in takes)
        if not has_clip(row["video"]) or not (with_faces or with_frames or with_sound):
            return media
        if self.features is not None:
            found = self.features(row["video"])
            wanted = {"frames": with_frames, "waveform": with_sound, "faces": with_faces}
            return {part: found.get(_FEATURES[part]) if is_wanted else None for part, is_wanted in wanted.items()}
        size = self.processor.image_processor.size
        with tempfile.TemporaryDirectory() as folder:  # for a clip that is embedded in the corpus
            path = media_path(row["video"], folder)
            try:
                if with_frames or with_sound:
                    clip = self._clip(path, size=(size["height"], size["width"]), video=with_frames, audio=with_sound)
                    media |= {"frames": clip.frames, "waveform": clip.waveform}
                if with_faces:
                    media["faces"] = self._face_crops(row["name"], path)
            except MediaError as error:
                raise MediaError(f"Row {row['name']}: {error}") from error
        return media

    def _clip(self, path: Path, *, size: tuple[int, int] | None, video: bool, audio: bool) -> Clip:
        num_frames = self.processor.image_processor.num_frames
        try:
            return read_clip(path, num_frames=num_frames, size=size, video=video, audio=audio)
        except MediaError:
            if video and audio:
                raise
            # A clip without what is wanted is no bad file if it has the rest.
            clip = read_clip(path, num_frames=num_frames, size=size)
            return dataclasses.replace(clip, frames=clip.frames if video else None, waveform=clip.waveform if audio else None)

    def _face_crops(self, name: str, path: Path) -> np.ndarray | None:
        from .faces import find_faces, mask_background, read_face_crops

        size, num_frames = self.processor.image_processor.size["height"], self.processor.image_processor.num_frames
        if self.faces_folder is not None:
            return read_face_crops(self.faces_folder, clip=name, num_frames=num_frames, size=size).crops
        # At their own size: a face in a frame that was stretched to the model's square is small and out of proportion.
        frames = self._clip(path, size=None, video=True, audio=False).frames
        if frames is None:
            return None
        track = find_faces(frames, size=size)
        is_masked_here = self.processor.faces_are_masked and track.source == "detector"
        return mask_background(track.crops) if is_masked_here else track.crops

    def _subtitle(self, row: dict) -> str | None:
        """What is said, in the language of the answers if the row has it, otherwise in the other."""
        if "text" not in self.modalities:
            return None
        in_languages = [row["subtitle"], row["subtitle_zh"]]
        found = (as_subtitle(text) for text in (in_languages if self.language == "en" else reversed(in_languages)))
        return next((subtitle.text for subtitle in found if subtitle is not None), None)

    def _description(self, row: dict) -> str | None:
        return ((row["description"] if self.language == "en" else row["description_zh"]) or "").strip() or None

    def _label_answer(self, labels: list[str] | None) -> str | None:
        if labels is None:
            return None
        if self.language == "en":
            return _LABEL_ANSWER.format(labels=", ".join(labels) or _NO_LABEL)
        return _LABEL_ANSWER_ZH.format(labels="、".join(dict.fromkeys(map(_in_chinese, labels))) or _NO_LABEL_ZH)

    def _in_language(self, question: str) -> str:
        return question if self.language == "en" else f"{question} {IN_CHINESE}"

    def _prompt_length(self, request: dict) -> int:
        return len(self.processor.encode_prompt(True, {"image": None} | request))

    def _fitted(self, answer: str, prompt_length: int, name: str) -> str:
        """The answer, or as much of its beginning as `max_length` leaves room for."""
        room = self.max_length - prompt_length
        if self._answer_length(answer) <= room:
            return answer
        for ends in (_sentence_ends(answer), [match.end() for match in _WORD.finditer(answer)]):
            number = bisect_right(ends, room, key=lambda end: self._answer_length(answer[:end]))
            if number:
                return answer[: ends[number - 1]]
        raise ValueError(
            f"Row {name}: expected a `max_length` with room for an answer after its prompt of {prompt_length} tokens, got "
            f"{self.max_length}. Raise it, or leave the row out."
        )

    def _answer_length(self, answer: str) -> int:
        text = self.processor.clean_user_text(answer)[0] + self.processor.stop_string
        return len(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]) + self.processor.eos_after_answer


def _sentence_ends(text: str) -> list[int]:
    """Where the sentences of an English or Chinese text end; not in quotations."""
    ends = []
    for match in _SENTENCE_END.finditer(text):
        before = text[: match.end()]
        is_quoted = before.count('"') % 2 or before.count("“") > before.count("”")
        if not is_quoted and not _ABBREVIATION.search(before):
            ends.append(match.end())
    return ends


def _in_chinese(label: str) -> str:
    """A label by the Chinese name of its synonym set; one that the lexicon does not know as it stands."""
    synonyms = None if is_chinese(label) else synonym_set_of(label)
    return label if synonyms is None else synonym_sets()[synonyms].chinese
