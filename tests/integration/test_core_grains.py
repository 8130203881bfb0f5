"""A weekly, an hourly and a yearly model from landed files to a monitored champion: real lake, MLflow over SQLite."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from lifecycle import Life, Trained, utc

from grain_world import GrainWorld
from perennial.ingestion import commit, judge_partitions
from perennial.lake.homes import feed_table, prediction_table
from perennial.monitoring.watch import drift_look, performance_look
from perennial.registry import tracking, versions
from perennial.runs import Actor, RunState
from perennial.scoring import predict
from perennial.specs.partitions import known_at_instant, period
from perennial.training.bundle import Bundle
from perennial.training.evaluate import report
from perennial.training.guards import check_guards

pytestmark = pytest.mark.integration


class GrainLife(Life):
    """The life of the synthetic model over feeds of one grain."""

    def __init__(self, world: GrainWorld, keys: int) -> None:
        super().__init__("returns")
        self.world, self.keys = world, world.keys(keys)

    def ingest(self, keys: list[str]) -> None:
        """Land and judge; everything is good."""
        from perennial.settings import settings

        self.world.land(Path(settings().landing.removeprefix("file://")), keys)
        for name, feed in self.feeds.items():
            state = RunState(Actor(f"{name}.ingest", keys[0], "validate"))
            verdicts, _ = judge_partitions(feed, self.specs.folder_of("feed", name), keys, state)
            assert {v.verdict for v in verdicts} == {"commit"}
            assert set(commit(feed, state, ["commit"], self.ledger, as_of="2020-01-01T00:00:00+00:00")) == set(keys)

    def version(self) -> versions.Version:
        return versions.require_champion("returns")

    def shift_baskets(self, keys: list[str], by: float) -> None:
        """Other people come, as a correction would say."""
        visits = self.feeds["visits"]
        new = {}
        for key in keys:
            rows = self.world.table(visits, key)
            new[key] = rows.set_column(2, "basket", pa.array(rows.column("basket").to_numpy() + by))
        feed_table(visits).replace(new)


def grain_life(world: GrainWorld, keys: int, monkeypatch: pytest.MonkeyPatch) -> GrainLife:
    monkeypatch.setenv("PERENNIAL_SPECS", str(world.root))
    return GrainLife(world, keys)


def gate(done: Trained, name: str) -> Any:
    return next(r for r in done.evaluation.results if r.gate == name)


def sees_no_later_partition(life: GrainLife, done: Trained, key: str) -> None:
    """The features of ``key`` are what they are when nothing after it has ever landed."""
    builder = done.plan.builder()
    now = builder.table.read([key]).drop_columns(["inputs", "digest"]).sort_by("visit_id")
    for name, feed in life.feeds.items():
        later = [k for k in feed_table(feed).partitions() if k > key or (name == "outcomes" and k == key)]
        table = feed_table(feed)
        table.replace({k: life.world.table(feed, k).slice(0, 0) for k in later})
    builder._cache = {}
    alone = builder._compute([key], audit=True)[key].sort_by("visit_id")
    assert now.drop_columns(["partition"]).select(alone.column_names).equals(alone)


def test_a_weekly_model(home: Path, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    life = grain_life(GrainWorld(tmp_path, "week", rows=60, more="retraining: {min_new_labels: 10}\n"), 72, monkeypatch)
    keys, entity, outcomes = life.keys, life.entity, life.feeds["outcomes"]
    assert (keys[0], keys[51], keys[71]) == ("2013-W02", "2014-W01", "2014-W21")
    life.ingest(keys[:70])

    as_of = known_at_instant(outcomes, keys[45])
    first = life.train("train-1", as_of)
    plan = first.plan
    assert plan.holdout_keys == tuple(keys[32:46]), "fourteen weeks"
    assert plan.train_keys == tuple(keys[:31]), "a week between: labels are known on the Monday night after"
    assert plan.train_end == period(entity, keys[30])[1]
    assert first.evaluation.verdict == "pass", first.evaluation.reason
    assert gate(first, "baseline").figures["n_blocks"] == 14
    life.roll_out(first)
    bundle = Bundle(tracking.cache_folder().fetch(life.version().model_id))
    calibration = bundle.document("drift")["calibration"]
    assert (calibration["window_days"], calibration["reference_days"], calibration["blocks"]) == (7, 7 * 31, 31)
    assert bundle.facts["metric"]["value"] > 0.75, "it learned from the basket and from what was sold before"

    for key in keys[42:70]:
        life.publish(key, f"score-{key}", version="1")
    rows = prediction_table(life.spec, entity).read([keys[42]])
    assert rows is not None and not any(rows.column("in_sample").to_pylist())
    life.publish(keys[30], "score-old", version="1")
    rows = prediction_table(life.spec, entity).read([keys[30]])
    assert rows is not None and all(rows.column("in_sample").to_pylist()), "before train_end"

    now = known_at_instant(outcomes, keys[69])
    drift = drift_look(life.spec, life.feeds, life.version(), now)
    assert [w["window"] for w in drift.windows] == keys[66:70], "a window is an ISO week"
    assert drift.outcome in ("quiet", "alert")
    performance = performance_look(life.spec, life.feeds, life.version(), now)
    spans = [(w["start"], w["end"], w["state"], w["n_blocks"]) for w in performance.windows]
    assert spans == [("2013-10-28", "2014-02-02", "quiet", 14), ("2014-02-03", "2014-05-11", "quiet", 14)]
    assert (
        performance_look(life.spec, life.feeds, life.version(), now - dt.timedelta(seconds=1)).windows
        == (performance.windows[:1])
    ), "its last labels are not known yet"

    second = life.train("train-2", now)
    assert second.plan.holdout_keys == tuple(keys[56:70]) and len(second.plan.train_keys) == 55
    assert gate(second, "champion").figures["n_blocks"] == 14, "none that the champion trained on"
    assert b"14 weeks" in report(life.train("train-3", now, window_days=14).plan, second.evaluation)
    guards = {g.name: g for g in check_guards(life.spec, life.feeds, now, life.ledger, life.actor("x"))}
    assert guards["new_labels"].passed and "1,440 labels" in guards["new_labels"].reason, "24 weeks of 60"

    life.shift_baskets(keys[68:70], 2.0)
    asked = drift_look(life.spec, life.feeds, life.version(), now)
    assert [w["state"] for w in asked.windows][-2:] == ["flagged", "flagged"] and asked.outcome == "ask"
    sees_no_later_partition(life, first, keys[40])


def test_an_hourly_model(home: Path, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    life = grain_life(
        GrainWorld(tmp_path, "hour", rows=8, delay="PT1H", lookback=", lookback: P1D"), 56 * 24, monkeypatch
    )
    keys, entity, outcomes = life.keys, life.entity, life.feeds["outcomes"]
    assert (keys[0], keys[-1]) == ("2013-01-07T00", "2013-03-03T23")
    life.world.fill([k for k in keys[:-24] if k not in ("2013-02-09T05", *keys[24 * 40 : 24 * 40 + 20])])
    life.ingest(keys[-24:])

    first = life.train("train-1", utc("2013-02-21T13:30"))
    plan = first.plan
    assert (plan.holdout_keys[0], plan.holdout_keys[-1]) == ("2013-02-07T00", "2013-02-20T23"), "whole days"
    assert (plan.train_keys[-1], plan.train_end) == ("2013-02-06T22", utc("2013-02-06T23:00")), "a gap of one hour"
    partly = {k for k in plan.holdout_missing if k.startswith("2013-02-16")}
    assert len(partly) == 24, "a day with four of its hours is no block"
    assert plan.holdout_missing["2013-02-16T22"] == "only 4 of 24 hours of 2013-02-16 are there"
    assert "2013-02-09T05" in plan.holdout_missing and "2013-02-09T04" in plan.holdout_keys
    assert first.evaluation.verdict == "pass", first.evaluation.reason
    baseline = gate(first, "baseline").figures
    assert (baseline["n_blocks"], baseline["left_out"]) == (13, 1), "blocks are days"
    assert first.evaluation.holdout == ("2013-02-07T00", "2013-02-20T23")
    life.roll_out(first)
    bundle = Bundle(tracking.cache_folder().fetch(life.version().model_id))
    calibration = bundle.document("drift")["calibration"]
    assert (calibration["window_days"], calibration["reference_days"]) == (7, 31)
    assert set(bundle.frame("holdout")["partition"].str.len()) == {10}

    life.publish(keys[-1], "score-last")
    publish_all(life, [k for k in keys if "2013-02-18T00" <= k < keys[-1]])
    now = known_at_instant(outcomes, keys[-1])
    performance = performance_look(life.spec, life.feeds, life.version(), now)
    spans = [(w["start"], w["end"], w["state"], w["n_blocks"]) for w in performance.windows]
    assert spans == [("2013-02-18", "2013-03-03", "quiet", 14)]
    assert performance_look(life.spec, life.feeds, life.version(), now - dt.timedelta(seconds=1)).windows == ()
    drift = drift_look(life.spec, life.feeds, life.version(), period(entity, keys[-1])[1])
    assert [w["window"] for w in drift.windows] == ["2013-W07", "2013-W08", "2013-W09"], "after training, whole weeks"
    assert [w["state"] for w in drift.windows[-2:]] == ["quiet", "quiet"]
    earlier = drift_look(life.spec, life.feeds, life.version(), period(entity, keys[-2])[1])
    assert [w["window"] for w in earlier.windows] == ["2013-W07", "2013-W08"], "an hour is missing"
    life.shift_baskets(keys[-14 * 24 :], 2.0)
    assert drift_look(life.spec, life.feeds, life.version(), now).outcome == "ask"
    sees_no_later_partition(life, first, "2013-02-10T07")


def test_a_yearly_model(home: Path, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With years enough, drift is calibrated on years; a year is a window, and one of them speaks."""
    life = grain_life(
        GrainWorld(tmp_path, "year", rows=300, more="retraining: {min_new_labels: 10}\n"), 12, monkeypatch
    )
    keys, outcomes = life.keys, life.feeds["outcomes"]
    assert (keys[0], keys[-1]) == ("2014", "2025")
    life.ingest(keys)

    first = life.train("train-1", known_at_instant(outcomes, keys[9]))
    assert (first.plan.train_keys, first.plan.holdout_keys) == (tuple(keys[:8]), (keys[9],)), "labels are a day late"
    assert first.evaluation.verdict == "pass", first.evaluation.reason
    baseline = gate(first, "baseline").figures
    assert (baseline["block"], baseline["n_blocks"], baseline["V"]) == ("row", 300, 1)
    life.roll_out(first)
    calibration = Bundle(tracking.cache_folder().fetch(life.version().model_id)).document("drift")["calibration"]
    assert (calibration["window_days"], calibration["blocks"], calibration["k"], calibration["n"]) == (365, 8, 1, 1)

    for key in keys[9:]:
        life.publish(key, f"score-{key}", version="1")
    now = known_at_instant(outcomes, keys[11])
    performance = performance_look(life.spec, life.feeds, life.version(), now)
    assert [(w["window"], w["n_blocks"]) for w in performance.windows][-1] == ("2025-01-01/2025-12-31", 300)
    drift = drift_look(life.spec, life.feeds, life.version(), now)
    assert [w["state"] for w in drift.windows][-1] == "quiet" and drift.outcome == "quiet"
    second = life.train("train-2", now)
    assert gate(second, "champion").figures["n_blocks"] == 300
    life.shift_baskets(keys[11:], 2.0)
    asked = drift_look(life.spec, life.feeds, life.version(), now)
    assert asked.outcome == "ask" and "1 of the last 1 windows flagged" in asked.reason
    sees_no_later_partition(life, first, keys[7])


def publish_all(life: GrainLife, keys: list[str]) -> None:
    """What scoring publishes for many hours, in one commit."""
    arm = predict.Arm("champion", "1", life.version().model_id, life.version().run_id)
    bundle = Bundle(tracking.cache_folder().fetch(arm.model_id))
    builder = bundle.builder(life.feeds)
    builder.ensure(keys)
    now = dt.datetime.now(dt.UTC)
    scored = {k: pa.Table.from_batches(predict._scored(bundle, builder, arm, k, "bulk", now)) for k in keys}
    prediction_table(life.spec, life.entity).replace(scored)
