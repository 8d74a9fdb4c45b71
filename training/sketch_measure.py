"""Measure affectgpt-sketch: every comparison on EMER-Sketch-Test, over seeds, as one table.

    python -m training.sketch_measure benchmarks/sketch_answers.parquet    # the README's table from its answers

`training.sketch_checkpoint --measure` trains and asks; this command scores the answers that it kept, without model or clip. The
frozen parts are the same for all seeds, as released encoders and language models would be; each seed draws its own resamplers, rows
and order. Runs of one thread each go side by side. What is done is not done again.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, load_dataset
from tqdm import tqdm

from affectgpt.collator import MODALITIES
from affectgpt.corpus import FEATURES
from affectgpt.metrics import bootstrap_interval, mean_and_std, paired_test
from training.clues import ClueScore, clue_scores, judge_clues, scene_truth
from training.runs import Run, read_record
from training.sketch import chinese
from training.sketch.grammar import ceilings
from training.sketch.identities import Identity
from training.sketch.scenarios import Scene, row_of, sample_scenes

LEAST_SHARE, LEAST_LEAD, MOST_CONTRADICTED, MOST_SPREAD = 75.0, 15.0, 5.0, 3.0  # percent, points, percent, points


@dataclass(frozen=True)
class Training:
    """A way to train: on which modalities, and whether both stages or the second alone."""

    name: str
    modalities: Sequence[str] = MODALITIES
    both_stages: bool = True


@dataclass(frozen=True)
class Comparison:
    """A row of the table: which training's checkpoint ("" for the frozen parts) is asked, and what it is given."""

    title: str
    training: str
    stage: int = 2
    modalities: Sequence[str] = MODALITIES
    shuffled: bool = False
    language: str = "en"


TRAININGS = (
    Training("full"),
    Training("video", ("video",)),
    Training("audio", ("audio",)),
    Training("fine", both_stages=False),
)
FULL, FINE = "picture, voice and words", "stage 2 only, same budget"
ALONE = ("picture alone (trained alone)", "voice alone (trained alone)", "words alone (frozen language model)")
WITHHELD = ("picture withheld", "voice withheld", "words withheld")
SHUFFLED = "media of another clip"
COMPARISONS = (
    Comparison(FULL, "full"),
    Comparison("the same, answers in Chinese", "full", language="zh"),
    Comparison("stage 1 only", "full", stage=1),
    Comparison(FINE, "fine"),
    Comparison(ALONE[0], "video", modalities=("video",)),
    Comparison(ALONE[1], "audio", modalities=("audio",)),
    Comparison(ALONE[2], "", modalities=("text",)),
    Comparison(WITHHELD[0], "full", modalities=("audio", "text")),
    Comparison(WITHHELD[1], "full", modalities=("video", "text")),
    Comparison(WITHHELD[2], "full", modalities=("video", "audio")),
    Comparison(SHUFFLED, "full", shuffled=True),
)


def folder_of(output: Path, training: str, stage: int, seed: int) -> Path:
    """Where the checkpoint of a training is, within the folder of everything."""
    if not training:
        return output / "backbones"
    return output / "trainings" / f"{training}-{seed}" / f"stage{stage}"


def train_command(output: Path, training: Training, stage: int, seed: int, extra: Sequence[str]) -> list[str]:
    """The command that trains one stage on the cached features."""
    starts_anew = stage == 1 or not training.both_stages
    base = folder_of(output, "" if starts_anew else training.name, 1, seed)
    return [
        *("training.train", "--config", str(Path(__file__).parent / f"stage{stage}.args")),
        *("--model_name_or_path", str(base), "--dataset_name", str(output / "corpus"), "--features", str(output / "features")),
        *("--output_dir", str(folder_of(output, training.name, stage, seed)), "--seed", str(seed)),
        *("--dataloader_num_workers", "0", "--dataloader_persistent_workers", "False"),  # reading features takes milliseconds
        *("--modalities", *training.modalities, *extra),
    ]


def result_of(output: Path, number: int, seed: int) -> Path:
    """Where the record of a comparison goes, without the suffix."""
    return output / "results" / f"{number:02d}-{seed}"


def measure(output: Path, seeds: Sequence[int], *, corpus_seed: int, extra: Sequence[str] = ()) -> str:
    """Train and score whatever the table needs and is not there yet, and return the table in Markdown.

    Args:
        output (`Path`): the folder of `training.sketch_checkpoint`, with corpus, frozen parts and features.
        seeds (`Sequence[int]`): of the trainings.
        corpus_seed (`int`): of the corpus, for the identities of its test clips.
        extra (`Sequence[str]`): more arguments for each training.
    """
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")  # of the workers, before they import torch
    # Where all records of a training are there, its checkpoints need not be.
    chains = [(training, seed) for seed in seeds for training in TRAININGS if _unscored(output, training.name, seed)]
    print(f"[measure] {len(chains)} trainings; each writes to a stage*.log in {output / 'trainings'}.", flush=True)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(_chain, output, training, seed, tuple(extra)): (training.name, seed) for training, seed in chains}
        if _unscored(output, "", seeds[0]):
            futures[pool.submit(_compare, output, "", seeds[0])] = ("", seeds[0])
        for done, future in enumerate(as_completed(futures), 1):
            future.result()
            name, seed = futures[future]
            print(f"[measure] {done} of {len(futures)}: {name or 'frozen parts'}, seed {seed}", flush=True)
    return table_of(output, seeds, corpus_seed)


def _chain(output: Path, training: Training, seed: int, extra: tuple[str, ...]) -> None:
    for stage in (1, 2) if training.both_stages else (2,):
        target = folder_of(output, training.name, stage, seed)
        if not (target / "trainer_state.json").exists():
            command = train_command(output, training, stage, seed, extra)
            log = target.with_name(f"{target.name}.log")
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "w", encoding="utf-8") as file:
                result = subprocess.run([sys.executable, "-m", *command], stdout=file, stderr=subprocess.STDOUT, check=False)
            if result.returncode:
                raise RuntimeError(f"python -m {' '.join(command)} ended with {result.returncode}; see {log}.")
    _compare(output, training.name, seed)


def _unscored(output: Path, training: str, seed: int) -> list[tuple[Path, Comparison]]:
    """Comparisons of one training without a record, and where that goes."""
    return [
        (path, comparison)
        for number, comparison in enumerate(COMPARISONS)
        if comparison.training == training and not (path := result_of(output, number, seed)).with_suffix(".json").exists()
    ]


def _compare(output: Path, training: str, seed: int) -> None:
    """Score what is asked of one training's checkpoints."""
    from training.evaluate import Scoring, evaluate

    rows = load_dataset(str(output / "corpus"), "EMER-Sketch-Test", split="test")
    for path, comparison in _unscored(output, training, seed):
        evaluate(
            str(folder_of(output, training, comparison.stage, seed)),
            _in_chinese(rows) if comparison.language == "zh" else rows,
            path,
            name=comparison.title,
            scoring=Scoring(exact=True),
            modalities=comparison.modalities,
            shuffled=comparison.shuffled,
            language=comparison.language,
            features=str(output / "features"),
            batch_size=128,
            seed=seed,
        )


def keep_answers(output: Path, seeds: Sequence[int], path: Path) -> None:
    """Write what was answered to one Parquet file: `comparison` (its title), `seed`, `name` of the clip, `text`."""
    answers = [
        {"comparison": comparison.title, "seed": seed, "name": name, "text": text}
        for number, comparison in enumerate(COMPARISONS)
        for seed, run in zip(_seeds_of(comparison, seeds), _runs(output, number, seeds), strict=True)
        for name, text in run.texts.items()
    ]
    pq.write_table(pa.Table.from_pylist(answers), path, compression="zstd", compression_level=19)


def score_answers(path: Path, output: Path, corpus_seed: int = 0) -> list[int]:
    """Make the records of `measure` again from the file of `keep_answers`, and return its seeds.

    The truth follows from the seed of the corpus, by its rules.

    Raises:
        ValueError: naming the file, if it lacks a comparison or has an unknown one.
    """
    from training.evaluate import Scoring, evaluate

    answers: dict[tuple[str, int], list[dict]] = {}
    for row in pq.read_table(path).to_pylist():
        answers.setdefault((row["comparison"], row["seed"]), []).append({"name": row["name"], "text": row["text"]})
    titles, found = {comparison.title for comparison in COMPARISONS}, {title for title, _ in answers}
    if titles != found:
        raise ValueError(
            f"{path}: expected the answers of each comparison, got none of {sorted(titles - found)} and unknown ones of "
            f"{sorted(found - titles)}. Take the file that this version of `training.sketch_checkpoint --measure` writes."
        )
    scenes = sample_scenes("test", len(answers[FULL, min(seed for _, seed in answers)]), corpus_seed)
    rows = Dataset.from_list([dict.fromkeys(FEATURES) | row_of(scene) for scene in scenes], features=FEATURES)
    by_language = {"en": rows, "zh": _in_chinese(rows)}
    numbers = {comparison.title: number for number, comparison in enumerate(COMPARISONS)}
    for (title, seed), texts in tqdm(answers.items(), unit="run"):
        comparison, record = COMPARISONS[numbers[title]], result_of(output, numbers[title], seed)
        given = output / "given" / f"{record.name}.jsonl"  # beside the record is what the run that asked has written
        given.parent.mkdir(parents=True, exist_ok=True)
        given.write_text("".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
        evaluate(
            str(given),
            by_language[comparison.language],
            record,
            name=title,
            protocol="direct",
            scoring=Scoring(exact=True),
            modalities=comparison.modalities,
            language=comparison.language,
        )
    return sorted({seed for _, seed in answers})


def _in_chinese(rows: Dataset) -> Dataset:
    """The rows with labels as their Chinese descriptions name them, so that exact labels can be compared."""
    return rows.map(lambda row: {"labels": [chinese.LABELS[label] for label in row["labels"]]}, load_from_cache_file=False)


def _seeds_of(comparison: Comparison, seeds: Sequence[int]) -> Sequence[int]:
    """Of the frozen parts there is one run, whatever the seed."""
    return seeds if comparison.training else seeds[:1]


def _runs(output: Path, number: int, seeds: Sequence[int]) -> list[Run]:
    """The runs of a comparison, by `_seeds_of` it."""
    runs = []
    for seed in _seeds_of(COMPARISONS[number], seeds):
        _, (system,), results, _ = read_record(result_of(output, number, seed).with_suffix(".json"))
        runs.append(results[system.key][COMPARISONS[number].language].runs[0])
    return runs


def _per_clip(runs: Sequence[Run]) -> dict[str, float]:
    """Clip -> its Avg in percent, mean over runs."""
    return {name: 100 * float(np.mean([run.score.per_clip_avg[name] for run in runs])) for name in runs[0].score.per_clip_avg}


def table_of(output: Path, seeds: Sequence[int], corpus_seed: int) -> str:
    """The table in Markdown, from the records in `<output>/results`."""
    runs = {comparison.title: _runs(output, number, seeds) for number, comparison in enumerate(COMPARISONS)}
    scores = {title: _per_clip(of_title) for title, of_title in runs.items()}
    full = scores[FULL]
    first = json.loads(result_of(output, 0, seeds[0]).with_suffix(".json").read_text(encoding="utf-8"))["figures"]
    lines = [
        "**A test of software on drawings, no evidence about people.** EMER-Sketch-Test, "
        f"{len(full)} clips of unseen identities, sentences and combinations; exact labels, greedy; {_told(seeds)} in brackets the "
        "95 % bootstrap interval over clips of Avg, and of the difference to the first row, paired clip by clip.",
        "",
        "| given | Avg | Accuracy_s | Recall_s | below the first row |",
        "|---|---|---|---|---|",
    ]
    for title, of_title in runs.items():
        low, high = bootstrap_interval(list(scores[title].values()))
        cells = [f"{_spread(of_title, 'avg')} [{low:.1f}, {high:.1f}]", _spread(of_title, "accuracy"), _spread(of_title, "recall")]
        test = paired_test(full, scores[title])
        cells.append("" if title == FULL else f"{test.difference:.1f} [{test.low:.1f}, {test.high:.1f}]")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    limits = ceilings()
    scenes = sample_scenes("test", len(full), corpus_seed)
    spreads = spreads_of(full, scenes)
    lines += [
        f"| best constant answer: {', '.join(first['best_constant_labels'])} | {first['best_constant_avg']:.1f} | | | |",
        f"| every label at once, which the metric rewards | {first['every_label_avg']:.1f} | | | |",
        "",
        "The rules allow at most (`python -m training.sketch ceilings`): "
        + ", ".join(f"{known.replace('+', ' and ')} {limit:.1f}" for known, limit in limits.items() if known != "none")
        + ".",
        "",
        *_clue_lines(runs[FULL], runs[SHUFFLED], scenes),
        "",
        *_nuisance_lines(spreads),
        "",
        *_verdicts(runs, scores, spreads, limits["face+voice+words"], first["best_constant_avg"]),
    ]
    return "\n".join(lines) + "\n"


def _told(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"one training each, seed {seeds[0]};"
    return f"seeds {', '.join(map(str, seeds))}: mean ± standard deviation over them,"


def _spread(runs: Sequence[Run], name: str) -> str:
    mean, std = mean_and_std([100 * getattr(run.score, name) for run in runs])
    return f"{mean:.1f} ± {std:.1f}" if len(runs) > 1 else f"{mean:.1f}"


def _mean_clue(runs: Sequence[Run], modality: str, figure: str) -> float:
    """A figure of `ClueScore` in percent, mean over the runs that stated anything of the modality; NaN if none did."""
    found = [getattr(ClueScore(**run.facts["clues"][modality]), figure) for run in runs]
    return 100 * float(np.mean([value[0] for value in found if value is not None] or [np.nan]))


def _clue_lines(runs: Sequence[Run], shuffled: Sequence[Run], scenes: Sequence[Scene]) -> list[str]:
    """Clues in percent, means over seeds; in brackets with the media of another clip. And what descriptions of the truth recall."""

    lines = ["| clues about | precision | recall | contradicted |", "|---|---|---|---|"]
    for modality, title in (("video", "face"), ("audio", "voice"), ("text", "words")):
        cells = [
            f"{_mean_clue(runs, modality, figure):.1f} ({_mean_clue(shuffled, modality, figure):.1f})"
            for figure in ("precision", "recall", "contradicted")
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    rows = [row_of(scene) for scene in scenes]
    own = clue_scores({row["name"]: judge_clues(row["description"], scene_truth(row["provenance"])) for row in rows})
    told = ", ".join(f"{100 * own[modality].recall[0]:.0f}" for modality in ("video", "audio", "text"))
    return [*lines, "", f"In brackets with the media of another clip. The corpus's own descriptions recall {told} %."]


def groups_of(identities: Sequence[Identity]) -> dict[str, dict[str, np.ndarray]]:
    """Nuisance -> group -> which identities are in it: thirds by skin tone and age lines, with and without glasses."""
    light = np.array([np.dot(identity.skin, (0.299, 0.587, 0.114)) for identity in identities])
    age = np.array([identity.age for identity in identities])
    glasses = np.array([identity.glasses > 0 for identity in identities])

    def thirds(values: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        place = np.searchsorted(np.quantile(values, (1 / 3, 2 / 3)), values)
        return {name: place == number for number, name in enumerate(names)}

    return {
        "skin tone": thirds(light, ("dark", "middle", "light")),
        "age lines": thirds(age, ("few", "some", "many")),
        "glasses": {"with": glasses, "without": ~glasses},
    }


def spreads_of(per_clip: dict[str, float], scenes: Sequence[Scene]) -> dict[str, dict[str, float]]:
    """Nuisance -> group -> Avg of its clips."""
    values = np.array([per_clip[scene.name] for scene in scenes])
    groups = groups_of([scene.identity for scene in scenes])
    return {nuisance: {name: float(values[who].mean()) for name, who in parts.items()} for nuisance, parts in groups.items()}


def _nuisance_lines(spreads: dict[str, dict[str, float]]) -> list[str]:
    lines = ["| Avg of the first row by looks | | spread |", "|---|---|---|"]
    for nuisance, parts in spreads.items():
        told = ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
        lines.append(f"| {nuisance} | {told} | {_width(parts):.1f} |")
    return lines


def _width(parts: dict[str, float]) -> float:
    return max(parts.values()) - min(parts.values())


def _verdicts(runs: dict, scores: dict, spreads: dict, ceiling: float, chance: float) -> list[str]:
    """What was asked of the checkpoint, and whether it holds."""
    full = scores[FULL]
    mean = float(np.mean(list(full.values())))
    lead = min(paired_test(full, scores[title]).difference for title in ALONE)
    matters = min(paired_test(full, scores[title]).low for title in WITHHELD)
    shuffled = float(np.mean(list(scores[SHUFFLED].values())))
    stages = paired_test(full, scores[FINE])
    contradicted = float(np.max([_mean_clue(runs[FULL], modality, "contradicted") for modality in ("video", "audio", "text")]))
    widest = max(map(_width, spreads.values()))
    asked = [
        (f"Avg at least {LEAST_SHARE:.0f} % of the ceiling: {100 * mean / ceiling:.1f} %", mean >= LEAST_SHARE / 100 * ceiling),
        (f"each modality alone at least {LEAST_LEAD:.0f} points below: {lead:.1f}", lead >= LEAST_LEAD),
        (f"each modality matters (lowest bound of what withholding it costs above 0): {matters:.1f}", matters > 0),
        (
            f"media of another clip no better than the best constant answer: {shuffled:.1f} against {chance:.1f}",
            shuffled <= chance + 1,
        ),
        (f"two stages above stage 2 only: {stages.difference:.1f} [{stages.low:.1f}, {stages.high:.1f}]", stages.low > 0),
        (f"contradicted clues below {MOST_CONTRADICTED:.0f} %: at most {contradicted:.1f} %", contradicted < MOST_CONTRADICTED),
        (f"spread over skin tone, age lines and glasses at most {MOST_SPREAD:.0f} points: {widest:.1f}", widest <= MOST_SPREAD),
    ]
    return [f"- {'holds' if holds else 'does not hold'}: {what}" for what, holds in asked]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path, help="File that `training.sketch_checkpoint --measure` wrote.")
    parser.add_argument(
        "--output", type=Path, default=Path("results/sketch"), help="Folder of the records. Default: results/sketch."
    )
    parser.add_argument("--seed", type=int, default=0, help="Of the corpus. Default: 0.")
    args = parser.parse_args()
    print(table_of(args.output, score_answers(args.answers, args.output, args.seed), args.seed), end="")


if __name__ == "__main__":
    main()
