"""The DAGs of the yearly model that ships, in process: from files to a champion with a card, and a scored year."""

from __future__ import annotations

from pathlib import Path

import pytest
from in_process import Airflow

from perennial.ledger import Ledger
from perennial.local.census import EMPLOYMENT, PERSONS, land_census
from perennial.registry import tracking, versions

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def test_years_come_go_through_the_gates_and_are_scored(
    airflow_db: Path, home: Path, registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERENNIAL_WAIVE", "code_committed: whoever runs the tests may be in the middle of a change")
    land_census(home / "landing", 2015, 2017)
    airflow = Airflow()
    for feed in (PERSONS, EMPLOYMENT):
        ran = airflow.run(f"{feed}.ingest", **{"from": "2015", "to": "2017", "announce": "none"})
        assert ran.xcom["commit"] == {"partitions": 3, "first": "2015", "last": "2017"}, ran.log

    ran = airflow.run("employment.train", as_of="2018-01-01")
    assert ran.state == "success" and ran.done("register", "stage_check", "checklist", "rollout"), ran.log
    assert ran.xcom["plan"]["holdout"] == ["2017", "2017", 1]
    champion = versions.require_champion("employment")
    names = {a.path for a in tracking.client().list_artifacts(champion.run_id)}
    assert {"card.html", "card.md"} <= names
    (bias,) = [e.figures["bias_tested"] for e in Ledger().find("employment", event="checklist")]
    assert bias["state"] == "met" and "within 0.2" in bias["reason"]

    ran = airflow.run("employment.score", "2017")
    assert ran.done("publish") and ran.events == [("employment.predictions", "2017")], ran.log
    ran = airflow.run("employment.monitor", "2017", as_of="2018-01-01")
    assert ran.state == "success" and ran.done("alert"), ran.log
