"""Which features the model leans on: the drop of its metric when one feature's values are shuffled over the holdout.

Permutation importance (Breiman 2001; Fisher, Rudin & Dominici 2019), on later rows than it was trained on. It says what
this model uses, not what causes the outcome, and it shares out what correlated features know between them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perennial.gates.metrics import Metric, gain
from perennial.training.data import Rows

if TYPE_CHECKING:
    import pandas as pd

REPEATS = 5
#: Rows that are scored in all; a sample of the holdout is taken so that it comes to no more.
BUDGET = 250_000
MIN_ROWS, FEWEST = 500, 100
#: CPU seconds after which no further repeat begins: a slow model gets fewer repeats, and the card says how many.
SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Feature:
    """The mean loss of the metric over repeats (positive: the model is worse without it), and their extremes."""

    name: str
    loss: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Importance:
    """Features by their importance, largest first.

    :param unit: what a loss is measured in. ``rows`` of the holdout were used; ``repeats`` shuffles of each feature.
    """

    metric: str
    unit: str
    rows: int
    of: int
    repeats: int
    features: tuple[Feature, ...]


def importance(
    score: Callable[[pd.DataFrame], NDArray[np.float64]],
    rows: Rows,
    metric: Metric,
    threshold: float | None,
    seed: int,
    seconds: float = SECONDS,
) -> Importance | None:
    """Shuffle each feature on a sample of labelled rows; ``None`` when the metric has no value there.

    Repeats are made one after the other over all features, so that a stop leaves every feature with as many.

    :param score: what gives the scores of a frame of features.
    :param rows: the holdout's rows that were judged. ``seed``: of the sample and the shuffles.
    """
    rng = np.random.default_rng(seed)
    columns = list(rows.X.columns)
    n = len(rows.y)
    if not n or not columns:
        return None
    size = min(n, max(MIN_ROWS, BUDGET // (REPEATS * len(columns))))
    taken = rng.choice(n, size, replace=False)
    X, y = rows.X.iloc[taken].reset_index(drop=True), rows.y[taken]
    began = time.process_time()
    before = _value(metric, y, score(X), threshold)
    if (whole := (time.process_time() - began) * len(columns)) > seconds:  # not even one repeat would fit
        size = max(FEWEST, int(size * seconds / whole))
        X, y = X.head(size), y[:size]
        before = _value(metric, y, score(X), threshold)
    if before is None:
        return None
    losses: dict[str, list[float]] = {c: [] for c in columns}
    began, done = time.process_time(), 0
    for _ in range(REPEATS):
        if done and time.process_time() - began > seconds * done / (done + 1):
            break
        order = rng.permutation(size)
        for column in columns:
            shuffled = X.copy(deep=False)
            shuffled[column] = X[column].to_numpy()[order]
            after = _value(metric, y, score(shuffled), threshold)
            losses[column].append(np.nan if after is None else gain(metric, before, after))
        done += 1
    found = [Feature(c, float(np.mean(v)), float(np.min(v)), float(np.max(v))) for c, v in losses.items()]
    found.sort(key=lambda f: -f.loss if f.loss == f.loss else np.inf)
    return Importance(metric.name, "relative" if metric.relative else "absolute", size, n, done, tuple(found))


def _value(metric: Metric, y: NDArray[np.float64], s: NDArray[np.float64], threshold: float | None) -> float | None:
    try:
        value = metric(y, s, threshold)
    except ValueError:
        return None
    return float(value) if np.isfinite(value) else None
