"""What a task knows about itself: its key, its as_of, who started it; and what it retries."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from grain_world import GrainWorld
from perennial.errors import (
    ConflictError,
    DataError,
    NotReadyError,
    PerennialError,
    RegistryError,
    SpecError,
    UsageError,
)

pytestmark = pytest.mark.fast

RUN_AFTER = dt.datetime(2013, 3, 20, 12, tzinfo=dt.UTC)


def event(name: str, source: str = "manual__1", **extra: Any) -> Any:
    return SimpleNamespace(asset=SimpleNamespace(name=name), source_run_id=source, extra=extra)


def step(key: str | None = None, events: Any = (), run_id: str = "manual__x", **params: Any) -> Any:
    from perennial_airflow.step import Step

    run = SimpleNamespace(
        dag_id="flight_delay.score",
        run_id=run_id,
        partition_key=key,
        run_after=RUN_AFTER,
        consumed_asset_events=list(events),
        triggering_user_name="ann",
    )
    return Step({"dag_run": run, "ti": SimpleNamespace(task_id="t"), "params": params})  # type: ignore[arg-type]


def feed(name: str = "flights") -> Any:
    from perennial.specs.loader import load_specs

    return load_specs(only=name).feed(name)


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def test_as_of_is_what_the_form_says_first() -> None:
    asked = step("2013-03-10", [event("flights", as_of="2013-03-12T00:00:00+00:00")], as_of="2013-03-15")
    assert asked.as_of(feed()) == utc("2013-03-15T04:00")


def test_as_of_is_then_what_the_event_says() -> None:
    asked = step("2013-03-10", [event("flight_delay.retraining_requested", as_of="2013-03-12T00:00:00+00:00")])
    assert asked.as_of(feed()) == utc("2013-03-12T00:00")


def test_an_event_from_outside_may_say_a_local_day() -> None:
    assert step("2013-03-10", [event("x", as_of="2013-03-12")]).as_of(feed()) == utc("2013-03-12T04:00")


def test_as_of_is_then_the_end_of_the_key() -> None:
    assert step("2013-03-10").as_of(feed()) == utc("2013-03-11T04:00"), "the day has 23 hours"


def test_the_delay_of_the_feed_that_started_it_comes_on_top() -> None:
    labels = {"arrivals": feed("arrivals")}
    assert step("2013-03-10", [event("arrivals")]).as_of(feed(), labels) == utc("2013-03-12T04:00")
    assert step("2013-03-10", [event("flight_delay.predictions")]).as_of(feed(), labels) == utc("2013-03-11T04:00")


def test_as_of_is_never_the_clock() -> None:
    assert step().as_of(feed()) == RUN_AFTER


def test_as_of_in_the_future_is_refused() -> None:
    later = f"{dt.datetime.now(dt.UTC) + dt.timedelta(days=2):%Y-%m-%d}"
    with pytest.raises(UsageError, match=f"as_of {later} is in the future"):
        step(as_of=later).as_of(feed())


def test_as_of_that_is_no_date_is_a_sentence() -> None:
    with pytest.raises(UsageError, match="as_of 'March' is not a date: write 2013-03-01"):
        step(as_of="March").as_of(feed())


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (None, "this run has no partition key: trigger flight_delay.score with one, such as 2013-01-01"),
        ("2012-12-31", "flights has no partition 2012-12-31: it runs from 2013-01-01 to 2013-12-31"),
        ("2014-01-01", "flights has no partition 2014-01-01: it runs from 2013-01-01 to 2013-12-31"),
        ("2013-3-1", "2013-3-1 is not a partition of flights: write a day such as 2013-01-01"),
    ],
)
def test_a_key_that_cannot_be_is_a_sentence(key: str | None, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        step(key).require_key(feed())


def test_a_key_in_the_future_is_a_sentence() -> None:
    endless = feed().model_copy(update={"end": None})
    tomorrow = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).date().isoformat()
    with pytest.raises(UsageError, match=f"flights {tomorrow} is in the future"):
        step(tomorrow).require_key(endless)
    assert step("2013-03-10").require_key(endless) == "2013-03-10"


def test_backfills_and_what_they_published_are_known() -> None:
    assert step("2013-03-10", run_id="backfill__2013-03-10").started_by_backfill
    assert step("2013-03-10", [event("p", "backfill__1"), event("p", "backfill__2")]).started_by_backfill
    assert not step("2013-03-10", [event("p", "backfill__1"), event("p", "asset_triggered__2")]).started_by_backfill
    assert not step("2013-03-10").started_by_backfill


def test_the_mark_of_a_backfill_survives_every_hop() -> None:
    """An ingested backfill starts scoring by an event, which starts monitoring by another."""
    first = SimpleNamespace(extra=None)
    step("2013-03-10", run_id="backfill__2013-03-10").pass_on(first)
    scoring = step("2013-03-10", [event("flights", "backfill__1", **first.extra)], run_id="asset_triggered__1")
    second = SimpleNamespace(extra={"rows": 3})
    scoring.pass_on(second)
    assert second.extra == {"rows": 3, "backfill": True}
    assert step("2013-03-10", [event("p", "asset_triggered__1", **second.extra)]).started_by_backfill
    live = SimpleNamespace(extra=None)
    step("2013-03-10", [event("flights", "scheduled__1")]).pass_on(live)
    assert live.extra is None


def test_the_actor_names_run_task_and_person() -> None:
    asked = step()
    assert asked.actor.to_dict() == {
        "dag_id": "flight_delay.score",
        "run_id": "manual__x",
        "task_id": "t",
        "user": "ann",
    }


@pytest.mark.parametrize("kind", [SpecError, DataError, UsageError, RegistryError, NotReadyError])
def test_what_no_retry_can_help_fails_at_once(kind: type[Exception]) -> None:
    from airflow.sdk import RetryAction

    from perennial_airflow.retries import POLICY

    found = POLICY.evaluate(kind("no"), try_number=1, max_tries=2)
    assert found.action == RetryAction.FAIL
    subclass = type("Special", (kind,), {})
    assert POLICY.evaluate(subclass("no"), try_number=1, max_tries=2).action == RetryAction.FAIL


@pytest.mark.parametrize("error", [OSError("disk"), ConnectionError("net"), ConflictError("race"), TimeoutError()])
def test_what_may_pass_is_retried(error: Exception) -> None:
    from airflow.sdk import RetryAction

    from perennial_airflow.retries import POLICY, arguments

    assert POLICY.evaluate(error, try_number=1, max_tries=2).action == RetryAction.DEFAULT
    assert arguments(2)["retries"] == 2


def test_an_error_of_ours_loses_its_chain_and_keeps_its_sentence() -> None:
    from perennial_airflow.operators.base import StepOperator

    class Fails(StepOperator):
        def step(self, step: Any) -> None:
            try:
                raise KeyError("deep inside")
            except KeyError as e:
                raise DataError("partition 2013-03-01 is not there") from e

    with pytest.raises(PerennialError, match="partition 2013-03-01 is not there") as caught:
        Fails(task_id="t", name="x").execute({})  # type: ignore[arg-type]
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    frames = [f.name for f in caught.traceback]
    assert "step" not in frames


def test_other_errors_keep_their_whole_traceback() -> None:
    from perennial_airflow.operators.base import StepOperator

    class Fails(StepOperator):
        def step(self, step: Any) -> None:
            raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError) as caught:
        Fails(task_id="t", name="x").execute({})  # type: ignore[arg-type]
    assert "step" in [f.name for f in caught.traceback]


def test_the_last_line_of_a_failed_task_s_log_is_the_sentence(caplog: pytest.LogCaptureFixture) -> None:
    from perennial_airflow.failures import FailureListener

    caplog.set_level("ERROR", "airflow.task.perennial")
    import logging

    logging.getLogger("airflow.task.perennial").addHandler(caplog.handler)
    try:
        FailureListener().on_task_instance_failed(DataError("no rows"))
        FailureListener().on_task_instance_failed(ValueError("not ours"))
    finally:
        logging.getLogger("airflow.task.perennial").removeHandler(caplog.handler)
    assert "no rows" in caplog.messages and "not ours" not in caplog.text


def test_a_key_of_another_grain_is_answered_with_one_of_its_own(tmp_path: Path) -> None:
    from perennial_airflow.step import check_key

    for every, first, wrong in (("week", "2013-W02", "2013-01-07"), ("hour", "2013-01-07T00", "2013-01-07")):
        sales = GrainWorld(tmp_path / every, every).load().feed("sales")
        with pytest.raises(UsageError, match=rf"with one, such as {first} \(Advanced"):
            step().require_key(sales)
        with pytest.raises(UsageError, match=f"{wrong} is not a partition of sales: write an? {every} such as {first}"):
            check_key(sales, wrong)
        assert check_key(sales, first) == first


def test_an_hourly_model_is_looked_at_once_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    from perennial_airflow.operators.monitor import PlanMonitoringOperator

    world = GrainWorld(tmp_path, "hour")
    monkeypatch.setenv("PERENNIAL_SPECS", str(world.root))
    plan = PlanMonitoringOperator(task_id="plan", name="returns")
    with pytest.raises(AirflowSkipException, match="the run for the last hour of 2013-02-01 will look"):
        plan.step(step("2013-02-01T22", [event("returns.predictions")]))
