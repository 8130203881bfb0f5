"""Fairness: does the model decide differently about a group of people than about the rest?

**Measures** of decisions (score at or above the threshold): the selection rate, P(decision), the false positive rate,
P(decision | no outcome), and the false negative rate, P(no decision | outcome) (demographic parity and equalized odds:
Hardt, Price & Srebro 2016). Each group of a protected column is compared with **the rest** of the rows:
d = rate of the group - rate of the rest.

**Bounds.** With m comparisons that can be judged (groups x measures, over all columns; where a column has two groups,
each is the other's rest, and they count once), each bound is one-sided at c = 1 - (1 - confidence) / m (Bonferroni;
Dunn 1961).

- *by blocks*, ten or more (days, dependent): d -+ t(c, n - 1) SE_jackknife sqrt(V) of ``blocks``, the ratio of sums
  being recomputed without each block; a lag-1 autocorrelation over .6 is a hold.
- *by rows*, with fewer blocks or ``block: row``: Newcombe's interval for a difference of independent proportions
  (1998, Statistics in Medicine 17:873, method 10), made of Wilson's score intervals (1927); it does not shrink to
  nothing where a rate is 0 or 1. A bound by blocks is never tighter than that, for the same reason.

**Verdict.** |d| has the lower bound max(low, -high, 0) and the upper bound max(-low, high). A comparison fails when
the lower bound exceeds ``limit``, passes when the upper bound is at most ``limit``, else it is a hold. One failure
fails the gate, else one hold holds it. A rate over fewer than ``min_count`` (30) rows on either side is not judged:
negatives for the FPR, positives for the FNR, rows for the selection rate; it is shown as held, with a warning, and
decides nothing, or the smallest group would stop every model. A column of which nothing is judged, or that has no
value in more than a fifth of the rows, holds the gate. Rows without a value are a group of their own, ``missing``.

**Why not the largest difference between groups?** It is positive by construction: with a percentile interval it finds
unfairness in 100 % of fair, permuted data. fairlearn's figures are shown beside and decide nothing.

Simulated (tests/simulations/test_fairness_simulated.py), three groups, three measures, limit .1, fortnights of 7,000
rows whose group differences move by .06 from day to day with lag-1 autocorrelation .2: permuted groups fail in 0 % and
pass in 60 %; a true difference of exactly .1 in one group fails in 1 % (nominal 5; without Bonferroni's correction
10 %, without V as well 14 %) and passes in 0 %; a planted .2 fails in 90 %, .25 in 99 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.errors import DataError
from perennial.gates.blocks import MAX_LEFT_OUT, MAX_R1, MIN_BLOCKS, block_codes, from_jackknife
from perennial.gates.groups import group_labels, ordered
from perennial.gates.metrics import Floats
from perennial.gates.paired import check_rows, numbers, percent
from perennial.gates.verdict import Figure, GateResult, Verdict, clean, guarded
from perennial.specs.gates import FairnessGate, FairnessMeasure
from perennial.specs.group_rules import MISSING

GATE = "fairness"
WORDS: dict[FairnessMeasure, str] = {
    "selection_rate": "selection rate",
    "false_positive_rate": "false positive rate",
    "false_negative_rate": "false negative rate",
}
_SHOWN = 4  # comparisons that a sentence names


@dataclass(frozen=True, slots=True)
class Audit:
    """A gate's result, a line for each comparison, and fairlearn's figures for each column (plain values)."""

    result: GateResult
    table: list[dict[str, Figure]]
    shown: dict[str, dict[str, Figure]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One group against the rest by one measure: counts per block, from which rates and bounds follow."""

    column: str
    group: str
    measure: FairnessMeasure
    hits: Floats
    of: Floats
    rest_hits: Floats
    rest_of: Floats

    @property
    def rate(self) -> float:
        return _ratio(self.hits.sum(), self.of.sum())

    @property
    def rest_rate(self) -> float:
        return _ratio(self.rest_hits.sum(), self.rest_of.sum())

    @property
    def difference(self) -> float:
        return self.rate - self.rest_rate

    def short(self, min_count: int) -> str | None:
        """Why it cannot be judged, if it cannot."""
        least, whose = min((self.of.sum(), "the group"), (self.rest_of.sum(), "the rest"))
        if least >= min_count:
            return None
        what = {"selection_rate": "rows", "false_positive_rate": "negatives", "false_negative_rate": "positives"}
        return f"{int(least)} {what[self.measure]} in {whose}, fewer than {min_count}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Both one-sided bounds of a difference; ``by`` is ``blocks`` or ``rows``. ``fault``: why there are none."""

    low: float
    high: float
    by: str
    v: float | None = None
    fault: str | None = None

    @property
    def least(self) -> float:
        """The lower bound of the difference's size."""
        return max(self.low, -self.high, 0.0)

    @property
    def most(self) -> float:
        """The upper bound of the difference's size."""
        return max(-self.low, self.high)


def fairness_gate(
    y: Any,
    decision: Any,
    columns: Mapping[str, Any],
    blocks: Any,
    *,
    spec: FairnessGate,
    left_out: int = 0,
) -> Audit:
    """Audit the decisions on one holdout.

    :param y: 1 where the outcome happened, else 0. Of more than two classes: the named one against all others.
    :param decision: 1 (or true) where the model says that it will.
    :param columns: values of the protected columns, one for each row. One that is not there fails the gate.
    :param blocks: the block of each row, in the order of time; fewer than ten different ones: bounds by rows.
    :param left_out: blocks of the holdout that are not among the rows; more than a fifth of them is no pass.
    """
    stance = spec.stance
    figures: dict[str, Figure] = {"stance": stance}
    if stance == "not_applicable":
        reason = f"declared not applicable in the spec: {spec.not_applicable}"
        return Audit(GateResult(GATE, "not_applicable", reason, figures, "disabled"), [], {})
    if stance == "undeclared":
        reason = "the spec names no protected column, and no reason why there is none"
        return Audit(GateResult(GATE, "not_applicable", reason, figures, "disabled"), [], {})
    if stance == "off":
        return Audit(GateResult(GATE, "not_applicable", "switched off in the spec", figures, "disabled"), [], {})
    table: list[dict[str, Figure]] = []
    shown: dict[str, dict[str, Figure]] = {}

    def gate() -> GateResult:
        outcome, decided = numbers(y), numbers(decision)
        fault = check_rows(outcome, {"decisions": decided}, np.asarray(blocks)) or _odd(outcome, decided)
        if fault:
            return GateResult(GATE, "fail", fault, figures, spec.mode)
        try:
            groups = _grouped(columns, spec, len(outcome))
        except DataError as error:
            return GateResult(GATE, "fail", str(error), figures, spec.mode)
        verdict, reason, warnings = judge(outcome, decided, groups, blocks, spec, table, figures)
        for name, (labels, _) in groups.items() if len(outcome) else ():
            shown[name] = fairlearn_figures(outcome, decided, labels)
        total = left_out + len(block_codes(blocks)[1])
        figures["left_out"] = left_out
        if verdict == "pass" and left_out > MAX_LEFT_OUT * total:
            verdict, reason = "hold", f"{left_out} of {total} blocks are left out, more than {MAX_LEFT_OUT:.0%}"
        return GateResult(GATE, verdict, reason, figures, spec.mode, warnings)

    return Audit(guarded(GATE, spec.mode, gate, ("worst", "worst_bound", "limit")), table, shown)


def judge(
    y: NDArray[Any],
    decision: NDArray[Any],
    groups: Mapping[str, tuple[NDArray[np.str_], Sequence[str]]],
    blocks: Any,
    spec: FairnessGate,
    table: list[dict[str, Figure]],
    figures: dict[str, Figure],
) -> tuple[Verdict, str, tuple[str, ...]]:
    """The gate's rule on checked rows: verdict, sentence, warnings. Fills ``table`` and ``figures``.

    :param groups: for each column, the group of each row and the groups in their order.
    """
    codes, keys = block_codes(blocks)
    by_blocks = MIN_BLOCKS <= len(keys) < len(y)
    codes, n = (codes, len(keys)) if by_blocks else (np.zeros(len(y), dtype=np.int64), 1)
    found = [
        c for name, (labels, order) in groups.items() if len(order) > 1
        for c in comparisons(name, labels, order, y, decision, codes, n, spec.measures)
    ]  # fmt: skip
    family = _family(found, spec.min_count)
    confidence = 1 - (1 - spec.confidence) / max(family, 1)
    table.extend(_line(c, confidence, spec, by_blocks) for c in found)
    judged = [r for r in table if r["judged"]]
    gaps = {str(r["column"]): r for r in sorted(judged, key=lambda r: _number(r["most"]))}
    worst: Mapping[str, Figure] = max(judged, key=lambda r: _number(r["most"]), default={})
    figures |= {
        "columns": ", ".join(groups), "comparisons": len(table), "judged": len(judged), "family": family,
        "failed": sum(r["verdict"] == "fail" for r in table), "held": sum(r["verdict"] == "hold" for r in table),
        "limit": spec.limit, "confidence": confidence, "rows": len(y), "n_blocks": len(keys),
        "bounds_by": "blocks" if by_blocks else "rows", "worst": worst.get("difference"),
        "worst_bound": worst.get("most"), "worst_group": f"{worst['column']} {worst['group']}" if worst else None,
        "worst_measure": worst.get("measure"),
    }  # fmt: skip
    small = [r for r in table if not r["judged"]]
    warnings = (_small_words(small),) if small else ()
    named = [r for r in judged if not _mirrored(r, groups)]
    failed = [r for r in named if r["verdict"] == "fail"]
    if failed:
        failed.sort(key=lambda r: -_number(r["least"]))
        words = "; ".join(_words(r, "at least", abs(_number(r["least"])), confidence, spec) for r in failed[:_SHOWN])
        more = f" (and {len(failed) - _SHOWN} more)" if len(failed) > _SHOWN else ""
        return "fail", words + more, warnings
    if not len(y):
        return "hold", "the holdout has no labelled rows", warnings
    for name, (labels, order) in groups.items():
        fault = _nothing_to_judge(name, labels, order, gaps.get(name), table)
        if fault:
            return "hold", fault, warnings
    held = [r for r in named if r["verdict"] == "hold"]
    if held:
        held.sort(key=lambda r: -_number(r["most"]))
        words = "; ".join(
            _words(r, "at most", _number(r["most"]), confidence, spec) + f": {r['why']}" for r in held[:_SHOWN]
        )
        more = f" (and {len(held) - _SHOWN} more)" if len(held) > _SHOWN else ""
        return "hold", f"not enough evidence: {words}{more}", warnings
    what = "the one difference from the rest is" if len(named) == 1 else f"{len(named)} differences from the rest are"
    reason = f"{what} at most {_number(worst['most']):.3f}"
    return "pass", f"{reason} at {percent(spec.confidence)}, within {spec.limit:g}", warnings


def comparisons(
    column: str,
    labels: NDArray[np.str_],
    order: Sequence[str],
    y: NDArray[Any],
    decision: NDArray[Any],
    codes: NDArray[np.int64],
    n: int,
    measures: Sequence[FairnessMeasure],
) -> list[Comparison]:
    """Every group of a column against the rest, by every measure."""
    outcome, decided = y == 1, decision == 1
    every = np.ones(len(y), dtype=bool)
    counted = {
        "selection_rate": (every, decided),
        "false_positive_rate": (~outcome, decided),
        "false_negative_rate": (outcome, ~decided),
    }
    groups, at = np.unique(labels, return_inverse=True)
    where = {str(g): i for i, g in enumerate(groups)}
    cell = at.reshape(-1) * n + codes

    def count(mask: NDArray[np.bool_]) -> Floats:
        """Rows by group and block."""
        return np.bincount(cell[mask], minlength=len(groups) * n).reshape(len(groups), n).astype(np.float64)

    found = []
    for measure in measures:
        base, hit = counted[measure]
        of, hits = count(base), count(base & hit)
        rest_of, rest_hits = of.sum(axis=0) - of, hits.sum(axis=0) - hits
        found += [
            Comparison(column, g, measure, hits[where[g]], of[where[g]], rest_hits[where[g]], rest_of[where[g]])
            for g in order
        ]
    return found


def bounds(c: Comparison, confidence: float, by_blocks: bool) -> Bounds:
    """Both bounds of a difference, each one-sided at ``confidence``."""
    low, high = newcombe(c.hits.sum(), c.of.sum(), c.rest_hits.sum(), c.rest_of.sum(), _normal_quantile(confidence))
    if not by_blocks:
        return Bounds(float(low), float(high), "rows")
    with np.errstate(divide="ignore", invalid="ignore"):
        without = (c.hits.sum() - c.hits) / (c.of.sum() - c.of) - (c.rest_hits.sum() - c.rest_hits) / (
            c.rest_of.sum() - c.rest_of
        )
    e = from_jackknife(c.difference, without, int(c.of.sum()))
    lower, upper = e.bound(confidence), e.upper(confidence)
    if lower is None or upper is None or e.r1 is None:
        return Bounds(float(low), float(high), "blocks", None, "one block holds all rows of a side")
    fault = None
    if e.r1 > MAX_R1:
        fault = f"neighbouring blocks too alike to judge by (lag-1 autocorrelation {e.r1:.2f})"
    return Bounds(float(min(low, lower)), float(max(high, upper)), "blocks", e.v, fault)


def newcombe(hits: float, of: float, rest_hits: float, rest_of: float, z: float) -> tuple[float, float]:
    """Newcombe's method 10: an interval for the difference of two independent proportions from Wilson intervals."""
    p, q = hits / of, rest_hits / rest_of
    (p_low, p_high), (q_low, q_high) = _wilson(p, of, z), _wilson(q, rest_of, z)
    low = (p - q) - math.hypot(p - p_low, q_high - q)
    high = (p - q) + math.hypot(p_high - p, q - q_low)
    return low, high


def fairlearn_figures(y: NDArray[Any], decision: NDArray[Any], labels: NDArray[np.str_]) -> dict[str, Figure]:
    """The field's standard measures over all groups of a column, by fairlearn. Shown, never gated."""
    from fairlearn import metrics as fair

    _, codes = np.unique(labels, return_inverse=True)  # fairlearn is slow with texts
    frame = fair.MetricFrame(
        metrics={m: getattr(fair, m) for m in WORDS},
        y_true=(y == 1).astype(int),
        y_pred=(decision == 1).astype(int),
        sensitive_features=codes.reshape(-1),
    )
    gaps, ratios = frame.difference(method="between_groups"), frame.ratio(method="between_groups")
    return {
        **{f"{m}_difference": clean(gaps[m]) for m in WORDS},
        # of the true positive rate and of the false negative rate the differences are the same
        "equalized_odds_difference": clean(max(gaps["false_positive_rate"], gaps["false_negative_rate"])),
        "demographic_parity_ratio": clean(ratios["selection_rate"]),
    }


# ------------------------------------------------------------------------------------------------------------- details


def _line(c: Comparison, confidence: float, spec: FairnessGate, by_blocks: bool) -> dict[str, Figure]:
    """The line of one comparison in the table, with its verdict."""
    short = c.short(spec.min_count)
    row: dict[str, Figure] = {
        "column": c.column, "group": c.group, "measure": c.measure,
        "n": int(c.of.sum()), "n_rest": int(c.rest_of.sum()),
        "rate": clean(c.rate), "rate_rest": clean(c.rest_rate), "difference": clean(c.difference),
        "low": None, "high": None, "least": None, "most": None, "by": None, "V": None, "judged": int(short is None),
    }  # fmt: skip
    if short is not None:
        return row | {"verdict": "hold", "why": short}
    b = bounds(c, confidence, by_blocks)
    row |= {"low": b.low, "high": b.high, "least": b.least, "most": b.most, "by": b.by, "V": clean(b.v)}
    verdict: Verdict = "hold"
    if b.fault is None and b.least > spec.limit:
        verdict = "fail"
    elif b.fault is None and b.most <= spec.limit:
        verdict = "pass"
    if verdict == "fail":
        why = f"at least {b.least:.3f} in size, limit {spec.limit:g}"
    else:
        why = b.fault or (f"{spec.limit:g} lies between its bounds" if verdict == "hold" else "")
    return row | {"verdict": verdict, "why": why}


def _family(found: Sequence[Comparison], min_count: int) -> int:
    """How many comparisons can be judged; two groups of a column are one and the same."""
    sides: dict[tuple[str, str], set[str]] = {}
    judged: dict[tuple[str, str], int] = {}
    for c in found:
        at = (c.column, c.measure)
        sides.setdefault(at, set()).add(c.group)
        judged[at] = judged.get(at, 0) + (c.short(min_count) is None)
    return sum(min(judged[at], 1) if len(groups) == 2 else judged[at] for at, groups in sides.items())


def _nothing_to_judge(
    name: str,
    labels: NDArray[np.str_],
    order: Sequence[str],
    judged: Mapping[str, Figure] | None,
    table: Sequence[Mapping[str, Figure]],
) -> str | None:
    """One sentence when a column gives too little to audit."""
    empty = int((labels == MISSING).sum())
    if empty == len(labels):
        return f"{name} has no value in any of {len(labels):,} rows, so nothing could be audited"
    if empty > MAX_LEFT_OUT * len(labels):
        return f"{name} has no value in {empty:,} of {len(labels):,} rows, more than {MAX_LEFT_OUT:.0%}"
    if len(order) == 1:
        return f"{name} is {order[0]} in all {len(labels):,} rows, so there is nobody to compare with"
    if judged is None:
        first = next(r for r in table if r["column"] == name)
        return f"no group of {name} can be judged: {first['group']} has {first['why']}"
    return None


def _grouped(
    columns: Mapping[str, Any], spec: FairnessGate, rows: int
) -> dict[str, tuple[NDArray[np.str_], list[str]]]:
    """The group of each row and the groups in their order, for each protected column.

    :raises DataError: when a column is not there, or cannot be grouped.
    """
    found = {}
    for cut in spec.by:
        name = cut.column
        if name not in columns:
            raise DataError(f"there is no column {name} among the features or in the entity feed")
        if len(columns[name]) != rows:
            raise DataError(f"{len(columns[name])} values of {name} for {rows} labels")
        labels = group_labels(columns[name], cut, name)
        found[name] = (labels, ordered(labels, cut))
    return found


def _mirrored(r: Mapping[str, Figure], groups: Mapping[str, tuple[NDArray[np.str_], Sequence[str]]]) -> bool:
    """Whether a line says the same as that of the other of two groups."""
    order = groups[str(r["column"])][1]
    return len(order) == 2 and r["group"] == order[1]


def _odd(y: NDArray[Any], decision: NDArray[Any]) -> str | None:
    for what, values in (("labels", y), ("decisions", decision)):
        if not bool(np.isin(values, (0, 1)).all()):
            return f"{what} must be 0 or 1 for an audit of decisions"
    return None


def _words(r: Mapping[str, Figure], bound: str, value: float, confidence: float, spec: FairnessGate) -> str:
    measure = WORDS[r["measure"]]  # type: ignore[index]
    return (
        f"{measure} of {r['column']} {r['group']} {_number(r['rate']):.3f} against {_number(r['rate_rest']):.3f} "
        f"(difference {_number(r['difference']):+.3f}, {bound} {value:.3f} in size at {percent(confidence)}, "
        f"limit {spec.limit:g})"
    )


def _small_words(small: Sequence[Mapping[str, Figure]]) -> str:
    names = list(dict.fromkeys(f"{r['column']} {r['group']}" for r in small))
    more = ", ..." if len(names) > _SHOWN else ""
    return f"too few rows to judge some rates of {', '.join(names[:_SHOWN])}{more} ({small[0]['why']})"


def _number(value: Figure) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b else math.nan


def _wilson(p: float, n: float, z: float) -> tuple[float, float]:
    middle = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return (middle - spread) / scale, (middle + spread) / scale


def _normal_quantile(confidence: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(confidence))
