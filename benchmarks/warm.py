"""From queued to at work, for tasks that use mlflow, Great Expectations and Evidently: with and without pre-import."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import Result, result
from benchmarks.live import ended, instant, p95, stack

DAG = '''
"""One task that needs the heavy libraries, and says when it has them."""
from airflow.sdk import DAG, task

with DAG("heavy", schedule=None, catchup=False, is_paused_upon_creation=False):
    @task
    def work():
        import evidently.metrics, great_expectations, mlflow.sklearn, sklearn.ensemble
        import time
        return time.time()
    work()
'''


def run(folder: Path, *, quick: bool) -> list[Result]:
    """The same DAG in two stacks, one after the other."""
    dags = folder / "dags"
    dags.mkdir()
    (dags / "heavy.py").write_text(DAG)
    warm = _waits(folder / "warm", dags, 3 if quick else 40, preload=True)
    cold = _waits(folder / "cold", dags, 2 if quick else 12, preload=False)
    what = "queued until the heavy libraries are there"
    return [
        result(f"{what}, median", warm, unit="s", at_most=0.5, note="One task at a time on an idle stack."),
        result(f"{what}, 95 % of tasks", [p95(warm)], unit="s", note=f"Of {len(warm)} tasks."),
        result(f"{what}, without pre-import, median", cold, unit="s"),
    ]


def _waits(home: Path, dags: Path, n: int, *, preload: bool) -> list[float]:
    env = {"AIRFLOW__CORE__DAGS_FOLDER": str(dags), "PERENNIAL_PRELOAD": "1" if preload else "0"}
    found = []
    with stack(home, env) as live:
        for i in range(n + 2):
            made = live.client.trigger("heavy", conf={})
            (task,) = ended(live.client, "heavy", made["dag_run_id"])
            if task["state"] != "success":
                raise RuntimeError(live.client.log("heavy", made["dag_run_id"], "work"))
            at_work = float(live.client.xcom("heavy", made["dag_run_id"], "work"))
            if i >= 2:  # the first tasks of a stack also fill its caches
                found.append(at_work - instant(task["queued_when"]))
    return found
