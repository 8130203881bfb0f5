"""Looks at the last complete windows of a version: drift of its inputs, and performance once labels have arrived.

Windows are calendar-aligned and disjoint, computed from the lake, and kept as small objects under
``monitoring/<model>/<version>/``; a window whose rows have not changed is not computed again.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from perennial.errors import DataError
from perennial.features.builder import FeatureBuilder
from perennial.gates.blocks import estimate
from perennial.gates.metrics import get_metric
from perennial.lake.content import combined_digest
from perennial.lake.homes import feed_table, monitoring_store, prediction_table
from perennial.lake.table import PARTITION, Fence, no_fence
from perennial.ledger import Ledger
from perennial.monitoring.calibration import Calibration
from perennial.monitoring.drift import ColumnPlan, check_presence, distances, judge_window
from perennial.monitoring.drift import report as evidently_report
from perennial.monitoring.performance import performance_window
from perennial.monitoring.rule import Ruling, State, Window, judge, windows
from perennial.registry import versions
from perennial.runs import Actor
from perennial.specs import FeedSpec, ModelSpec
from perennial.specs.partitions import (
    block_of,
    day_begins,
    first_day,
    first_key,
    grain_of,
    keys_of_days,
    last_day,
    last_key_known,
    period,
)
from perennial.storage import to_json
from perennial.training.bundle import Bundle
from perennial.training.classes import scores_of
from perennial.training.data import blocks_of, feature_columns, label_values, observed, to_matrix
from perennial.training.plan import last_labelled

#: A window with a larger share of partitions without data is a failure of the data.
MAX_MISSING = 0.2
BLOCK = "__block__"
PREDICTED = "predicted class"


@dataclass(frozen=True)
class Look:
    """What monitoring found, of one kind, at one as_of.

    :param windows: the last n complete windows, oldest first, each with ``window``, ``state`` and ``reason``.
    """

    kind: str
    outcome: str
    reason: str
    windows: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "outcome": self.outcome, "reason": self.reason, "windows": list(self.windows)}


def watched(model: str, as_of: dt.datetime, ledger: Ledger) -> versions.Version:
    """The version that monitoring looks at: what served at ``as_of``."""
    return versions.serving_at(model, as_of, ledger)


def drift_look(
    spec: ModelSpec,
    feeds: Mapping[str, FeedSpec],
    version: versions.Version,
    as_of: dt.datetime,
    *,
    report: Path | None = None,
    actor: Actor | None = None,
    fence: Fence = no_fence,
) -> Look:
    """Judge the inputs of the last complete windows against the version's training window.

    :param report: where to write Evidently's page on the newest window.
    """
    bundle = Bundle.open(spec.name, version, actor=actor, fence=fence)
    drift = bundle.document("drift")
    rule, entity = spec.monitoring.rule, feeds[spec.entity]
    if drift["calibration"] is None and spec.rows_are_blocks:
        return _uncalibrated(spec, entity, version, bundle, feeds, as_of, fence)
    if drift["calibration"] is None:
        return Look("drift", "alert", drift["why_not"], ())
    if drift["calibration"]["window_days"] != spec.monitoring.drift.window.days:
        was = drift["calibration"]["window_days"]
        return Look(
            "drift",
            "alert",
            f"version {version.version} was calibrated on windows of {was} days, the spec says "
            f"{spec.monitoring.drift.window.days}: retrain, or go back to P{was}D",
            (),
        )
    calibration, plan = Calibration.from_dict(drift["calibration"]), ColumnPlan.from_dict(drift["plan"])
    builder = bundle.builder(feeds)
    reference = bundle.frame("reference")
    rows_per_day = drift["rows"] / max(1, calibration.reference_days)
    found: list[dict[str, Any]] = []
    last = last_key_known(entity, as_of)
    trained = dt.datetime.fromisoformat(bundle.facts["train_end"])
    chosen = _after(entity, last, spec.monitoring.drift.window, trained)[-(rule.n + 1) :]
    for window in chosen:
        keys = keys_of_days(entity, window.start, window.end)
        ready = builder.ready(keys)
        digests = builder.ensure(ready, fence=fence).digests if ready else {}
        result = _kept("drift", spec.name, version.version, window, combined_digest(list(digests.items())))
        current = None
        if result is None or (report is not None and window == chosen[-1]):
            current = _features(builder, ready, list(plan.columns))
        if result is None:
            usual = rows_per_day * ((window.end - window.start).days + 1)
            result = _drift_window(reference, current, plan, calibration, window, keys, ready, usual)
            _keep("drift", spec.name, version.version, window, combined_digest(list(digests.items())), result)
        if report is not None and window == chosen[-1] and current is not None and result["state"] != "failed":
            evidently_report(reference, current, plan, calibration.thresholds, report)
        found.append({**result, "predictions": _prediction_distance(spec, entity, version.version, bundle, keys)})
    return _look("drift", found, rule.k, rule.n)


def _uncalibrated(
    spec: ModelSpec,
    entity: FeedSpec,
    version: versions.Version,
    bundle: Bundle,
    feeds: Mapping[str, FeedSpec],
    as_of: dt.datetime,
    fence: Fence,
) -> Look:
    """What can be said of a yearly model's inputs when it was trained on fewer years than a calibration needs.

    A threshold from random parts of the reference would know how samples differ, not how years do, and with tens of
    thousands of rows flag every year. So nothing is judged: failures of the data are found as ever, the distances are
    shown, and a person is alerted to look at them.
    """
    drift, builder = bundle.document("drift"), bundle.builder(feeds)
    plan, reference = ColumnPlan.from_dict(drift["plan"]), bundle.frame("reference")
    trained = dt.datetime.fromisoformat(bundle.facts["train_end"])
    found: list[dict[str, Any]] = []
    chosen = _after(entity, last_key_known(entity, as_of), spec.monitoring.drift.window, trained)
    for window in chosen[-spec.monitoring.rule.n :]:
        keys = keys_of_days(entity, window.start, window.end)
        ready = builder.ready(keys)
        if ready:
            builder.ensure(ready, fence=fence)
        current: Any = _features(builder, ready, list(plan.columns)) if ready else None
        usual = drift["rows"] / bundle.facts["train_partitions"] * len(keys)
        result = _failure(reference, current, plan, window, keys, ready, usual)
        if result["state"] != "failed":
            shown = sorted(distances(reference, current, plan).items(), key=lambda item: -item[1])
            far = ", ".join(f"{name} {value:.3f}" for name, value in shown[:5])
            result |= {"reason": f"not judged; the farthest columns: {far}", "shown": dict(shown)}
        found.append({**result, "predictions": _prediction_distance(spec, entity, version.version, bundle, keys)})
    said = "".join(f"; {w['window']}: {w['reason']}" for w in found[-1:])
    return Look("drift", "alert", f"{drift['why_not']}{said}", tuple(found))


def _prediction_distance(
    spec: ModelSpec, entity: FeedSpec, version: str, bundle: Bundle, keys: Sequence[str]
) -> float | dict[str, float] | None:
    """Distance of the published scores from the holdout's; shown, and never asks by itself.

    Fourteen days of a holdout have too few blocks to calibrate a threshold on. Multiclass: of each class's
    probabilities, and of the predicted classes.
    """
    import pandas as pd
    import pyarrow.compute as pc

    rows = prediction_table(spec, entity).read(keys, columns=["output", "score", "decision", "model_version"])
    if rows is None:
        return None
    rows = rows.filter(pc.equal(rows.column("model_version"), version))
    if rows.num_rows == 0:
        return None
    holdout = scores_of(bundle.frame("holdout"))
    if holdout.ndim == 2:
        return _class_distances(holdout, rows, bundle.facts["classes"])
    plan = ColumnPlan({"score": "numeric"})
    now = pd.DataFrame({"score": rows.column("score").to_numpy()})
    return distances(pd.DataFrame({"score": holdout}), now, plan)["score"]


def _class_distances(holdout: Any, rows: pa.Table, classes: Sequence[str]) -> dict[str, float]:
    """Of each class's probabilities (by the class's name), and of the predicted classes."""
    import pandas as pd
    import pyarrow.compute as pc

    out = {}
    for k, name in enumerate(classes):
        now = rows.filter(pc.equal(rows.column("output"), name)).column("score").to_numpy()
        was = pd.DataFrame({"score": holdout[:, k]})
        out[name] = distances(was, pd.DataFrame({"score": now}), ColumnPlan({"score": "numeric"}))["score"]
    said = rows.filter(rows.column("decision")).column("output").to_pylist()
    before = pd.DataFrame({PREDICTED: np.array(classes, dtype=object)[holdout.argmax(axis=1)]})
    return {**out, **distances(before, pd.DataFrame({PREDICTED: said}), ColumnPlan({PREDICTED: "categorical"}))}


def _drift_window(
    reference: Any, current: Any, plan: ColumnPlan, calibration: Calibration, window: Window, keys: Sequence[str],
    ready: Sequence[str], usual: float,
) -> dict[str, Any]:  # fmt: skip
    head = _failure(reference, current, plan, window, keys, ready, usual)
    if head["state"] == "failed":
        return head
    try:
        judged = judge_window(distances(reference, current, plan.only(calibration.columns)), calibration)
    except DataError as e:
        return {**head, "state": "failed", "reason": str(e)}
    return {
        **head,
        "state": judged.state,
        "reason": judged.reason,
        "share": judged.share,
        "drifted": list(judged.drifted),
        "distances": judged.distances,
        "thresholds": judged.thresholds,
    }


def _failure(
    reference: Any, current: Any, plan: ColumnPlan, window: Window, keys: Sequence[str], ready: Sequence[str],
    usual: float,
) -> dict[str, Any]:  # fmt: skip
    """A window's head, with the state ``failed`` and its reason when its data cannot be looked at."""
    gone = [k for k in keys if k not in set(ready)]
    head = {"window": window.key, "start": str(window.start), "end": str(window.end), "missing": gone}
    if len(gone) > MAX_MISSING * len(keys) or current is None:
        return {**head, "state": "failed", "reason": f"no data for {', '.join(gone)}"}
    problems = check_presence(reference, current, columns=list(plan.columns), min_rows=max(10, int(0.1 * usual)))
    if problems:
        why = "; ".join(p.message for p in problems)
        return {**head, "state": "failed", "reason": f"a failure of the data, not drift: {why}"}
    return {**head, "state": "not judged"}


def performance_look(
    spec: ModelSpec,
    feeds: Mapping[str, FeedSpec],
    version: versions.Version,
    as_of: dt.datetime,
    actor: Actor | None = None,
    fence: Fence = no_fence,
) -> Look:
    """Judge the published scores of the last complete windows, by the labels known at ``as_of``."""
    bundle = Bundle.open(spec.name, version, actor=actor, fence=fence)
    entity, label_feed, rule = feeds[spec.entity], feeds[spec.labels.feed], spec.monitoring.rule
    metric = get_metric(spec.metric.name, spec.task.type)
    threshold = bundle.facts["threshold"]
    holdout = _covered(bundle.frame("holdout"), spec.labels.min_coverage)
    classes: list[str] = bundle.facts.get("classes", [])
    before = estimate(
        metric, holdout["label"].to_numpy(), scores_of(holdout),
        None if spec.rows_are_blocks else holdout["partition"].to_numpy().astype(str),
        within=spec.metric.within, threshold=threshold,
    )  # fmt: skip
    first = _first_scored(spec, entity, version.version)
    if first is None:
        return Look("performance", "quiet", f"nothing has been scored with version {version.version} yet", ())
    last = last_labelled(spec, label_feed, as_of)
    first_scored = period(entity, first)[0]  # windows of another version's scores say nothing of this one
    found: list[dict[str, Any]] = []
    all_windows = _after(
        entity, last, spec.monitoring.performance.window, dt.datetime.fromisoformat(bundle.facts["train_end"])
    )
    for window in [w for w in all_windows if day_begins(entity, w.start) >= first_scored][-(rule.n + 1) :]:
        keys = keys_of_days(entity, window.start, window.end)
        y, score, blocks = _scored_with_labels(spec, entity, label_feed, keys, version.version, classes)
        covered = set(np.unique(blocks)) if len(blocks) else set()
        observations, left_out = observed(spec, blocks, len({block_of(entity, k) for k in keys}) - len(covered))
        judged = performance_window(
            (before.value, before.se),
            y,
            score,
            observations,
            metric,
            spec.monitoring.performance,
            within=spec.metric.within,
            threshold=threshold,
            left_out=left_out,
        )
        head = {"window": window.key, "start": str(window.start), "end": str(window.end)}
        found.append({**judged.to_dict(), **head, "state": judged.state, "reason": judged.reason})
    return _look("performance", found, rule.k, rule.n)


def _covered(holdout: Any, min_coverage: float) -> Any:
    """The labelled rows of the holdout's days that have enough labels: the days that the gates judged."""
    share = holdout["label"].notna().groupby(holdout["partition"]).transform("mean")
    return holdout[(share >= min_coverage) & holdout["label"].notna()]


def _scored_with_labels(
    spec: ModelSpec,
    entity: FeedSpec,
    label_feed: FeedSpec,
    keys: Sequence[str],
    version: str,
    classes: Sequence[str],
) -> tuple[Any, Any, Any]:
    """Labels, scores and blocks of the rows that this version published, without those it trained on.

    Multiclass: the scores are a matrix with a column per class. Blocks with too few labels are left out, and days of an
    hourly feed with too few hours.
    """
    import pyarrow.compute as pc

    key = list(entity.key)
    columns = [*key, "output", "score", "model_version", "in_sample", PARTITION]
    scores = prediction_table(spec, entity).read(keys, columns=columns)
    labels = feed_table(label_feed).read(keys, columns=[*key, spec.labels.column])
    empty = np.empty(0)
    if scores is None or labels is None:
        return empty, empty, empty.astype(str)
    scores = scores.filter(
        pc.and_(pc.equal(scores.column("model_version"), version), pc.invert(scores.column("in_sample")))
    )
    scores = scores.append_column(BLOCK, pa.array(blocks_of(entity, scores), pa.string()))
    there = _counts(scores, PARTITION)
    total = _counts(scores)
    joined = scores.join(labels.rename_columns([*key, "__label__"]), keys=key).filter(
        pc.is_valid(pc.field("__label__"))
    )
    labelled = _counts(joined)
    least, size = spec.labels.min_coverage, grain_of(entity).per_block
    covered = [b for b, n in labelled.items() if n / total[b] >= least and there[b] / size >= least]
    joined = joined.filter(pc.is_in(joined.column(BLOCK), pa.array(covered, pa.string())))
    joined = joined.sort_by([(c, "ascending") for c in (PARTITION, *key, "output")])
    y = label_values(spec, joined.column("__label__"), classes)
    score = joined.column("score").to_numpy()
    blocks = joined.column(BLOCK).to_numpy(zero_copy_only=False).astype(str)
    if not classes:
        return y, score, blocks
    size = len(classes)  # published rows have every class exactly once, in the order of their names
    return y[::size], score.reshape(-1, size), blocks[::size]


def _first_scored(spec: ModelSpec, entity: FeedSpec, version: str) -> str | None:
    """The first partition that this version published, not counting those it trained on."""
    import pyarrow.compute as pc

    published = prediction_table(spec, entity)
    own = (pc.field("model_version") == version) & ~pc.field("in_sample")
    firsts = []
    for batch in published.batches(list(published.partitions()), columns=[PARTITION, "model_version", "in_sample"]):
        firsts += pa.Table.from_batches([batch]).filter(own).column(PARTITION).unique().to_pylist()
    return min(firsts, default=None)


def _counts(rows: pa.Table, distinct: str | None = None) -> dict[str, int]:
    """Rows, or distinct values of a column, per block."""
    how = ([], "count_all") if distinct is None else (distinct, "count_distinct")
    counted = rows.group_by(BLOCK).aggregate([how])
    name = next(c for c in counted.column_names if c != BLOCK)
    return dict(zip(counted.column(BLOCK).to_pylist(), counted.column(name).to_pylist(), strict=True))


def _after(entity: FeedSpec, last: str | None, window: dt.timedelta, instant: dt.datetime) -> list[Window]:
    """Complete windows up to ``last`` that lie wholly after ``instant``."""
    if last is None:
        return []
    start = first_day(entity, first_key(entity))
    found = windows(start, last_day(entity, last), window, entity.every)
    return [w for w in found if day_begins(entity, w.start) >= instant]


def _features(builder: FeatureBuilder, keys: Sequence[str], columns: list[str]) -> Any:
    rows = builder.table.read(keys)
    if rows is None or rows.num_rows == 0:
        return None
    return to_matrix(rows, [c for c in feature_columns(rows.column_names, builder.definition) if c in columns])


def _look(kind: str, found: list[dict[str, Any]], k: int, n: int) -> Look:
    ruling: Ruling = judge([cast(State, w["state"]) for w in found], k=k, n=n)
    return Look(kind, ruling.outcome, ruling.reason, tuple(found))


def _name(kind: str, model: str, version: str, window: Window) -> str:
    return f"{model}/{version}/{kind}/{window.key.replace('/', '_')}.json"


def _kept(kind: str, model: str, version: str, window: Window, inputs: str) -> dict[str, Any] | None:
    try:
        value = json.loads(monitoring_store().get(_name(kind, model, version, window)))
    except KeyError:
        return None
    return dict(value["result"]) if value["inputs"] == inputs else None


def _keep(kind: str, model: str, version: str, window: Window, inputs: str, result: dict[str, Any]) -> None:
    monitoring_store().put(_name(kind, model, version, window), to_json({"inputs": inputs, "result": result}))


def latched(ledger: Ledger, model: str, version: str, actor: Actor | None = None) -> bool:
    """Whether this version has asked already: one ask per reference.

    Re-armed when it becomes champion (again), when somebody re-arms it by hand, and when the guards declined.

    :param actor: whose own requests do not count, so that clearing a run that asked changes nothing.
    """
    asked = False
    for e in ledger.find(model, events=("guard", "rearm", "alias", "retraining_requested")):
        if e.event == "guard" and e.verdict == "declined":
            asked = False
        if e.version != version:
            continue
        if e.event == "rearm" or (e.event == "alias" and e.figures.get("alias") == versions.CHAMPION):
            asked = False
        elif e.event == "retraining_requested":
            own = actor and (e.actor.get("dag_id"), e.actor.get("run_id")) == (actor.dag_id, actor.run_id)
            asked = asked or not own
    return asked
