"""Realized performance: has the model become worse than on its holdout, beyond what chance explains?

Flag a window when drop > 1.77 x 1.2 sqrt(SE_ref^2 + SE_cur^2) and drop > ``max_drop``. Both standard errors are
delete-one-block jackknife ones (``gates.blocks``); 1.77 is Student's t at 95 % with 13 degrees of freedom (windows of
14 days) and 1.2 the root of a variance inflation for days that resemble their neighbours (f = .18). ``max_drop`` is a
minimum size. The drop counts in the metric's own units, for regression losses relative to the reference.

On flights that flags .8-3.8 % of healthy windows; a bare ``max_drop`` of .05 flags 17 %. Simulated fortnights whose AUC
has a standard error of .028: 1.5 % (daily quality independent) and 3.6 % (AR 1, .3), a bare maximum 11 and 16 %; a true
drop of .08 / .12 / .17 is flagged in 44 / 61 / 81 % of them. Two of three disjoint windows (``rule``) make it ask.

Too few blocks, a missing class, a missing score: ``hold``, which is never quiet.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from perennial.gates.blocks import MAX_LEFT_OUT, MIN_BLOCKS, Within, count_blocks, estimate
from perennial.gates.metrics import Metric, gain
from perennial.gates.paired import check_rows, missing_class, numbers
from perennial.gates.verdict import clean
from perennial.specs.models import Performance

T_95_13 = 1.77
ROOT_INFLATION = 1.2


@dataclass(frozen=True, slots=True)
class WindowPerformance:
    """One window against the reference. ``verdict`` is quiet, flagged or hold (which is not quiet)."""

    verdict: Literal["quiet", "flagged", "hold"]
    reason: str
    metric: str
    estimand: str
    reference: float | None
    reference_se: float | None
    max_drop: float
    value: float | None = None
    se: float | None = None
    drop: float | None = None
    threshold: float | None = None
    r1: float | None = None
    n_blocks: int = 0
    rows: int = 0
    left_out: int = 0

    @property
    def flagged(self) -> bool:
        """The window counts towards asking."""
        return self.verdict == "flagged"

    @property
    def state(self) -> Literal["quiet", "flagged", "failed"]:
        """For ``rule.judge``: a window that cannot be judged has failed."""
        return "failed" if self.verdict == "hold" else self.verdict

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON (no NaN)."""
        return {name: clean(value) for name, value in asdict(self).items()}


def performance_window(
    reference: tuple[float | None, float | None],
    y: Any,
    score: Any,
    blocks: Any,
    metric: Metric,
    spec: Performance,
    *,
    within: Within = "pooled",
    threshold: float | None = None,
    left_out: int = 0,
) -> WindowPerformance:
    """Judge one window of labelled, out-of-sample predictions against the holdout.

    :param reference: value and standard error of the same metric and estimand on the version's holdout; a missing
        standard error is a hold.
    :param blocks: the block of each row; ``None``: every row is one (of a yearly feed). The threshold's factors stay, a
        little on the safe side, and ``max_drop`` is what stands for years that differ from one another.
    :param left_out: blocks of the window that are not among the rows (labels missing or too few).
    :param threshold: decision threshold, for metrics that need decisions.
    """
    y, score = numbers(y), numbers(score)
    blocks = None if blocks is None else np.asarray(blocks)
    known: dict[str, Any] = {
        "metric": metric.name,
        "estimand": within,
        "reference": reference[0],
        "reference_se": reference[1],
        "max_drop": spec.max_drop,
        "rows": len(y),
        "left_out": left_out,
    }

    def hold(reason: str) -> WindowPerformance:
        return WindowPerformance("hold", reason, **known)

    before, before_se = reference
    if before is None or before_se is None or not (math.isfinite(before) and math.isfinite(before_se)):
        return hold("the reference has no finite value with a standard error")
    fault = check_rows(y, {"scores": score}, blocks) or missing_class(metric, y, score)
    if fault or len(y) == 0:
        return hold(fault or "the window has no labelled rows")
    try:
        known["n_blocks"] = n_blocks = count_blocks(blocks, len(y))
        e = estimate(metric, y, score, blocks, within=within, threshold=threshold)
    except Exception as error:
        return hold(f"{metric.name} could not be computed: {type(error).__name__}: {error}")
    known.update(value=e.value, se=e.se, r1=e.r1)
    out, total = left_out + e.undefined, left_out + n_blocks
    if out > MAX_LEFT_OUT * total:
        return hold(f"{out} of {total} blocks are left out, more than {MAX_LEFT_OUT:.0%}")
    if e.n_blocks < MIN_BLOCKS:
        return hold(f"{e.n_blocks} blocks are too few to judge by (at least {MIN_BLOCKS})")
    if e.se is None or not math.isfinite(e.value):
        return hold(f"{metric.name} has no finite value with a standard error")
    return _judge(known, metric, float(before), float(before_se), e.value, e.se, spec.max_drop)


def _judge(
    known: dict[str, Any],
    metric: Metric,
    before: float,
    before_se: float,
    value: float,
    se: float,
    max_drop: float,
) -> WindowPerformance:
    drop = -gain(metric, value, before)
    if metric.relative:  # the delta method for value / before
        if before == 0:
            return WindowPerformance("hold", "the reference loss is zero: no relative drop", **known)
        se, before_se = se / before, before_se * value / before**2
    threshold = max(T_95_13 * ROOT_INFLATION * math.hypot(se, before_se), max_drop)
    flagged = drop > threshold
    size = f"{'relative ' if metric.relative else ''}drop {drop:+.3f}"
    reason = (
        f"{metric.name} {value:.3f} against {before:.3f} on the holdout: {size} "
        f"{'exceeds' if flagged else 'does not exceed'} {threshold:.3f} ({known['n_blocks']} blocks)"
    )
    return WindowPerformance("flagged" if flagged else "quiet", reason, drop=drop, threshold=threshold, **known)
