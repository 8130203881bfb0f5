"""Which kills a life gets: drawn from a seed, so that a life can be lived again."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

Strike = dict[str, Any]


class Spot(NamedTuple):
    """A call in a step that may be hit: a write, a registration or an alias move.

    ``times``: how often the step makes it. ``runs``: how many runs of the DAG make it.
    """

    kind: str
    place: str
    dag: str
    task: str
    match: str = ""
    times: int = 1
    runs: int = 1


_TRAININGS = ("buys.train", "buys.retrain")
_MLFLOW = {
    "fit": ("create_run", "create_logged_model", "log_model_artifacts", "finalize_logged_model", "log_inputs",
            "log_batch", "set_tag"),
    "register": ("create_model_version", "set_tag", "set_terminated"),
}  # fmt: skip

SPOTS: tuple[Spot, ...] = (
    *(Spot("write", p, "visits.ingest", "commit", "feeds/visits") for p in ("lake.commit", "lake.replace")),
    Spot("write", "lake.commit", "outcomes.ingest", "commit", "feeds/outcomes"),
    Spot("write", "lake.commit", "visits.ingest", "quarantine_rows", "quarantine"),
    Spot("write", "lake.commit", "visits.ingest", "quarantine_rows", "feeds/visits"),
    Spot("write", "lake.commit", "visits.ingest", "quarantine_batch", "quarantine"),
    Spot("write", "store.put", "visits.ingest", "validate", times=9),
    Spot("write", "store.fsync", "outcomes.ingest", "validate", times=9),
    Spot("write", "store.put_if_absent", "visits.ingest", "commit"),
    *(Spot("write", "lake.commit", dag, "features", "features") for dag in _TRAININGS),
    *(Spot("write", "store.put", dag, task) for dag in _TRAININGS for task in ("plan", "fit", "evaluate", "register")),
    *(Spot("write", p, dag, "gates", times=4) for dag in _TRAININGS for p in ("store.put_if_absent", "store.fsync")),
    *(Spot("write", "store.put_if_absent", dag, "rollout") for dag in _TRAININGS),
    Spot("write", "store.put_if_absent", "buys.retrain", "guards", times=3),
    Spot("write", "lake.commit", "buys.score", "score", "features", runs=12),
    *(Spot("write", p, "buys.score", "publish", "predictions", runs=12) for p in ("lake.commit", "lake.replace")),
    Spot("write", "store.fsync", "buys.score", "score", "predictions.parquet", runs=12),
    Spot("write", "lake.commit", "buys.monitor", "drift", "features"),
    *(Spot("write", p, "buys.monitor", "rule") for p in ("store.put_if_absent", "store.put")),
    *(Spot("write", p, "buys.monitor", "ask") for p in ("store.put_if_absent", "store.fsync")),
    *(Spot("registration", f"mlflow.{name}", dag, task)
      for dag in _TRAININGS for task, names in _MLFLOW.items() for name in names),
    *(Spot("registration", f"server.{name}", "", "")
      for name in ("create_run", "create_logged_model", "finalize_logged_model", "create_model_version")),
    *(Spot("alias", "mlflow.set_registered_model_alias", dag, task, alias)
      for dag, task in (("buys.retrain", "rollout"), ("buys.operate", "roll_back"), ("buys.operate", "promote"))
      for alias in ("champion", "previous")),
    Spot("alias", "mlflow.set_registered_model_alias", "buys.train", "rollout", "champion"),
    Spot("alias", "server.set_registered_model_alias", "", "", times=4),
)  # fmt: skip

#: Who dies at a spot, and who at any moment; as often as it is named.
_AT_A_SPOT = ("task",) * 8 + ("worker",) * 4 + ("mlflow",) * 3 + ("scheduler", "api-server") * 2 + ("triggerer",)
_ANYWHERE = ("task",) * 3 + ("scheduler", "api-server", "mlflow", "triggerer", "dag-processor")


def plan(seed: int, life: int, spots: int = 6, anywhere: int = 2) -> list[Strike]:
    """The kills of one life: most at spots, one per step; some from outside, at any moment."""
    rng = random.Random(f"{seed}/{life}")
    strikes: list[Strike] = []
    steps: set[tuple[str, str]] = set()
    by_kind = {kind: [s for s in SPOTS if s.kind == kind] for kind in ("write", "registration", "alias")}
    while len(strikes) < spots:
        spot = rng.choice(by_kind[rng.choice(("write", "write", "registration", "alias"))])
        if (spot.dag, spot.task) in steps:
            continue
        steps.add((spot.dag, spot.task))
        server = spot.place.startswith("server.")
        victim = "mlflow" if server else rng.choice(_AT_A_SPOT)
        if victim == "mlflow" and not spot.place.startswith(("server.", "mlflow.")):
            victim = "task"
        when = "after" if server else rng.choice(("before", "during", "after"))
        strikes.append(
            {
                "id": f"{life:03d}-{len(strikes)}", "kind": spot.kind, "place": spot.place, "dag": spot.dag,
                "task": spot.task, "match": spot.match, "victim": victim, "when": when,
                "nth": rng.randint(1, spot.times), "skip": rng.randint(0, spot.runs - 1),
                "delay": round(rng.uniform(0, 0.04), 4),
                "hold": rng.choice((0, 60)) if victim == "worker" else 0,
            }
        )  # fmt: skip
    for n in range(anywhere):
        strikes.append(
            {
                "id": f"{life:03d}-x{n}", "kind": "any moment", "victim": rng.choice(_ANYWHERE),
                "runs": rng.randint(0, 24), "delay": round(rng.uniform(0, 2.5), 2), "choice": rng.randint(0, 99),
            }
        )  # fmt: skip
    return strikes
