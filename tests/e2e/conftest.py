"""One real stack (scheduler, API server, triggerer, DAG processor, MLflow), with specs that the tests may edit."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_live import Live

from perennial.local.landing import LandingSimulator
from perennial.local.stack import Stack
from perennial.local.story import Narrator, Story

PROJECT = Path(__file__).resolve().parents[2]
YESTERDAY = (dt.datetime.now(dt.UTC) - dt.timedelta(days=1)).date()

#: A model that trains in seconds, and whose estimator's factory fails with an I/O error the first time it is built.
QUICK = """
version: 1
name: quick
owner: tests
description: A small model for tests.
task: binary
metric: roc_auc
entity: flights
features: {path: features.sql, lookback: P7D}
labels: {feed: arrivals, column: late}
estimator: {type: "pipeline.py:build"}
gates:
  floor: {roc_auc: 0.5}
  baseline: {mode: disabled}
  fairness: {not_applicable: A test decides about nobody.}
retries: 2
"""
QUICK_SQL = """
SELECT f.flight_id, f.sched_dep, f.carrier, f.origin, f.hour, f.distance, w.temp, w.wind_speed, w.precip, w.visib
FROM flights f
LEFT JOIN weather w ON w.origin = f.origin AND w.time_hour = date_trunc('hour', f.sched_dep)
WHERE f.partition = $partition
"""
QUICK_PY = """
import os
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

def build():
    marker = os.path.join(os.environ["PERENNIAL_HOME"], "io-error-was-raised")
    if not os.path.exists(marker) and os.environ.get("AIRFLOW_HOME"):
        open(marker, "w").close()
        raise OSError("the disk hiccuped")
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = ColumnTransformer([("text", codes, ["carrier", "origin"])], remainder="passthrough")
    return make_pipeline(columns, HistGradientBoostingClassifier(max_iter=40, min_samples_leaf=100))
"""
#: A feed that is live today, for cron.
TICKING = f"""
version: 1
name: ticking
owner: tests
start: {YESTERDAY - dt.timedelta(days=3)}
source: {{path: "ticking/{{partition}}.csv"}}
columns: {{id: string, value: float}}
key: [id]
"""
TICKING_RULES = "- {type: expect_table_row_count_to_be_between, kwargs: {min_value: 1}}\n"


def _free_ports(n: int = 12) -> int:
    """The first of ``n`` neighbouring free ports."""
    for base in range(21000, 40000, 50):
        try:
            for port in range(base, base + n):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    raise RuntimeError("no free ports")


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Start everything once."""
    root = tmp_path_factory.mktemp("live")
    specs = root / "specs"
    shutil.copytree(PROJECT / "include", specs, ignore=shutil.ignore_patterns("perennial", "*.egg-info", "__pycache__"))
    for path, text in {
        "models/quick/model.yaml": QUICK,
        "models/quick/features.sql": QUICK_SQL,
        "models/quick/pipeline.py": QUICK_PY,
        "models/quick/README.md": "# quick\n",
        "feeds/ticking/feed.yaml": TICKING,
        "feeds/ticking/expectations.yaml": TICKING_RULES,
    }.items():
        (specs / path).parent.mkdir(parents=True, exist_ok=True)
        (specs / path).write_text(text)
    home = root / "home"
    landing = home / "landing"
    (landing / "ticking").mkdir(parents=True)
    (landing / "ticking" / f"{YESTERDAY}.csv").write_text("id,value\na,1.5\nb,2.5\n")
    env = {"PERENNIAL_SPECS": str(specs), "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5"}
    stack = Stack(home, _free_ports(), project=PROJECT, env=env)
    before = dict(os.environ)
    os.environ.update(stack.environment)
    try:
        stack.start()
        story = Story(stack.client, LandingSimulator(landing), Narrator(), patience=300)
        yield Live(stack, story, specs, landing)
    finally:
        stack.stop()
        os.environ.clear()
        os.environ.update(before)
