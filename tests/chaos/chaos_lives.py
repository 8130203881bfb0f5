"""Whole lives, with what the tests want to know of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from chaos_arena import Arena
from chaos_life import Life

from perennial.local.rest import AirflowClient

#: Days that nobody has scored when three ask for them at once.
ASKED = ("2024-03-08", "2024-03-09", "2024-03-10")

#: Task, worker, MLflow and scheduler, each in a write, a publication, a registration or an alias move.
STRIKES: dict[str, dict[str, Any]] = {
    "task": {
        "place": "lake.commit", "match": "feeds/visits", "dag": "visits.ingest", "task": "commit", "when": "during",
        "delay": 0.01, "victim": "task",
    },
    "worker": {
        "place": "lake.replace", "match": "predictions", "dag": "buys.score", "task": "publish", "when": "before",
        "victim": "worker",
    },
    "mlflow": {"place": "server.create_model_version", "when": "after", "victim": "mlflow"},
    "scheduler": {
        "place": "mlflow.set_registered_model_alias", "match": "champion", "dag": "buys.retrain", "task": "rollout",
        "when": "after", "victim": "scheduler",
    },
}  # fmt: skip


@dataclass
class Lived:
    """What a life left behind."""

    state: dict[str, Any]
    leftovers: list[str] = field(default_factory=list)
    processes: list[str] = field(default_factory=list)
    struck: dict[str, Any] = field(default_factory=dict)
    ended: dict[str, str | None] = field(default_factory=dict)
    cleared: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    published: dict[str, list[Any]] = field(default_factory=dict)
    rows: dict[str, Any] = field(default_factory=dict)


def three_at_once(made: Arena) -> dict[str, list[Any]]:
    """Score days by hand, by event and by backfill at once; what each run says that it published, by day."""
    client: AirflowClient = made.life.client
    life: Life = made.life
    known = {r["dag_run_id"] for r in client.runs("buys.score")}
    client.backfill("buys.score", ASKED[0], ASKED[-1], max_active_runs=len(ASKED))
    for key in ASKED:
        client.asset_event("visits", key)
        life.start("buys.score", key=key)
    runs: list[dict[str, Any]] = []
    while len(runs) < 3 * len(ASKED):
        runs = [r for r in client.runs("buys.score") if r["dag_run_id"] not in known]
    found: dict[str, list[Any]] = {}
    for run in runs:
        life.end(run)
        said = client.xcom("buys.score", run["dag_run_id"], "publish")
        found.setdefault(run["partition_key"], []).append((run["run_type"], said))
    return found
