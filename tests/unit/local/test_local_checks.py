"""What stands still in Airflow, from what its API says."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from perennial.local.checks import airflow_findings, reach
from perennial.local.rest import AirflowClient
from perennial.settings import Settings
from perennial.specs.loader import SpecSet, load_specs

pytestmark = pytest.mark.fast

NOW = dt.datetime(2013, 3, 10, 15, tzinfo=dt.UTC)  # while the shipped feeds are alive
PATTERNS = ("train", "score", "monitor", "retrain", "operate")


class Airflow:
    """Answers as Airflow 3.3 does for a healthy deployment of the shipped specs; tests spoil parts of it."""

    def __init__(self, specs: SpecSet) -> None:
        names = [f"{f}.ingest" for f in specs.feeds] + [f"{m}.{p}" for m in specs.models for p in PATTERNS]
        self.dags: dict[str, dict[str, Any]] = {
            n: {"dag_id": n, "is_paused": False, "next_dagrun_run_after": None} for n in [*names, "perennial.maintain"]
        }
        for feed in specs.feeds:
            self.dags[f"{feed}.ingest"]["next_dagrun_run_after"] = "2013-03-11T04:00:00Z"  # midnight in New York
        self.pools = {n: {"name": n, "slots": 2} for n in ("perennial_light", "perennial_promote", "perennial_heavy")}
        self.errors: list[dict[str, str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "x"})
        kind = request.url.path.rsplit("/", 1)[-1]
        key, found = {
            "dags": ("dags", list(self.dags.values())),
            "pools": ("pools", list(self.pools.values())),
            "importErrors": ("import_errors", self.errors),
        }[kind]
        return httpx.Response(200, json={key: found, "total_entries": len(found)})

    def findings(self, specs: SpecSet, now: dt.datetime = NOW) -> list[str]:
        client = AirflowClient("http://127.0.0.1:1", "admin", "secret", retry_for=0)
        client._http = httpx.Client(base_url=client.base_url, transport=httpx.MockTransport(self))
        return airflow_findings(client, specs, now=now)


@pytest.fixture
def specs(home: Path) -> SpecSet:
    return load_specs()


def test_a_healthy_deployment_has_nothing_to_say(specs: SpecSet) -> None:
    assert Airflow(specs).findings(specs) == []


def test_pools_that_are_missing_or_have_no_slots(specs: SpecSet) -> None:
    airflow = Airflow(specs)
    del airflow.pools["perennial_promote"]
    airflow.pools["perennial_light"]["slots"] = 0
    first, second = airflow.findings(specs)
    assert first.startswith("pool perennial_promote is missing, so its tasks wait for ever: airflow pools import")
    assert second == "pool perennial_light has no slots, so its tasks never start"


def test_dags_that_are_paused_or_not_there(specs: SpecSet) -> None:
    airflow = Airflow(specs)
    airflow.dags["flight_delay.score"]["is_paused"] = True
    del airflow.dags["weather.ingest"]
    missing, paused = airflow.findings(specs)
    assert missing.startswith("DAG weather.ingest is not there")
    assert paused.startswith("DAG flight_delay.score is paused, and loses the events that come meanwhile")


def test_cron_that_a_backfill_into_the_future_displaced(specs: SpecSet) -> None:
    airflow = Airflow(specs)
    airflow.dags["flights.ingest"]["next_dagrun_run_after"] = "2013-03-15T04:00:00Z"
    (said,) = airflow.findings(specs)
    assert said.startswith(
        "flights.ingest runs next on 2013-03-15 04:00 UTC, and 2013-03-11 04:00 would be its turn: a backfill into the "
        "future displaced its cron"
    )
    assert airflow.findings(specs, dt.datetime(2014, 6, 1, tzinfo=dt.UTC)) == [], "the feeds have ended"


def test_import_errors_in_one_line(specs: SpecSet) -> None:
    airflow = Airflow(specs)
    airflow.errors.append(
        {"filename": "spec_errors.py", "stack_trace": "Traceback\n  File ...\nSpecError: model.yaml:3"}
    )
    assert airflow.findings(specs) == ["spec_errors.py cannot be imported: SpecError: model.yaml:3"]


def test_without_a_login_or_an_answer_airflow_is_not_reachable(home: Path) -> None:
    env = {"PERENNIAL_HOME": str(home), "PERENNIAL_AIRFLOW": "http://127.0.0.1:9"}
    assert reach(Settings.from_environment(env)) is None
    (home / "keys").mkdir(parents=True)
    (home / "keys" / "passwords.json").write_text(json.dumps({"admin": "secret"}))
    assert reach(Settings.from_environment(env), timeout=1) is None
    login = {"PERENNIAL_AIRFLOW_USER": "ops", "PERENNIAL_AIRFLOW_PASSWORD": "pw"}
    assert Settings.from_environment(env | login).airflow_login == ("ops", "pw")
