"""Explain a corpus's clips with a checkpoint, and score the labels that the explanations state.

    python -m training.evaluate --model DIR --dataset runs/sketch/corpus --dataset-config EMER-Sketch-Test --output results/test

Answers are greedy. They are written to `<output>.jsonl` as they come: a run that was stopped goes on there. The score, the
command's settings and the best constant answer stand in `<output>.json`.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, load_dataset
from torch.utils.data import DataLoader
from tqdm import tqdm

from affectgpt import AffectGPTCollator, AffectGPTForConditionalGeneration, AffectGPTProcessor
from affectgpt.collator import MODALITIES
from affectgpt.labels import stated_labels
from affectgpt.metrics import best_constant_labels, bootstrap_interval, set_score


def shuffle_media(rows: Dataset, seed: int) -> Dataset:
    """Give each row the clip of another one, drawn once for the whole corpus; words and truth stay."""
    order = np.random.default_rng(seed).permutation(len(rows))
    other = np.empty(len(rows), dtype=int)
    other[order] = np.roll(order, 1)  # one cycle: nobody keeps their own clip
    videos = rows.select_columns("video").select(other)
    return rows.remove_columns("video").add_column("video", videos["video"][:], feature=rows.features["video"])


@torch.no_grad()
def answers(
    model: AffectGPTForConditionalGeneration,
    processor: AffectGPTProcessor,
    rows: Dataset,
    *,
    modalities: tuple[str, ...] = MODALITIES,
    batch_size: int = 32,
) -> Iterator[list[str]]:
    """The model's greedy explanations of `rows`, one list per batch."""
    collate = AffectGPTCollator(processor, modalities=modalities, with_answers=False)
    loader = DataLoader(rows, batch_size=batch_size, collate_fn=collate, num_workers=1)
    for batch in loader:
        batch = {name: value.to(model.device) for name, value in batch.items()}
        generated = model.generate(**batch, do_sample=False, tokenizer=processor.tokenizer)
        texts = processor.batch_decode(generated[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        yield [text.split(processor.stop_string)[0].strip() for text in texts]


def evaluate(
    model_name: str,
    rows: Dataset,
    output: str | Path,
    *,
    modalities: tuple[str, ...] = MODALITIES,
    shuffled: bool = False,
    batch_size: int = 32,
    seed: int = 0,
) -> dict:
    """Explain `rows`, score the stated labels against the rows' own, write both beside `output` and return the score.

    Raises:
        ValueError: if `<output>.jsonl` holds answers to other rows or of another run.
    """
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    settings = {"model": model_name, "modalities": list(modalities), "shuffled": shuffled, "seed": seed}
    predictions = _read_predictions(output.with_suffix(".jsonl"), settings, rows["name"])
    if len(predictions) < len(rows):
        todo = (shuffle_media(rows, seed) if shuffled else rows).select(range(len(predictions), len(rows)))
        processor = AffectGPTProcessor.from_pretrained(model_name)
        model = AffectGPTForConditionalGeneration.from_pretrained(model_name).eval()
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        with open(output.with_suffix(".jsonl"), "a", encoding="utf-8") as file, tqdm(total=len(todo), unit="clip") as progress:
            if not predictions:
                file.write(json.dumps(settings) + "\n")
            for texts in answers(model, processor, todo, modalities=modalities, batch_size=batch_size):
                for text in texts:
                    name = rows[len(predictions)]["name"]
                    predictions[name] = text
                    file.write(json.dumps({"name": name, "text": text, "labels": stated_labels(text)}, ensure_ascii=False) + "\n")
                file.flush()
                progress.update(len(texts))

    truth = dict(zip(rows["name"], rows["labels"], strict=True))
    score = set_score(truth, {name: stated_labels(text) for name, text in predictions.items()})
    low, high = bootstrap_interval([100 * value for value in score.per_clip_avg.values()], seed=seed)
    constant = best_constant_labels(truth)
    every_label = sorted({label for labels in truth.values() for label in labels})
    result = {
        **settings,
        "num_clips": score.n,
        "avg": 100 * score.avg,
        "avg_interval_95": [low, high],
        "accuracy": 100 * score.accuracy,
        "recall": 100 * score.recall,
        "best_constant_labels": constant,
        "best_constant_avg": 100 * set_score(truth, dict.fromkeys(truth, constant)).avg,
        "every_label_avg": 100 * set_score(truth, dict.fromkeys(truth, every_label)).avg,
    }
    output.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def _read_predictions(path: Path, settings: dict, names: list[str]) -> dict[str, str]:
    """The answers that an earlier, stopped run has written; a last line cut in two is dropped."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        path.write_text("".join(lines[:-1]), encoding="utf-8")
        lines = lines[:-1]
    if not lines:
        return {}
    found, *rows = (json.loads(line) for line in lines)
    if found != settings or [row["name"] for row in rows] != names[: len(rows)]:
        raise ValueError(
            f"Expected {path} to hold the answers of this very run, {settings}, got those of {found}. Delete or rename it."
        )
    return {row["name"]: row["text"] for row in rows}


def describe(result: dict) -> str:
    """One line of a table: Avg with its interval, accuracy and recall."""
    low, high = result["avg_interval_95"]
    return f"{result['avg']:.1f} [{low:.1f}, {high:.1f}] | {result['accuracy']:.1f} | {result['recall']:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hub id or local folder of a checkpoint.")
    parser.add_argument("--dataset", required=True, help="Hub id or local folder of a corpus.")
    parser.add_argument("--dataset-config", required=True, help="Configuration of the corpus, e.g. EMER-Fine.")
    parser.add_argument("--split", default="test")
    parser.add_argument("--output", required=True, help="Where the answers (.jsonl) and the score (.json) go.")
    parser.add_argument(
        "--modalities", nargs="+", default=MODALITIES, choices=MODALITIES, help="What the model may have of a clip."
    )
    parser.add_argument("--shuffle-media", action="store_true", help="Give each row another row's clip: what is left is chance.")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = load_dataset(args.dataset, args.dataset_config, split=args.split)
    result = evaluate(
        args.model,
        rows,
        args.output,
        modalities=tuple(args.modalities),
        shuffled=args.shuffle_media,
        batch_size=args.batch_size,
        seed=args.seed,
    )
    print(f"{result['num_clips']} clips of {args.dataset_config}, exact labels, greedy, 95 % bootstrap interval over clips")
    print("Avg | Accuracy_s | Recall_s")
    print(describe(result))
    print(f"best constant answer ({', '.join(result['best_constant_labels'])}): {result['best_constant_avg']:.1f}")
    print(f"every label at once, which the metric rewards: {result['every_label_avg']:.1f}")


if __name__ == "__main__":
    main()
