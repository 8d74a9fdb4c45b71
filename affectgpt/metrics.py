"""How well predicted emotion words agree with annotated ones: the paper's set metric, and how much a difference of figures says.

Pure functions on lists of words, without torch. Every figure is a fraction in [0, 1]; the paper prints percent. The metrics of the
authors' later work, which look labels up in emotion wheels, are in `affectgpt.wheels`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

_MAX_NAMES_SHOWN = 5


@dataclass(frozen=True)
class SetScore:
    """The paper's set metric over the scored clips, and each clip's own values.

    Args:
        accuracy, recall: Accuracy_s and Recall_s, means over clips, in [0, 1]; `avg` is their mean.
        n: clips scored.
        skipped: clips without an annotated label; they are not among the `n`.
        per_clip: clip -> (accuracy, recall) in [0, 1], in the order of the annotation.
    """

    accuracy: float
    recall: float
    n: int
    skipped: int
    per_clip: dict[str, tuple[float, float]] = field(repr=False)

    @property
    def avg(self) -> float:
        return (self.accuracy + self.recall) / 2

    @property
    def per_clip_avg(self) -> dict[str, float]:
        """Clip -> mean of its accuracy and recall: what `bootstrap_interval` and `paired_test` take."""
        return {name: (accuracy + recall) / 2 for name, (accuracy, recall) in self.per_clip.items()}


@dataclass(frozen=True)
class PairedTest:
    """Whether one system is better than another on the same clips.

    Args:
        difference: mean over clips of first minus second.
        low, high: paired bootstrap interval of the difference.
        p_value: two-sided, of a sign-flip permutation test: how often chance alone gives a difference as large.
        n: clips.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int


def set_score(
    truth: Mapping[str, Sequence[str]],
    predicted: Mapping[str, Sequence[str]],
    groups: Mapping[str, Sequence[Sequence[str]]] | None = None,
) -> SetScore:
    """The paper's set metric (arXiv 2407.07653, equations 1 to 3): |Y n P| / |P| and |Y n P| / |Y| per clip, then means over clips.

    Labels are compared lower-cased, without surrounding space, each once; a blank label is none. An empty prediction scores 0, 0. A
    clip without annotated labels is skipped and counted.

    Args:
        truth, predicted: clip -> labels, for the same clips.
        groups: clip -> groups of labels that mean the same, of which each label becomes its group; it may hold more clips. A label
            in no group stays itself. `None` compares exact labels.

    Raises:
        ValueError: if `truth` and `predicted` do not name the same clips, if `groups` lacks one of them, or if no clip has an
            annotated label.
        TypeError: if a clip has a string where a list of labels belongs.
    """
    check_same_clips(truth, predicted)
    if groups is not None:
        ungrouped = [name for name in truth if name not in groups]
        if ungrouped:
            raise ValueError(
                f"Expected groups for each of {len(truth)} clips, got none for {len(ungrouped)} ({_shown(ungrouped)}). "
                "Give an empty list for a clip whose labels all differ in meaning."
            )
    per_clip = {}
    for name, labels in truth.items():
        group_of = {} if groups is None else label_groups(groups[name])
        annotated = {group_of.get(label, label) for label in normalised(labels, name)}
        answered = {group_of.get(label, label) for label in normalised(predicted[name], name)}
        if annotated:
            common = len(annotated & answered)
            per_clip[name] = (common / len(answered) if answered else 0.0, common / len(annotated))
    if not per_clip:
        raise ValueError(f"Expected at least one clip with annotated labels, got none among {len(truth)} clips.")
    accuracy, recall = np.mean(list(per_clip.values()), axis=0)
    return SetScore(float(accuracy), float(recall), len(per_clip), len(truth) - len(per_clip), per_clip)


def label_groups(groups: Iterable[Sequence[str]]) -> dict[str, str]:
    """Label -> the name of its group, which is the group's first label; both lower-cased, without surrounding space.

    Reference: a label in two groups belongs to the last of them, and groups that begin with the same label are one.

    Raises:
        TypeError: if a group is a string.
    """
    group_of = {}
    for group in groups:
        members = normalised(group, "a group")
        group_of.update(dict.fromkeys(members, members[0] if members else ""))
    return group_of


def normalised(labels: Sequence[str], where: str) -> list[str]:
    """`labels` lower-cased and without surrounding space; blank ones are dropped. `where` stands in the error."""
    if isinstance(labels, str) or labels is None:
        raise TypeError(f'Expected a list of labels for {where}, got {labels!r}. Write ["happy"] instead of "happy", [] for none.')
    return [label for label in (label.strip().lower() for label in labels) if label]


def check_same_clips(truth: Mapping[str, object], predicted: Mapping[str, object]) -> None:
    """Raise `ValueError` listing the clips that only one of the two mappings names."""
    if truth.keys() == predicted.keys():
        return
    missing, extra = sorted(truth.keys() - predicted.keys()), sorted(predicted.keys() - truth.keys())
    raise ValueError(
        f"Expected a prediction for each of {len(truth)} clips and no other, got {len(missing)} missing ({_shown(missing)}) and "
        f"{len(extra)} unknown ({_shown(extra)}). Give an empty list for a clip without an answer, and only the clips to be scored."
    )


def f_score(precision: float | np.ndarray, recall: float | np.ndarray) -> float | np.ndarray:
    """The harmonic mean of precision and recall; 0 where both are 0."""
    total = np.asarray(precision + recall, dtype=float)
    product = np.asarray(2.0 * precision * recall, dtype=float)
    scores = np.divide(product, total, out=np.zeros_like(total), where=total > 0)
    return scores if scores.ndim else float(scores)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    *,
    statistic: Callable[[np.ndarray], np.ndarray] | None = None,
    level: float = 0.95,
    num_samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values`, drawn over clips.

    Args:
        values: one number per clip, or `(n, k)`: k numbers per clip, with `statistic`.
        statistic: turns the means of all draws, `(num_samples, k)`, into the figure of each, `(num_samples,)`. For a figure that is
            no mean over clips itself, as F of the averages.
        level: coverage, between 0 and 1.
        num_samples: draws of n clips with replacement.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: if `values` is empty, or `level` is not between 0 and 1.
    """
    values = np.asarray(values, dtype=float)
    if not len(values):
        raise ValueError("Expected the values of at least one clip, got none.")
    if not 0 < level < 1:
        raise ValueError(f"Expected a level between 0 and 1, got {level}. For 95 % give 0.95.")
    generator = np.random.default_rng(seed)
    means = np.empty((num_samples, *values.shape[1:]))
    for index in range(num_samples):  # one draw at a time: memory stays that of `values`
        times_drawn = np.bincount(generator.integers(len(values), size=len(values)), minlength=len(values))
        means[index] = times_drawn @ values / len(values)
    tail = 50 * (1 - level)
    low, high = np.percentile(means if statistic is None else statistic(means), [tail, 100 - tail])
    return float(low), float(high)


def paired_test(
    first: Mapping[str, float], second: Mapping[str, float], *, level: float = 0.95, num_samples: int = 10_000, seed: int = 0
) -> PairedTest:
    """Compare two systems by their values on the same clips, e.g. `set_score(...).per_clip_avg` of each.

    If the systems were equal, each clip's difference could as well have the other sign: the p-value is the share of random sign
    flips whose mean is at least as far from 0 as the observed one, the observed one counted in, so it is never below
    1 / (1 + num_samples). `num_samples` is also that of the bootstrap. The same seed gives the same result.

    Raises:
        ValueError: if the two do not name the same clips, or name none.
    """
    check_same_clips(first, second)
    differences = np.array([first[name] - second[name] for name in first], dtype=float)
    low, high = bootstrap_interval(differences, level=level, num_samples=num_samples, seed=seed)
    observed = abs(differences.sum())
    rounding = 1e-9 * np.abs(differences).sum()  # sums of the same numbers in other signs may differ in their last digits
    generator = np.random.default_rng(seed)
    as_far = 0
    for _ in range(num_samples):
        flipped = generator.integers(2, size=len(differences), dtype=np.int8)
        as_far += abs(differences @ (1 - 2 * flipped)) >= observed - rounding
    return PairedTest(float(differences.mean()), low, high, (1 + int(as_far)) / (1 + num_samples), len(differences))


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and population standard deviation over runs: for the paper's two runs, half their distance.

    Raises:
        ValueError: if `values` is empty.
    """
    if not len(values):
        raise ValueError("Expected the figure of at least one run, got none.")
    return float(np.mean(values)), float(np.std(values))


def best_constant_labels(truth: Mapping[str, Sequence[str]]) -> list[str]:
    """The label set that, predicted for every clip alike, reaches the highest Avg on exact labels: what chance is worth.

    It holds at most as many labels as the longest annotation: recall can be bought, and naming every label that exists scores above
    one half.
    Exact: for a set of given size the metric is a sum over its labels, so the best set of each size holds the best single labels.

    Raises:
        ValueError: if no clip has an annotated label.
    """
    rows = [set(normalised(labels, name)) for name, labels in truth.items()]
    rows = [row for row in rows if row]
    if not rows:
        raise ValueError(f"Expected at least one clip with annotated labels, got none among {len(truth)} clips.")
    # The Avg that a label adds to a set of `size` labels: its share of the answer, and of each annotation that holds it.
    count, share = Counter(), Counter()
    for row in rows:
        for label in row:
            count[label] += 1
            share[label] += 1 / len(row)
    best, best_avg = [], -1.0
    for size in range(1, max(map(len, rows)) + 1):
        gain = {label: count[label] / size + share[label] for label in count}
        chosen = sorted(count, key=lambda label: (-gain[label], label))[:size]
        avg = sum(gain[label] for label in chosen) / (2 * len(rows))
        if avg > best_avg:
            best, best_avg = chosen, avg
    return best


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMES_SHOWN]) + (", ..." if len(names) > _MAX_NAMES_SHOWN else "")
