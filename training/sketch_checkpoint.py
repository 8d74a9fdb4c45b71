"""Make affectgpt-sketch, the checkpoint that ships with the package, from nothing, and measure it.

    python -m training.sketch_checkpoint --output runs/sketch             # the checkpoint: <output>/stage2
    python -m training.sketch_checkpoint --output runs/sketch --measure   # and its table: <output>/results.md
    python -m training.sketch_checkpoint --output runs/sketch --measure --ship affectgpt/assets/sketch-model

Each step is one of the commands that a user would give (they are printed); a step that is done is not done again, a step that was
stopped goes on. `--tiny` goes through every step in a few minutes and gives a checkpoint that has learnt next to nothing.
"""

import argparse
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from datasets import load_dataset

from affectgpt.collator import MODALITIES
from affectgpt.explanation import NOTICE, load_model
from training.evaluate import Scoring, describe, evaluate

TRAINING = Path(__file__).parent


@dataclass(frozen=True)
class Sizes:
    """How much of everything: clips, stage 0's material, steps of both stages."""

    corpus: tuple[str, ...] = ("--coarse", "3000", "--fine-train", "266", "--fine-test", "66", "--test", "1000")
    backbones: tuple[str, ...] = ()
    training: tuple[str, ...] = ()


TINY = Sizes(
    corpus=("--coarse", "12", "--fine-train", "6", "--fine-test", "2", "--test", "4"),
    backbones=("--num-people", "4", "--vision-epochs", "1", "--num-sounds", "20", "--audio-epochs", "1", "--text-steps", "3"),
    training=("--max_steps", "4", "--per_device_train_batch_size", "2", "--warmup_steps", "1", "--logging_steps", "1"),
)


def run(title: str, done: Path, module: str, *arguments: str) -> None:
    """Run `python -m module arguments` unless `done`, the last file that it writes, exists."""
    if done.exists():
        print(f"[{title}] is done: {done}", flush=True)
        return
    print(f"[{title}] python -m {module} {' '.join(arguments)}", flush=True)
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)
    minutes = (time.monotonic() - start) / 60
    print(f"[{title}] took {minutes:.1f} min", flush=True)


def train(output: Path, stage: int, base: Path, target: Path, sizes: Sizes, seed: int, *extra: str) -> None:
    run(
        target.name,
        target / "trainer_state.json",
        "training.train",
        *("--config", str(TRAINING / f"stage{stage}.args")),
        *("--model_name_or_path", str(base), "--dataset_name", str(output / "corpus"), "--output_dir", str(target)),
        *("--seed", str(seed), *sizes.training, *extra),
    )  # fmt: skip


def make(output: Path, sizes: Sizes, seed: int) -> None:
    corpus = output / "corpus"
    card = corpus / "README.md"
    run("corpus", card, "training.sketch", "build", "--output", str(corpus), "--seed", str(seed), *sizes.corpus)
    backbones = output / "backbones"
    seed_argument = ("--seed", str(seed))
    run(
        "backbones",
        backbones / "processor_config.json",
        "training.sketch_backbones",
        *("--output", str(backbones), *seed_argument, *sizes.backbones),
    )
    train(output, 1, backbones, output / "stage1", sizes, seed)
    train(output, 2, output / "stage1", output / "stage2", sizes, seed)


def measure(output: Path, sizes: Sizes, seed: int) -> None:
    """Score the checkpoint, and what single modalities reach when they are trained and tested alone with the same budget."""
    for modality in ("video", "audio"):
        extra = ("--modalities", modality)
        train(output, 1, output / "backbones", output / f"stage1-{modality}", sizes, seed, *extra)
        train(output, 2, output / f"stage1-{modality}", output / f"stage2-{modality}", sizes, seed, *extra)
    systems = {
        "picture, voice and words": ("stage2", MODALITIES, False),
        "picture alone (trained alone)": ("stage2-video", ("video",), False),
        "voice alone (trained alone)": ("stage2-audio", ("audio",), False),
        "words alone (frozen language model)": ("backbones", ("text",), False),
        "media of another clip": ("stage2", MODALITIES, True),
    }
    rows = load_dataset(str(output / "corpus"), "EMER-Sketch-Test", split="test")
    lines = [
        f"EMER-Sketch-Test, {len(rows)} clips of unseen identities, sentences and combinations; exact labels, greedy, seed {seed}.",
        "A test of software on drawings, no evidence about people. Brackets: 95 % bootstrap interval of Avg over clips.",
        "",
        "| given | Avg | Accuracy_s | Recall_s |",
        "|---|---|---|---|",
    ]
    for number, (title, (folder, modalities, shuffled)) in enumerate(systems.items()):
        print(f"[measure] {title}", flush=True)
        result = evaluate(
            str(output / folder),
            rows,
            output / "results" / f"{number}",
            scoring=Scoring(exact=True),
            modalities=modalities,
            shuffled=shuffled,
            seed=seed,
        )
        lines.append(f"| {title} | {describe(result)} |")
    lines.append(f"| best constant answer: {', '.join(result['best_constant_labels'])} | {result['best_constant_avg']:.1f} | | |")
    lines.append(f"| every label at once, which the metric rewards | {result['every_label_avg']:.1f} | | |")
    table = "\n".join(lines) + "\n"
    (output / "results.md").write_text(table, encoding="utf-8")
    print(table)


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
Exact labels, no grouping of synonyms: these figures compare with each other only, never with tables on real corpora.

Notice, as with every explanation: {notice}
It must not be used at work, in education, for hiring, policing, migration, credit, insurance or diagnosis.
"""


def ship(output: Path, destination: Path, seed: int) -> None:
    """Copy what a checkpoint needs, and write its card with the figures of `<output>/results.md`."""
    model, _ = load_model(output / "stage2")
    destination.mkdir(parents=True, exist_ok=True)
    for name in SHIPPED_FILES:
        shutil.copyfile(output / "stage2" / name, destination / name)
    table = (output / "results.md").read_text(encoding="utf-8")
    card = CARD.format(parameters=model.num_parameters(), seed=seed, table=table, notice=NOTICE)
    (destination / "README.md").write_text(card, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/sketch"), help="Folder of everything. Default: runs/sketch.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure", action="store_true", help="Also train the single modalities, and score everything.")
    parser.add_argument("--tiny", action="store_true", help="Go through the motions in a few minutes.")
    parser.add_argument("--ship", type=Path, metavar="FOLDER", help="Copy the measured checkpoint and its card there.")
    args = parser.parse_args()
    if args.ship and not args.measure:
        parser.error("--ship needs --measure: the card holds the figures.")
    sizes = TINY if args.tiny else Sizes()
    start = time.monotonic()
    make(args.output, sizes, args.seed)
    print(f"The checkpoint is {args.output / 'stage2'}: {(time.monotonic() - start) / 60:.1f} min.", flush=True)
    if args.measure:
        measure(args.output, sizes, args.seed)
    if args.ship:
        ship(args.output, args.ship, args.seed)


if __name__ == "__main__":
    main()
