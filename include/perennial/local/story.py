"""Tells a story with real runs: lands files, triggers DAGs, follows them live, and says how each ended."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, TextIO

from perennial.errors import PerennialError
from perennial.local.landing import Feed, LandingSimulator
from perennial.local.rest import AirflowClient, AirflowError

_DONE = {"success", "failed"}


class StoryError(PerennialError):
    """A run ended otherwise than the story needs."""


@dataclass
class Narrator:
    """Says what happens: lines for the record, and on a terminal one live line for what runs now."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    began: float = field(default_factory=time.monotonic)
    _live: str = ""
    _said: float = 0.0

    @property
    def seconds(self) -> float:
        """Since the story began."""
        return time.monotonic() - self.began

    def chapter(self, title: str) -> None:
        """A heading."""
        self._clear()
        self._write(f"\n[{self.seconds:5.1f} s] {title}\n")

    def line(self, text: str) -> None:
        """Something that stays."""
        self._clear()
        self._write(f"[{self.seconds:5.1f} s]   {text}\n")

    def live(self, text: str) -> None:
        """What runs now: one line that is written over; without a terminal, a line every ten seconds."""
        if self.out.isatty():
            self._clear()
            self._live = text[:118]
            self._write(f"[{self.seconds:5.1f} s]   {self._live}")
        elif text != self._live and time.monotonic() - self._said > 10:
            self._live, self._said = text, time.monotonic()
            self._write(f"[{self.seconds:5.1f} s]   ... {text}\n")

    def _clear(self) -> None:
        if self._live and self.out.isatty():
            self._write("\r\x1b[2K")
        self._live = ""

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()


@dataclass(frozen=True)
class Story:
    """Hands of the story: what an upstream system, a scheduler and a person at the UI would do."""

    client: AirflowClient
    landing: LandingSimulator
    tell: Narrator
    patience: float = 900.0

    def land(self, feeds: Sequence[Feed], first: str, last: str) -> None:
        """Let an upstream system deliver days of some feeds."""
        rows = sum(self.landing.land(feed, first, last) for feed in feeds)
        self.tell.line(f"landed {', '.join(feeds)} of {first} to {last}: {rows:,} rows")

    def history(self, spans: Mapping[Feed, tuple[str, str]]) -> None:
        """Ingest histories of some feeds at once, through the form, announcing none."""
        runs = [
            self.trigger(f"{feed}.ingest", **{"from": first, "to": last, "announce": "none"})
            for feed, (first, last) in spans.items()
        ]
        self.follow(runs)
        for run in runs:
            for task in ("commit", "quarantine_rows"):
                done = self._xcom(run, task)
                if done:
                    self.tell.line(f"{run['dag_id']}: {task} {done['partitions']} partitions")
            for refused in self._xcom(run, "quarantine_batch") or []:
                what = "missing" if refused["verdict"] == "missing" else "refused"
                self.tell.line(f"{run['dag_id']}: {what} {refused['partition']}: {refused['reason']}")

    def trigger(self, dag_id: str, *, key: str | None = None, **conf: Any) -> dict[str, Any]:
        """Start a run, as the form would. The run is named here, so that asking again never starts a second one."""
        run_id = f"manual__{datetime.now(UTC).isoformat()}__{secrets.token_hex(3)}"
        for attempt in range(5):
            try:
                return self.client.trigger(dag_id, conf=conf, partition_key=key, run_id=run_id)
            except AirflowError as e:
                if e.status == 409 and attempt:
                    return self.client.run(dag_id, run_id)  # the first request had gone through
                if e.status not in (None, 500) or attempt == 4:
                    raise
                time.sleep(1)
        raise AssertionError("unreachable")

    def follow(self, runs: Sequence[Mapping[str, Any]], need: str = "success") -> list[dict[str, Any]]:
        """Wait for runs, showing what they do.

        :raises StoryError: when one ends otherwise than ``need``.
        """
        ended = [self._wait(run) for run in runs]
        for run in ended:
            if run["state"] != need:
                raise StoryError(f"{run['dag_id']} {run['dag_run_id']} ended {run['state']}: {self.why(run)}")
        return ended

    def _wait(self, run: Mapping[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + self.patience
        dag_id, run_id = run["dag_id"], run["dag_run_id"]
        while True:
            now = self.client.run(dag_id, run_id)
            if now["state"] in _DONE:
                return now
            if time.monotonic() > deadline:
                raise StoryError(f"{dag_id} {run_id} is still {now['state']} after {self.patience:.0f} s")
            tasks = self.client.task_instances(dag_id, run_id)
            running = [t["task_id"] for t in tasks if t["state"] in ("running", "deferred", "up_for_retry", "queued")]
            key = f" {now['partition_key']}" if now.get("partition_key") else ""
            self.tell.live(f"{dag_id}{key}: {', '.join(running) or 'next task'}")
            time.sleep(0.4)

    def settle(self, run: Mapping[str, Any], *, give_up_when_deferred: bool = False) -> dict[str, Any]:
        """Wait for a run to end either way; with ``give_up_when_deferred`` also for it to wait for something."""
        dag_id, run_id = run["dag_id"], run["dag_run_id"]
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            now = self.client.run(dag_id, run_id)
            tasks = self.client.task_instances(dag_id, run_id)
            if now["state"] in _DONE or (give_up_when_deferred and any(t["state"] == "deferred" for t in tasks)):
                return now
            time.sleep(0.4)
        raise StoryError(f"{dag_id} {run_id} has not settled after {self.patience:.0f} s")

    def note(self, run: Mapping[str, Any]) -> str:
        """What a run that has not succeeded is about: the task that waits, or the end of the failed one's log."""
        for t in self.client.task_instances(run["dag_id"], run["dag_run_id"]):
            if t["state"] == "deferred":
                log = self.client.log(run["dag_id"], run["dag_run_id"], t["task_id"], max(1, t["try_number"]))
                return next((ln.split("]")[-1].strip() for ln in log.splitlines() if "waiting for" in ln), "waiting")
        return self.why(run) if run["state"] == "failed" else "published"

    def backfill(self, dag_id: str, first: str, last: str, parallel: int = 8, **conf: Any) -> list[dict[str, Any]]:
        """A real Airflow backfill over days, followed partition by partition; ``conf`` fills in the form."""
        days = (date.fromisoformat(last) - date.fromisoformat(first)).days + 1
        began = time.monotonic()
        made = self.client.backfill(dag_id, first, last, max_active_runs=parallel, conf=conf)
        while True:
            runs = self.client.backfill_runs(dag_id, made["id"])
            mine = [r for r in runs if first <= (r.get("partition_key") or "") <= last]
            done = [r for r in mine if r["state"] in _DONE]
            active = sorted(r["partition_key"] for r in mine if r["state"] == "running")
            self.tell.live(f"{dag_id}: {len(done)} of {days} partitions, now {', '.join(active[:3])}")
            if len(mine) == days and len(done) == days:
                break
            if time.monotonic() - began > self.patience:
                raise StoryError(
                    f"the backfill of {dag_id} has {len(done)} of {days} partitions after {self.patience:.0f} s"
                )
            time.sleep(0.5)
        failed = [r for r in mine if r["state"] == "failed"]
        if failed:
            raise StoryError(f"{dag_id} {failed[0]['partition_key']} failed: {self.why(failed[0])}")
        took = time.monotonic() - began
        self.tell.line(f"{dag_id}: backfilled {days} partitions in {took:.0f} s ({60 * days / took:.0f} a minute)")
        return mine

    def started_by_event(self, dag_id: str, key: str, wait: float = 60.0) -> dict[str, Any]:
        """The run that an asset event started for a key.

        :raises StoryError: when none appears.
        """
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            for run in self.client.runs(dag_id):
                if run["run_type"] == "asset_triggered" and run.get("partition_key") == key:
                    return dict(run)
            self.tell.live(f"{dag_id}: waiting for the event to start it")
            time.sleep(0.4)
        raise StoryError(f"no event started {dag_id} for {key} within {wait:.0f} s")

    def branch(self, run: Mapping[str, Any], among: Sequence[str]) -> str:
        """Which of some tasks ran."""
        tasks = {t["task_id"]: t["state"] for t in self.client.task_instances(run["dag_id"], run["dag_run_id"])}
        return next((t for t in among if tasks.get(t) == "success"), "none")

    def verdict(self, run: Mapping[str, Any]) -> str:
        """The decision of a training or retraining run, in a line."""
        found = self._xcom(run, "evaluate") or self._xcom(run, "train.evaluate")
        if not found:
            return f"{run['dag_id']}: no decision ({self.branch(run, ['declined'])})"
        return f"{run['dag_id']}: {found['verdict'].upper()}: {found['reason']}"

    def why(self, run: Mapping[str, Any]) -> str:
        """The end of the log of a run's first failed task."""
        for t in self.client.task_instances(run["dag_id"], run["dag_run_id"]):
            if t["state"] == "failed":
                log = self.client.log(run["dag_id"], run["dag_run_id"], t["task_id"], max(1, t["try_number"]))
                lines = [ln for ln in log.splitlines() if "error" in ln.lower() or "exc_value" in ln]
                return f"task {t['task_id']}: {' '.join(lines[-3:])[-1500:] or log[-1500:]}"
        return "no task failed"

    def _xcom(self, run: Mapping[str, Any], task: str) -> Any:
        try:
            return self.client.xcom(run["dag_id"], run["dag_run_id"], task)
        except PerennialError:
            return None  # the branch without this task was taken


def days(first: str, last: str) -> list[str]:
    """All days from first to last."""
    a, b = date.fromisoformat(first), date.fromisoformat(last)
    return [(a + timedelta(days=i)).isoformat() for i in range((b - a).days + 1)]
