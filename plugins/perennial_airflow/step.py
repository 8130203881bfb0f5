"""What a task knows about itself: whose run it is, which key, as of when, and how to ask whether it may still act.

The one place that reads Airflow's context for the operators.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from perennial.errors import UsageError
from perennial.runs import Actor, RunState
from perennial.settings import settings
from perennial.specs import FeedSpec
from perennial.specs.partitions import in_range, known_at_instant, period

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
        _use_aws_connection()

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
        sources = [str(getattr(e, "source_run_id", "") or "") for e in self.events]
        return bool(sources) and all(s.startswith("backfill__") for s in sources)

    def require_key(self, feed: FeedSpec) -> str:
        """The run's key, checked.

        :raises UsageError: when the run has none, or one that is malformed, in the future or outside the feed.
        """
        if not self.key:
            raise UsageError(
                f"this run has no partition key: trigger {self.actor.dag_id} with one, such as {feed.start} "
                "(Advanced Options in the form)"
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

    @property
    def fence(self) -> Callable[[], None]:
        """One round trip to the supervisor. The orphan of a killed worker dies here instead of acting."""

        def fence() -> None:
            self.context["ti"].xcom_push(key="fence", value="alive")  # type: ignore[typeddict-item]

        return fence


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
        until = f" to {feed.end}" if feed.end else ""
        raise UsageError(f"{feed.name} has no partition {key}: it runs from {feed.start}{until}")
    if end > dt.datetime.now(dt.UTC):
        raise UsageError(f"{feed.name} {key} is in the future: it ends {end:%Y-%m-%d %H:%M} UTC; choose an earlier key")
    return key


def _use_aws_connection() -> None:
    """Hand the S3 credentials of an Airflow connection to the libraries of this task's process."""
    connection = settings().aws_conn_id
    if not connection or os.environ.get("PERENNIAL_AWS_APPLIED") == connection:
        return
    from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook

    hook: Any = AwsGenericHook(aws_conn_id=connection, client_type="s3")
    found = hook.get_credentials()
    os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = found.access_key, found.secret_key
    if found.token:
        os.environ["AWS_SESSION_TOKEN"] = found.token
    if hook.region_name:
        os.environ["AWS_REGION"] = hook.region_name
    if hook.conn_config.endpoint_url:
        os.environ["PERENNIAL_S3_ENDPOINT"] = hook.conn_config.endpoint_url
    os.environ["PERENNIAL_AWS_APPLIED"] = connection
