"""Floor: is the model fit to serve at all? An absolute sanity check, not a proof.

Each metric's point estimate must reach its minimum (or stay under its maximum, when lower is better). The jackknife
standard error over blocks stands beside it, because one 14-day AUC has a standard error of .028 on flights.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from perennial.gates.blocks import MAX_LEFT_OUT, Within, estimate
from perennial.gates.metrics import get_metric
from perennial.gates.paired import check_rows, missing_class, numbers
from perennial.gates.verdict import Figure, GateResult, Verdict, disabled, guarded
from perennial.specs.gates import FloorGate

GATE = "floor"


def floor_gate(
    y: Any,
    score: Any,
    blocks: Any,
    *,
    spec: FloorGate,
    task_type: str,
    threshold: float | None = None,
    within: Within = "pooled",
    left_out: int = 0,
) -> GateResult:
    """Judge one model's metrics on the holdout against the spec's limits.

    :param y: labels; binary ones are 0 and 1.
    :param score: the model's scores (probability of the positive class, or the predicted value).
    :param blocks: the block of each row, for the standard error; ``None``: every row is one.
    :param threshold: decision threshold, for metrics that need decisions.
    :param left_out: blocks of the holdout that are not among the rows; more than a fifth of them is a hold.
    """
    if spec.mode == "disabled":
        return disabled(GATE)
    if not spec.minimum:
        return GateResult(GATE, "not_applicable", "no floor in the spec", mode=spec.mode)
    return guarded(GATE, spec.mode, lambda: _floor(y, score, blocks, spec, task_type, threshold, within, left_out))


def _floor(
    y: Any,
    score: Any,
    blocks: Any,
    spec: FloorGate,
    task_type: str,
    threshold: float | None,
    within: Within,
    left_out: int,
) -> GateResult:
    y, score = numbers(y), numbers(score)
    blocks = None if blocks is None else np.asarray(blocks)
    metrics = {name: get_metric(name, task_type) for name in spec.minimum}
    figures: dict[str, Figure] = {"estimand": within, "rows": len(y)}
    fault = check_rows(y, {"scores": score}, blocks)
    if fault:
        return GateResult(GATE, "fail", fault, figures, spec.mode)
    lacking = missing_class(next(iter(metrics.values())), y, score)
    if len(y) == 0 or lacking:
        return GateResult(GATE, "hold", lacking or "the holdout has no labelled rows", figures, spec.mode)
    sentences: list[str] = []
    verdict: Verdict = "pass"
    for name, limit in spec.minimum.items():
        metric = metrics[name]
        if not metric.greater_is_better and name.startswith("neg_") and limit < 0:
            limit = -limit  # scikit-learn's own way to write it
        e = estimate(metric, y, score, blocks, within=within, threshold=threshold)
        side = "minimum" if metric.greater_is_better else "maximum"
        figures.update({metric.name: e.value, f"{metric.name}_se": e.se, f"{metric.name}_{side}": limit})
        low, high = e.interval()
        figures.update({f"{metric.name}_low": low, f"{metric.name}_high": high, "n_blocks": e.n_blocks})
        good = math.isfinite(e.value) and (e.value >= limit if metric.greater_is_better else e.value <= limit)
        if not good:
            verdict = "fail"
        error = "" if e.se is None else f" (standard error {e.se:.3f})"
        verb = "reaches" if metric.greater_is_better else "stays within"
        verb = verb if good else ("is below" if metric.greater_is_better else "is above")
        sentences.append(f"{metric.name} {e.value:.3f}{error} {verb} the {side} {limit:.3f}")
    total = left_out + int(figures["n_blocks"] or 0)
    figures["left_out"] = left_out
    if verdict == "pass" and left_out > MAX_LEFT_OUT * total:
        verdict = "hold"
        sentences.append(f"but {left_out} of {total} blocks are left out, more than {MAX_LEFT_OUT:.0%}")
    return GateResult(GATE, verdict, "; ".join(sentences), figures, spec.mode)
