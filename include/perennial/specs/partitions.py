"""Partition keys: which period a key names, when it is known, which keys lie between two others.

All of it follows from the feed: its grain, its time zone, its delay, its start and end. Instants are aware datetimes;
results are UTC. A day with a clock change has 23 or 25 hours. Keys of one grain sort as their periods do.

A feed has the periods that lie wholly between its start and end: half a week is not comparable with whole ones.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo

from perennial.errors import UsageError
from perennial.specs.feeds import FeedSpec
from perennial.specs.grains import GRAINS, Grain
from perennial.specs.values import ONE_DAY


def grain_of(feed: FeedSpec) -> Grain:
    """The grain of a feed's partitions."""
    return GRAINS[feed.every]


def parse_key(feed: FeedSpec, key: str) -> dt.date:
    """When the partition ``key`` begins: its first local day, or, for an hour, its begin (a naive datetime, UTC).

    :raises UsageError: with one sentence that shows what a key looks like.
    """
    begin = _begin(feed, _number(feed, key))
    return begin if feed.every == "hour" else begin.date()


def key_of(instant: dt.datetime, feed: FeedSpec) -> str:
    """Key of the partition that an instant falls into."""
    return grain_of(feed).format(grain_of(feed).number(_wall(feed, instant)))


def period(feed: FeedSpec, key: str) -> tuple[dt.datetime, dt.datetime]:
    """Begin and (exclusive) end of a partition, in UTC."""
    number = _number(feed, key)
    return _instant(feed, _begin(feed, number)), _instant(feed, _begin(feed, number + 1))


def known_at_instant(feed: FeedSpec, key: str) -> dt.datetime:
    """When a partition is complete: its end plus the feed's delay, in UTC.

    Whole days of the delay are local calendar days, as partitions are; the rest is elapsed time. So ``P1D`` after
    Saturday is midnight after Sunday, also where clocks change that Sunday.
    """
    days, rest = _delay(feed)
    end = _begin(feed, _number(feed, key) + 1)
    try:
        return _instant(feed, end + days) + rest
    except OverflowError:
        raise _outside(feed, key) from None


def shift(feed: FeedSpec, key: str, n: int) -> str:
    """The key ``n`` partitions later (earlier, when negative)."""
    try:
        return grain_of(feed).format(_number(feed, key) + n)
    except (OverflowError, ValueError):
        raise UsageError(f"{n} partitions from {key} lie outside the calendar of {feed.name}") from None


def next_key(feed: FeedSpec, key: str) -> str:
    """The key after this one."""
    return shift(feed, key, 1)


def keys_between(feed: FeedSpec, first: str, last: str) -> list[str]:
    """All keys from ``first`` to ``last``, both included; none when ``last`` lies before ``first``."""
    return [grain_of(feed).format(n) for n in range(_number(feed, first), _number(feed, last) + 1)]


def keys_of_days(feed: FeedSpec, first: dt.date, last: dt.date) -> list[str]:
    """Keys of the partitions that lie wholly within these local days, both included."""
    return [grain_of(feed).format(n) for n in range(_first_number(feed, first), _last_number(feed, last) + 1)]


def last_key_known(feed: FeedSpec, as_of: dt.datetime) -> str | None:
    """The latest partition that is complete at ``as_of``, between the feed's start and end; None before the first."""
    days, rest = _delay(feed)
    number = grain_of(feed).number(_wall(feed, _aware(as_of) - rest) - days) - 1
    if feed.end is not None:
        number = min(number, _last_number(feed, feed.end))
    return grain_of(feed).format(number) if number >= _first_number(feed, feed.start) else None


def keys_known(feed: FeedSpec, as_of: dt.datetime, first: str | None = None) -> list[str]:
    """All partitions that are complete at ``as_of``, from ``first`` on (at the earliest, and by default, the start)."""
    last = last_key_known(feed, as_of)
    if last is None:
        return []
    start = first_key(feed)
    return keys_between(feed, max(first, start) if first and parse_key(feed, first) else start, last)


def first_key(feed: FeedSpec, since: dt.date | None = None) -> str:
    """The feed's first partition; with ``since``, the first that begins on that day or later."""
    return grain_of(feed).format(_first_number(feed, max(feed.start, since or feed.start)))


def last_key(feed: FeedSpec) -> str | None:
    """The feed's last partition; None when it has no end."""
    return None if feed.end is None else grain_of(feed).format(_last_number(feed, feed.end))


def first_day(feed: FeedSpec, key: str) -> dt.date:
    """The local day on which the partition begins."""
    return _begin(feed, _number(feed, key)).date()


def last_day(feed: FeedSpec, key: str) -> dt.date:
    """The last local day that is over when the partition ends (of an hour before midnight: the day before)."""
    return _begin(feed, _number(feed, key) + 1).date() - ONE_DAY


def day_begins(feed: FeedSpec, day: dt.date) -> dt.datetime:
    """When a local day of the feed's zone begins, in UTC."""
    return _instant(feed, dt.datetime.combine(day, dt.time()))


def in_range(feed: FeedSpec, key: str) -> bool:
    """Does the feed have this partition at all (wholly between its start and end)?"""
    number = _number(feed, key)
    return _first_number(feed, feed.start) <= number and (feed.end is None or number <= _last_number(feed, feed.end))


def block_of(feed: FeedSpec, key: str) -> str:
    """The block that a partition belongs to (see :attr:`Grain.block`): itself; of an hour, its day."""
    return key[:10] if feed.every == "hour" else key


def last_of_block(feed: FeedSpec, key: str) -> str | None:
    """The newest partition up to ``key`` that ends a block; None when there is none in the calendar."""
    grain = grain_of(feed)
    number = (_number(feed, key) + 1) // grain.per_block * grain.per_block - 1
    return grain.format(number) if number >= 0 else None


def _number(feed: FeedSpec, key: str) -> int:
    try:
        return grain_of(feed).parse(key)
    except (ValueError, TypeError):
        said = f"write {grain_of(feed).one} such as {first_key(feed)}"
        raise UsageError(f"{key} is not a partition of {feed.name}: {said}") from None


def _first_number(feed: FeedSpec, day: dt.date) -> int:
    """The first period that begins on a day or later."""
    midnight = dt.datetime.combine(day, dt.time())
    number = grain_of(feed).number(midnight)
    return number if grain_of(feed).begin(number) == midnight else number + 1


def _last_number(feed: FeedSpec, day: dt.date) -> int:
    """The last period that has ended when a day is over."""
    return grain_of(feed).number(dt.datetime.combine(day, dt.time()) + ONE_DAY) - 1


def _begin(feed: FeedSpec, number: int) -> dt.datetime:
    try:
        return grain_of(feed).begin(number)
    except (OverflowError, ValueError):
        raise _outside(feed, grain_of(feed).format(number - 1)) from None


def _outside(feed: FeedSpec, key: str) -> UsageError:
    return UsageError(f"the end of {key} lies outside the calendar of {feed.name}")


def _delay(feed: FeedSpec) -> tuple[dt.timedelta, dt.timedelta]:
    """The feed's delay as whole days and the rest."""
    days = dt.timedelta(days=feed.delay.days)
    return days, feed.delay - days


def _instant(feed: FeedSpec, wall: dt.datetime) -> dt.datetime:
    """The instant at which local clocks show ``wall``, in UTC.

    Where clocks go forward at midnight, 00:00 does not exist; fold 0 then gives the instant of the change, which is
    when the day begins. Where midnight comes twice, fold 0 is the first of them.
    """
    return wall.replace(tzinfo=zoneinfo.ZoneInfo(feed.timezone)).astimezone(dt.UTC)


def _wall(feed: FeedSpec, instant: dt.datetime) -> dt.datetime:
    """What local clocks show at an instant."""
    return _aware(instant).astimezone(zoneinfo.ZoneInfo(feed.timezone)).replace(tzinfo=None)


def _aware(instant: dt.datetime) -> dt.datetime:
    if instant.tzinfo is None:
        raise UsageError(f"{instant} has no time zone: write 2013-04-01T06:00:00Z")
    return instant
