"""From corpus rows to training batches."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from .corpus import media_path
from .media import Clip, read_clip
from .processing_affectgpt import AffectGPTProcessor

MODALITIES = ("video", "audio", "text")


@dataclass
class AffectGPTCollator:
    """Read each row's clip and make one batch, labels included.

    Args:
        processor: the checkpoint's.
        modalities: what the model may have of a clip; a row's picture, sound or subtitle is left out if not named here.
        with_answers: whether rows are to be learnt from; without, batches are ready for `generate`.

    Takes rows of `affectgpt.corpus.FEATURES` (`video`, `subtitle` and `description` are read) and gives what
    [`AffectGPTProcessor`] gives for them: `input_ids`, `attention_mask`, `labels`, and the media that the rows have.
    """

    processor: AffectGPTProcessor
    modalities: tuple[str, ...] = MODALITIES
    with_answers: bool = True

    def __post_init__(self):
        unknown = set(self.modalities) - set(MODALITIES)
        if unknown:
            raise ValueError(f"Expected modalities among {', '.join(MODALITIES)}, got {', '.join(sorted(unknown))}.")

    def __call__(self, rows: list[dict]) -> dict:
        media = {"frames": None, "waveform": None}
        if {"video", "audio"} & set(self.modalities):
            with tempfile.TemporaryDirectory() as folder:  # for clips that are embedded in the corpus
                clips = [self._read(media_path(row["video"], folder)) for row in rows]
            media = {"frames": [clip.frames for clip in clips], "waveform": [clip.waveform for clip in clips]}
        batch = self.processor(
            **media,
            subtitle=[row["subtitle"] if "text" in self.modalities else None for row in rows],
            answer=[row["description"] for row in rows] if self.with_answers else None,
        )
        return dict(batch)

    def _read(self, path: Path) -> Clip:
        size = self.processor.image_processor.size
        return read_clip(
            path,
            num_frames=self.processor.image_processor.num_frames,
            size=(size["height"], size["width"]),
            video="video" in self.modalities,
            audio="audio" in self.modalities,
        )
