"""Monitoring and guards on real flights: windows, the latch, failures of data, and what may start a retraining."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from lifecycle import Life, utc

from perennial.lake.homes import feed_table, monitoring_store
from perennial.ledger import Entry
from perennial.monitoring.conclude import conclude, record_request
from perennial.monitoring.watch import drift_look, latched, performance_look
from perennial.registry import versions
from perennial.specs.partitions import keys_between
from perennial.training.guards import Guard, check_guards, record_guards

pytestmark = pytest.mark.integration

APRIL = utc("2013-04-01T04:00")
ASKED = {"version": "1", "as_of": APRIL.isoformat(), "key": "2013-03-31"}


def one(life: Life) -> versions.Version:
    return versions.get("flight_delay", "1")


def states(look: Any) -> dict[str, str]:
    return {w["window"]: w["state"] for w in look.windows}


def change(life: Life, feed: str, first: str, last: str, column: str, how: Any) -> None:
    """Replace a column of some days, as a correction would."""
    table = feed_table(life.feeds[feed])
    new = {}
    for key in keys_between(life.feeds[feed], first, last):
        rows = table.read([key]).drop_columns(["partition", "digest"])
        at = rows.schema.get_field_index(column)
        new[key] = rows.set_column(at, rows.schema.field(at), how(rows[column]).cast(rows.schema.field(at).type))
    table.replace(new)


def drop(life: Life, feed: str, *keys: str) -> None:
    table = feed_table(life.feeds[feed])
    table.replace({k: table.read([k]).drop_columns(["partition", "digest"]).slice(0, 0) for k in keys})


# --------------------------------------------------------------------------------------------------------------- drift


def test_windows_are_whole_weeks_after_training_and_kept(life: Life) -> None:
    as_of = utc("2013-03-18T04:00")
    look = drift_look(life.spec, life.feeds, one(life), as_of)
    weeks = ["2013-W08", "2013-W09", "2013-W10", "2013-W11"]
    assert [w["window"] for w in look.windows] == weeks, "none that training days lie in"
    assert all(w["state"] in ("quiet", "flagged") for w in look.windows)
    kept = list(monitoring_store().list("flight_delay/1/drift"))
    assert kept == [f"flight_delay/1/drift/{w}.json" for w in weeks]
    assert drift_look(life.spec, life.feeds, one(life), as_of) == look
    earlier = drift_look(life.spec, life.feeds, one(life), as_of - dt.timedelta(seconds=1))
    assert [w["window"] for w in earlier.windows] == weeks[:3]
    assert drift_look(life.spec, life.feeds, one(life), utc("2013-02-20T05:00")).reason.startswith("no complete window")


def test_a_window_whose_rows_were_corrected_is_judged_again(life: Life) -> None:
    as_of = utc("2013-03-11T04:00")
    before = drift_look(life.spec, life.feeds, one(life), as_of).windows[-1]
    change(life, "weather", "2013-03-04", "2013-03-10", "temp", lambda c: pc.add(c, 40.0))
    after = drift_look(life.spec, life.feeds, one(life), as_of).windows[-1]
    assert after["window"] == before["window"] and "temp" in after["drifted"]
    assert after["distances"]["temp"] > before["distances"]["temp"]


def test_missing_days_and_a_jump_in_nulls_alert_and_never_ask(life: Life) -> None:
    as_of = utc("2013-03-18T04:00")
    drop(life, "weather", "2013-03-12", "2013-03-13")
    look = drift_look(life.spec, life.feeds, one(life), as_of)
    assert look.windows[-1]["state"] == "failed" and "2013-03-12, 2013-03-13" in look.windows[-1]["reason"]
    assert look.outcome == "alert"
    change(life, "weather", "2013-03-04", "2013-03-10", "wind_speed", lambda c: pa.nulls(len(c), pa.float64()))
    look = drift_look(life.spec, life.feeds, one(life), utc("2013-03-11T04:00"))
    assert look.windows[-1]["state"] == "failed" and "a failure of the data, not drift" in look.windows[-1]["reason"]
    assert "wind_speed" in look.windows[-1]["reason"] and look.outcome == "alert"


def test_thresholds_of_another_window_are_not_used(life: Life) -> None:
    drift = life.spec.monitoring.drift.model_copy(update={"window": dt.timedelta(days=14)})
    spec = life.spec.model_copy(update={"monitoring": life.spec.monitoring.model_copy(update={"drift": drift})})
    look = drift_look(spec, life.feeds, one(life), APRIL)
    assert look.outcome == "alert" and "was calibrated on windows of 7 days, the spec says 14" in look.reason


# --------------------------------------------------------------------------------------------------------- performance


def score_all(life: Life, first: str, last: str, **given: Any) -> None:
    for key in keys_between(life.entity, first, last):
        life.publish(key, f"s-{key}", **given)


def test_performance_needs_scores_and_labels(life: Life) -> None:
    as_of = utc("2013-03-19T04:00")
    look = performance_look(life.spec, life.feeds, one(life), as_of)
    assert (look.outcome, look.reason) == ("quiet", "nothing has been scored with version 1 yet")
    score_all(life, "2013-03-04", "2013-03-18")
    assert performance_look(life.spec, life.feeds, one(life), utc("2013-03-18T04:00")).windows == ()
    look = performance_look(life.spec, life.feeds, one(life), as_of)
    assert states(look) == {"2013-03-04/2013-03-17": "failed"}, "three days of the storm have too few labels"
    assert "3 of 14 blocks are left out" in look.windows[0]["reason"]
    low = life.spec.model_copy(update={"labels": life.spec.labels.model_copy(update={"min_coverage": 0.5})})
    look = performance_look(low, life.feeds, one(life), as_of)
    assert states(look) == {"2013-03-04/2013-03-17": "quiet"} and "14 blocks" in look.windows[0]["reason"]
    # another version took over in mid-window: that window is not the new one's failure
    two = life.second()
    score_all(life, "2013-03-11", "2013-03-18", version=two)
    look = performance_look(life.spec, life.feeds, versions.get("flight_delay", two), as_of)
    assert look.windows == () and look.outcome == "quiet"


# ------------------------------------------------------------------------------------------------- rule, latch, request


def look(kind: str, outcome: str) -> dict[str, Any]:
    windows = [{"window": "2013-W12", "state": "flagged", "reason": "9 of 18 columns"}]
    return {"kind": kind, "outcome": outcome, "reason": "2 of the last 3 windows flagged", "windows": windows}


def ask(life: Life, run: str, spec: Any = None, kind: str = "drift") -> Any:
    actor = life.actor(run, "rule", "monitor")
    return conclude(spec or life.spec, [look(kind, "ask"), look("performance", "quiet")], ASKED, life.ledger, actor)


def request(life: Life, run: str) -> bool:
    actor = life.actor(run, "ask", "monitor")
    return record_request("flight_delay", ASKED, {"reason": "drift"}, life.ledger, actor)


def test_a_version_asks_once_until_it_is_promoted_again(life: Life) -> None:
    assert ask(life, "m1").outcome == "ask"
    assert request(life, "m1") and latched(life.ledger, "flight_delay", "1")
    later = ask(life, "m2")
    assert later.outcome == "alert" and "version 1 has asked before" in later.reason
    assert not request(life, "m2"), "somebody was faster"
    assert ask(life, "m1").outcome == "ask" and request(life, "m1"), "clearing the run that asked changes nothing"
    assert len(life.ledger.find("flight_delay", event="retraining_requested")) == 1
    two = life.second()
    life.promote(two, "1", APRIL, "p")
    assert latched(life.ledger, "flight_delay", "1") and not latched(life.ledger, "flight_delay", two)
    life.promote("1", two, APRIL, "back", event="roll_back")
    assert not latched(life.ledger, "flight_delay", "1") and ask(life, "m3").outcome == "ask"


def test_a_request_that_the_guards_declined_may_be_made_again(life: Life) -> None:
    assert ask(life, "m1").outcome == "ask" and request(life, "m1")
    declined = [Guard("cooldown", False, "too soon"), Guard("budget", True, "fine")]
    record_guards(life.spec, declined, APRIL, life.ledger, life.actor("r1", "guards", "retrain"))
    assert not latched(life.ledger, "flight_delay", "1") and ask(life, "m2").outcome == "ask"


def test_monitoring_can_be_re_armed_by_hand(life: Life) -> None:
    assert ask(life, "m1").outcome == "ask" and request(life, "m1")
    life.ledger.append(
        Entry(id="o/1", event="rearm", subject="flight_delay", verdict="rearmed", reason="by hand", version="1")
    )
    assert not latched(life.ledger, "flight_delay", "1")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"retraining": {"on": ["performance"]}}, "retraining.on does not name drift"),
        ({"monitoring": {"drift": {"mode": "dry_run"}}}, "drift is in dry_run"),
    ],
)
def test_what_may_not_ask_alerts(life: Life, changes: dict[str, Any], says: str) -> None:
    spec = type(life.spec).model_validate({**life.spec.model_dump(mode="json", exclude=set(changes)), **changes})
    found = ask(life, "m1", spec)
    assert found.outcome == "alert" and says in found.reason


def test_every_look_is_on_record_with_its_page(life: Life) -> None:
    found = ask(life, "m1")
    (entry,) = life.ledger.find("flight_delay", event="monitoring")
    assert (entry.verdict, entry.partition, entry.version) == ("ask", "2013-03-31", "1")
    assert entry.figures["drift"][0]["window"] == "2013-W12"
    assert b"Monitoring of flight_delay" in found.page
    nothing = conclude(life.spec, [], ASKED, life.ledger, life.actor("m2", "rule", "monitor"))
    assert (nothing.outcome, nothing.reason) == ("alert", "nothing was looked at")


# -------------------------------------------------------------------------------------------------------------- guards


def guards(life: Life, run: str, as_of: dt.datetime, spec: Any = None) -> dict[str, bool]:
    actor = life.actor(run, "guards", "retrain")
    found = check_guards(spec or life.spec, life.feeds, as_of, life.ledger, actor)
    record_guards(life.spec, found, as_of, life.ledger, actor)
    return {g.name: g.passed for g in found}


ALL = {"cooldown": True, "budget": True, "new_labels": True}


def test_the_cooldown_counts_in_as_of_time(life: Life) -> None:
    assert guards(life, "r1", utc("2013-03-10T04:00")) == ALL
    assert guards(life, "r1", utc("2013-03-10T04:00")) == ALL, "its own retry does not count"
    assert guards(life, "r2", utc("2013-03-14T04:00")) == ALL | {"cooldown": False}
    assert guards(life, "r3", utc("2013-03-17T04:00")) == ALL, "what was declined does not count"
    assert guards(life, "r4", utc("2013-03-05T05:00")) == ALL, "nor does what comes later"
    reasons = [e.reason for e in life.ledger.find("flight_delay", event="guard", verdict="declined")]
    assert reasons == ["the last retraining was 4 days before, the cooldown is P7D"]
    assert len(life.ledger.find("flight_delay", event="guard", verdict="started")) == 9


def test_the_budget_is_for_thirty_days(life: Life) -> None:
    rules = life.spec.retraining.model_copy(update={"max_per_month": 2, "cooldown": dt.timedelta(days=1)})
    spec = life.spec.model_copy(update={"retraining": rules})
    for run, day in (("r1", "2013-03-05"), ("r2", "2013-03-08")):
        assert guards(life, run, utc(f"{day}T05:00"), spec) == ALL
    assert guards(life, "r3", utc("2013-03-20T04:00"), spec) == ALL | {"budget": False}
    assert guards(life, "r4", utc("2013-04-05T04:00"), spec) == ALL


def test_only_labels_that_the_champion_has_not_seen_count(life: Life) -> None:
    """As of March 2 the labels of one more day are known than on March 1."""
    assert guards(life, "r1", utc("2013-03-02T05:00")) == ALL | {"new_labels": False}
    found = check_guards(life.spec, life.feeds, utc("2013-03-02T05:00"), life.ledger, life.actor("x"))
    rows = feed_table(life.feeds["arrivals"]).read(["2013-02-28"]).num_rows
    assert found[-1].reason == f"{rows} labels since the champion's, at least 1,000"
    assert guards(life, "r1", utc("2013-03-03T05:00")) == ALL, "cleared later, it starts, and that is on record"
    assert life.ledger.find("flight_delay", event="guard", verdict="started")


def test_a_run_of_another_dag_with_the_same_id_is_another_run(life: Life) -> None:
    entry = Entry(
        id="x", event="guard", subject="flight_delay", verdict="started", reason="", figures={"guard": "cooldown"},
        as_of=utc("2013-03-09T05:00").isoformat(), actor={"dag_id": "team.flight_delay.retrain", "run_id": "r1"},
    )  # fmt: skip
    life.ledger.append(entry)
    assert guards(life, "r1", utc("2013-03-10T04:00"))["cooldown"] is False
