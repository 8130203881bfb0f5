"""The picture of a story: AUC by week of the first and of the published scores, the holdouts, and the decisions."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np

from perennial.features.builder import FeatureBuilder
from perennial.gates.metrics import get_metric
from perennial.lake.homes import feed_table, prediction_table
from perennial.ledger import Ledger
from perennial.registry import versions
from perennial.specs import ModelSpec
from perennial.specs.loader import SpecSet, load_specs
from perennial.training import estimators
from perennial.training.bundle import Bundle
from perennial.training.data import Rows, load_rows, snapshot_rows

_FIRST, _LIVE, _SOFT = "#7a8797", "#1f7a4d", "#9aa5b4"
_VERDICTS = {"pass": ("#1f7a4d", "^"), "fail": ("#b3261e", "v"), "hold": ("#a06a00", "s")}


def plot_story(model: str, target: Path) -> None:
    """Draw the story of a model to a PNG.

    The first version's curve is computed here over all labelled weeks after its training, as if it still served; the
    live one is what was published.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.dates as mdates
    import matplotlib.pyplot as plt

    specs = load_specs(only=model)
    spec = specs.model(model)
    ledger = Ledger()
    metric = get_metric(spec.metric.name, spec.task.type)
    figure, axis = plt.subplots(figsize=(12, 6), dpi=120)
    stale = weekly(metric, *_first_version(spec, specs))
    live = weekly(metric, *_published(spec, specs))
    axis.plot(*_points(stale), color=_FIRST, lw=1.6, marker="o", ms=3.5, label="version 1, as if it still served")
    for run in _runs_of_weeks(live):
        axis.plot(*_points(run), color=_LIVE, lw=2.6, marker="o", ms=6, label="published scores (live)")
    decisions = ledger.find(model, event="decision")
    low, high = axis.get_ylim()
    seen: set[str] = set()
    for i, e in enumerate(decisions):
        first, last = (dt.date.fromisoformat(d) for d in e.figures["holdout"])
        axis.axvspan(first, last + dt.timedelta(days=1), color="#d9a441", alpha=0.13, lw=0)
        colour, marker = _VERDICTS[e.verdict]
        when = dt.datetime.fromisoformat(str(e.as_of)).date()
        at = when + dt.timedelta(days=2 * sum(x.as_of == e.as_of for x in decisions[:i]))
        axis.scatter([at], [high], color=colour, marker=marker, s=90, zorder=5, clip_on=False)
        axis.axvline(at, color=colour, lw=1, ls=":")
        text = f"{e.verdict}{' (14 days)' if e.figures.get('window_days') else ''}"
        axis.annotate(
            text, (at, high), xytext=(4, -14 - 13 * sum(x.as_of == e.as_of for x in decisions[:i])),
            textcoords="offset points", color=colour, fontsize=9, weight="bold",
        )  # fmt: skip
        seen.add(e.verdict)
    axis.set_ylim(low, high)
    axis.axhline(0.5, color=_SOFT, lw=0.8)
    handles, labels = axis.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    by_label["holdout of a decision"] = plt.Rectangle((0, 0), 1, 1, color="#d9a441", alpha=0.25)
    axis.legend(by_label.values(), by_label.keys(), loc="lower left", frameon=False)
    axis.xaxis.set_major_locator(mdates.MonthLocator())
    axis.xaxis.set_major_formatter(mdates.DateFormatter("%b"))
    axis.set_ylabel(f"{metric.name} by ISO week")
    axis.set_title(f"{model}: what served, what was judged, what was decided", loc="left", pad=18, weight="bold")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e3e7ec", lw=0.8)
    _save(figure, target)


def plot_months(model: str, target: Path) -> list[dict[str, Any]]:
    """Draw the metric by month, of version 1 and of the published scores; returns the figures."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    specs = load_specs(only=model)
    spec = specs.model(model)
    metric = get_metric(spec.metric.name, spec.task.type)
    stale, live = (_monthly(metric, *found) for found in (_first_version(spec, specs), _published(spec, specs)))
    months = sorted(live)
    figure, axis = plt.subplots(figsize=(11, 5), dpi=120)
    axis.plot(months, [stale[m] for m in months], color=_FIRST, marker="o", label="version 1, as if it still served")
    axis.plot(months, [live[m] for m in months], color=_LIVE, lw=2.6, marker="o", label="published scores")
    axis.set_ylabel(f"{metric.name} by month")
    axis.set_title(f"{model}: 2013, month by month", loc="left", weight="bold")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e3e7ec", lw=0.8)
    axis.legend(frameon=False)
    _save(figure, target)
    return [{"month": m, "version_1": stale[m], "published": live[m]} for m in months]


def _monthly(metric: Any, y: Any, score: Any, blocks: Any, threshold: float | None) -> dict[str, float]:
    months = np.array([b[:7] for b in blocks])
    return {m: metric(y[months == m], score[months == m], threshold) for m in sorted(set(months))}


def _save(figure: Any, target: Path) -> None:
    import matplotlib.pyplot as plt

    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target)
    plt.close(figure)


def weekly(metric: Any, y: Any, score: Any, blocks: Any, threshold: float | None) -> dict[dt.date, float]:
    """The metric per ISO week (by its Monday); weeks with fewer than 500 labelled rows are left out."""
    days = np.array([dt.date.fromisoformat(b) for b in blocks])
    mondays = np.array([d - dt.timedelta(days=d.weekday()) for d in days])
    found = {}
    for week in sorted(set(mondays)):
        here = mondays == week
        if here.sum() >= 500:
            found[week] = metric(y[here], score[here], threshold)
    return found


def _first_version(spec: ModelSpec, specs: SpecSet) -> tuple[Any, Any, Any, float | None]:
    bundle = Bundle.open(spec.name, versions.get(spec.name, "1"))
    builder = FeatureBuilder(spec.name, bundle.definition, specs.feeds)
    labelled = set(feed_table(specs.feed(spec.labels.feed)).partitions())
    end = bundle.facts["train_end"][:10]
    keys = [k for k in builder.table.partitions() if k in labelled and k > end]
    builder.ensure(keys)
    frozen = snapshot_rows(spec, specs.feeds, bundle.definition, keys)
    rows: Rows = load_rows(spec, specs.feeds, bundle.definition, frozen).labelled
    score = estimators.score(bundle.model, rows.X, spec.task.type)
    return rows.y, score, rows.blocks, bundle.facts["threshold"]


def _published(spec: ModelSpec, specs: SpecSet) -> tuple[Any, Any, Any, float | None]:
    from perennial.training.data import label_values

    entity, labels = specs.feed(spec.entity), specs.feed(spec.labels.feed)
    table = prediction_table(spec, entity)
    keys = list(table.partitions())
    scores = table.read(keys, columns=[*entity.key, "score", "partition"])
    truth = feed_table(labels).read(keys, columns=[*entity.key, spec.labels.column])
    if scores is None or truth is None:
        return np.empty(0), np.empty(0), np.empty(0), 0.5
    joined = scores.join(truth, keys=list(entity.key)).sort_by("partition")
    y = label_values(spec, joined.column(spec.labels.column))
    known = ~np.isnan(y)
    blocks = joined.column("partition").to_numpy(zero_copy_only=False).astype(str)
    return y[known], joined.column("score").to_numpy()[known], blocks[known], 0.5


def _runs_of_weeks(points: dict[dt.date, float]) -> list[dict[dt.date, float]]:
    """Split where weeks are missing, so that no line is drawn over what was never scored."""
    runs: list[dict[dt.date, float]] = []
    before: dt.date | None = None
    for week, value in points.items():
        if before is None or week - before > dt.timedelta(days=7):
            runs.append({})
        runs[-1][week] = value
        before = week
    return runs


def _points(points: dict[dt.date, float]) -> tuple[Any, Any]:
    return [w + dt.timedelta(days=3) for w in points], list(points.values())
