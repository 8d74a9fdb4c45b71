"""Make affectgpt-sketch, the checkpoint that ships with the package, from nothing, and measure it.

    python -m training.sketch_checkpoint --output runs/sketch             # the checkpoint
    python -m training.sketch_checkpoint --output runs/sketch --measure   # its table, <output>/results.md, and answers.parquet
    python -m training.sketch_checkpoint --output runs/sketch --measure --ship affectgpt/assets/sketch-model
    python -m training.sketch_checkpoint --output runs/sketch --frozen-from affectgpt/assets/sketch-model    # both stages alone

Each step is one of the commands that a user would give (they are printed); a step that is done is not done again, a step that was
stopped goes on. What steps take is kept in <output>/minutes.json and held against a budget. `--tiny` goes through every step in a
few minutes and gives a checkpoint that has learnt next to nothing.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from affectgpt.explanation import NOTICE, load_model
from training.sketch_measure import TRAININGS, folder_of, keep_answers, measure, train_command

# Minutes on 2 CPU cores.
BUDGET = {"rendering": 40, "training": 90}
STEPS = {"corpus": "rendering"}  # all others train
TICK = 20  # seconds after which the time so far is kept: what a killed run has taken counts too


@dataclass(frozen=True)
class Sizes:
    """How much of everything: clips, stage 0's material, steps of both stages."""

    corpus: tuple[str, ...] = ("--coarse", "4000", "--fine-train", "266", "--fine-test", "66", "--test", "2000")
    backbones: tuple[str, ...] = ()
    training: tuple[str, ...] = ()


TINY = Sizes(
    corpus=("--coarse", "12", "--fine-train", "6", "--fine-test", "2", "--test", "4"),
    backbones=(
        *("--num-people", "4", "--vision-epochs", "1", "--qformer-epochs", "1"),
        *("--num-sounds", "20", "--audio-epochs", "1", "--text-steps", "3"),
    ),
    training=("--max_steps", "4", "--per_device_train_batch_size", "2", "--warmup_steps", "1", "--logging_steps", "1"),
)


class Clock:
    """Minutes that each step has taken, over all calls, kept in a file."""

    def __init__(self, path: Path):
        self.path = path
        self.minutes: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def add(self, step: str, minutes: float) -> None:
        self.minutes[step] = self.minutes.get(step, 0.0) + minutes
        temporary = self.path.with_name(f"{self.path.name}.part")
        temporary.write_text(json.dumps(self.minutes, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self.path)

    def summary(self) -> str:
        """What rendering and training took of their budgets."""
        spent = dict.fromkeys(BUDGET, 0.0)
        for step, minutes in self.minutes.items():
            spent[STEPS.get(step, "training")] += minutes
        told = (
            f"{what} {spent[what]:.1f} of {budget} min" + ("" if spent[what] <= budget else " (over)")
            for what, budget in BUDGET.items()
        )
        return f"{', '.join(told)}; by step: {', '.join(f'{step} {minutes:.1f}' for step, minutes in self.minutes.items())}"


def run(step: str, done: Path, clock: Clock, module: str, *arguments: str) -> None:
    """Run `python -m module arguments` unless `done`, the last file that it writes, exists."""
    if done.exists():
        print(f"[{step}] is done: {done}", flush=True)
        return
    print(f"[{step}] python -m {module} {' '.join(arguments)}", flush=True)
    start = last = time.monotonic()
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command) as process:
        try:
            while process.poll() is None:
                try:
                    process.wait(TICK)
                except subprocess.TimeoutExpired:
                    pass  # it goes on
                finally:
                    now = time.monotonic()
                    clock.add(step, (now - last) / 60)
                    last = now
        finally:
            process.kill()  # where this process was interrupted
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    print(f"[{step}] took {(last - start) / 60:.1f} min", flush=True)


def make(output: Path, sizes: Sizes, seed: int) -> Path:
    """Make everything that is not there yet, and return the folder of the checkpoint."""
    output.mkdir(parents=True, exist_ok=True)
    clock = Clock(output / "minutes.json")
    corpus, backbones = output / "corpus", output / "backbones"
    print("Budget on 2 cores: " + ", ".join(f"{what} {minutes} min" for what, minutes in BUDGET.items()) + ".", flush=True)
    run(
        "corpus",
        corpus / "README.md",
        clock,
        "training.sketch",
        "build",
        "--output",
        str(corpus),
        "--seed",
        str(seed),
        *sizes.corpus,
    )
    run(
        "backbones",
        backbones / "processor_config.json",
        clock,
        "training.sketch_backbones",
        *("--output", str(backbones), "--seed", str(seed), *sizes.backbones),
    )
    cache_features(output, clock, ("EMER-Sketch-Coarse", "train"), ("EMER-Sketch-Fine", "train"))
    full = TRAININGS[0]
    for stage in (1, 2):
        done = folder_of(output, full.name, stage, seed) / "trainer_state.json"
        run(f"stage{stage}", done, clock, *train_command(output, full, stage, seed, sizes.training))
    print(f"Took: {clock.summary()}.", flush=True)
    return folder_of(output, full.name, 2, seed)


def cache_features(output: Path, clock: Clock, *parts: tuple[str, str]) -> None:
    """What the frozen encoders make of the clips of some splits, once for all trainings."""
    for configuration, split in parts:
        done = output / "features" / f"{configuration}-{split}.done"
        run(
            f"features of {configuration}",
            done,
            clock,
            "training.cache_features",
            *("--model", str(output / "backbones"), "--dataset", str(output / "corpus"), "--dataset-config", configuration),
            *("--split", split, "--output", str(output / "features")),
        )
        done.touch()


SHIPPED_FILES = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
CARD = """---
license: cc0-1.0
library_name: transformers
pipeline_tag: video-text-to-text
tags:
- affectgpt
- emotion-recognition
- synthetic
---
# affectgpt-sketch

The small checkpoint that ships with AffectGPT for Hugging Face: the architecture of the paper (arXiv 2407.07653) at {parameters:,}
parameters, all of them trained from nothing on EMER-Sketch, drawn faces with synthetic voices. It shows that the software works and
is what its tests run on. **It has never seen a person, its answers about people are meaningless, and `affectgpt.explain` declines
clips that are not EMER-Sketch drawings.**

Made with `python -m training.sketch_checkpoint --output runs/sketch --seed {seed}`; measured with `--measure`:

{table}
No grouping of synonyms: these figures compare with each other only, never with tables on real corpora.

Notice, as with every explanation: {notice}
It must not be used at work, in education, for hiring, policing, migration, credit, insurance or diagnosis.
"""


def _without_code(settings):
    """The settings without `auto_map`: the package has the code, the shipped folder does not."""
    if isinstance(settings, dict):
        return {key: _without_code(value) for key, value in settings.items() if key != "auto_map"}
    return [_without_code(value) for value in settings] if isinstance(settings, list) else settings


def ship(output: Path, checkpoint: Path, destination: Path, seed: int) -> None:
    """Copy what a checkpoint needs, and write its card with the figures of `<output>/results.md`."""
    model, _ = load_model(checkpoint)
    destination.mkdir(parents=True, exist_ok=True)
    for name in SHIPPED_FILES:
        shutil.copyfile(checkpoint / name, destination / name)
        if name.endswith("_config.json") or name == "config.json":
            settings = _without_code(json.loads((destination / name).read_text(encoding="utf-8")))
            (destination / name).write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    table = (output / "results.md").read_text(encoding="utf-8")
    card = CARD.format(parameters=model.num_parameters(), seed=seed, table=table, notice=NOTICE)
    (destination / "README.md").write_text(card, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/sketch"), help="Folder of everything. Default: runs/sketch.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--measure", action="store_true", help="Also train what it is compared with, over seeds, and score everything."
    )
    parser.add_argument("--num-seeds", type=int, default=3, help="Of the trainings that --measure compares. Default: 3.")
    parser.add_argument(
        "--frozen-from", metavar="CHECKPOINT", help="Take what stays frozen from this checkpoint, which saves most of the training."
    )
    parser.add_argument("--tiny", action="store_true", help="Go through the motions in a few minutes.")
    parser.add_argument("--ship", type=Path, metavar="FOLDER", help="Copy the measured checkpoint and its card there.")
    args = parser.parse_args()
    if args.ship and not args.measure:
        parser.error("--ship needs --measure: the card holds the figures.")
    sizes = TINY if args.tiny else Sizes()
    if args.frozen_from:
        sizes = replace(sizes, backbones=("--frozen-from", args.frozen_from))
    checkpoint = make(args.output, sizes, args.seed)
    print(f"The checkpoint is {checkpoint}.", flush=True)
    if args.measure:
        cache_features(args.output, Clock(args.output / "minutes-measuring.json"), ("EMER-Sketch-Test", "test"))
        seeds = range(args.seed, args.seed + args.num_seeds)
        table = measure(args.output, seeds, corpus_seed=args.seed, extra=sizes.training)
        (args.output / "results.md").write_text(table, encoding="utf-8")
        keep_answers(args.output, seeds, args.output / "answers.parquet")
        print(table)
    if args.ship:
        ship(args.output, checkpoint, args.ship, args.seed)


if __name__ == "__main__":
    main()
