"""The DAGs of a weekly and an hourly model, in process: ingest, train, score, monitor, by keys of their grain."""

from __future__ import annotations

from pathlib import Path

import pytest
from in_process import Airflow

from grain_world import GrainWorld
from perennial.lake.homes import feed_table, prediction_table
from perennial.registry import versions

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def project(world: GrainWorld, monkeypatch: pytest.MonkeyPatch) -> Airflow:
    """Airflow over the specs of this world; failed tasks are not tried again."""
    monkeypatch.setenv("PERENNIAL_SPECS", str(world.root))
    monkeypatch.setenv("PERENNIAL_WAIVE", "code_committed: made by this test; bias_tested: nobody visits")
    made = Airflow()
    for dag in made.bag.dags.values():
        for task in dag.tasks:
            task.retries = 0
    return made


def test_a_weekly_model(
    airflow_db: Path, home: Path, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = GrainWorld(tmp_path, "week", rows=60)
    keys = world.keys(50)
    world.fill(keys[:46])
    world.land(home / "landing", keys[46:])
    airflow = project(world, monkeypatch)

    ran = airflow.run("visits.ingest", keys[46])
    assert ran.done("commit", "announce") and ran.events == [("visits", keys[46])], ran.log
    ran = airflow.run("visits.ingest", **{"from": keys[47], "to": keys[49], "announce": "last"})
    assert ran.xcom["commit"] == {"partitions": 3, "first": keys[47], "last": keys[49]}, ran.log
    assert airflow.run("sales.ingest", keys[46]).done("commit")
    ran = airflow.run("sales.ingest", "2013-11-25")
    assert ran.state == "failed" and "2013-11-25 is not a partition of sales: write a week such as 2013-W02" in ran.said

    ran = airflow.run("returns.train", as_of="2013-11-26")
    assert ran.state == "success" and ran.done("register", "rollout"), ran.log
    assert ran.xcom["plan"]["holdout"] == ["2013-W34", "2013-W47", 14]
    ran = airflow.run("returns.score", keys[46], version=1)
    assert ran.done("publish") and ran.events == [("returns.predictions", keys[46])], ran.log
    world.fill(keys[47:])
    ran = airflow.run("returns.monitor", keys[49], as_of="2013-12-30")
    assert ran.state == "success", ran.log
    assert (ran.tasks["drift"], ran.tasks["performance"]) == ("success", "success"), ran.log
    assert versions.aliases("returns") == {"champion": "1"}


def test_an_hourly_feed(
    airflow_db: Path, home: Path, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = GrainWorld(tmp_path, "hour", rows=20)
    keys = world.keys(4)
    world.land(home / "landing", keys)
    airflow = project(world, monkeypatch)
    assert airflow.run("visits.ingest", keys[3]).events == [("visits", "2013-01-07T03")]
    ran = airflow.run("visits.ingest", **{"from": keys[0], "to": keys[2]})
    assert ran.xcom["commit"]["partitions"] == 3, ran.log
    specs = world.load()
    assert list(feed_table(specs.feed("visits")).partitions()) == keys
    ran = airflow.run("returns.score", keys[3])
    assert ran.state == "failed" and ran.said.startswith("returns has no champion: train it first"), ran.log
    assert prediction_table(specs.model("returns"), specs.feed("visits")).partitions() == {}
