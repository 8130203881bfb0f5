"""Whole patterns on the real stack, in the order of a model's life. The tests build on each other."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2e_live import Live

from perennial.lake.homes import prediction_table
from perennial.ledger import Ledger
from perennial.local.checks import airflow_findings
from perennial.local.landing import Feed
from perennial.local.rest import AirflowError
from perennial.registry import versions
from perennial.specs.loader import load_specs

pytestmark = pytest.mark.e2e

PROJECT = Path(__file__).resolve().parents[2]
FEEDS: tuple[Feed, ...] = ("flights", "weather", "arrivals")


def until(found: Callable[[], Any], seconds: float = 90) -> Any:
    """Ask again until there is an answer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = found()
        if answer:
            return answer
        time.sleep(0.5)
    raise AssertionError(f"nothing after {seconds} s")


def published() -> dict[str, tuple[int, str]]:
    """Rows and digest per published partition of ``quick``."""
    specs = load_specs(only="quick")
    table = prediction_table(specs.model("quick"), specs.feed("flights"))
    return {k: (p.rows, p.digest) for k, p in table.partitions().items()}


def test_nothing_runs_that_nobody_asked_for(live: Live) -> None:
    assert live.client.import_errors() == []
    until(lambda: live.client.runs("ticking.ingest"))  # the scheduler has made its rounds
    assert {r["dag_id"] for r in live.client.runs()} == {"ticking.ingest"}


def test_cron_ingests_the_partition_that_has_ended(live: Live) -> None:
    (run,) = live.client.runs("ticking.ingest")
    assert run["run_type"] == "scheduled"
    live.ended(run)
    assert live.states(run)["commit"] == "success"
    assert [e["partition_key"] for e in live.client.asset_events("ticking")] == [run["partition_key"]]


def test_history_is_committed_and_announces_nobody(live: Live) -> None:
    live.story.land(FEEDS, "2013-01-01", "2013-02-20")
    live.story.history(dict.fromkeys(FEEDS, ("2013-01-01", "2013-02-20")))
    assert live.client.asset_events("flights") == []
    assert live.client.runs("flight_delay.score") == []


def test_training_survives_an_io_error_and_promotes(live: Live) -> None:
    run = live.ended(live.story.trigger("quick.train", as_of="2013-02-20"))
    fit = next(t for t in live.client.task_instances("quick.train", run["dag_run_id"]) if t["task_id"].endswith("fit"))
    assert fit["try_number"] == 2, "the I/O error of the first try is retried"
    assert "the disk hiccuped" in live.log(run, fit["task_id"], 1)
    assert versions.aliases("quick") == {"champion": "1"}
    gates = {e.figures["gate"]: e.verdict for e in Ledger().find("quick", event="gate")}
    assert gates == {
        "floor": "pass", "baseline": "not_applicable", "champion": "not_applicable", "fairness": "not_applicable",
    }  # fmt: skip
    runs = versions.client().search_runs([versions.client().get_experiment_by_name("quick").experiment_id])
    assert len(runs) == 1, "a retry adds no MLflow run"


def test_wrong_data_fails_at_once_with_a_sentence(live: Live) -> None:
    run = live.ended(live.story.trigger("quick.train", as_of="2013-01-05"), need="failed")
    (failed,) = [t for t in live.client.task_instances("quick.train", run["dag_run_id"]) if t["state"] == "failed"]
    assert failed["try_number"] == 1
    assert "leaves none to train on" in live.log(run, failed["task_id"])


def test_manual_key_scores_and_a_second_run_changes_nothing(live: Live) -> None:
    live.ended(live.story.trigger("quick.score", key="2013-02-19"))
    before = published()
    assert before["2013-02-19"][0] > 800
    live.ended(live.story.trigger("quick.score", key="2013-02-19"))
    assert published() == before


def test_a_key_that_cannot_be_gets_a_sentence(live: Live) -> None:
    with pytest.raises(AirflowError, match="2013-02-30"):
        live.story.trigger("quick.score", key="2013-02-30")
    for key, sentence in {None: "has no partition key", "2031-01-01": "it runs from 2013-01-01 to 2013-12-31"}.items():
        run = live.ended(live.story.trigger("quick.score", key=key), need="failed")
        assert sentence in live.log(run, "inputs")


def test_backfill_scores_days_and_asks_nobody(live: Live) -> None:
    # nothing served in the middle of February, so the form has to say who scores it
    runs = live.story.backfill("quick.score", "2013-02-10", "2013-02-13", parallel=2, version=1)
    assert {r["run_type"] for r in runs} == {"backfill"}
    rows = published()
    assert {"2013-02-10", "2013-02-11", "2013-02-12", "2013-02-13"} <= set(rows)
    monitors = until(lambda: [r for r in live.client.runs("quick.monitor") if r["partition_key"] == "2013-02-13"])
    live.ended(monitors[0])
    assert live.states(monitors[0])["plan"] == "skipped"
    assert Ledger().find("quick", event="retraining_requested") == []
    before = published()
    live.client.backfill(
        "quick.score", "2013-02-10", "2013-02-11", max_active_runs=2, reprocess="completed", conf={"version": 1}
    )
    again = until(lambda: (r := live.client.backfill_runs("quick.score")) and len(r) >= 6 and r)
    for run in again:
        live.ended(run)
    assert published() == before


def test_events_start_scoring_which_waits_for_its_other_inputs(live: Live) -> None:
    live.story.land(("flights", "weather"), "2013-02-21", "2013-02-21")
    live.client.asset_event("weather.landed", "2013-02-21")
    ingested = live.story.started_by_event("weather.ingest", "2013-02-21")
    live.ended(ingested)
    scoring = live.story.started_by_event("quick.score", "2013-02-21")
    until(lambda: live.states(scoring)["inputs"] == "deferred")
    assert "waiting for flights 2013-02-21" in live.log(scoring, "inputs")
    live.client.asset_event("flights.landed", "2013-02-21")
    live.ended(live.story.started_by_event("flights.ingest", "2013-02-21"))
    live.ended(scoring)
    rows = published()["2013-02-21"]
    for run in live.client.runs("quick.score"):  # flights announced it too: a second run, the same rows
        if run["partition_key"] == "2013-02-21":
            live.ended(run)
    assert published()["2013-02-21"] == rows


def test_the_landing_sensor_waits_without_a_slot(live: Live) -> None:
    run = live.story.trigger("weather.ingest", key="2013-02-22")
    until(lambda: live.states(run).get("wait_for_landing") == "deferred")
    live.story.land(("weather",), "2013-02-22", "2013-02-22")
    live.ended(run)
    assert live.states(run)["commit"] == "success"


def test_a_bad_partition_is_refused_and_the_next_one_goes_through(live: Live) -> None:
    live.story.landing.corrupt("flights", "2013-02-22", "missing_column")
    live.story.land(("flights",), "2013-02-23", "2013-02-23")
    bad = live.ended(live.story.trigger("flights.ingest", key="2013-02-22"))
    good = live.ended(live.story.trigger("flights.ingest", key="2013-02-23"))
    assert live.states(bad)["quarantine_batch"] == "success"
    assert live.states(bad)["announce"] == "skipped"
    assert live.states(good)["commit"] == "success"
    refused = Ledger().find("flights", event="ingestion", verdict="quarantine_batch")
    assert [e.partition for e in refused] == ["2013-02-22"]
    assert "has no column 'distance'" in refused[0].reason


def test_reports_open_for_those_who_are_logged_in(live: Live) -> None:
    tasks = live.client.task_instances("flights.ingest", live.client.runs("flights.ingest")[0]["dag_run_id"])
    run = tasks[0]["dag_run_id"]
    links = live.client.get(f"dags/flights.ingest/dagRuns/{run}/taskInstances/validate/links")["extra_links"]
    assert httpx.get(links["Report"]).status_code == 401
    login = {"username": live.stack.username, "password": live.stack.password}
    token = httpx.post(f"{live.stack.urls['airflow']}/auth/token", json=login).json()["access_token"]
    page = httpx.get(links["Report"], headers={"Authorization": f"Bearer {token}"})
    assert page.status_code == 200
    assert "Validation of flights" in page.text
    assert page.headers["content-security-policy"].startswith("sandbox")
    other = links["Report"].rsplit("/", 2)[0] + "/%2e%2e/%2e%2e/keys/passwords.json"
    assert httpx.get(other, headers={"Authorization": f"Bearer {token}"}).status_code == 404


def test_roll_back_needs_a_reason_and_a_version(live: Live) -> None:
    for conf, sentence in (
        ({"action": "roll_back", "reason": ""}, "say why"),
        ({"action": "roll_back", "reason": "test"}, "no previous version"),
        ({"action": "promote", "version": 1, "reason": "test"}, "is champion already"),
    ):
        run = live.ended(live.story.trigger("quick.operate", **conf), need="failed")
        assert sentence in live.log(run, "request")
    assert versions.aliases("quick") == {"champion": "1"}


def test_a_broken_spec_is_an_import_error_and_its_dags_live_on(live: Live) -> None:
    path = live.specs / "models" / "flight_duration" / "model.yaml"
    good = path.read_text()
    path.write_text(good.replace("metric: neg_mean_absolute_error", "metrik: neg_mean_absolute_error"))
    try:
        errors = until(live.client.import_errors)
        assert len(errors) == 1
        assert errors[0]["filename"].endswith("spec_errors.py")
        assert "metrik" in errors[0]["stack_trace"]
        assert "did you mean" in errors[0]["stack_trace"]
        names = {d["dag_id"] for d in live.client.dags()}
        assert {"flight_duration.train", "flight_delay.train", "quick.score", "flights.ingest"} <= names
    finally:
        path.write_text(good)
    until(lambda: live.client.import_errors() == [])


def test_the_page_on_adding_a_model_is_true(live: Live) -> None:
    page = (PROJECT / "docs" / "add-a-model.md").read_text("utf-8")
    blocks = re.findall(r'^```\w+ title="include/(models/[^"]+)"\n(.*?)^```$', page, re.MULTILINE | re.DOTALL)
    assert [Path(p).suffix for p, _ in blocks] == [".yaml", ".sql", ".md"]
    for path, text in blocks:
        (live.specs / path).parent.mkdir(parents=True, exist_ok=True)
        (live.specs / path).write_text(text, "utf-8")
    wanted = {f"arrival_delay.{p}" for p in ("train", "score", "monitor", "retrain", "operate")}
    until(lambda: wanted <= {d["dag_id"] for d in live.client.dags()}, 120)
    live.ended(live.story.trigger("arrival_delay.train", as_of="2013-02-20"))
    (decision,) = Ledger().find("arrival_delay", event="decision")
    assert decision.verdict in ("pass", "fail")
    assert decision.figures["train_partitions"] >= 30
    assert decision.figures["mlflow_run"]


def test_maintenance_follows_ingestion_and_status_finds_what_stands_still(live: Live) -> None:
    specs = load_specs()
    until(lambda: airflow_findings(live.client, specs) == [])
    live.client.request("DELETE", "pools/perennial_promote")
    try:
        (said,) = airflow_findings(live.client, specs)
        assert said.startswith("pool perennial_promote is missing")
    finally:
        live.client.set_pool("perennial_promote", 1)
    before = published()
    live.client.asset_event("perennial.maintenance_due", partition_key="flights-1")  # as ingestion does
    (run,) = until(lambda: live.client.runs("perennial.maintain"))
    live.ended(run)
    assert (run["run_type"], run["partition_key"]) == ("asset_triggered", "flights-1")
    assert set(live.states(run).values()) == {"success"}
    assert "stay, a model or a run needs them" in live.log(run, "plan")
    assert published() == before
