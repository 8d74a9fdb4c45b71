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

logger = logging.getLogger(__name__)


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
        return self.rows[int(self._order[position])]


class SequenceTrainer(Trainer):
    """A `Trainer` that reads its training set in order: `RowSequence` has shuffled it already."""

    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)


def check_rows(rows) -> None:
    """Refuse a corpus with rows that cannot be trained on, all of them listed, before any step is taken.

    Raises:
        ValueError: for rows without an explanation or whose clip is missing or empty.
    """
    problems = []
    for number, row in enumerate(rows):
        if not (row["description"] or "").strip():
            problems.append(f"row {number} ({row['name']}): no `description`")
        path, embedded = row["video"]["path"], row["video"]["bytes"]
        if embedded is None and not (path and os.path.isfile(path) and os.path.getsize(path)):
            problems.append(f"row {number} ({row['name']}): no clip at {path}")
    if problems:
        raise ValueError(
            f"Expected a clip and an explanation in each of {len(rows)} rows, got {len(problems)} without: {'; '.join(problems)}. "
            "Mend or drop these rows."
        )


def train_only(model: nn.Module, names: list[str]) -> None:
    """Freeze `model` except the submodules `names`. An unknown name raises `AttributeError`."""
    model.requires_grad_(False)
    for name in names:
        model.get_submodule(name).requires_grad_(True)


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
    rows = load_dataset(data_args.dataset_name, data_args.dataset_config, split=data_args.dataset_split)
    check_rows(rows)
    batch_size = training_args.per_device_train_batch_size * training_args.gradient_accumulation_steps * training_args.world_size

    trainer = SequenceTrainer(
        model=model,
        args=training_args,
        train_dataset=RowSequence(rows, training_args.max_steps * batch_size, training_args.seed),
        data_collator=AffectGPTCollator(processor, modalities=tuple(data_args.modalities)),
        processing_class=processor,
    )
    num_trainable = {name: sum(p.numel() for p in model.get_submodule(name).parameters()) for name in model_args.trainable_modules}
    logger.info("Training %d of %d parameters: %s.", sum(num_trainable.values()), model.num_parameters(), num_trainable)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(training_args.output_dir))
    trainer.save_model()
    trainer.save_state()


if __name__ == "__main__":
    main()
