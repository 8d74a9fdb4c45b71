"""Figures for cards, from the records that `training.evaluate` writes, and from nowhere else."""

import json
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult
from huggingface_hub.repocard_data import eval_results_to_model_index

from .publish import CallError

MODALITIES = {"V": "picture", "A": "voice", "L": "words"}


@dataclass(frozen=True)
class MeasuredResult:
    """One record of `training.evaluate`, as far as a card shows it; figures in percent.

    Attributes:
        corpus (`str`): name of the corpus.
        model (`str`): what was measured, as the evaluation was told.
        modalities (`str`): what it was given: "L" words, "V" picture, "A" voice; "LVA" is everything.
        is_shuffled (`bool`): with the media of another clip.
        num_clips (`int`), num_runs (`int`): what the figures are the mean of.
        groups (`str`): who decided which labels mean the same.
        avg (`float`), accuracy (`float`), recall (`float`), interval (`tuple[float, float]`): the set metric.
        constant (`float`, *optional*): Avg of the best constant answer.
    """

    corpus: str
    model: str
    modalities: str
    is_shuffled: bool
    num_clips: int
    num_runs: int
    groups: str
    avg: float
    accuracy: float
    recall: float
    interval: tuple[float, float]
    constant: float | None

    @property
    def is_whole(self) -> bool:
        return not self.is_shuffled and set(self.modalities) == set(MODALITIES)

    @property
    def given(self) -> str:
        if self.is_shuffled:
            return "media of another clip"
        names = [name for letter, name in MODALITIES.items() if letter in self.modalities]
        return " and ".join(names) + (" alone" if len(names) == 1 else "")


def read_result(given: str) -> MeasuredResult:
    """The record of `training.evaluate` that NAME=FILE names.

    Raises:
        CallError: if `given` is of another form, or the file holds no such record, or one of several systems.
    """
    name, _, path = given.partition("=")
    if not name or not path:
        raise CallError(f"--results {given}: expected NAME=FILE, the corpus and a record of training.evaluate.")
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        (system,) = record["systems"]
        figures = record["figures"]
        if "avg" not in figures:  # scored anew: by system and language
            (figures,) = figures.values()
        facts = system["facts"]
        low, high = figures["avg_interval_95"]
        constant = figures.get("best_constant_avg")
        return MeasuredResult(
            corpus=name,
            model=str(facts["models"]["model"]),
            modalities=str(system["modalities"]),
            is_shuffled=bool(facts["shuffled"]),
            num_clips=int(figures["num_clips"]),
            num_runs=int(figures["num_runs"]),
            groups=str(figures["groups"]),
            avg=float(figures["avg"]),
            accuracy=float(figures["accuracy"]),
            recall=float(figures["recall"]),
            interval=(float(low), float(high)),
            constant=None if constant is None else float(constant),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CallError(
            f"--results {given}: expected a record of training.evaluate of one checkpoint, could not read it ({error!r})."
        ) from error


def model_index(name: str, results: list[MeasuredResult]) -> dict:
    """The card's entry `model-index`: the figures of results with all modalities."""
    entries = [
        EvalResult(
            task_type="video-text-to-text",
            task_name="open-vocabulary emotion recognition",
            dataset_type=result.corpus,
            dataset_name=result.corpus,
            metric_type=f"set_{key}",
            metric_name=f"{title} (groups: {result.groups})",
            metric_value=round(getattr(result, key), 2),
        )
        for result in results
        if result.is_whole
        for key, title in (("avg", "Avg"), ("accuracy", "Accuracy_s"), ("recall", "Recall_s"))
    ]
    return {"model-index": eval_results_to_model_index(name, entries)} if entries else {}


def results_section(results: list[MeasuredResult]) -> str:
    """A table of the results, with the best constant answer beside them."""
    if not results:
        return ""
    lines = [
        "## Results",
        "",
        "The paper's set metric, in percent; brackets: 95 % bootstrap interval of Avg over clips. Figures compare only where the "
        "same groups of labels count as one.",
        "",
        "| corpus | clips | given | groups | Avg | Accuracy_s | Recall_s | best constant answer |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        low, high = result.interval
        constant = "" if result.constant is None else f"{result.constant:.1f}"
        lines.append(
            f"| {result.corpus} | {result.num_clips} | {result.given} | {result.groups} | {result.avg:.1f} "
            f"[{low:.1f}, {high:.1f}] | {result.accuracy:.1f} | {result.recall:.1f} | {constant} |"
        )
    return "\n".join(lines)
