"""Landing against lake: files that came and were never ingested, and partitions that never came.

A run that was lost (an event to a paused DAG, a stack that was down when the sensor gave up) leaves no trace of its
own; this finds what it should have done.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perennial.errors import UsageError
from perennial.housekeeping.expiry import expired_keys
from perennial.lake.homes import feed_table
from perennial.lake.landing import raw_bytes
from perennial.ledger import Ledger
from perennial.settings import settings
from perennial.specs import FeedSpec
from perennial.specs.partitions import in_range, keys_between, last_key_known, period
from perennial.storage import open_store

#: A file that landed less than this long ago has a run of its own on the way.
SETTLED = dt.timedelta(hours=1)
#: More than this is a history that somebody means to load, and not something that was missed: nobody is asked.
MOST = 10


@dataclass(frozen=True)
class Missed:
    """What one feed's lake lacks.

    :param landed: partitions whose file is there, that the lake does not have, and that nobody refused.
    :param absent: partitions before the newest that never landed and are not in the lake.
    :param ask: those of ``landed`` that ingestion is asked for.
    """

    feed: str
    landed: tuple[str, ...]
    absent: tuple[str, ...]

    @property
    def ask(self) -> tuple[str, ...]:
        return self.landed if len(self.landed) <= MOST else ()

    @property
    def sentence(self) -> str:
        """What is to be said of it; empty when nothing was missed."""
        parts = []
        if self.landed:
            done = "ingestion is asked for them" if self.ask else f"trigger {self.feed}.ingest with from and to"
            parts.append(f"{_some(self.landed)} landed and were not ingested: {done}")
        if self.absent:
            parts.append(f"{_some(self.absent)} never landed")
        return f"{self.feed}: {'; '.join(parts)}" if parts else ""

    def to_dict(self) -> dict[str, Any]:
        return {"feed": self.feed, "landed": list(self.landed), "absent": list(self.absent)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Missed:
        return cls(value["feed"], tuple(value["landed"]), tuple(value["absent"]))


def find_missed(feed: FeedSpec, ledger: Ledger, *, now: dt.datetime | None = None) -> Missed:
    """Compare what landed with what the lake has."""
    now = now or dt.datetime.now(dt.UTC)
    there = feed_table(feed).partitions()
    landed = {k for k, at in landed_keys(feed).items() if at <= now - SETTLED}
    past = {k for k in landed if in_range(feed, k) and period(feed, k)[1] <= now}
    # what retention took out of the lake was ingested once
    gone = set(expired_keys(feed, {*past, *there}, feed.retention.rows))
    waiting = sorted(k for k in past - set(there) - gone if not _refused(feed, k, ledger))
    absent: list[str] = []
    if there:
        last = last_key_known(feed, now)
        until = min(max(there), last) if last else max(there)
        absent = [k for k in keys_between(feed, min(there), until) if k not in there and k not in landed]
    return Missed(feed.name, tuple(waiting), tuple(absent))


def landed_keys(feed: FeedSpec) -> dict[str, dt.datetime]:
    """Keys of all files that lie where the feed's spec says, and when they were written."""
    before, _, after = feed.source.path.partition("{partition}")
    folder = before.rpartition("/")[0]
    pattern = re.compile(f"{re.escape(before)}([^/]+){re.escape(after)}")
    found: dict[str, dt.datetime] = {}
    for key, _, at in open_store(settings().landing).sizes(folder):
        match = pattern.fullmatch(key)
        if match is None or match[1].startswith("."):
            continue
        try:
            period(feed, match[1])
        except UsageError:
            continue  # a file of another name
        found[match[1]] = at
    return found


def _refused(feed: FeedSpec, key: str, ledger: Ledger) -> bool:
    """Whether just this file was judged and refused; one that was delivered anew since was not."""
    verdicts = [e for e in ledger.find(feed.name, event="ingestion", partition=key) if e.digests.get("file")]
    return bool(verdicts) and verdicts[-1].digests["file"] == hashlib.sha256(raw_bytes(feed, key)).hexdigest()


def _some(keys: tuple[str, ...]) -> str:
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return ", ".join(keys[:5]) + more
