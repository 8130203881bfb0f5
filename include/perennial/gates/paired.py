"""One paired comparison over blocks, judged by rule 2: what the champion and the baseline gate share.

Pass when gain - t(c, n - 1) SE_jackknife sqrt(V) > min_gain (see ``blocks`` for the terms and their figures). Hold,
because the evidence is not there, with fewer than ten blocks, when more than a fifth of the holdout's blocks are left
out, when a class is missing, when one block holds all of a class, and when neighbouring blocks are too alike to
correct for (r1 > .6). A missing score or label is a fail: it is a fault, not a lack of evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.gates.blocks import MAX_LEFT_OUT, MAX_R1, MIN_BLOCKS, Comparison, Within, compare, count_blocks
from perennial.gates.metrics import Metric
from perennial.gates.verdict import Figure, Verdict

DECIDING = ("gain", "bound", "min_gain")


@dataclass(frozen=True, slots=True)
class Judged:
    """Verdict, sentence and figures of a paired comparison."""

    verdict: Verdict
    reason: str
    figures: dict[str, Figure]


def percent(confidence: float) -> str:
    """``0.9`` -> ``90 %``, ``0.98333`` -> ``98.3 %``."""
    return f"{100 * confidence:.3g} %"


def invalid(values: Any) -> int:
    """How many rows of a label or score array are missing or not finite."""
    array: NDArray[Any] = np.asarray(values)
    if array.dtype.kind in "biu":
        return 0
    try:
        bad = ~np.isfinite(array.astype(np.float64))
    except (TypeError, ValueError):
        bad = np.array([v is None or str(v) in ("nan", "NaT", "<NA>") for v in array.reshape(-1)]).reshape(array.shape)
    return int((bad.any(axis=tuple(range(1, bad.ndim))) if bad.ndim > 1 else bad).sum())


def numbers(values: Any) -> NDArray[Any]:
    """An array of numbers where that is possible: nullable columns arrive as objects."""
    array: NDArray[Any] = np.asarray(values)
    if array.dtype.kind == "O" and not invalid(array):
        try:
            return np.asarray(array.astype(np.float64))
        except (TypeError, ValueError):
            return array
    return array


def check_rows(y: NDArray[Any], scores: dict[str, NDArray[Any]], blocks: NDArray[Any] | None) -> str | None:
    """One sentence when labels, scores and blocks cannot be judged at all; None when they can."""
    for name, values in {**scores, **({} if blocks is None else {"blocks": blocks})}.items():
        if len(values) != len(y):
            return f"{len(values)} {name} for {len(y)} labels"
    counts = {name: invalid(values) for name, values in {"labels": y, **scores}.items()}
    missing = [f"{count} {name}" for name, count in counts.items() if count]
    if missing:
        return f"{' and '.join(missing)} of {len(y)} rows are missing or not finite"
    return None


def missing_class(metric: Metric, y: NDArray[Any], score: NDArray[Any] | None = None) -> str | None:
    """One sentence when a holdout lacks a class, or has one that the model does not know.

    :param score: of a multiclass model: a column per class.
    """
    if metric.task_type == "multiclass" and score is not None and len(y):
        return _missing_classes(y, score)
    if metric.task_type != "binary":
        return None
    positives = int((y == 1).sum())
    if positives == 0 or positives == len(y):
        return f"the holdout has no {'positive' if positives == 0 else 'negative'} labels in {len(y)} rows"
    return None


def _missing_classes(y: NDArray[Any], score: NDArray[Any]) -> str | None:
    known = score.shape[1] if score.ndim == 2 else 0
    unseen = int(((y < 0) | (y >= known)).sum())
    if unseen:
        return f"{unseen} of {len(y)} labels of the holdout are of a class that the model does not know"
    lost = known - len(np.unique(y))
    if lost:
        return f"the holdout has no row of {lost} of the {known} classes"
    return None


def judge(
    metric: Metric,
    y: Any,
    new: Any,
    old: Any,
    blocks: Any,
    *,
    within: Within,
    confidence: float,
    min_gain: float,
    names: tuple[str, str],
    left_out: int = 0,
    threshold_new: float | None = None,
    threshold_old: float | None = None,
    by_point: bool = False,
) -> Judged:
    """Judge ``new`` against ``old`` on the same rows. ``by_point`` decides on the point estimate, errors shown.

    :param blocks: the block of each row; ``None``: every row is one, without an order in time.
    """
    y, new, old = numbers(y), numbers(new), numbers(old)
    blocks = None if blocks is None else np.asarray(blocks)
    figures: dict[str, Figure] = {
        "metric": metric.name,
        "estimand": within,
        names[0]: None,
        names[1]: None,
        "gain": None,
        "low": None,
        "high": None,
        "bound": None,
        "confidence": confidence,
        "block": "row" if blocks is None else "partition",
        "n_blocks": None,
        "rows": len(y),
        "V": None,
        "r1": None,
        "se": None,
        "min_gain": float(min_gain),
        "left_out": int(left_out),
    }
    fault = check_rows(y, {f"{names[0]} scores": new, f"{names[1]} scores": old}, blocks)
    if fault:
        return Judged("fail", fault, figures)
    n_blocks = count_blocks(blocks, len(y))
    figures["n_blocks"] = n_blocks
    lacking = missing_class(metric, y, new)
    if len(y) == 0 or lacking:
        return Judged("hold", lacking or "the holdout has no labelled rows", figures)

    result = compare(
        metric, y, new, old, blocks, within=within, threshold_new=threshold_new, threshold_old=threshold_old
    )
    _fill(figures, result, names, confidence)
    said = f"{'relative ' if metric.relative else ''}gain {result.gain.value:+.3f}"
    enough = f"{n_blocks} {'block' if blocks is not None else 'row'}{'' if n_blocks == 1 else 's'}"

    out = left_out + result.gain.undefined
    total = left_out + n_blocks
    if out > MAX_LEFT_OUT * total:
        return Judged(
            "hold", f"{said}, but {out} of {total} blocks are left out, more than {MAX_LEFT_OUT:.0%}", figures
        )
    if by_point:
        return _by_point(said, result, min_gain, figures)
    if result.gain.n_blocks < MIN_BLOCKS:
        if result.gain.undefined:
            enough = f"{result.gain.n_blocks} usable blocks"
        return Judged(
            "hold", f"{said}, but with {enough} there is too little to judge by (at least {MIN_BLOCKS})", figures
        )
    bound = result.gain.bound(confidence)
    if bound is None or result.gain.v is None:
        if not math.isfinite(result.gain.value):
            return Judged("fail", f"{metric.name} has no finite value for both models", figures)
        return Judged("hold", f"{said}, but {metric.name} is not defined without one of the {enough}", figures)
    if result.gain.r1 is not None and result.gain.r1 > MAX_R1:
        reason = f"{said}, but neighbouring blocks are too alike to judge by"
        return Judged("hold", f"{reason} (lag-1 autocorrelation {result.gain.r1:.2f}, {enough})", figures)
    passed = bound > min_gain
    verb = "exceeds" if passed else "does not exceed"
    reason = f"{said}, lower bound {bound:+.3f} at {percent(confidence)} {verb} {min_gain:.3f}"
    return Judged("pass" if passed else "fail", f"{reason} ({enough}, V {result.gain.v:.1f})", figures)


def _fill(figures: dict[str, Figure], result: Comparison, names: tuple[str, str], confidence: float) -> None:
    e = result.gain
    figures.update({names[0]: result.new, names[1]: result.old, "gain": e.value, "se": e.se, "V": e.v, "r1": e.r1})
    if e.undefined:
        figures["undefined_blocks"] = e.undefined
    if e.n_blocks >= MIN_BLOCKS:  # one block would make low, point and high equal
        figures["low"], figures["high"] = e.interval()
        figures["bound"] = e.bound(confidence)


def _by_point(said: str, result: Comparison, min_gain: float, figures: dict[str, Figure]) -> Judged:
    if not math.isfinite(result.gain.value):
        return Judged("fail", "the gain has no finite value", figures)
    passed = result.gain.value > min_gain
    verb = "exceeds" if passed else "does not exceed"
    error = "" if result.gain.se is None else f" (standard error {result.gain.se:.3f})"
    return Judged("pass" if passed else "fail", f"{said}{error} {verb} {min_gain:.3f}, by point estimate", figures)
