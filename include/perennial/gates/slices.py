"""Slices: does a part of the rows pay for the gain of the whole?

**Harm against the champion.** In each slice the candidate is compared with the champion on the same rows. The gate
fails on a slice when the loss is shown and matters: the upper bound of the gain, gain + t(1 - .05 / m, n - 1)
SE_jackknife sqrt(V), lies under 0 (terms in ``blocks``; m, Bonferroni's correction (Dunn 1961), counts the slices that
can be judged over all ``gates.slices``), and the loss itself is larger than ``max_harm``, .01 (a regression's is
relative). A fixed largest gap between slices would fail healthy models in 22-44 % of cases: slices differ by nature.

**Floors** hold in each slice separately, by the point estimate, standard error shown, as in ``floor``.

**Small slices.** A slice needs 50 positives and 50 negatives (50 rows of each class; a regression 100 rows), and for
harm ten blocks and a lag-1 autocorrelation of at most .6; else its verdict is ``hold``, shown with its reason. A held
slice is a warning and does not hold the gate: with every small carrier holding it, no model would ever pass. But when
no slice at all can be judged, what the spec asks for was not checked, and the gate holds.

Simulated (tests/simulations/test_fairness_simulated.py), four slices of 560 to 840 rows, fortnights with lag-1
autocorrelation .2: a candidate as good as the champion fails in 5-7 % (nominal 5; without V and Bonferroni's correction
23-28 %); one that loses .11 of AUC in one slice and nothing elsewhere fails in 35 %, one that loses .22 in 91 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.errors import DataError
from perennial.gates.blocks import MAX_LEFT_OUT, MAX_R1, MIN_BLOCKS, Within, block_codes, compare, estimate
from perennial.gates.groups import group_labels, ordered
from perennial.gates.metrics import Metric, get_metric
from perennial.gates.paired import check_rows, numbers, percent
from perennial.gates.verdict import Figure, GateResult, Verdict, clean, disabled, guarded
from perennial.specs.gates import SliceGate
from perennial.specs.group_rules import MISSING

ALPHA = 0.05
MIN_CLASS = 50
MIN_ROWS = 100
_SHOWN = 5  # slices that a sentence names


@dataclass(frozen=True, slots=True)
class Rival:
    """The champion on the same rows.

    :param scores: its scores, one for each row.
    :param usable: rows that may be compared: those of days that the champion did not train on.
    """

    scores: Any
    usable: NDArray[np.bool_]
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """What slices are judged on: labels, the candidate's scores, blocks, and perhaps a champion.

    :param left_out: blocks of the holdout that are not among the rows; more than a fifth of them is no pass.
    """

    y: Any
    scores: Any
    blocks: Any
    metric: Metric
    within: Within
    threshold: float | None = None
    rival: Rival | None = None
    left_out: int = 0


@dataclass(slots=True)
class _Slice:
    """One slice on its way to a verdict."""

    name: str
    mask: NDArray[np.bool_]
    row: dict[str, Figure] = field(default_factory=dict)
    small: str | None = None
    incomparable: str | None = None


@dataclass(frozen=True, slots=True)
class Sliced:
    """A gate's result, and a line for each slice (plain values)."""

    result: GateResult
    table: list[dict[str, Figure]]


def gate_name(by: str) -> str:
    return f"slices.{by}"


def slice_gates(specs: Sequence[SliceGate], columns: Mapping[str, Any], rows: Rows) -> list[Sliced]:
    """Judge every entry of ``gates.slices``.

    :param columns: values by column name, one for each row. A column that is not there fails its gate.
    """
    rows = Rows(
        numbers(rows.y), numbers(rows.scores), np.asarray(rows.blocks), rows.metric, rows.within, rows.threshold,
        None if rows.rival is None else Rival(numbers(rows.rival.scores), rows.rival.usable, rows.rival.threshold),
        rows.left_out,
    )  # fmt: skip
    parted: dict[str, list[_Slice] | Exception] = {}
    for spec in specs:
        if spec.mode != "disabled":
            try:
                parted[spec.by] = _part(spec, columns, rows)
            except Exception as error:
                parted[spec.by] = error
    family = sum(
        1 for found in parted.values() if isinstance(found, list) for s in found if not (s.small or s.incomparable)
    )
    return [_one(spec, parted.get(spec.by), rows, family) for spec in specs]


def _one(spec: SliceGate, parts: list[_Slice] | Exception | None, rows: Rows, family: int) -> Sliced:
    name = gate_name(spec.by)
    if parts is None:
        return Sliced(disabled(name), [])
    table: list[dict[str, Figure]] = []

    def gate() -> GateResult:
        if isinstance(parts, DataError):
            return GateResult(name, "fail", str(parts), {}, spec.mode)
        if isinstance(parts, Exception):
            raise parts
        return _judge(spec, parts, rows, family, table)

    # a judged slice without a finite figure is found in _judge; here a pass must have judged something
    return Sliced(guarded(name, spec.mode, gate, ("judged",)), table)


def _part(spec: SliceGate, columns: Mapping[str, Any], rows: Rows) -> list[_Slice]:
    """Cut the rows, and say which slices are too small."""
    if spec.by not in columns:
        raise DataError(f"there is no column {spec.by} among the features or in the entity feed")
    values = columns[spec.by]
    if len(values) != len(rows.y):
        raise DataError(f"{len(values)} values of {spec.by} for {len(rows.y)} labels")
    scores = {"scores": rows.scores}
    usable = np.ones(len(rows.y), dtype=bool)
    if rows.rival is not None:
        usable = np.asarray(rows.rival.usable, dtype=bool)
        theirs = np.array(rows.rival.scores)
        if len(theirs) == len(usable):
            theirs[~usable] = 0  # not compared, so they may be missing
        scores["champion scores"] = theirs
    fault = check_rows(rows.y, scores, rows.blocks)
    if fault:
        raise DataError(fault)
    labels = group_labels(values, spec, spec.by)
    found = []
    for name in ordered(labels, spec):
        part = _Slice(name, labels == name)
        part.small = _too_small(rows, part.mask)
        if rows.rival is None:
            part.incomparable = "no champion"
        elif part.small is None:
            part.incomparable = _too_small(rows, part.mask & usable) or _too_few(rows.blocks[part.mask & usable])
        found.append(part)
    return found


def _too_small(rows: Rows, mask: NDArray[np.bool_]) -> str | None:
    n = int(mask.sum())
    if rows.metric.task_type == "regression":
        return None if n >= MIN_ROWS else f"{n} rows, fewer than {MIN_ROWS}"
    if rows.metric.task_type == "multiclass":
        least = min((int((rows.y[mask] == c).sum()) for c in np.unique(rows.y)), default=0)
        return None if least >= MIN_CLASS else f"{least} rows of one class, fewer than {MIN_CLASS}"
    positives = int((rows.y[mask] == 1).sum())
    if min(positives, n - positives) >= MIN_CLASS:
        return None
    return f"{positives} positives and {n - positives} negatives, fewer than {MIN_CLASS} of each"


def _too_few(blocks: NDArray[Any]) -> str | None:
    n = len(block_codes(blocks)[1])
    return None if n >= MIN_BLOCKS else f"{n} blocks, fewer than {MIN_BLOCKS}"


def _judge(spec: SliceGate, parts: list[_Slice], rows: Rows, family: int, table: list[dict[str, Figure]]) -> GateResult:
    name, confidence = gate_name(spec.by), 1 - ALPHA / max(family, 1)
    metrics = {n: get_metric(n, rows.metric.task_type) for n in spec.minimum}
    table.extend(_line(part, spec, rows, metrics, confidence) for part in parts)
    judged = [r for r in table if r["verdict"] in ("pass", "fail")]
    held = [r for r in table if r["verdict"] == "hold"]
    harms = [float(r["harm"]) for r in table if isinstance(r["harm"], float)]
    figures: dict[str, Figure] = {
        "by": spec.by, "metric": rows.metric.name, "slices": len(table), "judged": len(judged), "held": len(held),
        "failed": sum(r["verdict"] == "fail" for r in table), "rows": len(rows.y),
        "rows_judged": sum(int(r["rows"] or 0) for r in judged),
        "worst_harm": max(harms) if harms else None, "max_harm": spec.max_harm,
        "confidence": confidence if rows.rival is not None else None, "family": family,
    }  # fmt: skip
    warnings = (_held_words(spec.by, held),) if held else ()
    bad = [r for r in judged if r["verdict"] == "fail"]
    if not len(rows.y):
        return GateResult(name, "hold", "the holdout has no labelled rows", figures, spec.mode)
    if [r["slice"] for r in table] == [MISSING]:
        reason = f"{spec.by} has no value in any of {len(rows.y):,} rows, so there are no slices"
        return GateResult(name, "hold", reason, figures, spec.mode)
    if bad:
        words = "; ".join(f"{spec.by} {r['slice']}: {r['why']}" for r in bad[:_SHOWN])
        more = f" (and {len(bad) - _SHOWN} more)" if len(bad) > _SHOWN else ""
        return GateResult(name, "fail", words + more, figures, spec.mode, warnings)
    if rows.rival is None and not spec.minimum:
        reason = "no champion yet: no slice can be harmed, and no floor is asked for"
        return GateResult(name, "not_applicable", reason, figures, spec.mode, warnings)
    if not judged:
        reason = f"no slice by {spec.by} can be judged: {table[0]['slice']} has {table[0]['why']}"
        return GateResult(name, "hold", reason, figures, spec.mode, warnings)
    blocks = len(block_codes(rows.blocks)[1]) + rows.left_out
    if rows.left_out > MAX_LEFT_OUT * blocks:
        reason = f"{rows.left_out} of {blocks} blocks are left out, more than {MAX_LEFT_OUT:.0%}"
        return GateResult(name, "hold", reason, figures, spec.mode, warnings)
    said = "above its floor" if rows.rival is None else "harmed"
    verb = "is" if rows.rival is None else "is not"
    one = "the one slice" if len(judged) == 1 else f"each of {len(judged)} slices"
    reason = f"{one} by {spec.by} that can be judged {verb} {said}"
    if harms:
        worst = max(harms)
        reason += f", largest loss {worst:.3f}" if worst > 0 else f", least gain {-worst:.3f}"
    return GateResult(name, "pass", reason, figures, spec.mode, warnings)


def _line(
    part: _Slice, spec: SliceGate, rows: Rows, metrics: Mapping[str, Metric], confidence: float
) -> dict[str, Figure]:
    """The line of one slice in the table, with its verdict."""
    y = rows.y[part.mask]
    row: dict[str, Figure] = {"by": spec.by, "slice": part.name, "rows": len(y)}
    row["positives"] = int((y == 1).sum()) if rows.metric.task_type == "binary" else None
    row |= dict.fromkeys(("candidate", "se", "champion", "harm", "bound", "blocks", "V"))
    verdict: Verdict = "pass"
    why: list[str] = []
    if part.small:
        return row | {"verdict": "hold", "why": part.small}
    own = estimate(
        rows.metric, y, rows.scores[part.mask], rows.blocks[part.mask], within=rows.within, threshold=rows.threshold
    )
    row |= {"candidate": clean(own.value), "se": clean(own.se), "blocks": own.n_blocks}
    if rows.rival is not None:
        verdict = _harm(part, spec, rows, confidence, row, why)
    for name, limit in spec.minimum.items():
        good, words = _floor(part, rows, metrics[name], name, limit)
        if not good:
            verdict = "fail"
            why.append(words)
    if rows.rival is None and not spec.minimum:
        verdict = "not_applicable"
    return row | {"verdict": verdict, "why": "; ".join(why)}


def _harm(
    part: _Slice, spec: SliceGate, rows: Rows, confidence: float, row: dict[str, Figure], why: list[str]
) -> Verdict:
    """The verdict on harm in one slice; adds its figures to ``row`` and its reason to ``why``."""
    if part.incomparable is not None:
        why.append(part.incomparable)
        return "hold"
    rival = rows.rival
    assert rival is not None
    mask = part.mask & rival.usable
    found = compare(
        rows.metric, rows.y[mask], rows.scores[mask], rival.scores[mask], rows.blocks[mask],
        within=rows.within, threshold_new=rows.threshold, threshold_old=rival.threshold,
    )  # fmt: skip
    gain = found.gain
    upper = gain.upper(confidence)
    row |= {"champion": clean(found.old), "harm": clean(-gain.value), "V": clean(gain.v), "blocks": gain.n_blocks}
    if upper is None or gain.r1 is None or gain.n_blocks < MIN_BLOCKS or not math.isfinite(upper):
        why.append(f"{rows.metric.name} is not defined without one of {gain.n_blocks} blocks")
        return "hold"
    row["bound"] = -upper
    if gain.r1 > MAX_R1:
        why.append(f"neighbouring blocks too alike (lag-1 autocorrelation {gain.r1:.2f})")
        return "hold"
    if upper < 0 and -gain.value > spec.max_harm:
        loss = "relative loss" if rows.metric.relative else "loss"
        why.append(f"{loss} {-gain.value:.3f} against the champion, at least {-upper:.3f} at {percent(confidence)}")
        return "fail"
    return "pass"


def _floor(part: _Slice, rows: Rows, metric: Metric, name: str, limit: float) -> tuple[bool, str]:
    if not metric.greater_is_better and name.startswith("neg_") and limit < 0:
        limit = -limit  # scikit-learn's own way to write it
    e = estimate(
        metric, rows.y[part.mask], rows.scores[part.mask], rows.blocks[part.mask],
        within=rows.within, threshold=rows.threshold,
    )  # fmt: skip
    good = math.isfinite(e.value) and (e.value >= limit if metric.greater_is_better else e.value <= limit)
    side = "below its minimum" if metric.greater_is_better else "above its maximum"
    error = "" if e.se is None else f" (standard error {e.se:.3f})"
    return good, f"{metric.name} {e.value:.3f}{error} is {side} {limit:.3f}"


def _held_words(by: str, held: Sequence[Mapping[str, Figure]]) -> str:
    names = ", ".join(str(r["slice"]) for r in held[:_SHOWN]) + (", ..." if len(held) > _SHOWN else "")
    return f"not judged by {by}: {names} ({held[0]['why']}{', for example' if len(held) > 1 else ''})"
