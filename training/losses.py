"""Does the training loss tell how good a checkpoint is? From the Trainer's logs beside checkpoints, and their scores."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np

# The loss of a checkpoint is the mean of so many logged values, the last ones: one batch says little.
NUM_LOGGED = 5
# A rank correlation beyond this one, a quarter of the variance of the ranks, is called prediction.
PREDICTS = -0.5


def training_loss(checkpoint: str | Path) -> dict | None:
    """The training loss with which a checkpoint was saved, from its `trainer_state.json`.

    Returns:
        `dict`: `run` (folder of the training run), `step`, `loss` (mean of the last `NUM_LOGGED` logged values); `None` where there
        is no log, or no loss in it.

    Raises:
        ValueError: naming the file, if it is no log of a Trainer.
    """
    checkpoint = Path(os.path.normpath(checkpoint))
    path = checkpoint / "trainer_state.json"
    if not path.is_file():
        return None
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        step = state["global_step"]
        losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry and entry["step"] <= step]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"Expected the log of a Trainer in {path}, could not read it as one ({error!r}).") from error
    if not losses:
        return None
    run = checkpoint.parent if checkpoint.name.startswith("checkpoint-") else checkpoint
    return {"run": run.as_posix(), "step": step, "loss": float(np.mean(losses[-NUM_LOGGED:]))}


@dataclass(frozen=True)
class LossEvidence:
    """Rank correlation of training loss and Avg over checkpoints of one training run: near -1, the loss tells the better one.

    `low` and `high` are `None` below four checkpoints, of which no interval can be had.
    """

    run: str
    language: str
    n: int
    rho: float | None
    low: float | None
    high: float | None
    verdict: str


def loss_evidence(points: Mapping[tuple[str, str], Sequence[tuple[float, float]]]) -> list[LossEvidence]:
    """What checkpoints say about the claim that the loss does not predict accuracy.

    Args:
        points: (training run, language) -> (loss, Avg) of each checkpoint. Losses of different runs, on different data, do not
            compare.
    """
    several = {key: pairs for key, pairs in points.items() if len(pairs) > 1}
    return [_evidence(run, language, pairs, level=1 - 0.05 / len(several)) for (run, language), pairs in several.items()]


def _evidence(run: str, language: str, pairs: Sequence[tuple[float, float]], *, level: float) -> LossEvidence:
    rho = spearman([loss for loss, _ in pairs], [avg for _, avg in pairs])
    low, high = correlation_interval(rho, len(pairs), level=level)
    if low is None:
        verdict = "cannot be told"
    elif low > PREDICTS:
        verdict = "holds"
    else:
        verdict = "does not hold" if high < PREDICTS else "cannot be told"
    return LossEvidence(run, language, len(pairs), rho, low, high, verdict)


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Rank correlation; equal values share their mean rank. `None` where one of the two does not vary."""
    ranks = [_ranks(np.asarray(values, dtype=float)) for values in (first, second)]
    if any(np.ptp(values) == 0 for values in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.array([(values < value).sum() + ((values == value).sum() - 1) / 2 for value in values])


def correlation_interval(rho: float | None, n: int, *, level: float = 0.95) -> tuple[float | None, float | None]:
    """Interval of a rank correlation on `n` points, by Fisher's z with the standard error of Bonett and Wright (2000)."""
    if rho is None or n < 4:
        return None, None
    error = math.sqrt((1 + rho**2 / 2) / (n - 3)) * NormalDist().inv_cdf((1 + level) / 2)
    # Of a perfect order too, no more can be said than the points allow.
    z = math.atanh(max(min(rho, 1 - 1 / n**2), -1 + 1 / n**2))
    return math.tanh(z - error), math.tanh(z + error)
