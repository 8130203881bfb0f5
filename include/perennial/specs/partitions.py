"""Partition keys: which period a key names, when it is known, which keys lie between two others.

All of it follows from the feed: its grain, its time zone, its delay, its start and end. Instants are aware datetimes;
results are UTC. A day with a clock change has 23 or 25 hours.
"""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from collections.abc import Iterator

from perennial.errors import UsageError
from perennial.specs.models import FeedSpec

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def parse_key(feed: FeedSpec, key: str) -> dt.date:
    """First local day of the partition ``key``.

    :raises UsageError: with one sentence that shows what a key looks like.
    """
    _only_days(feed)
    try:
        if _DAY.fullmatch(key):
            return dt.date.fromisoformat(key)
    except (ValueError, TypeError):
        pass
    raise UsageError(f"{key} is not a partition of {feed.name}: write a day such as {feed.start}")


def key_of(instant: dt.datetime, feed: FeedSpec) -> str:
    """Key of the partition that an instant falls into."""
    _only_days(feed)
    return _aware(instant).astimezone(_zone(feed)).date().isoformat()


def period(feed: FeedSpec, key: str) -> tuple[dt.datetime, dt.datetime]:
    """Begin and (exclusive) end of a partition, in UTC."""
    day = parse_key(feed, key)
    return _midnight(feed, day), _midnight(feed, _step(feed, day, 1))


def known_at_instant(feed: FeedSpec, key: str) -> dt.datetime:
    """When a partition is complete: its end plus the feed's delay, in UTC.

    Whole days of the delay are local calendar days, as partitions are; the rest is elapsed time. So ``P1D`` after
    Saturday is midnight after Sunday, also where clocks change that Sunday.
    """
    days, rest = _delay(feed)
    return _midnight(feed, _step(feed, parse_key(feed, key), 1 + days)) + rest


def shift(feed: FeedSpec, key: str, n: int) -> str:
    """The key ``n`` partitions later (earlier, when negative)."""
    return _step(feed, parse_key(feed, key), n).isoformat()


def next_key(feed: FeedSpec, key: str) -> str:
    """The key after this one."""
    return shift(feed, key, 1)


def keys_between(feed: FeedSpec, first: str, last: str) -> list[str]:
    """All keys from ``first`` to ``last``, both included; none when ``last`` lies before ``first``."""
    return [day.isoformat() for day in _days(feed, parse_key(feed, first), parse_key(feed, last))]


def last_key_known(feed: FeedSpec, as_of: dt.datetime) -> str | None:
    """The latest partition that is complete at ``as_of``, between the feed's start and end; None before the first."""
    _only_days(feed)
    days, rest = _delay(feed)
    day = _step(feed, (_aware(as_of) - rest).astimezone(_zone(feed)).date(), -1 - days)
    if feed.end is not None and day > feed.end:
        day = feed.end
    return day.isoformat() if day >= feed.start else None


def keys_known(feed: FeedSpec, as_of: dt.datetime, first: str | None = None) -> list[str]:
    """All partitions that are complete at ``as_of``, from ``first`` on (at the earliest, and by default, the start)."""
    last = last_key_known(feed, as_of)
    if last is None:
        return []
    start = feed.start.isoformat()
    return keys_between(feed, max(first, start) if first and parse_key(feed, first) else start, last)


def in_range(feed: FeedSpec, key: str) -> bool:
    """Does the feed have this partition at all (between its start and end)?"""
    day = parse_key(feed, key)
    return feed.start <= day and (feed.end is None or day <= feed.end)


def _only_days(feed: FeedSpec) -> None:
    if feed.every != "day":
        raise UsageError(f"partitions of a {feed.every} ({feed.name}) are not available yet (allowed today: day)")


def _delay(feed: FeedSpec) -> tuple[int, dt.timedelta]:
    """The feed's delay as whole days and the rest."""
    return feed.delay.days, feed.delay - dt.timedelta(days=feed.delay.days)


def _zone(feed: FeedSpec) -> zoneinfo.ZoneInfo:
    return zoneinfo.ZoneInfo(feed.timezone)


def _midnight(feed: FeedSpec, day: dt.date) -> dt.datetime:
    """Begin of a local day, in UTC.

    Where clocks go forward at midnight, 00:00 does not exist; fold 0 then gives the instant of the change, which is
    when the day begins. Where midnight comes twice, fold 0 is the first of them.
    """
    return dt.datetime(day.year, day.month, day.day, tzinfo=_zone(feed)).astimezone(dt.UTC)


def _step(feed: FeedSpec, day: dt.date, n: int) -> dt.date:
    try:
        return day + dt.timedelta(days=n)
    except OverflowError:
        raise UsageError(f"{n} partitions from {day} lie outside the calendar of {feed.name}") from None


def _days(feed: FeedSpec, first: dt.date, last: dt.date) -> Iterator[dt.date]:
    day = first
    while day <= last:
        yield day
        day = _step(feed, day, 1)


def _aware(instant: dt.datetime) -> dt.datetime:
    if instant.tzinfo is None:
        raise UsageError(f"{instant} has no time zone: write 2013-04-01T06:00:00Z")
    return instant
