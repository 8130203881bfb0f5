"""Deferrable sensors: a partition's file has landed; a model's inputs are all in the lake.

They look once; if something is missing they defer to the triggerer, and give up with one sentence when it is late.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from perennial.errors import NotReadyError
from perennial.specs.partitions import known_at_instant
from perennial_airflow.operators.base import StepOperator
from perennial_airflow.operators.ingest import request, stored_feed
from perennial_airflow.step import Step
from perennial_airflow.triggers.waiting import PartitionTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class _WaitingOperator(StepOperator):
    """Waits for files or lake partitions until a deadline."""

    ui_color = "#e3e9f4"

    def wait(self, what: list[str], files: list[str], partitions: list[list[str]], deadline: dt.datetime) -> None:
        """Defer until all is there.

        :raises NotReadyError: when the deadline has passed already.
        """
        if deadline <= dt.datetime.now(dt.UTC):
            raise NotReadyError(self.late(what))
        self.log.info("waiting for %s until %s", ", ".join(what), deadline.isoformat(timespec="seconds"))
        self.defer(
            trigger=PartitionTrigger(files=files, partitions=partitions, deadline=deadline.isoformat()),
            method_name="arrived",
        )

    def late(self, what: list[str]) -> str:
        """The sentence for giving up."""
        return f"{', '.join(what)} had not landed when the wait ended: land it, then clear this task"

    def arrived(self, context: Context, event: dict[str, Any]) -> Any:
        """The trigger has fired."""
        if event["lacking"]:
            raise NotReadyError(self.late(event["lacking"]))
        return self.execute(context)


class LandingSensor(_WaitingOperator):
    """Wait for a partition's file; the first task of ingestion, which also keeps the run's copy of the spec.

    A history does not wait: what is not there is reported as missing. Gives up ``late_after`` the partition was due,
    or the run was asked for, whichever is later.
    """

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.lake.landing import has_landed, landing_path

        asked = request(step, self.name)
        feed = stored_feed(step)
        keys = asked["keys"]
        if not asked["history"] and not has_landed(feed, keys[0]):
            due = max(known_at_instant(feed, keys[0]), step.run_after)
            self.wait([f"{feed.name} {keys[0]}"], [landing_path(feed, keys[0])], [], due + feed.source.late_after)
        return {"partitions": len(keys), "first": keys[0], "last": keys[-1], "announce": asked["announce"]}
