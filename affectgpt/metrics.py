"""How well predicted emotion words agree with annotated ones: pure functions on lists of words, without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class SetScore:
    """Percentages over the scored clips, and each clip's own values.

    Args:
        accuracy, recall: means over clips, in percent; `avg` is their mean.
        num_clips: clips scored; `num_without_truth` more had no annotated label and were left out.
        per_clip: clip -> (accuracy, recall) in [0, 1].
    """

    accuracy: float
    recall: float
    num_clips: int
    num_without_truth: int
    per_clip: dict[str, tuple[float, float]] = field(repr=False)

    @property
    def avg(self) -> float:
        return (self.accuracy + self.recall) / 2


def set_score(truth: Mapping[str, Sequence[str]], predicted: Mapping[str, Sequence[str]]) -> SetScore:
    """The paper's set metric on exact labels (arXiv 2407.07653, equations 1 to 3): |Y n P| / |P| and |Y n P| / |Y| per clip.

    Labels are compared lower-cased; duplicates count once; an empty prediction scores 0, 0.

    Raises:
        ValueError: if the two mappings do not name the same clips, or no clip has an annotated label.
    """
    missing, extra = sorted(set(truth) - set(predicted)), sorted(set(predicted) - set(truth))
    if missing or extra:
        raise ValueError(
            f"Expected a prediction for each of {len(truth)} clips and no other, got {len(missing)} missing "
            f"({', '.join(missing[:5])}) and {len(extra)} unknown ({', '.join(extra[:5])}). "
            "Give an empty list for a clip without an answer."
        )
    per_clip = {}
    for name, labels in truth.items():
        annotated = {label.strip().lower() for label in labels}
        answered = {label.strip().lower() for label in predicted[name]}
        if annotated:
            common = len(annotated & answered)
            per_clip[name] = (common / len(answered) if answered else 0.0, common / len(annotated))
    if not per_clip:
        raise ValueError("Expected at least one clip with annotated labels, got none.")
    accuracy, recall = 100 * np.mean(list(per_clip.values()), axis=0)
    return SetScore(float(accuracy), float(recall), len(per_clip), len(truth) - len(per_clip), per_clip)


def bootstrap_interval(
    values: Sequence[float], *, level: float = 0.95, num_samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values`, drawn over clips.

    Raises:
        ValueError: if `values` is empty.
    """
    values = np.asarray(values, dtype=float)
    if not len(values):
        raise ValueError("Expected the values of at least one clip, got none.")
    draws = np.random.default_rng(seed).integers(len(values), size=(num_samples, len(values)))
    tail = 50 * (1 - level)
    low, high = np.percentile(values[draws].mean(axis=1), [tail, 100 - tail])
    return float(low), float(high)


def best_constant_labels(truth: Mapping[str, Sequence[str]]) -> list[str]:
    """The label set that, predicted for every clip alike, reaches the highest Avg: what chance is worth.

    It holds at most as many labels as the longest annotation: recall can be bought, and naming every label that exists scores above
    50.
    Exact: for a set of given size the metric is a sum over its labels, so the best set of each size holds the best single labels.
    """
    labels = sorted({label for row in truth.values() for label in row})
    rows = [set(row) for row in truth.values() if row]
    best, best_avg = [], -1.0
    for size in range(1, max(map(len, rows)) + 1):
        gain = {label: sum((1 / size + 1 / len(row)) for row in rows if label in row) for label in labels}
        chosen = sorted(labels, key=lambda label: (-gain[label], label))[:size]
        avg = sum(gain[label] for label in chosen) / (2 * len(rows))
        if avg > best_avg:
            best, best_avg = chosen, avg
    return best
