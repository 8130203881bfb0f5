"""The figures of a card that are computed for it: metrics with intervals, and how well scores are calibrated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.gates.blocks import block_codes, estimate
from perennial.gates.metrics import Metric, get_metric
from perennial.specs import ModelSpec

#: Shown beside the spec's own metric and those of its floor.
SHOWN: dict[str, tuple[str, ...]] = {
    "binary": (
        "roc_auc", "average_precision", "neg_log_loss", "neg_brier_score", "accuracy", "precision", "recall", "f1",
    ),
    "multiclass": ("accuracy", "balanced_accuracy", "neg_log_loss", "f1_macro", "roc_auc_ovr"),
    "regression": (
        "neg_mean_absolute_error", "neg_root_mean_squared_error", "neg_median_absolute_error", "r2",
    ),
}  # fmt: skip
#: Where leaving out a block means computing a metric again, neighbouring blocks are taken together beyond this.
_BLOCKS = 50
BINS = 10


@dataclass(frozen=True, slots=True)
class Judged:
    """The holdout's rows that were judged, as the gates see them.

    :param y: labels. ``scores``: one for each row, or one for each class.
    :param blocks: what counts as one observation; ``None``: every row.
    """

    y: NDArray[np.float64]
    scores: NDArray[np.float64]
    blocks: NDArray[Any] | None
    threshold: float | None


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric with its two-sided 95 % interval (delete-one-block jackknife, variance inflated); ``why_not``: what
    kept it from being computed."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    blocks: int
    greater_is_better: bool
    why_not: str = ""


def measures(spec: ModelSpec, judged: Judged) -> tuple[Measure, ...]:
    """The spec's metric first, then what its floor names, then the usual ones of the task."""
    task = spec.task.type
    wanted = (spec.metric.name, *spec.gates.floor.minimum, *SHOWN[task])
    metrics = {m.name: m for m in (get_metric(name, task) for name in wanted)}
    return tuple(_measure(m, spec, judged) for m in metrics.values())


def _measure(metric: Metric, spec: ModelSpec, judged: Judged) -> Measure:
    blocks = judged.blocks
    n = len(judged.y)
    codes, count = (np.arange(n), n) if blocks is None else _codes(blocks)
    fast = metric.rowwise is not None or metric.auc is not None or metric.counted
    within = spec.metric.within
    if not fast and within == "pooled" and count > _BLOCKS:
        blocks = codes * _BLOCKS // count
    try:
        e = estimate(metric, judged.y, judged.scores, blocks, within=within, threshold=judged.threshold)
    except (ValueError, IndexError) as error:  # a class is missing, scores outside 0 and 1, no rows
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return Measure(metric.name, None, None, None, 0, metric.greater_is_better, why)
    low, high = e.interval()
    value = e.value if math.isfinite(e.value) else None
    why = "" if value is not None else "it is not defined on these rows"
    return Measure(metric.name, value, low, high, e.n_blocks, metric.greater_is_better, why)


def _codes(blocks: NDArray[Any]) -> tuple[NDArray[np.int64], int]:
    codes, keys = block_codes(blocks) if len(blocks) else (np.empty(0, dtype=np.int64), np.empty(0))
    return codes, len(keys)


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows of neighbouring scores: what was said on average and what came, with the latter's 95 % interval."""

    rows: int
    said: float
    came: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the model says against what came, in bins of as many rows each.

    :param kind: ``probability`` of the positive class, ``confidence`` in the likeliest class, or predicted ``value``.
    :param error: mean absolute difference over rows (binary: the expected calibration error).
    """

    kind: str
    bins: tuple[Bin, ...]
    error: float


def calibration(task: str, judged: Judged) -> Calibration | None:
    """Calibration on the holdout; ``None`` when there is nothing to compare."""
    y, said = judged.y, judged.scores
    kind = {"binary": "probability", "multiclass": "confidence"}.get(task, "value")
    if said.ndim == 2:
        y, said = (said.argmax(axis=1) == y).astype(np.float64), said.max(axis=1)
    usable = np.isfinite(y) & np.isfinite(said)
    y, said = y[usable], said[usable]
    if not len(y):
        return None
    edges = np.unique(np.quantile(said, np.linspace(0, 1, BINS + 1)[1:-1]))
    at = np.searchsorted(edges, said, side="right")
    bins = tuple(_bin(y[at == i], said[at == i], kind) for i in np.unique(at))
    error = sum(b.rows * abs(b.said - b.came) for b in bins) / len(y)
    return Calibration(kind, bins, float(error))


def _bin(y: NDArray[np.float64], said: NDArray[np.float64], kind: str) -> Bin:
    n, came = len(y), float(y.mean())
    if kind == "value":
        half = 1.96 * float(y.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
        low, high = came - half, came + half
    else:
        low, high = wilson(came, n)
    return Bin(n, float(said.mean()), came, low, high)


def wilson(p: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a share (1927)."""
    middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def headline(found: Sequence[Measure]) -> Measure:
    """The spec's own metric."""
    return found[0]
