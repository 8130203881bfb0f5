"""Hours, days, weeks, months, years: keys, steps, what is known when."""

from __future__ import annotations

import datetime as dt
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.errors import UsageError
from perennial.specs import FeedSpec, partitions
from perennial.specs.durations import parse_duration
from perennial.specs.grains import GRAINS, Every, Grain

pytestmark = pytest.mark.fast

EVERY = sorted(get_args(Every))
ZONES = ["UTC", "America/New_York", "Europe/London", "Australia/Lord_Howe", "America/Sao_Paulo"]


def feed(every: str, zone: str = "America/New_York", **changes: object) -> FeedSpec:
    said: dict[str, object] = {
        "version": 1,
        "name": "sales",
        "owner": "x",
        "every": every,
        "timezone": "UTC" if every == "hour" else zone,
        "start": "2013-01-01",
        "source": {"path": "f/{partition}.csv"},
        "columns": {"id": "string"},
        "key": ["id"],
    }
    return FeedSpec.model_validate(said | changes)


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def test_every_grain_has_a_calendar() -> None:
    assert sorted(GRAINS) == EVERY
    assert all(isinstance(g, Grain) and g.every == name for name, g in GRAINS.items())


@pytest.mark.parametrize(
    ("every", "key", "begin", "end"),
    [
        ("hour", "2013-01-01T05", "2013-01-01T05:00", "2013-01-01T06:00"),
        ("hour", "2013-12-31T23", "2013-12-31T23:00", "2014-01-01T00:00"),
        ("hour", "2012-02-29T00", "2012-02-29T00:00", "2012-02-29T01:00"),
        ("day", "2012-02-29", "2012-02-29T05:00", "2012-03-01T05:00"),
        ("week", "2013-W01", "2012-12-31T05:00", "2013-01-07T05:00"),
        ("week", "2013-W10", "2013-03-04T05:00", "2013-03-11T04:00"),
        ("week", "2015-W53", "2015-12-28T05:00", "2016-01-04T05:00"),
        ("week", "2016-W01", "2016-01-04T05:00", "2016-01-11T05:00"),
        ("month", "2013-03", "2013-03-01T05:00", "2013-04-01T04:00"),
        ("month", "2012-02", "2012-02-01T05:00", "2012-03-01T05:00"),
        ("month", "2013-12", "2013-12-01T05:00", "2014-01-01T05:00"),
        ("year", "2013", "2013-01-01T05:00", "2014-01-01T05:00"),
    ],
)
def test_a_key_names_a_local_period(every: str, key: str, begin: str, end: str) -> None:
    assert partitions.period(feed(every), key) == (utc(begin), utc(end))
    assert partitions.key_of(utc(begin), feed(every)) == key
    assert partitions.key_of(utc(end) - dt.timedelta(seconds=1), feed(every)) == key


@pytest.mark.parametrize(
    ("every", "key", "after"),
    [
        ("hour", "2013-01-31T23", "2013-02-01T00"),
        ("hour", "2013-03-10T06", "2013-03-10T07"),
        ("week", "2012-W52", "2013-W01"),
        ("week", "2015-W52", "2015-W53"),
        ("week", "2015-W53", "2016-W01"),
        ("month", "2013-12", "2014-01"),
        ("year", "2012", "2013"),
    ],
)
def test_the_next_key_crosses_years(every: str, key: str, after: str) -> None:
    assert partitions.next_key(feed(every), key) == after
    assert partitions.shift(feed(every), after, -1) == key


@pytest.mark.parametrize(
    ("every", "key"),
    [
        ("hour", "2013-01-01T24"),
        ("hour", "2013-01-01"),
        ("hour", "2013-01-01T05:00"),
        ("hour", "2013-01-01 05"),
        ("week", "2013-W53"),
        ("week", "2013-W00"),
        ("week", "2013-W1"),
        ("week", "2013W01"),
        ("week", "2013-01-07"),
        ("month", "2013-13"),
        ("month", "2013-1"),
        ("month", "2013-W01"),
        ("year", "13"),
        ("year", "0000"),
        ("year", "２０１３"),
    ],
)
def test_what_is_not_a_key_is_answered_with_one_that_is(every: str, key: str) -> None:
    example = {"hour": "2013-01-01T00", "week": "2013-W02", "month": "2013-01", "year": "2013"}[every]
    with pytest.raises(UsageError) as caught:
        partitions.period(feed(every), key)
    an = "an" if every == "hour" else "a"
    assert str(caught.value) == f"{key} is not a partition of sales: write {an} {every} such as {example}"


@pytest.mark.parametrize("every", EVERY)
def test_the_calendar_ends_with_a_sentence(every: str) -> None:
    f = feed(every, "UTC")
    last = partitions.key_of(dt.datetime(9999, 12, 31, 23, 30, tzinfo=dt.UTC), f)
    for call in (
        lambda: partitions.next_key(f, last),
        lambda: partitions.period(f, last),
        lambda: partitions.known_at_instant(f, last),
    ):
        with pytest.raises(UsageError, match="outside the calendar of sales"):
            call()


@pytest.mark.parametrize(
    ("every", "start", "end", "first", "last", "outside"),
    [
        ("hour", "2013-01-01", "2013-01-31", "2013-01-01T00", "2013-01-31T23", "2013-02-01T00"),
        ("week", "2013-01-01", "2013-12-31", "2013-W02", "2013-W52", "2013-W01"),
        ("week", "2012-12-31", "2014-01-05", "2013-W01", "2014-W01", "2014-W02"),
        ("month", "2013-01-02", "2013-03-31", "2013-02", "2013-03", "2013-01"),
        ("month", "2013-01-01", "2013-03-30", "2013-01", "2013-02", "2013-03"),
        ("year", "2012-07-01", "2015-06-30", "2013", "2014", "2012"),
    ],
)
def test_only_whole_periods_between_start_and_end_are_partitions(
    every: str, start: str, end: str, first: str, last: str, outside: str
) -> None:
    f = feed(every, start=start, end=end)
    assert (partitions.first_key(f), partitions.last_key(f)) == (first, last)
    assert partitions.in_range(f, first) and partitions.in_range(f, last) and not partitions.in_range(f, outside)
    assert partitions.keys_known(f, utc("2020-01-01T00:00"))[0] == first
    assert partitions.last_key_known(f, utc("2020-01-01T00:00")) == last
    assert partitions.last_key_known(f, partitions.period(f, first)[1] - dt.timedelta(seconds=1)) is None


@pytest.mark.parametrize(
    ("every", "delay", "key", "known"),
    [
        ("hour", "PT90M", "2013-01-01T05", "2013-01-01T07:30"),
        ("hour", "P1DT1H", "2013-01-01T05", "2013-01-02T07:00"),
        ("week", "P1D", "2013-W10", "2013-03-12T04:00"),  # clocks change on the week's Sunday
        ("week", "P2DT6H", "2013-W43", "2013-10-30T10:00"),
        ("month", "P5D", "2013-02", "2013-03-06T05:00"),
        ("month", "P10D", "2013-02", "2013-03-11T04:00"),
    ],
)
def test_a_partition_is_known_after_its_end_and_delay(every: str, delay: str, key: str, known: str) -> None:
    f = feed(every, delay=delay, start="2012-01-01")
    assert partitions.known_at_instant(f, key) == utc(known)
    assert partitions.last_key_known(f, utc(known)) == key
    assert partitions.last_key_known(f, utc(known) - dt.timedelta(seconds=1)) == partitions.shift(f, key, -1)


@pytest.mark.parametrize(
    ("every", "first", "last", "keys"),
    [
        ("hour", "2013-01-01", "2013-01-01", [f"2013-01-01T{h:02d}" for h in range(24)]),
        ("day", "2013-01-01", "2013-01-02", ["2013-01-01", "2013-01-02"]),
        ("week", "2013-01-01", "2013-01-20", ["2013-W02", "2013-W03"]),
        ("month", "2013-01-31", "2013-03-30", ["2013-02"]),
    ],
)
def test_partitions_of_some_days(every: str, first: str, last: str, keys: list[str]) -> None:
    assert partitions.keys_of_days(feed(every), dt.date.fromisoformat(first), dt.date.fromisoformat(last)) == keys


@pytest.mark.parametrize(
    ("every", "key", "day", "block", "whole"),
    [
        ("hour", "2013-01-05T13", "2013-01-04", "2013-01-05", "2013-01-04T23"),
        ("hour", "2013-01-05T23", "2013-01-05", "2013-01-05", "2013-01-05T23"),
        ("day", "2013-01-05", "2013-01-05", "2013-01-05", "2013-01-05"),
        ("week", "2013-W01", "2013-01-06", "2013-W01", "2013-W01"),
        ("month", "2013-02", "2013-02-28", "2013-02", "2013-02"),
    ],
)
def test_blocks_are_partitions_and_of_hours_their_days(every: str, key: str, day: str, block: str, whole: str) -> None:
    f = feed(every)
    assert partitions.last_day(f, key).isoformat() == day
    assert partitions.block_of(f, key) == block
    assert partitions.last_of_block(f, key) == whole
    assert partitions.last_of_block(feed("hour"), "0001-01-01T05") is None


def test_the_begin_of_a_partition_is_a_day_and_of_an_hour_a_time() -> None:
    assert partitions.parse_key(feed("week"), "2013-W02") == dt.date(2013, 1, 7)
    assert partitions.parse_key(feed("month"), "2013-02") == dt.date(2013, 2, 1)
    assert partitions.parse_key(feed("hour"), "2013-01-01T05") == dt.datetime(2013, 1, 1, 5)


@pytest.mark.parametrize(
    ("every", "said", "periods"),
    [
        ("hour", "PT6H", 6),
        ("hour", "P1D", 24),
        ("hour", "PT90M", None),
        ("day", "P2W", 14),
        ("day", "PT36H", None),
        ("week", "P4W", 4),
        ("week", "P28D", 4),
        ("week", "P30D", None),
        ("month", "P3M", 3),
        ("month", "P12M", 12),
        ("month", "P1Y", 12),
        ("month", "P18M", 18),
        ("month", "P2Y6M", 30),
        ("month", "P6Y", 72),
        ("month", "P28D", None),
        ("year", "P2Y", 2),
        ("year", "P12M", None),
    ],
)
def test_durations_count_periods(every: str, said: str, periods: int | None) -> None:
    assert GRAINS[every].count(parse_duration(said)) == periods


@pytest.mark.parametrize(
    ("every", "wait", "periods"),
    [("hour", "PT90M", 2), ("day", "PT30H", 2), ("week", "P1D", 1), ("month", "P28D", 1), ("month", "P1M", 2)],
)
def test_a_wait_is_rounded_up_to_periods_that_are_never_shorter(every: str, wait: str, periods: int) -> None:
    assert GRAINS[every].at_least(parse_duration(wait)) == periods


# ---------------------------------------------------------------------------------------------------------- properties

every_ = st.sampled_from(EVERY)
zones = st.sampled_from(ZONES)
instants = st.datetimes(dt.datetime(1950, 1, 1), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC))


@settings(deadline=None)
@given(instant=instants, every=every_, zone=zones)
def test_every_instant_lies_in_the_period_of_its_key(instant: dt.datetime, every: str, zone: str) -> None:
    f = feed(every, zone)
    key = partitions.key_of(instant, f)
    begin, end = partitions.period(f, key)
    assert begin <= instant < end
    assert partitions.key_of(begin, f) == key
    after = partitions.next_key(f, key)
    assert partitions.period(f, after)[0] == end
    assert key < after, "keys sort as their periods do"
    assert partitions.shift(f, after, -1) == key
    assert GRAINS[every].format(GRAINS[every].parse(key)) == key


@settings(deadline=None)
@given(instant=instants, every=every_, n=st.integers(0, 60))
def test_keys_between_are_repeated_next_keys(instant: dt.datetime, every: str, n: int) -> None:
    f = feed(every)
    walked = [partitions.key_of(instant, f)]
    for _ in range(n):
        walked.append(partitions.next_key(f, walked[-1]))
    assert partitions.keys_between(f, walked[0], walked[-1]) == walked
    assert partitions.shift(f, walked[0], n) == walked[-1]
    assert n == 0 or partitions.keys_between(f, walked[-1], walked[0]) == []


@settings(deadline=None)
@given(as_of=instants, every=every_, hours=st.integers(0, 72), days=st.integers(0, 40), zone=zones)
def test_the_last_known_key_is_the_last_one_that_is_complete(
    as_of: dt.datetime, every: str, hours: int, days: int, zone: str
) -> None:
    f = feed(every, zone, delay=f"P{days}DT{hours}H", start="1940-01-01")
    key = partitions.last_key_known(f, as_of)
    assert key is not None
    assert partitions.known_at_instant(f, key) <= as_of
    assert partitions.known_at_instant(f, partitions.next_key(f, key)) > as_of


@settings(deadline=None)
@given(first=st.dates(dt.date(1990, 1, 1), dt.date(2030, 1, 1)), length=st.integers(0, 900), every=every_, zone=zones)
def test_the_partitions_of_some_days_are_those_that_lie_inside(
    first: dt.date, length: int, every: str, zone: str
) -> None:
    f, last = feed(every, zone, start="1980-01-01"), first + dt.timedelta(days=length)
    keys = partitions.keys_of_days(f, first, last)
    begin, end = partitions.day_begins(f, first), partitions.day_begins(f, last + dt.timedelta(days=1))
    for key in keys[:2] + keys[-2:]:
        assert begin <= partitions.period(f, key)[0] and partitions.period(f, key)[1] <= end
    if keys:
        before, after = partitions.shift(f, keys[0], -1), partitions.next_key(f, keys[-1])
        assert partitions.period(f, before)[0] < begin and partitions.period(f, after)[1] > end
        assert partitions.last_day(f, keys[-1]) <= last
