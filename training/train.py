"""Train the resamplers of an AffectGPT checkpoint on a corpus: both stages of the paper, one arguments file each.

    python -m training.train --config training/stage1.args
    python -m training.train --config training/stage2.args

Flags after `--config` win over the file; all of `transformers.TrainingArguments` can be given. A run that was stopped goes on from
its last checkpoint when the same command is given again.
"""

import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import load_dataset
from torch import nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import HfArgumentParser, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

import affectgpt  # noqa: F401  (before transformers: see affectgpt/_torchaudio_guard.py)
from affectgpt import AffectGPTCollator, AffectGPTForConditionalGeneration, AffectGPTProcessor
from affectgpt.explanation import NOTICE
from training.cache_features import FeatureCache, encoders

logger = logging.getLogger(__name__)

CARD = """\
---
library_name: transformers
pipeline_tag: video-text-to-text
tags: [affectgpt, emotion-recognition, multimodal, custom_code]
---

# {title}

A training run of AffectGPT as it ended, without a review: licence, origin and figures are not stated here. It carries the strictest
licence of what it was trained from and on. `python -m hub.push_model` pushes it with all of that.

Every result is a guess: **{notice}** It must not be used at work, in education, for hiring, policing, migration, credit, insurance
or diagnosis.
"""


@dataclass
class ModelArguments:
    """Which checkpoint to start from, and which of its modules learn."""

    model_name_or_path: str = field(metadata={"help": "Hub id or local folder of an AffectGPT checkpoint."})
    trainable_modules: list[str] = field(
        default_factory=lambda: ["model.video_resampler", "model.audio_resampler"],
        metadata={"help": "Submodules to train, e.g. `model.video_resampler`; every other parameter is frozen."},
    )


@dataclass
class DataArguments:
    """Which rows to train on."""

    dataset_name: str = field(metadata={"help": "Hub id or local folder of a corpus."})
    dataset_config: str = field(metadata={"help": "Configuration of the corpus, e.g. `EMER-Coarse`."})
    dataset_split: str = field(default="train", metadata={"help": "Split to train on."})
    modalities: list[str] = field(
        default_factory=lambda: ["video", "audio", "text"],
        metadata={"help": "What the model may have of a clip: any of `video`, `audio` and `text` (the subtitle)."},
    )
    language: str = field(default="en", metadata={"help": "Language of the answers, `en` or `zh`."})
    label_share: float = field(
        default=0.0, metadata={"help": "Share of the rows that answer with their labels instead of their explanation, 0 to 1."}
    )
    questions: list[str] = field(
        default_factory=list, metadata={"help": "Asked for explanations, one drawn for each row. Default: the processor's own."}
    )
    modality_dropout: str = field(
        default="{}", metadata={"help": 'Probabilities with which a row loses a modality, as JSON, e.g. {"audio": 0.1}.'}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Tokens of a row; longer explanations are cut at the end of a sentence, and counted."}
    )
    faces_folder: str | None = field(
        default=None, metadata={"help": "Face crops by the names of rows (.npy), for models that look at faces."}
    )
    features: str | None = field(
        default=None, metadata={"help": "Folder of `training.cache_features`: no clip is opened, and no frozen encoder runs."}
    )


class RowSequence(Dataset):
    """The training set as one sequence: item `k` is a function of (`seed`, `k`) alone, so that a resumed run sees the same rows.

    Each pass over `rows` is a fresh shuffle; passes follow each other until `num_items`.
    """

    def __init__(self, rows, num_items: int, seed: int):
        self.rows = rows
        self.num_items = num_items
        self.seed = seed
        self._pass, self._order = None, None

    def __len__(self) -> int:
        return self.num_items

    def __getitem__(self, index: int) -> dict:
        number, position = divmod(index, len(self.rows))
        if number != self._pass:
            self._pass, self._order = number, np.random.default_rng([self.seed, number]).permutation(len(self.rows))
        # Its place in the run is what the collator's draws depend on.
        return {**self.rows[int(self._order[position])], "position": index}


class SequenceTrainer(Trainer):
    """A `Trainer` that reads its training set in order: `RowSequence` has shuffled it already."""

    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)

    def create_model_card(self, *_, **__) -> None:
        """Write the card that `--push_to_hub` sends along: what this is, and what it must not be used for."""
        path = Path(self.args.output_dir) / "README.md"
        path.write_text(CARD.format(title=Path(self.args.output_dir).resolve().name, notice=NOTICE), encoding="utf-8")


def check_rows(rows, *, language: str = "en", label_share: float = 0.0) -> None:
    """Refuse a corpus with rows that cannot be trained on, all of them listed, before any step is taken.

    Raises:
        ValueError: for rows without an answer of the kind that is to be learnt, or whose clip is missing or empty.
    """
    problems = []
    column = "description" if language == "en" else f"description_{language}"
    for number, row in enumerate(rows):
        has_description = bool((row[column] or "").strip())
        # A row that may answer with either gives the one that it has.
        if label_share < 1 and not has_description and not (label_share > 0 and row["labels"]):
            problems.append(f"row {number} ({row['name']}): no `{column}`")
        if label_share == 1 and not row["labels"]:
            problems.append(f"row {number} ({row['name']}): no `labels`")
        path, embedded = row["video"]["path"], row["video"]["bytes"]
        if embedded is None and not (path and os.path.isfile(path) and os.path.getsize(path)):
            problems.append(f"row {number} ({row['name']}): no clip at {path}")
    if problems:
        raise ValueError(
            f"Expected a clip and an answer in each of {len(rows)} rows, got {len(problems)} without: {'; '.join(problems)}. "
            "Mend or drop these rows."
        )


def train_only(model: nn.Module, names: list[str]) -> None:
    """Freeze `model` except the submodules `names`. An unknown name raises `AttributeError`."""
    model.requires_grad_(False)
    for name in names:
        model.get_submodule(name).requires_grad_(True)


def check_encoders_are_frozen(model: AffectGPTForConditionalGeneration) -> None:
    """Raises `ValueError`, naming them, if encoders whose features are cached are to learn."""
    learning = [f"model.{name}" for name, encoder in encoders(model).items() if any(p.requires_grad for p in encoder.parameters())]
    if learning:
        raise ValueError(
            f"Expected `--trainable_modules` without the encoders whose outputs `--features` holds, got {', '.join(learning)}. "
            "Leave them out, or train without `--features`."
        )


def last_whole_checkpoint(output_dir: str) -> str | None:
    """The checkpoint to resume from. `trainer_state.json` is written last: one without it was cut off while being saved."""
    checkpoints = Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    for checkpoint in sorted(checkpoints, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            logger.warning("%s is incomplete and is passed over.", checkpoint)
        else:
            return str(checkpoint)
    return None


def main(arguments: list[str] | None = None) -> None:
    parser = HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
    model_args, data_args, training_args = parser.parse_args_into_dataclasses(args=arguments, args_file_flag="--config")
    logging.basicConfig(level=training_args.get_process_log_level(), format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if training_args.max_steps <= 0:
        raise ValueError(f"Expected `--max_steps` above 0, got {training_args.max_steps}. Say how many steps the stage takes.")
    training_args.remove_unused_columns = False  # the collator reads the rows' own columns
    set_seed(training_args.seed)

    processor = AffectGPTProcessor.from_pretrained(model_args.model_name_or_path)
    model = AffectGPTForConditionalGeneration.from_pretrained(model_args.model_name_or_path)
    train_only(model, model_args.trainable_modules)
    features = None
    if data_args.features is not None:
        check_encoders_are_frozen(model)
        features = FeatureCache(data_args.features, model, processor, faces=data_args.faces_folder)
    rows = load_dataset(data_args.dataset_name, data_args.dataset_config, split=data_args.dataset_split)
    check_rows(rows, language=data_args.language, label_share=data_args.label_share)
    if features is not None:
        features.check(rows)
    collator = AffectGPTCollator(
        processor,
        modalities=tuple(data_args.modalities),
        language=data_args.language,
        label_share=data_args.label_share,
        questions=tuple(data_args.questions),
        dropout=json.loads(data_args.modality_dropout),
        max_length=data_args.max_length,
        faces_folder=data_args.faces_folder,
        features=None if features is None else features.read,
        seed=training_args.seed,
    )
    if data_args.max_length is not None:
        cut = collator.cut_rows(rows)
        logger.info("%d of %d explanations are cut to %d tokens a row.", len(cut), len(rows), data_args.max_length)
    batch_size = training_args.per_device_train_batch_size * training_args.gradient_accumulation_steps * training_args.world_size

    trainer = SequenceTrainer(
        model=model,
        args=training_args,
        train_dataset=RowSequence(rows, training_args.max_steps * batch_size, training_args.seed),
        data_collator=collator,
        processing_class=processor,
    )
    num_trainable = {name: sum(p.numel() for p in model.get_submodule(name).parameters()) for name in model_args.trainable_modules}
    logger.info("Training %d of %d parameters: %s.", sum(num_trainable.values()), model.num_parameters(), num_trainable)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(training_args.output_dir))
    trainer.save_model()
    trainer.save_state()


if __name__ == "__main__":
    main()
