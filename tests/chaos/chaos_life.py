"""One short life of a model on a running stack, told step by step; a run that failed is cleared once, as people do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import chaos_world as world

from perennial.errors import PerennialError
from perennial.local.rest import AirflowClient, AirflowError

Run = dict[str, Any]

_FINAL = ("success", "failed")


@dataclass
class Life:
    """What an upstream system, a scheduler and a person at the UI do, whatever is being killed meanwhile.

    :param client: patient enough for an API server that is being started again.
    :param hurt: whether something was killed so far: only then a failed run may be cleared.
    :param done: how many runs have ended well.
    """

    client: AirflowClient
    landing: Path
    hurt: Callable[[], bool] = lambda: False
    patience: float = 300.0
    cleared: list[str] = field(default_factory=list)
    done: int = 0
    say: Callable[[str], None] = lambda text: None

    def live(self) -> None:
        """Ingest, train, score, monitor, retrain, promote, roll back, promote again."""
        self.land("visits", "2024-01-01", "2024-02-18")
        self.land("outcomes", "2024-01-01", "2024-02-18")
        self.both("2024-01-01", "2024-02-18")
        self.end(self.start("buys.train", as_of="2024-02-19"))
        self.land("visits", "2024-02-19", "2024-03-24")
        self.land("outcomes", "2024-02-19", "2024-03-24")
        self.both("2024-02-19", "2024-03-23")
        self.backfill("buys.score", "2024-03-11", "2024-03-23")
        self.end(self.start("visits.ingest", key="2024-03-24"))
        self.end(self.by_event("buys.score", "2024-03-24"))
        self.end(self.by_event("buys.monitor", "2024-03-24"))
        self.end(self.start("outcomes.ingest", key="2024-03-24"))
        self.end(self.by_event("buys.monitor", "2024-03-24", nth=2))
        self.end(self.by_event("buys.retrain", "2024-03-24"))
        self.end(self.start("buys.operate", action="roll_back", reason="chaos: show a rollback"))
        self.end(self.start("buys.operate", action="promote", version=2, reason="chaos: and back again"))

    def land(self, feed: str, first: str, last: str) -> None:
        """Deliver days of a feed."""
        world.land(self.landing, feed, date.fromisoformat(first), date.fromisoformat(last))

    def both(self, first: str, last: str) -> None:
        """Ingest a history of both feeds at once."""
        form = {"from": first, "to": last, "announce": "none"}
        for run in [self.start(f"{feed}.ingest", **form) for feed in world.FEEDS]:
            self.end(run)

    def start(self, dag_id: str, key: str | None = None, **conf: Any) -> Run:
        """Start a run by hand. It is named here, so that asking again starts no second one."""
        known = self.insist(lambda: self.client.runs(dag_id, run_type="manual"))
        run_id = f"chaos__{len(known) + 1}"

        def ask() -> Run:
            try:
                return self.client.trigger(dag_id, conf=conf, partition_key=key, run_id=run_id)
            except AirflowError as e:
                if e.status == 409:
                    return self.client.run(dag_id, run_id)
                raise

        return self.insist(ask)

    def insist(self, ask: Callable[[], Any]) -> Any:
        """Ask again while the API server is away."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return ask()
            except AirflowError as e:
                if (e.status or 500) < 500 or time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def end(self, run: Run) -> Run:
        """Wait until a run has succeeded; one that failed after a kill is cleared once.

        :raises PerennialError: when it fails all the same, or does not end.
        """
        dag_id, run_id = run["dag_id"], run["dag_run_id"]
        name = f"{dag_id} {run.get('partition_key') or run_id}"
        deadline = time.monotonic() + self.patience
        while True:
            now: Run = self.insist(lambda: self.client.run(dag_id, run_id))
            if now["state"] == "success":
                self.done += 1
                self.say(f"{name} is done")
                return now
            if now["state"] == "failed":
                if name in self.cleared or not self.hurt():
                    raise PerennialError(f"{name} failed: {self.why(run)}")
                self.say(f"{name} failed and is cleared: {self.insist(lambda: self.why(run))}")
                self.cleared.append(name)
                self.insist(lambda: self.client.clear(dag_id, run_id, only_failed=True))
                deadline = time.monotonic() + self.patience
            if time.monotonic() > deadline:
                tasks = self.client.task_instances(dag_id, run_id)
                states = ", ".join(f"{t['task_id']} {t['state']}" for t in tasks)
                raise PerennialError(f"{name} is still {now['state']} after {self.patience:.0f} s: {states}")
            time.sleep(0.4)

    def why(self, run: Run) -> str:
        """The end of the log of the first failed task."""
        for t in self.client.task_instances(run["dag_id"], run["dag_run_id"]):
            if t["state"] == "failed":
                log = self.client.log(run["dag_id"], run["dag_run_id"], t["task_id"], max(1, t["try_number"]))
                return f"{t['task_id']} (try {t['try_number']}): {log[-600:]}"
        return "no task failed"

    def by_event(self, dag_id: str, key: str, nth: int = 1) -> Run:
        """The n-th run that events started for a key, the oldest being the first."""
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            runs = self.insist(lambda: self.client.runs(dag_id, run_type="asset_triggered"))
            found = [r for r in runs if r["partition_key"] == key]
            found.sort(key=lambda r: str(r["queued_at"] or r["run_after"]))
            if len(found) >= nth:
                return dict(found[nth - 1])
            time.sleep(0.4)
        raise PerennialError(f"no event started {dag_id} for {key} a {nth}. time within {self.patience:.0f} s")

    def backfill(self, dag_id: str, first: str, last: str) -> None:
        """A backfill, asked for once even when the answer was lost."""

        def ask() -> Any:
            known = self.client.backfills(dag_id)
            return known[0] if known else self.client.backfill(dag_id, first, last, max_active_runs=4)

        made = self.insist(ask)
        days = (date.fromisoformat(last) - date.fromisoformat(first)).days + 1
        deadline = time.monotonic() + self.patience
        while len(runs := self.insist(lambda: self.client.backfill_runs(dag_id, made["id"]))) < days:
            if time.monotonic() > deadline:
                raise PerennialError(f"the backfill of {dag_id} made {len(runs)} of {days} runs")
            time.sleep(0.5)
        for run in sorted(runs, key=lambda r: str(r["partition_key"])):
            self.end(run)
