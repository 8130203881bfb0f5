"""Every branch of every DAG, in process (``dag.test()``): the project's own DAG files, a real lake, a real MLflow."""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from in_process import Airflow, weak
from lifecycle import Life, utc

from perennial.lake.homes import feed_table, prediction_table
from perennial.ledger import Ledger
from perennial.local.landing import LandingSimulator
from perennial.registry import tracking, versions
from perennial.specs.partitions import keys_between
from perennial.training.bundle import Bundle

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def ingestions(feed: str) -> list[tuple[str, str | None]]:
    return [(e.verdict, e.partition) for e in Ledger().find(feed, event="ingestion")]


# -------------------------------------------------------------------------------------------------------------- ingest


def test_ingest_commits_a_good_partition_and_announces_its_key(airflow: Airflow, landing: LandingSimulator) -> None:
    landing.land("flights", "2013-04-02", "2013-04-02")
    ran = airflow.run("flights.ingest", "2013-04-02")
    assert ran.state == "success" and ran.done("wait_for_landing", "validate", "commit", "announce"), ran.log
    assert ran.skipped("quarantine_rows", "quarantine_batch")
    assert ran.events == [("flights", "2013-04-02")]
    assert ingestions("flights") == [("commit", "2013-04-02")]


def test_ingest_sets_bad_rows_aside(airflow: Airflow, landing: LandingSimulator) -> None:
    landing.corrupt("flights", "2013-04-02", "bad_values")
    ran = airflow.run("flights.ingest", "2013-04-02")
    assert ran.state == "success" and ran.done("quarantine_rows", "announce") and ran.skipped("commit"), ran.log
    assert ran.events == [("flights", "2013-04-02")]
    assert ingestions("flights") == [("quarantine_rows", "2013-04-02")]


def test_ingest_refuses_a_bad_partition_and_announces_nothing(airflow: Airflow, landing: LandingSimulator) -> None:
    landing.corrupt("flights", "2013-04-02", "missing_column")
    ran = airflow.run("flights.ingest", "2013-04-02")
    assert ran.done("quarantine_batch") and ran.skipped("commit", "quarantine_rows", "announce"), ran.log
    assert ran.events == []
    assert ingestions("flights") == [("quarantine_batch", "2013-04-02")]


def test_ingest_takes_a_history_in_one_run_and_says_what_is_missing(
    airflow: Airflow, landing: LandingSimulator
) -> None:
    landing.land("weather", "2013-04-01", "2013-04-04")
    landing.corrupt("weather", "2013-04-03", "missing")
    ran = airflow.run("weather.ingest", **{"from": "2013-04-01", "to": "2013-04-04", "announce": "last"})
    assert ran.done("commit", "quarantine_batch", "announce"), ran.log
    assert ran.xcom["commit"] == {"partitions": 3, "first": "2013-04-01", "last": "2013-04-04"}
    assert ran.events == [("weather", "2013-04-04")]
    assert ("missing", "2013-04-03") in ingestions("weather")
    quiet = airflow.run("weather.ingest", **{"from": "2013-04-01", "to": "2013-04-02"})
    assert quiet.state == "success" and quiet.skipped("announce") and quiet.events == []


@pytest.mark.parametrize(
    ("key", "conf", "says"),
    [
        (None, {}, "this run has no partition key: trigger flights.ingest with one, such as 2013-01-01"),
        ("2014-02-01", {}, "flights has no partition 2014-02-01: it runs from 2013-01-01 to 2013-12-31"),
        (None, {"from": "2013-04-01"}, "a history needs both from and to"),
        (None, {"from": "2013-04-02", "to": "2013-04-01"}, "from 2013-04-02 lies after to 2013-04-01"),
        ("2013-04-01", {"from": "2013-04-01", "to": "2013-04-02"}, "both a partition key and from/to"),
    ],
)
def test_ingest_of_what_cannot_be_is_a_sentence(airflow: Airflow, key: str | None, conf: Any, says: str) -> None:
    ran = airflow.run("flights.ingest", key, **conf)
    assert ran.state == "failed" and says in ran.said, ran.log
    assert ran.tasks["validate"] == "upstream_failed"


def test_ingest_of_a_file_that_never_came_is_a_sentence(airflow: Airflow) -> None:
    ran = airflow.run("flights.ingest", "2013-04-02", run_after=utc("2013-04-03T04:00"))
    assert ran.state == "failed"
    assert ran.said == "flights 2013-04-02 had not landed when the wait ended: land it, then clear this task"


# ------------------------------------------------------------------------------------------------------ train, retrain


GOOD = {"floor": {"roc_auc": 0.5}, "baseline": {"mode": "disabled"}, "champion": {"mode": "dry_run"}}


def test_train_passes_registers_and_rolls_out(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weak(monkeypatch, tmp_path, **GOOD)
    ran = airflow.run("flight_delay.train", as_of="2013-03-26", window=20)
    assert ran.state == "success" and ran.done("gates", "register", "stage_check", "rollout"), ran.log
    assert ran.skipped("reject", "report_only")
    assert ran.events == [("flight_delay.version", None)]
    assert versions.aliases("flight_delay") == {"champion": "2", "previous": "1"}
    assert ran.xcom["plan"]["train"] == ["2013-02-18", "2013-03-09", 20]
    run = tracking.client().get_run(ran.xcom["fit"]["run_id"])
    assert run.data.tags["decision"] == "registered" and run.info.status == "FINISHED"
    assert max(len(json.dumps(v)) for v in ran.xcom.values()) < 8000


def test_train_rejects_what_fails(airflow: Airflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weak(monkeypatch, tmp_path, floor={"roc_auc": 0.95})
    ran = airflow.run("flight_delay.train", as_of="2013-03-26", window=20)
    assert ran.state == "success" and ran.done("reject"), ran.log
    assert ran.skipped("register", "rollout", "report_only")
    assert ran.events == [] and versions.aliases("flight_delay") == {"champion": "1"}
    assert "is below the minimum 0.950" in ran.xcom["reject"]["reason"]
    assert tracking.client().get_run(ran.xcom["fit"]["run_id"]).data.tags["decision"] == "rejected"


def test_a_dry_run_ends_with_a_report(airflow: Airflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weak(monkeypatch, tmp_path, **GOOD)
    ran = airflow.run("flight_delay.train", as_of="2013-03-26", window=20, dry_run=True)
    assert ran.state == "success" and ran.done("report_only"), ran.log
    assert ran.skipped("register", "rollout", "reject")
    assert versions.aliases("flight_delay") == {"champion": "1"}


def test_training_before_anything_is_known_is_a_sentence(airflow: Airflow) -> None:
    ran = airflow.run("flight_delay.train", as_of="2013-01-02")
    assert ran.state == "failed" and ran.said.startswith("flight_delay: nothing is labelled by 2013-01-02 05:00 UTC")
    later = airflow.run("flight_delay.train", as_of="2113-01-02")
    assert later.said.startswith("as_of 2113-01-02 is in the future")


def test_retraining_starts_once_and_then_cools_down(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weak(monkeypatch, tmp_path, **GOOD)
    first = airflow.run("flight_delay.retrain", "2013-03-25", window=20)
    assert first.state == "success" and first.done("guards", "train.rollout") and first.skipped("declined"), first.log
    assert first.xcom["train.plan"]["as_of"] == "2013-03-26T04:00:00+00:00"
    second = airflow.run("flight_delay.retrain", "2013-03-27")
    assert second.state == "success" and second.done("declined") and second.skipped("train.plan", "train.rollout")
    assert "the last retraining was 2 days before, the cooldown is P7D" in second.xcom["declined"]["declined"]
    neither = airflow.run("flight_delay.retrain")
    assert neither.state == "failed" and "needs a partition key or an as_of" in neither.said


# --------------------------------------------------------------------------------------------------------------- score


def test_score_publishes_and_announces_its_key(airflow: Airflow, life: Life) -> None:
    ran = airflow.run("flight_delay.score", "2013-03-20")
    assert ran.state == "success" and ran.done("inputs", "score", "check", "publish") and ran.skipped("refuse"), ran.log
    assert ran.events == [("flight_delay.predictions", "2013-03-20")]
    assert ran.xcom["inputs"] == {
        "key": "2013-03-20", "version": "1", "as_of": "2013-03-21T04:00:00+00:00", "missing": []
    }  # fmt: skip
    table = prediction_table(life.spec, life.entity)
    version = table.version
    assert airflow.run("flight_delay.score", "2013-03-20").state == "success"
    assert table.version == version


def test_score_refuses_bad_output_and_keeps_what_was_there(
    airflow: Airflow, life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perennial.training import estimators

    monkeypatch.setattr(
        estimators, "score", lambda model, X, task: [float("nan")] * len(X) + __import__("numpy").zeros(len(X))
    )
    ran = airflow.run("flight_delay.score", "2013-03-20")
    assert ran.state == "failed" and ran.tasks["refuse"] == "failed" and ran.skipped("publish"), ran.log
    assert ran.said.startswith("flight_delay 2013-03-20: nothing was published: ")
    assert "scores are not finite numbers" in ran.said and ran.events == []
    assert prediction_table(life.spec, life.entity).partitions() == {}
    assert life.ledger.find("flight_delay", event="scoring", verdict="refused")[0].partition == "2013-03-20"


def empty(feed: Any, key: str) -> pa.Table:
    """Take a partition out of the lake; returns what was in it."""
    rows = feed_table(feed).read([key]).drop_columns(["partition", "digest"])
    feed_table(feed).replace({key: rows.slice(0, 0)})
    return rows


def test_score_without_the_rows_themselves_says_so(airflow: Airflow, life: Life) -> None:
    empty(life.entity, "2013-03-20")
    past = utc("2013-03-20T04:00")  # as a backfill's runs have it
    ran = airflow.run("flight_delay.score", "2013-03-20", run_id="backfill__x", run_after=past)
    assert ran.state == "failed"
    assert ran.said == "flights 2013-03-20 had not landed when the wait ended: land it, then clear this task"


def test_a_late_input_is_scored_without_then_again_with_it(
    airflow: Airflow, life: Life, capfd: pytest.CaptureFixture[str]
) -> None:
    """And what was built without it is stale: training would build it anew."""
    weather, builder = life.feeds["weather"], champion_builder(life)
    rows = empty(weather, "2013-03-20")
    past = utc("2013-03-20T04:00")
    ran = airflow.run("flight_delay.score", "2013-03-20", run_id="backfill__x", run_after=past)
    assert ran.state == "success" and ran.done("publish"), ran.log
    assert (
        "flight_delay 2013-03-20 is scored without weather 2013-03-20: the wait for it is over"
        in capfd.readouterr().out
    )
    assert degraded(life, "2013-03-20") == {True}
    assert builder.ready(["2013-03-20"]) == [], "nothing trains on it or judges drift by it"
    (entry,) = life.ledger.find("flight_delay", event="scoring")
    assert (entry.verdict, entry.partition, entry.figures["missing"]) == (
        "degraded",
        "2013-03-20",
        ["weather 2013-03-20"],
    )
    before = builder.table.partitions()["2013-03-20"].digest
    feed_table(weather).replace({"2013-03-20": rows})
    again = airflow.run("flight_delay.score", "2013-03-20")
    assert again.state == "success" and degraded(life, "2013-03-20") == {False}, again.log
    assert [e.verdict for e in life.ledger.find("flight_delay", event="scoring")] == ["degraded", "restored"]
    assert builder.table.partitions()["2013-03-20"].digest != before


def test_a_wait_that_ends_in_the_triggerer_ends_the_same(
    airflow: Airflow, life: Life, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = weak(monkeypatch, tmp_path) / "models" / "flight_delay" / "model.yaml"
    spec.write_text(spec.read_text() + "scoring: {wait: PT3S}\n")
    empty(life.feeds["weather"], "2013-03-20")
    ran = airflow.run("flight_delay.score", "2013-03-20", run_after=dt.datetime.now(dt.UTC))
    assert ran.state == "success" and degraded(life, "2013-03-20") == {True}, ran.log
    assert ran.xcom["inputs"]["missing"] == ["weather 2013-03-20"]
    empty(life.entity, "2013-03-21")
    late = airflow.run("flight_delay.score", "2013-03-21", run_after=dt.datetime.now(dt.UTC))
    assert late.said == "flights 2013-03-21 had not landed when the wait ended: land it, then clear this task"


def champion_builder(life: Life) -> Any:
    return Bundle(tracking.cache_folder().fetch(versions.require_champion("flight_delay").model_id)).builder(life.feeds)


def degraded(life: Life, key: str) -> set[bool]:
    return set(prediction_table(life.spec, life.entity).read([key], columns=["degraded"]).column(0).to_pylist())


def test_score_without_a_champion_is_a_sentence(airflow: Airflow) -> None:
    ran = airflow.run("flight_duration.score", "2013-03-20")
    assert ran.state == "failed" and ran.said.startswith("flight_duration has no champion: train it first")


# ------------------------------------------------------------------------------------------------------------- monitor


def test_monitor_is_quiet_or_alerts_and_asks_nobody(airflow: Airflow, life: Life) -> None:
    quiet = airflow.run("flight_delay.monitor", "2013-02-20")
    assert quiet.state == "failed" and "had no champion on 2013-02-21" in quiet.said
    quiet = airflow.run("flight_delay.monitor", "2013-03-05", as_of="2013-03-01")
    assert quiet.state == "success" and quiet.done("rule", "quiet") and quiet.skipped("alert", "ask"), quiet.log
    weather = feed_table(life.feeds["weather"])
    keys = ["2013-03-05", "2013-03-06"]
    weather.replace({k: weather.read([k]).drop_columns(["partition", "digest"]).slice(0, 0) for k in keys})
    alert = airflow.run("flight_delay.monitor", "2013-03-10")
    assert alert.state == "success" and alert.done("alert") and alert.skipped("quiet", "ask"), alert.xcom
    assert alert.events == []


def test_monitor_asks_once_when_two_weeks_have_drifted(airflow: Airflow, life: Life) -> None:
    """A heat wave in March."""
    weather = feed_table(life.feeds["weather"])
    columns = ("temp", "dewp", "humid", "wind_speed", "pressure", "visib")
    for key in keys_between(life.feeds["weather"], "2013-03-04", "2013-03-24"):
        rows = weather.read([key]).drop_columns(["partition", "digest"])
        for name in columns:
            at = rows.schema.get_field_index(name)
            rows = rows.set_column(at, rows.schema.field(at), pc.add(pc.multiply(rows[name], 2.0), 60.0))
        weather.replace({key: pa.table(rows)})
    ran = airflow.run("flight_delay.monitor", "2013-03-24")
    assert ran.state == "success" and ran.done("ask") and ran.skipped("quiet", "alert"), ran.xcom
    assert ran.events == [("flight_delay.retraining_requested", "2013-03-24")]
    again = airflow.run("flight_delay.monitor", "2013-03-24")
    assert again.done("alert") and again.events == [] and "has asked before" in again.xcom["alert"]["reason"]


def test_what_a_backfill_scored_is_not_monitored(airflow: Airflow) -> None:
    ran = airflow.run("flight_delay.monitor", "2013-03-24", run_id="backfill__2013-03-24")
    assert ran.state == "success" and set(ran.tasks.values()) == {"skipped"}, ran.tasks


# ------------------------------------------------------------------------------------------------------------- operate


def test_operate_rolls_back_and_promotes_on_record(airflow: Airflow, life: Life) -> None:
    two = life.second()
    life.publish("2013-03-19", "s")
    early = airflow.run("flight_delay.operate", action="promote", version=int(two), reason="it is time")
    assert early.state == "failed" and early.said.startswith(f"flight_delay version {two} has had no stage check")
    assert life.stage(two).passed
    ran = airflow.run("flight_delay.operate", action="promote", version=int(two), reason="it is time")
    assert ran.state == "success" and ran.done("promote") and ran.skipped("roll_back"), ran.log
    assert versions.aliases("flight_delay") == {"champion": two, "previous": "1"}
    back = airflow.run("flight_delay.operate", action="roll_back", reason="it was not")
    assert back.done("roll_back") and back.xcom["roll_back"] == {"champion": "1", "previous": two}
    moves = life.ledger.find("flight_delay", event="alias")
    assert [(e.verdict, e.reason) for e in moves[1:]] == [("promote", "it is time"), ("roll_back", "it was not")]
    assert moves[-1].as_of == "2013-03-20T04:00:00+00:00", "the end of the newest scored partition"
    twice = airflow.run("flight_delay.operate", action="roll_back", reason="somebody else pressed it too", version=None)
    assert twice.state == "failed" and "was rolled back to version 1 already" in twice.said
    assert versions.aliases("flight_delay") == {"champion": "1", "previous": two}


def test_operate_lets_monitoring_ask_again(airflow: Airflow, life: Life) -> None:
    ran = airflow.run("flight_delay.operate", action="rearm", reason="the request was lost", version=None)
    assert ran.state == "success" and ran.done("rearm"), ran.log
    (entry,) = life.ledger.find("flight_delay", event="rearm")
    assert (entry.version, entry.reason) == ("1", "the request was lost")
    assert versions.aliases("flight_delay") == {"champion": "1"}


def test_a_paused_model_skips_with_a_reason_and_knows_what_it_skipped(
    airflow: Airflow, life: Life, capfd: pytest.CaptureFixture[str]
) -> None:
    paused = airflow.run("flight_delay.operate", action="pause", reason="the weather feed is wrong", version=None)
    assert paused.state == "success" and paused.done("pause"), paused.log
    for dag in ("score", "monitor", "retrain", "train"):
        ran = airflow.run(f"flight_delay.{dag}", "2013-03-20" if dag != "train" else None)
        assert not ran.done("publish") and "success" not in ran.tasks.values(), ran.tasks
        why = "(the weather feed is wrong), so nothing was done: resume it with the action resume"
        assert why in capfd.readouterr().out, dag
    airflow.run("flight_delay.score", "2013-03-20")
    assert prediction_table(life.spec, life.entity).partitions() == {}
    assert airflow.run("flight_delay.operate", action="pause", reason="again", version=None).said.endswith(
        "paused already"
    )
    resumed = airflow.run(
        "flight_delay.operate", action="resume", reason="it is right", version=None, score_skipped=True
    )
    assert resumed.xcom["resume"] == {"skipped": ["2013-03-20"], "announced": 1}, resumed.log
    assert resumed.events == [("flight_delay.resumed", "2013-03-20")]
    assert airflow.run("flight_delay.score", "2013-03-20").done("publish")
    assert [e.verdict for e in life.ledger.find("flight_delay", event="state")] == ["paused", "resumed"]


@pytest.mark.parametrize(
    ("conf", "says"),
    [
        ({"action": "resume", "reason": "x"}, "flight_delay is not paused"),
        ({"action": "roll_back"}, "say why, in the form's field 'reason': it goes into the ledger"),
        ({"action": "roll_back", "reason": "x"}, "flight_delay has no previous version to roll back to"),
        ({"action": "promote", "reason": "x"}, "to promote, name the version in the form"),
        ({"action": "promote", "reason": "x", "version": 1}, "flight_delay: version 1 is champion already"),
        ({"action": "promote", "reason": "x", "version": 8}, "flight_delay has no version 8"),
    ],
)
def test_operate_says_what_is_missing(airflow: Airflow, conf: dict[str, Any], says: str) -> None:
    ran = airflow.run("flight_delay.operate", **conf)
    assert ran.state == "failed" and ran.said.startswith(says), ran.log
    assert versions.aliases("flight_delay") == {"champion": "1"}


# ------------------------------------------------------------------------------------------------------------ maintain


def test_maintenance_looks_removes_asks_and_reports(airflow: Airflow, landing: LandingSimulator, home: Path) -> None:
    landing.land("flights", "2013-04-02", "2013-04-03")
    for file in (home / "landing").rglob("*2013-04-0*"):
        os.utime(file, (0, 0))
    looked = airflow.run("perennial.maintain", dry_run=True)
    assert looked.state == "success", looked.log
    assert looked.events == [], "a look asks nobody"
    ran = airflow.run("perennial.maintain")
    assert ran.state == "success" and ran.done("plan", "expire", "tidy", "vacuum", "reconcile", "report"), ran.log
    assert sorted(ran.events) == [("flights.landed", "2013-04-02"), ("flights.landed", "2013-04-03")]
    assert ran.xcom["reconcile"]["flights"] == {"landed": 2, "absent": 0, "asked": 2}
    assert ran.xcom["plan"]["versions_kept"] >= 2
    assert "feeds/arrivals" in Path(ran.xcom["report"]["report"].removeprefix("file://")).read_text()


def test_maintenance_removes_nothing_when_a_version_does_not_say_what_it_needs(airflow: Airflow, life: Life) -> None:
    run = tracking.run_of(life.spec.name, life.actor("by-hand"))
    bare = tracking.client().create_logged_model("1", name="model", source_run_id=run)
    tracking.client().log_model_artifacts(bare.model_id, str(life.folder))
    versions.register(life.spec.name, run, bare.model_id, {})
    ran = airflow.run("perennial.maintain")
    assert ran.state == "failed" and ran.tasks["vacuum"] == ran.tasks["expire"] == "upstream_failed"
    assert "does not say which data version 2 of flight_delay was trained on, so nothing can be removed" in ran.said


def test_ingestion_says_once_when_maintenance_is_due(
    airflow: Airflow, landing: LandingSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perennial.housekeeping import due

    table = feed_table(Life().feeds["flights"])
    assert table.version is not None
    monkeypatch.setitem(due.COMMITS, "day", table.version + 2)
    landing.land("flights", "2013-04-02", "2013-04-04")
    keys = ("2013-04-02", "2013-04-03", "2013-04-04")
    events = [airflow.run("flights.ingest", key).events for key in keys]
    assert events[0] == [("flights", "2013-04-02")]
    assert ("perennial.maintenance_due", "flights-1") in events[1]
    assert events[2] == [("flights", "2013-04-04")]
