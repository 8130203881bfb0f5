"""What a task knows about itself: whose run it is, which key, as of when, and how to ask whether it may still act.

The one place that reads Airflow's context for the operators.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from perennial.errors import UsageError
from perennial.runs import Actor, RunState
from perennial.specs import FeedSpec
from perennial.specs.partitions import first_key, in_range, known_at_instant, last_key, period
from perennial_airflow import aws

if TYPE_CHECKING:
    from airflow.sdk import Context

    from perennial.ledger import Ledger
    from perennial.specs.loader import SpecSet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One task of one run."""

    context: Context

    def __post_init__(self) -> None:
        aws.use_connection()

    @property
    def run(self) -> Any:
        """Airflow's DAG run."""
        return self.context["dag_run"]  # type: ignore[typeddict-item]

    @cached_property
    def actor(self) -> Actor:
        """Who acts, for ledger entries and run state."""
        user = getattr(self.run, "triggering_user_name", None)
        return Actor(self.run.dag_id, self.run.run_id, self.context["ti"].task_id, user)  # type: ignore[typeddict-item]

    @cached_property
    def state(self) -> RunState:
        """Documents that the run's tasks share."""
        return RunState(self.actor)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger."""
        from perennial.ledger import Ledger

        return Ledger()

    @property
    def params(self) -> dict[str, Any]:
        """What the form says."""
        return dict(self.context["params"])  # type: ignore[typeddict-item]

    @property
    def key(self) -> str | None:
        """The run's partition key."""
        return getattr(self.run, "partition_key", None)

    @property
    def run_after(self) -> dt.datetime:
        """The run's own instant: never the clock, so that clearing a run changes nothing."""
        found: dt.datetime = self.run.run_after
        return found

    @property
    def events(self) -> list[Any]:
        """The asset events that started the run."""
        return list(getattr(self.run, "consumed_asset_events", None) or [])

    @property
    def started_by_backfill(self) -> bool:
        """Whether the run is part of a backfill, or was started by what a backfill published."""
        if str(self.run.run_id).startswith("backfill__"):
            return True
        return bool(self.events) and all(_from_backfill(e) for e in self.events)

    def pass_on(self, event: Any) -> None:
        """Mark an outlet event as a backfill's when this run is, so that the mark survives every hop."""
        if self.started_by_backfill:
            event.extra = {**(event.extra or {}), "backfill": True}

    def require_key(self, feed: FeedSpec) -> str:
        """The run's key, checked.

        :raises UsageError: when the run has none, or one that is malformed, in the future or outside the feed.
        """
        if not self.key:
            raise UsageError(
                f"this run has no partition key: trigger {self.actor.dag_id} with one, such as {first_key(feed)} "
                "(Advanced Options in the form)"
            )
        _, end = period(feed, self.key)
        if self.started_by_backfill and end > dt.datetime.now(dt.UTC):
            from airflow.sdk.exceptions import AirflowSkipException

            raise AirflowSkipException(
                f"{feed.name} {self.key} is in the future (it ends {end:%Y-%m-%d %H:%M} UTC), so this backfill's run "
                "does nothing: its own run comes when the period has ended"
            )
        return check_key(feed, self.key)

    def as_of(self, feed: FeedSpec, label_feeds: dict[str, FeedSpec] | None = None) -> dt.datetime:
        """Up to when the run knows things: the form; else the end of its key plus the delay of the feed whose event
        started it; else the run's own instant.

        :param feed: the entity feed.
        :param label_feeds: other feeds whose events start this DAG, by name.
        """
        from perennial.training.plan import resolve_as_of

        said = self.params.get("as_of")
        extras = [getattr(event, "extra", None) or {} for event in self.events]
        for text in (said, *(extra.get("as_of") for extra in extras)):
            if text:
                instant = resolve_as_of(str(text), self.run_after, feed)
                if instant > dt.datetime.now(dt.UTC):
                    raise UsageError(f"as_of {text} is in the future: nothing is known then yet; choose an earlier one")
                return instant
        if self.key:
            instants = [period(feed, self.key)[1]]
            for event in self.events:
                other = (label_feeds or {}).get(event.asset.name)
                if other is not None:
                    instants.append(known_at_instant(other, self.key))
            return max(instants)
        return self.run_after.astimezone(dt.UTC)

    def skip_if_paused(self, model: str, key: str | None = None) -> None:
        """End the run here, as skipped, while the model is paused; a partition goes on the list of what to make up for.

        Airflow's own pause would lose the keyed events that arrive meanwhile.
        """
        from airflow.sdk.exceptions import AirflowSkipException

        from perennial.registry.pause import paused, record_skip

        since = paused(self.ledger, model)
        if since is None:
            return
        if key is not None:
            record_skip(self.ledger, model, key, since, self.actor, self.fence)
        who, when = since.actor.get("user") or "somebody", since.at[:16].replace("T", " ")
        raise AirflowSkipException(
            f"{model} has been paused since {when} UTC by {who} ({since.reason}), so nothing was done: "
            "resume it with the action resume of its operate DAG"
        )

    @property
    def fence(self) -> Callable[[], None]:
        """One round trip to the supervisor. The orphan of a killed worker dies here instead of acting."""

        def fence() -> None:
            self.context["ti"].xcom_push(key="fence", value="alive")  # type: ignore[typeddict-item]

        return fence


def _from_backfill(event: Any) -> bool:
    extra = getattr(event, "extra", None) or {}
    return bool(extra.get("backfill")) or str(getattr(event, "source_run_id", "") or "").startswith("backfill__")


def live_specs(name: str) -> SpecSet:
    """The spec of a feed or model with all that it names; a broken one stands as it last was good, with a warning."""
    from perennial.specs.loader import load_live_specs

    found = load_live_specs(only=name)
    for e in found.errors:
        if (e.kind, e.name) in found.stale:
            log.warning("the %s %s is broken and stands as it last was good: %s", e.kind, e.name, e.message)
    return found


def check_key(feed: FeedSpec, key: str) -> str:
    """A partition key that exists and has ended.

    :raises UsageError: saying what is wrong with it.
    """
    _, end = period(feed, key)
    if not in_range(feed, key):
        until = f" to {last_key(feed)}" if feed.end else ""
        raise UsageError(f"{feed.name} has no partition {key}: it runs from {first_key(feed)}{until}")
    if end > dt.datetime.now(dt.UTC):
        raise UsageError(f"{feed.name} {key} is in the future: it ends {end:%Y-%m-%d %H:%M} UTC; choose an earlier key")
    return key
