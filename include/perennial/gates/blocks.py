r"""Blocks: how sure a figure is, when rows of one day (and neighbouring days) resemble each other.

**Delete-one-block jackknife** (Quenouille 1956, Tukey 1958; Efron & Tibshirani 1993, ch. 11). With theta the estimand
over all n blocks and theta_(-b) the same without block b, the pseudo-values are p_b = n theta - (n-1) theta_(-b) and
SE^2 = var(p) / n. The estimand is pooled over all rows, or the mean over blocks of the value within each block
(``within="block"``), whose pseudo-values are the block values themselves.

**Fast paths.** For the ROC AUC let U[a, b] be how often a positive of block a scores above a negative of block b, ties
one half (the block sums of DeLong's components; Obuchowski 1997). Then AUC = sum U / (n1 n0), and without block b it
is (sum U - U[b, :] - U[:, b] + U[b, b]) / ((n1 - n1_b) (n0 - n0_b)); any reweighting w of blocks is
w U w / ((w n1) (w n0)). One sort gives U. With very many blocks only the row sums, column sums and the diagonal are
computed, by mid-ranks over all rows and within each block. ``roc_auc_ovr`` is the mean of one such area per class.
Means over rows (MAE, log loss) need block sums; metrics of decisions (F1, balanced accuracy) counts of label and
decision.

**Rows as blocks** (``blocks=None``), where partitions are few, as with a yearly census. The jackknife is then that of
the rows (for the AUC DeLong's variance, for a mean its usual one), rows have no order in time, and V = 1. It says how
sure a figure is for that holdout's period; how periods differ from one another it cannot say.

**Variance inflation.** With r1 the lag-1 autocorrelation of the pseudo-values in the order of the blocks,
f1 = r1 + (1 + 4 r1) / n (bias: Kendall 1954), f = clip((n f1 + 14 * .2) / (n + 14), 0, .6), V = (1 + f) / (1 - f).
The prior .2 weighs like 14 blocks: lag-1 autocorrelations of daily metric differences are .02-.29 on flights, and
the variance of 14-day means is up to 3.4x what independence predicts. When r1 > .6 nobody should trust a correction.

**Bound.** gain - t(c, n - 1) SE sqrt(V), one-sided; intervals shown to people are two-sided 95 %. False passes at
nominal 10 / 5 / 2.5 %, flights, dependent days: 7.6 / 3.3 / 1.7 % (percentile bootstrap by day: 13.0 / 9.0 / 7.2).
Simulated Gaussian days, n = 14, lag-1 autocorrelation 0: 7.3 / 3.3 / 1.5 %, .1: 8.7 / 4.3 / 2.1, .2: 9.9 / 5.2 / 2.8,
.3: 11.4 / 6.5 / 3.7; with V = 1 at .2: 14.3 / 8.2 / 4.8. So it keeps its word up to .2 and errs a little beyond.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perennial.gates.metrics import Floats, Metric, counted_value, gain, gains

Within = Literal["pooled", "block"]

MIN_BLOCKS = 10
MAX_R1 = 0.6
MAX_LEFT_OUT = 0.2
_PRIOR_BLOCKS, _PRIOR_F, _MAX_F = 14, 0.2, 0.6
_MATRIX_BLOCKS = 256  # above it, the concordance matrix is not built
_GENERIC_BLOCKS = 500  # above it, neighbouring blocks are deleted together where every deletion is a recomputation


# --------------------------------------------------------------------------------------------------- autocorrelation


def autocorrelation(series: Floats) -> Floats:
    """Sample lag-1 autocorrelation along the last axis; 0 for a constant series."""
    deviation = series - series.mean(axis=-1, keepdims=True)
    square = (deviation**2).sum(axis=-1)
    scale = np.abs(series).max(axis=-1) if series.size else np.zeros(series.shape[:-1])
    varies = square > (1e-12 * scale) ** 2 * series.shape[-1]
    product = (deviation[..., 1:] * deviation[..., :-1]).sum(axis=-1)
    return np.asarray(np.where(varies, product / np.where(varies, square, 1.0), 0.0))


def inflation(r1: Floats | float, n: int) -> Floats:
    """V, by which the variance of a mean over n neighbouring blocks exceeds what independence predicts."""
    r1 = np.asarray(r1, dtype=np.float64)
    f1 = r1 + (1 + 4 * r1) / n
    f = np.clip((n * f1 + _PRIOR_BLOCKS * _PRIOR_F) / (n + _PRIOR_BLOCKS), 0.0, _MAX_F)
    return np.asarray((1 + f) / (1 - f))


# -------------------------------------------------------------------------------------------------------------- blocks


def block_codes(blocks: Any) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Codes 0..n-1 in the sorted order of the blocks' keys (which is the order of time), and the keys."""
    blocks = np.asarray(blocks)
    missing = blocks != blocks if blocks.dtype.kind in "fOmM" else np.zeros(blocks.shape, dtype=bool)
    if blocks.dtype.kind == "O":
        missing = missing | (blocks == None)  # noqa: E711  (elementwise)
    if bool(np.any(missing)):
        raise ValueError(f"{int(np.sum(missing))} rows have no block")
    if blocks.dtype.kind == "O":
        blocks = np.array(blocks.tolist())  # integers keep their order, "10" would come before "9"
        blocks = blocks.astype(str) if blocks.dtype.kind == "O" else blocks
    keys, codes = np.unique(blocks, return_inverse=True)
    return codes.reshape(-1).astype(np.int64), keys


def concordance(y: Any, s: Any, codes: NDArray[np.int64], n: int) -> Floats:
    """U[a, b]: positives of block a scored above negatives of block b, ties one half. One sort."""
    positive = np.asarray(y) == 1
    _, group = np.unique(np.asarray(s), return_inverse=True)
    group = group.reshape(-1)
    groups = int(group.max()) + 1 if group.size else 0
    u = np.zeros((n, n))
    positive_groups, positive_codes = group[positive], codes[positive]
    for b in range(n):
        negatives = np.bincount(group[~positive & (codes == b)], minlength=groups).astype(np.float64)
        below = np.cumsum(negatives) - 0.5 * negatives
        u[:, b] = np.bincount(positive_codes, weights=below[positive_groups], minlength=n)
    return u


@dataclass(frozen=True, slots=True)
class AucSums:
    """Row sums, column sums and diagonal of the concordance matrix, with positives and negatives per block."""

    rows: Floats
    columns: Floats
    diagonal: Floats
    positives: Floats
    negatives: Floats

    def pooled(self) -> tuple[float, Floats]:
        """The pooled AUC, and the pooled AUC without each block."""
        total, n1, n0 = self.rows.sum(), self.positives.sum(), self.negatives.sum()
        without = total - self.rows - self.columns + self.diagonal
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.divide(total, n1 * n0)
            left = without / ((n1 - self.positives) * (n0 - self.negatives))
        return float(value), left

    def within(self) -> Floats:
        """The AUC inside each block; NaN where a class is missing."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.diagonal / (self.positives * self.negatives))


def auc_sums(y: Any, s: Any, codes: NDArray[np.int64], n: int) -> AucSums:
    """Block sums for the ROC AUC, from the concordance matrix or, with many blocks, by mid-ranks alone."""
    positive = np.asarray(y) == 1
    n1 = np.bincount(codes[positive], minlength=n).astype(np.float64)
    n0 = np.bincount(codes[~positive], minlength=n).astype(np.float64)
    if n <= _MATRIX_BLOCKS:
        u = concordance(y, s, codes, n)
        return AucSums(u.sum(axis=1), u.sum(axis=0), np.diagonal(u).copy(), n1, n0)
    rows, columns = _component_sums(positive, np.asarray(s), np.zeros_like(codes), codes, n)
    diagonal, _ = _component_sums(positive, np.asarray(s), codes, codes, n)
    return AucSums(rows, columns, diagonal, n1, n0)


def _component_sums(
    positive: NDArray[np.bool_], s: NDArray[Any], strata: NDArray[np.int64], codes: NDArray[np.int64], n: int
) -> tuple[Floats, Floats]:
    """DeLong components within strata, summed by block: positives' (row sums) and negatives' (column sums)."""
    _, value = np.unique(s, return_inverse=True)
    value = value.reshape(-1)
    pair = strata * (int(value.max()) + 1 if value.size else 1) + value  # ordered by stratum, then score
    _, group = np.unique(pair, return_inverse=True)
    group = group.reshape(-1)
    groups = int(group.max()) + 1 if group.size else 0
    stratum_of = np.zeros(groups, dtype=np.int64)
    stratum_of[group] = strata

    def below(mask: NDArray[np.bool_]) -> Floats:
        count = np.bincount(group[mask], minlength=groups).astype(np.float64)
        before = np.concatenate([[0.0], np.bincount(strata[mask], minlength=int(strata.max()) + 1).cumsum()])
        return np.asarray(np.cumsum(count) - 0.5 * count - before[stratum_of])

    totals = np.bincount(strata[positive], minlength=int(strata.max()) + 1).astype(np.float64)
    above = totals[stratum_of] - below(positive)
    rows = np.bincount(codes[positive], weights=below(~positive)[group[positive]], minlength=n)
    columns = np.bincount(codes[~positive], weights=above[group[~positive]], minlength=n)
    return rows.astype(np.float64), columns.astype(np.float64)


# ----------------------------------------------------------------------------------------------------------- estimates


@dataclass(frozen=True, slots=True)
class Series:
    """An estimand over all blocks, and without each of them. ``undefined`` blocks have no value of their own."""

    value: float
    without: Floats
    undefined: NDArray[np.bool_]


def leave_one_out(
    metric: Metric, y: Any, s: Any, codes: NDArray[np.int64], n: int, within: Within, threshold: float | None = None
) -> Series:
    """The estimand and its leave-one-block-out values."""
    if within == "block":
        values = block_values(metric, y, s, codes, n, threshold)
        return _mean_series(values, ~np.isfinite(values))
    none = np.zeros(n, dtype=bool)
    if metric.auc:
        each = [auc_sums(of, scores, codes, n).pooled() for of, scores in _against_the_rest(metric, y, s)]
        return Series(float(np.mean([v for v, _ in each])), np.mean([w for _, w in each], axis=0), none)
    losses = metric.losses(y, s, threshold)
    if losses is not None:
        metric(y, s, threshold)  # says what is wrong with the scores, if anything
        sums = np.bincount(codes, weights=losses, minlength=n)
        counts = np.bincount(codes, minlength=n).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(np.divide(sums.sum(), counts.sum()))
            without = (sums.sum() - sums) / (counts.sum() - counts)
        if metric.finish is not None:
            value, without = float(metric.finish(np.asarray(value))), metric.finish(np.maximum(without, 0.0))
        return Series(value, without, none)
    if metric.counted:
        return _counted(metric, y, metric.decisions(s, threshold), codes, n)
    return Series(
        metric(y, s, threshold),
        np.array([metric(y[codes != b], s[codes != b], threshold) for b in range(n)]),
        none,
    )


def _against_the_rest(metric: Metric, y: Any, s: Any) -> list[tuple[Any, Any]]:
    """The ROC curves of a metric: one, or one for each class against the rest."""
    return [(y, s)] if metric.auc == "binary" else [(y == k, s[:, k]) for k in range(s.shape[1])]


def _counted(metric: Metric, y: Any, decisions: Any, codes: NDArray[np.int64], n: int) -> Series:
    """From how often each pair of label and decision occurs: with rows as blocks, few deletions are different."""
    y, decisions = np.asarray(y), np.asarray(decisions)
    labels, at = np.unique(y, return_inverse=True)
    said, chosen = np.unique(decisions, return_inverse=True)
    cells = at.reshape(-1) * len(said) + chosen.reshape(-1)
    size = len(labels) * len(said)
    of_label, of_decision = np.repeat(labels, len(said)), np.tile(said, len(labels))
    total = np.bincount(cells, minlength=size)
    if n == len(y):  # rows as blocks: each deletes one of its own pair
        kinds, kind = np.eye(size, dtype=np.int64), cells[np.argsort(codes)]
    else:
        inside = np.bincount(codes * size + cells, minlength=n * size).reshape(n, size)
        kinds, kind = np.unique(inside, axis=0, return_inverse=True)
    values = np.array([counted_value(metric, of_label, of_decision, np.maximum(total - k, 0)) for k in kinds])
    whole = counted_value(metric, of_label, of_decision, total)
    return Series(whole, values[kind.reshape(-1)], np.zeros(n, dtype=bool))


def block_values(
    metric: Metric, y: Any, s: Any, codes: NDArray[np.int64], n: int, threshold: float | None = None
) -> Floats:
    """The metric inside each block; NaN where it is not defined (an AUC needs both classes)."""
    if metric.auc:
        each = [auc_sums(of, scores, codes, n).within() for of, scores in _against_the_rest(metric, y, s)]
        return np.asarray(np.mean(each, axis=0))
    losses = metric.losses(y, s, threshold)
    if losses is not None:
        metric(y, s, threshold)
        means = np.bincount(codes, weights=losses, minlength=n) / np.bincount(codes, minlength=n)
        return np.asarray(means if metric.finish is None else metric.finish(means), dtype=np.float64)
    out = np.full(n, np.nan)
    for b in range(n):
        inside = codes == b
        if metric.task_type == "regression" or np.unique(y[inside]).size > 1:
            out[b] = metric(y[inside], s[inside], threshold)
    return out


def _mean_series(values: Floats, undefined: NDArray[np.bool_]) -> Series:
    kept = values[~undefined]
    if kept.size < 2:
        return Series(float(kept.mean()) if kept.size else math.nan, np.full(kept.size, np.nan), undefined)
    return Series(float(kept.mean()), (kept.sum() - kept) / (kept.size - 1), undefined)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure over blocks with its standard error (jackknife, not yet inflated)."""

    value: float
    n_blocks: int
    rows: int
    undefined: int = 0
    pseudo: Floats | None = None
    se: float | None = None
    r1: float | None = None
    v: float | None = None

    def bound(self, confidence: float) -> float | None:
        """The one-sided lower bound at ``confidence``, variance inflated; None without a standard error."""
        return self._off(-1, confidence)

    def upper(self, confidence: float) -> float | None:
        """The one-sided upper bound at ``confidence``, variance inflated; None without a standard error."""
        return self._off(1, confidence)

    def interval(self) -> tuple[float | None, float | None]:
        """The two-sided 95 % interval."""
        return self._off(-1, 0.975), self._off(1, 0.975)

    def _off(self, sign: int, confidence: float) -> float | None:
        if self.se is None or self.v is None:
            return None
        return self.value + sign * t_quantile(confidence, self.n_blocks - 1) * self.se * math.sqrt(self.v)


def t_quantile(confidence: float, df: int) -> float:
    """Student's t: the ``confidence`` quantile with ``df`` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, confidence))


def from_jackknife(value: float, without: Floats, rows: int, undefined: int = 0, *, in_time: bool = True) -> Estimate:
    """An estimate from its leave-one-out values; without a standard error when these are not all finite.

    :param in_time: neighbouring blocks are neighbours in time, and alike; else V = 1.
    """
    n = int(without.size)
    if n < 2 or not math.isfinite(value) or not bool(np.isfinite(without).all()):
        return Estimate(value, n, rows, undefined)
    pseudo = n * value - (n - 1) * without
    se = float(np.sqrt(pseudo.var(ddof=1) / n))
    if se <= 1e-13 * max(abs(value), 1e-3) * n:  # rounding, not variation
        se = 0.0
    if not in_time:
        return Estimate(value, n, rows, undefined, pseudo, se, None, 1.0)
    r1 = float(autocorrelation(pseudo)) if se else 0.0
    return Estimate(value, n, rows, undefined, pseudo, se, r1, float(inflation(r1, n)))


def count_blocks(blocks: Any | None, rows: int) -> int:
    """How many blocks there are; ``None``: every row is one."""
    return rows if blocks is None else len(block_codes(blocks)[1])


def _codes(metric: Metric, blocks: Any | None, rows: int, within: Within) -> tuple[Any, int]:
    """The number of each row's block, and how many blocks there are.

    Neighbouring ones are merged where each deletion is a recomputation and there are too many.
    """
    if blocks is None:
        codes, n = np.arange(rows), rows
    else:
        codes, keys = block_codes(blocks)
        n = len(keys)
    fast = metric.auc or metric.rowwise is not None or metric.counted
    if within == "block" or fast or n <= _GENERIC_BLOCKS:
        return codes, n
    return codes * _GENERIC_BLOCKS // n, _GENERIC_BLOCKS


def estimate(
    metric: Metric, y: Any, s: Any, blocks: Any, *, within: Within = "pooled", threshold: float | None = None
) -> Estimate:
    """One model's metric with its standard error over blocks (``None``: rows)."""
    y, s = np.asarray(y), np.asarray(s)
    codes, n = _codes(metric, blocks, len(y), within)
    series = leave_one_out(metric, y, s, codes, n, within, threshold)
    undefined = int(series.undefined.sum())
    return from_jackknife(series.value, series.without, len(y), undefined, in_time=blocks is not None)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same rows: both values, and the estimate of the gain."""

    new: float
    old: float
    gain: Estimate


def compare(
    metric: Metric,
    y: Any,
    new: Any,
    old: Any,
    blocks: Any,
    *,
    within: Within = "pooled",
    threshold_new: float | None = None,
    threshold_old: float | None = None,
) -> Comparison:
    """The gain of ``new`` over ``old``, paired: the same rows, the same blocks, one jackknife of the difference."""
    y, new, old = np.asarray(y), np.asarray(new), np.asarray(old)
    codes, n = _codes(metric, blocks, len(y), within)
    if within == "block":
        a = block_values(metric, y, new, codes, n, threshold_new)
        b = block_values(metric, y, old, codes, n, threshold_old)
        undefined = ~(np.isfinite(a) & np.isfinite(b))
        first, second = _mean_series(a, undefined), _mean_series(b, undefined)
    else:
        first = leave_one_out(metric, y, new, codes, n, within, threshold_new)
        second = leave_one_out(metric, y, old, codes, n, within, threshold_old)
    value = gain(metric, first.value, second.value)
    without = gains(metric, first.without, second.without)
    e = from_jackknife(value, without, len(y), int(first.undefined.sum()), in_time=blocks is not None)
    return Comparison(first.value, second.value, e)
