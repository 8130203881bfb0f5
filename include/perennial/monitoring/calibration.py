"""Calibrate the whole drift rule for a stated rate of false asks, not each column for itself.

Fixed thresholds carry no information (Evidently's default .1 marks .59 of 18 columns for weeks *inside* the
reference), and a percentile per column gives a rate that depends on how many columns there are and how alike they
move (.2 to 12.9 % false asks per look). So:

1. The logarithms of the distances between 7-day blocks, slid by a day inside the reference, and the rest of the
   reference have, per column, a mean and a standard deviation, and between columns a correlation R, shrunk by .2 to
   the identity (Ledoit & Wolf 2004 in spirit; a fixed weight, as there are few independent blocks).
2. Simulate m + n vectors from N(0, R), with m = reference days / window days: as many as there were independent
   blocks to learn from. Standardise the last n by mean and standard deviation of the first m, which carries the
   error of what was learned.
3. S is the needed-th largest column of a window, needed = floor(share x C) + 1; A is the k-th largest S of n windows:
   the rule asks exactly when A exceeds the threshold. z is the (1 - a) quantile of A, a = false asks per year times
   window days / 364 (weekly looks: 1/52).
4. Pin the threshold exp(mean + z SD) of each column with the model version.

Measured on flights, false asks per look at a = 2 %: 18 columns 1.9 % (dependent weeks 4.6), 6 columns 1.5 (1.7), 3
columns .4 (1.1). Simulated days (tests), independent / AR 1 of .3: 18 columns 3.4 / 4.3 %, 6: 1.0 / 1.5, 3: .3 / .5;
with 18 columns it lies between .7 and 4.8 %, depending on how much they share, because six weeks teach little about a
correlation of 18 columns. It holds "if the coming weeks resemble the reference".

A distance of zero has no logarithm: distances are floored at ``EPSILON``, far below any that two samples of real data
have. A column that never varied (constant in the reference) has no standard deviation: it is excluded and named, and
the presence checks still watch it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.errors import DataError

EPSILON = 1e-6
SHRINKAGE = 0.2
MIN_WINDOWS = 4
MAX_WINDOWS = 104  # beyond two years of weeks the error of what was learned no longer matters
DAYS_PER_YEAR = 364  # 52 weeks
_CHUNK = 2_000_000  # normal numbers drawn at once


@dataclass(frozen=True, slots=True)
class Calibration:
    """Pinned thresholds with all that they came from."""

    columns: tuple[str, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    z: float
    thresholds: dict[str, float]
    needed: int
    share: float
    k: int
    n: int
    a: float
    window_days: int
    reference_days: int
    blocks: int
    excluded: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """The inverse of :meth:`to_dict`."""
        tuples = {name: tuple(data[name]) for name in ("columns", "mean", "sd", "excluded")}
        return cls(**{**data, **tuples, "thresholds": dict(data["thresholds"])})


def logarithms(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log distances, floored at ``EPSILON``."""
    return np.asarray(np.log(np.maximum(distances, EPSILON)))


def needed_columns(share: float, columns: int) -> int:
    """How many columns must have drifted for a window to be flagged: more than ``share`` of them."""
    return math.floor(share * columns + 1e-9) + 1


def calibrate(
    log_distances: NDArray[np.float64],
    columns: Sequence[str],
    *,
    share: float,
    k: int,
    n: int,
    false_asks_per_year: float,
    window_days: int = 7,
    reference_days: int,
    seed: int,
    draws: int = 20_000,
) -> Calibration:
    """Thresholds per column, so that the whole rule asks falsely ``false_asks_per_year`` times a year.

    :param log_distances: one row per block inside the reference, one column per feature (``logarithms``).
    :param share: a window is flagged when more than this share of columns drifted.
    :param k: flagged windows out of the last ``n`` that make the rule ask.
    :raises DataError: the reference is too short, or no column varies.
    """
    x = np.asarray(log_distances, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != len(columns):
        raise ValueError(f"distances of shape {x.shape} for {len(columns)} columns")
    m = min(reference_days // window_days, MAX_WINDOWS)
    if m < MIN_WINDOWS or len(x) < MIN_WINDOWS:
        raise DataError(
            f"the drift reference has {reference_days} days with {len(x)} blocks; windows of {window_days} days "
            f"need at least {MIN_WINDOWS * window_days} days to learn from"
        )
    if not bool(np.isfinite(x).all()):
        raise DataError("a distance inside the drift reference is not finite: check the columns for nulls")
    sd = x.std(axis=0, ddof=1)
    varies = sd > 1e-9
    kept = tuple(str(c) for c, v in zip(columns, varies, strict=True) if v)
    excluded = tuple(str(c) for c, v in zip(columns, varies, strict=True) if not v)
    if not kept:
        raise DataError("no column varies inside the drift reference")
    x, sd = x[:, varies], sd[varies]
    mean = x.mean(axis=0)
    needed = needed_columns(share, len(kept))
    a = min(false_asks_per_year * window_days / DAYS_PER_YEAR, 0.5)
    statistic = simulate(correlation(x), m=m, k=k, n=n, needed=needed, seed=seed, draws=draws)
    z = float(np.quantile(statistic, 1 - a))
    thresholds = {c: float(t) for c, t in zip(kept, np.exp(mean + z * sd), strict=True)}
    return Calibration(
        columns=kept,
        mean=tuple(float(v) for v in mean),
        sd=tuple(float(v) for v in sd),
        z=z,
        thresholds=thresholds,
        needed=needed,
        share=share,
        k=k,
        n=n,
        a=a,
        window_days=window_days,
        reference_days=reference_days,
        blocks=len(x),
        excluded=excluded,
    )


def correlation(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation between columns, shrunk by ``SHRINKAGE`` to the identity."""
    r = np.atleast_2d(np.corrcoef(x, rowvar=False))
    return np.asarray((1 - SHRINKAGE) * r + SHRINKAGE * np.eye(len(r)))


def simulate(
    r: NDArray[np.float64], *, m: int, k: int, n: int, needed: int, seed: int, draws: int
) -> NDArray[np.float64]:
    """Draws of A: the level that k of n windows reach in ``needed`` columns, when nothing has changed."""
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(r)
    columns = len(r)
    out = []
    step = max(1, _CHUNK // ((m + n) * columns))
    for start in range(0, draws, step):
        g = rng.standard_normal((min(step, draws - start), m + n, columns)) @ root.T
        learned, seen = g[:, :m], g[:, m:]
        z = (seen - learned.mean(axis=1, keepdims=True)) / learned.std(axis=1, ddof=1, keepdims=True)
        s = np.partition(z, columns - needed, axis=2)[:, :, columns - needed]
        out.append(np.partition(s, n - k, axis=1)[:, n - k])
    return np.concatenate(out)
