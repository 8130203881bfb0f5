"""DAG files: all parse, light and twice the same; a task parses only its own DAG; a broken spec breaks nothing else."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from grain_world import GrainWorld

pytestmark = pytest.mark.fast

PROJECT = Path(__file__).parents[3]
HEAVY = ("pandas", "sklearn", "mlflow", "great_expectations", "evidently", "duckdb", "deltalake", "optuna", "pyarrow")
FEEDS = ("arrivals", "census_employment", "census_persons", "flights", "weather")
MODELS = ("employment", "flight_delay", "flight_duration")
DAGS = sorted(
    [f"{feed}.ingest" for feed in FEEDS]
    + [f"{model}.{p}" for model in MODELS for p in ("train", "score", "monitor", "retrain", "operate")]
    + ["perennial.maintain"]
)

PARSE = """
import json, sys, time
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
import airflow.sdk
import airflow.serialization.serialized_objects as so
began = time.process_time()
import runpy
found, errors = {}, {}
for file in sorted(Path(sys.argv[3]).glob("*.py")):
    try:
        space = runpy.run_path(str(file))
    except Exception as e:
        errors[file.name] = f"{type(e).__name__}: {e}"
        continue
    for value in space.values():
        if isinstance(value, airflow.sdk.DAG):
            value.fileloc = str(file)
            found[value.dag_id] = so.DagSerialization.to_dict(value)
print("@@" + json.dumps({
    "dags": found, "errors": errors, "seconds": time.process_time() - began,
    "heavy": [m for m in sys.argv[4:] if m in sys.modules],
}, default=str, sort_keys=True))
"""


@functools.cache
def shipped() -> dict[str, Any]:
    """The shipped specs, parsed once for several tests."""
    return parse()


def parse(specs: Path | None = None, running: str | None = None) -> dict[str, Any]:
    """What a fresh process gets out of the DAG files."""
    env = dict(os.environ)
    env.pop("_AIRFLOW_PARSING_CONTEXT_DAG_ID", None)
    if specs:
        env["PERENNIAL_SPECS"] = str(specs)
    if running:
        env |= {"_AIRFLOW_PARSING_CONTEXT_DAG_ID": running, "_AIRFLOW_PARSING_CONTEXT_TASK_ID": "x"}
    arguments = [str(PROJECT / "plugins"), str(PROJECT / "include"), str(PROJECT / "dags"), *HEAVY]
    done = subprocess.run(
        [sys.executable, "-c", PARSE, *arguments], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.split("@@", 1)[1])
    return found


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    """A copy of the shipped specs that a test may break."""
    for name in ("feeds", "models"):
        shutil.copytree(PROJECT / "include" / name, tmp_path / "specs" / name)
    shutil.copy(PROJECT / "include" / "defaults.yaml", tmp_path / "specs")
    return tmp_path / "specs"


def test_every_dag_parses_twice_the_same_and_imports_nothing_heavy() -> None:
    first, second = shipped(), parse()
    assert sorted(first["dags"]) == DAGS
    assert first["errors"] == {}
    assert first["heavy"] == []
    assert first["dags"] == second["dags"], "the same specs twice must make no new DAG version"


@pytest.mark.parametrize("every", ["hour", "week", "month", "year"])
def test_dags_of_every_grain(tmp_path: Path, every: str) -> None:
    found = parse(GrainWorld(tmp_path, every).root)
    ingestions = {f"{name}.ingest" for name in ("outcomes", "sales", "visits")}
    models = {f"returns.{p}" for p in ("train", "score", "monitor", "retrain", "operate")}
    assert set(found["dags"]) == {"perennial.maintain"} | ingestions | models
    assert found["errors"] == {}
    assert every in json.dumps(found["dags"]["visits.ingest"]["dag"]["timetable"])


def test_a_task_builds_its_own_dag_only() -> None:
    found = parse(running="flight_delay.train")
    assert sorted(found["dags"]) == ["flight_delay.train"]
    assert found["errors"] == {}
    assert sorted(parse(running="arrivals.ingest")["dags"]) == ["arrivals.ingest"]


def test_a_prefix_is_no_reason_to_build_all(specs: Path) -> None:
    (specs / "defaults.yaml").write_text("owner: flight-ops\ndag_prefix: team.\n")
    assert "team.flight_delay.score" in parse(specs)["dags"]
    assert sorted(parse(specs, running="team.flight_delay.score")["dags"]) == ["team.flight_delay.score"]


def test_a_broken_spec_is_said_and_its_last_good_dags_live_on(specs: Path) -> None:
    assert parse(specs)["errors"] == {}
    path = specs / "models" / "flight_delay" / "model.yaml"
    path.write_text(path.read_text().replace("task: binary", "task: binray"))
    found = parse(specs)
    assert list(found["errors"]) == ["spec_errors.py"]
    assert "SpecError" in found["errors"]["spec_errors.py"]
    assert "binray" in found["errors"]["spec_errors.py"] and "model.yaml" in found["errors"]["spec_errors.py"]
    assert sorted(found["dags"]) == DAGS
    assert sorted(parse(specs, running="flight_delay.score")["dags"]) == ["flight_delay.score"]


def test_a_spec_that_never_was_good_takes_only_its_own_dags_along(specs: Path) -> None:
    path = specs / "models" / "flight_duration" / "model.yaml"
    path.write_text(path.read_text().replace("entity: flights", "entity: fligths"))
    found = parse(specs)
    assert 'did you mean "flights"' in found["errors"]["spec_errors.py"]
    assert sorted(found["dags"]) == [d for d in DAGS if not d.startswith("flight_duration.")]


def test_tasks_of_a_broken_spec_run_on_the_last_good_one(
    specs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from perennial_airflow.step import live_specs

    monkeypatch.setenv("PERENNIAL_SPECS", str(specs))
    good = live_specs("flight_delay").model("flight_delay")
    path = specs / "models" / "flight_delay" / "model.yaml"
    path.write_text(path.read_text().replace("metric: roc_auc", "metric: roc_auk"))
    assert live_specs("flight_delay").model("flight_delay") == good


def test_every_task_says_its_pool_and_the_known_ones_only() -> None:
    pools = set(json.loads((PROJECT / "include" / "pools.json").read_text()))
    for dag_id, dag in shipped()["dags"].items():
        for task in dag["dag"]["tasks"]:
            var = task.get("__var", task)
            assert var.get("pool") in pools, f"{dag_id}.{var['task_id']}"


def test_queues_go_where_the_spec_says(specs: Path) -> None:
    path = specs / "models" / "flight_delay" / "model.yaml"
    path.write_text(path.read_text() + "queue: small\ncompute: {queue: large}\n")
    found = parse(specs)["dags"]["flight_delay.train"]["dag"]["tasks"]
    queues = {t["__var"]["task_id"]: t["__var"].get("queue") for t in found}
    assert queues["fit"] == "large"
    assert queues["plan"] == queues["rollout"] == "small"


def test_the_preload_list_imports() -> None:
    """In a process of its own; a list that does not import costs every task seconds, without a word."""
    code = (
        "import sys, importlib; sys.path[:0] = sys.argv[1:]\n"
        "from perennial_airflow.preload import MODULES\n"
        "import threading; before = threading.active_count()\n"
        "[importlib.import_module(m) for m in MODULES]\n"
        "assert threading.active_count() <= before + 1, threading.enumerate()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(PROJECT / "plugins"), str(PROJECT / "include")],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
