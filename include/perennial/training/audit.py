"""Slices and fairness of a candidate: the columns they need, the gates, and the tables that page and card show.

A protected column need not be a feature. What is no feature is read from the entity feed, joined by its key, for the
holdout's partitions; the evidence names the snapshot with its sha256.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.errors import DataError
from perennial.gates import slices
from perennial.gates.fairness import WORDS, fairness_gate
from perennial.gates.metrics import get_metric
from perennial.gates.verdict import GateResult
from perennial.lake.homes import feature_table, feed_table
from perennial.lake.table import PARTITION, Snapshot
from perennial.pages import section, table
from perennial.specs import ModelSpec
from perennial.training.data import Rows, blocks_of
from perennial.training.plan import TrainingPlan


@dataclass(frozen=True)
class Audit:
    """Results of ``gates.slices`` and ``gates.fairness``, and ``document``: their tables and evidence, for JSON."""

    results: tuple[GateResult, ...]
    document: dict[str, Any] = field(default_factory=dict)


def audited_columns(spec: ModelSpec) -> list[str]:
    """The columns that slices and fairness look at, each once."""
    gates = spec.gates
    names = [s.by for s in gates.slices if s.mode != "disabled"]
    if gates.fairness.stance == "audited":
        names += [c.column for c in gates.fairness.by]
    return list(dict.fromkeys(names))


def audit(
    plan: TrainingPlan,
    holdout: Mapping[str, Snapshot],
    rows: Rows,
    scores: NDArray[np.float64],
    keep: NDArray[np.bool_],
    threshold: float | None,
    left_out: int,
    rival: slices.Rival | None,
    classes: Sequence[str] = (),
) -> Audit:
    """Judge slices and fairness on the rows ``keep`` of a holdout.

    :param rows: all rows of the holdout; ``scores``: the candidate's; ``rival``: the champion's, of the same rows.
    :param left_out: blocks of the holdout that are not among these rows.
    :param classes: names of the classes of a multiclass task, in the order of their numbers.
    :raises DataError: when the entity feed no longer has the holdout's partitions.
    """
    spec = plan.spec
    columns, evidence = read_columns(plan, holdout, rows, audited_columns(spec))
    columns = {name: values[keep] for name, values in columns.items()}
    at: NDArray[Any] = rows.blocks[keep]
    if spec.gates.champion.block == "row":  # each row is a block; a partition left out counts as many as the others
        left_out = round(left_out * len(at) / max(len(np.unique(at)), 1))
        at = np.arange(len(at))
    judged_on = slices.Rows(
        rows.y[keep],
        scores[keep],
        at,
        get_metric(spec.metric.name, spec.task.type),
        spec.metric.within,
        threshold,
        None if rival is None else slices.Rival(rival.scores[keep], rival.usable[keep], rival.threshold),
        left_out,
    )
    sliced = slices.slice_gates(spec.gates.slices, columns, judged_on)
    gate, y, decision = spec.gates.fairness, rows.y[keep], np.empty(0)
    if gate.stance == "audited":
        y, decision = decided(spec, y, scores[keep], threshold, classes)
    fair = fairness_gate(y, decision, columns, at, spec=gate, left_out=left_out)
    document = {
        "slices": [row for s in sliced for row in s.table],
        "fairness": {"table": fair.table, "fairlearn": fair.shown},
        "evidence": evidence,
    }
    read = {"columns_sha256": evidence["snapshot"]["sha256"]} if "snapshot" in evidence else {}
    results = [replace(r, figures={**r.figures, **read}) for r in (*(s.result for s in sliced), fair.result)]
    return Audit(tuple(results), document)


def decided(
    spec: ModelSpec,
    y: NDArray[np.float64],
    scores: NDArray[np.float64],
    threshold: float | None,
    classes: Sequence[str] = (),
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What happened and what the model decides, as 1 and 0: of several classes, ``task.positive`` against all others.

    A row without a score has no decision (NaN), and neither has any row where there is no threshold.

    :param classes: names of the classes of a multiclass task, in the order of the columns of ``scores``.
    :raises DataError: the positive class is not among the classes.
    """
    if spec.task.type == "multiclass":
        if str(spec.task.positive) not in classes:
            named = ", ".join(classes)
            raise DataError(f"{spec.name}: task.positive is {spec.task.positive}, and the classes are {named}")
        which = list(classes).index(str(spec.task.positive))
        there = np.isfinite(scores).all(axis=1)
        return (y == which).astype(np.float64), np.where(there, scores.argmax(axis=1) == which, np.nan)
    if threshold is None:
        return y, np.full(len(y), np.nan)
    return y, np.where(np.isfinite(scores), scores >= threshold, np.nan)


def read_columns(
    plan: TrainingPlan, holdout: Mapping[str, Snapshot], rows: Rows, names: Sequence[str]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Values of some columns for each row of the holdout, and where they came from.

    A feature is taken as the model saw it, any other column from the entity feed. A column of neither is left out.

    :raises DataError: when the entity feed no longer has the holdout's partitions, or a key of it twice.
    """
    found = {n: rows.X[n].to_numpy() for n in names if n in rows.X.columns}
    evidence: dict[str, Any] = {"features": sorted(found)}
    entity = plan.entity
    absent = [n for n in names if n not in found and n in entity.columns]
    if not absent:
        return found, evidence
    feed, key = feed_table(entity), list(plan.definition.key)
    snapshot = feed.snapshot(holdout["features"].partitions)
    row = [PARTITION, *key]
    right = feed.read_snapshot(snapshot, columns=list(dict.fromkeys([*row, *absent])))
    if right.select(row).group_by(row).aggregate([]).num_rows != right.num_rows:
        raise DataError(f"a key of {entity.name} occurs twice in the holdout: its rows cannot be told apart")
    features = feature_table(plan.spec.name, plan.definition.digest, key)
    left = features.read(holdout["features"].partitions, columns=row, version=holdout["features"].version)
    if left is None:
        raise DataError(f"{features.uri}: the table of the holdout is gone")
    joined = left.join(right, keys=row, join_type="left outer").sort_by([(k, "ascending") for k in row])
    if not np.array_equal(blocks_of(entity, joined), rows.blocks):
        raise DataError(f"{plan.spec.name}: {entity.name} and the features of the holdout do not have the same rows")
    for name in absent:
        found[name] = np.array(joined.column(name).to_pylist(), dtype=object)
    evidence |= {"feed": entity.name, "columns": absent, "snapshot": snapshot.to_dict()}
    return found, evidence


# -------------------------------------------------------------------------------------------------------------- tables

Line = Mapping[str, Any]
FAIRNESS_HEADER = (
    "column",
    "group",
    "measure",
    "rows",
    "rate",
    "of the rest",
    "difference",
    "bounds",
    "verdict",
    "why",
)
SLICES_HEADER = ("by", "slice", "rows", "candidate", "champion", "loss", "at least", "verdict", "why")


def fairness_rows(document: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The table of groups for people, one line for each comparison, as ``FAIRNESS_HEADER`` says."""
    return [
        (
            r["column"], r["group"], WORDS[r["measure"]], r["n"], _three(r["rate"]), _three(r["rate_rest"]),
            _three(r["difference"], "+"),
            "" if r["low"] is None else f"{r['low']:+.3f} to {r['high']:+.3f}",
            r["verdict"], r["why"],
        )
        for r in document.get("fairness", {}).get("table", ())
    ]  # fmt: skip


def fairlearn_rows(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """fairlearn's figures: column, measure, value."""
    return [
        (column, measure.replace("_", " "), _three(value))
        for column, figures in document.get("fairness", {}).get("fairlearn", {}).items()
        for measure, value in figures.items()
    ]


def slice_rows(document: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The table of slices for people, as ``SLICES_HEADER`` says."""
    return [
        (
            r["by"], r["slice"], r["rows"], _three(r["candidate"]), _three(r["champion"]), _three(r["harm"], "+"),
            _three(r["bound"], "+"), r["verdict"], r["why"],
        )
        for r in document.get("slices", ())
    ]  # fmt: skip


def audit_sections(document: Mapping[str, Any]) -> list[str]:
    """HTML sections for page and card; none where nothing was asked for."""
    parts = []
    if sliced := slice_rows(document):
        parts.append(section("Slices", table(SLICES_HEADER, sliced, state=SLICES_HEADER.index("verdict"))))
    if fair := fairness_rows(document):
        parts.append(section("Fairness: each group against the rest", table(
            FAIRNESS_HEADER, fair, state=FAIRNESS_HEADER.index("verdict")
        )))  # fmt: skip
    if shown := fairlearn_rows(document):
        parts.append(section("Fairness: fairlearn's measures, not gated", table(("column", "measure", "value"), shown)))
    return parts


def _three(value: Any, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.3f}"
