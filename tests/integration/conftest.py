"""Real data that integration tests share: made once per session, copied for each test that changes it."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from in_process import Airflow
from lifecycle import FIRST, LAST, Life, land_feeds

from airflow_home import PROJECT, airflow_environment
from perennial.local.landing import LandingSimulator


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory, _empty_mlflow: Path, signing_keys: dict[str, str]) -> Path:
    """A home with January to March in the lake and a first champion, trained as of March 1."""
    from perennial.registry import tracking

    home = tmp_path_factory.mktemp("trained") / "home"
    home.mkdir()
    shutil.copy(_empty_mlflow, home / "mlflow.db")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PERENNIAL_")}
    env = (
        kept
        | signing_keys
        | {
            "PERENNIAL_HOME": str(home),
            "PERENNIAL_SPECS": str(PROJECT / "include"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
        }
    )
    before = Path.cwd()
    with mock.patch.dict(os.environ, env, clear=True):
        tracking.client.cache_clear()
        os.chdir(home)  # artifacts go to ./mlruns
        try:
            life = Life()
            land_feeds(life.specs, home / "landing", FIRST, LAST)
            done = life.train("train-1", dt.datetime(2013, 3, 1, 5, tzinfo=dt.UTC))
            assert done.evaluation.verdict == "pass", done.evaluation.reason
            life.roll_out(done)
        finally:
            os.chdir(before)
            tracking.client.cache_clear()
    return home


@pytest.fixture
def life(home: Path, _trained: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Life]:
    """A model's life after its first promotion, in a home of this test's own."""
    from perennial.registry import tracking

    shutil.copytree(_trained, home, dirs_exist_ok=True, ignore=shutil.ignore_patterns("mlruns", "landing"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    monkeypatch.chdir(home)
    tracking.client.cache_clear()
    yield Life()
    tracking.client.cache_clear()


@pytest.fixture(scope="module")
def airflow_db() -> Iterator[Path]:
    """The process's Airflow home, with its tables."""
    with airflow_environment() as home:
        from airflow import settings
        from airflow.utils.db import initdb

        settings.configure_orm()
        initdb()
        from airflow.models.pool import Pool
        from airflow.utils.session import create_session

        with create_session() as session:
            for name, pool in json.loads((PROJECT / "include" / "pools.json").read_text()).items():
                if Pool.get_pool(name, session=session) is None:  # one home for all modules of this process
                    session.add(Pool(pool=name, slots=pool["slots"], description="", include_deferred=False))
        yield home


@pytest.fixture
def airflow(airflow_db: Path, life: Life) -> Airflow:
    """Airflow on a copy of the shared lake, with a first champion; failed tasks are not tried again."""
    made = Airflow()
    for dag in made.bag.dags.values():
        for task in dag.tasks:
            task.retries = 0
    return made


@pytest.fixture
def landing(home: Path) -> LandingSimulator:
    """Where files land, and how they are spoiled."""
    return LandingSimulator(home / "landing")
