"""Partition keys: local days, clock changes, delays."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_folder import ARRIVALS, FLIGHTS, Folder

from perennial.errors import UsageError
from perennial.specs import FeedSpec, load_feed, partitions

pytestmark = pytest.mark.fast


def feed(**changes: object) -> FeedSpec:
    said: dict[str, object] = {
        "version": 1,
        "name": "flights",
        "owner": "x",
        "timezone": "America/New_York",
        "start": "2013-01-01",
        "end": "2013-12-31",
        "source": {"path": "f/{partition}.csv"},
        "columns": {"id": "string"},
        "key": ["id"],
    }
    return FeedSpec.model_validate(said | changes)


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("key", "hours", "start"),
    [
        ("2013-01-01", 24, "2013-01-01T05:00+00:00"),
        ("2013-03-10", 23, "2013-03-10T05:00+00:00"),
        ("2013-11-03", 25, "2013-11-03T04:00+00:00"),
    ],
)
def test_days_are_local_and_have_23_to_25_hours(key: str, hours: int, start: str) -> None:
    begin, end = partitions.period(feed(), key)
    assert begin == at(start)
    assert begin.tzinfo is dt.UTC
    assert end - begin == dt.timedelta(hours=hours)


def test_a_day_whose_midnight_does_not_exist_begins_with_the_change() -> None:
    begin, end = partitions.period(feed(timezone="America/Sao_Paulo"), "2013-10-20")
    assert begin == at("2013-10-20T03:00+00:00")
    assert end - begin == dt.timedelta(hours=23)
    assert partitions.key_of(begin, feed(timezone="America/Sao_Paulo")) == "2013-10-20"


def test_late_evenings_belong_to_the_local_day() -> None:
    assert partitions.key_of(at("2013-07-02T03:59+00:00"), feed()) == "2013-07-01"
    assert partitions.key_of(at("2013-07-02T04:00+00:00"), feed()) == "2013-07-02"


def test_a_partition_is_known_after_its_end_and_delay() -> None:
    assert partitions.known_at_instant(feed(delay="P1D"), "2013-02-09") == at("2013-02-11T05:00+00:00")
    late = feed(delay="PT6H")
    known = partitions.known_at_instant(late, "2013-03-09")
    assert partitions.last_key_known(late, known) == "2013-03-09"
    assert partitions.last_key_known(late, known - dt.timedelta(seconds=1)) == "2013-03-08"


@pytest.mark.parametrize(
    ("delay", "key", "known"),
    [
        ("P1D", "2013-03-09", "2013-03-11T04:00+00:00"),  # the day between has 23 hours
        ("PT24H", "2013-03-09", "2013-03-11T04:00+00:00"),
        ("P1DT6H", "2013-03-09", "2013-03-11T10:00+00:00"),
        ("PT6H", "2013-03-09", "2013-03-10T11:00+00:00"),
        ("P2D", "2013-11-01", "2013-11-04T05:00+00:00"),  # the second day has 25
        ("P1W", "2013-03-04", "2013-03-12T04:00+00:00"),
    ],
)
def test_whole_days_of_a_delay_are_local_days(delay: str, key: str, known: str) -> None:
    f = feed(delay=delay)
    assert partitions.known_at_instant(f, key) == at(known)
    assert partitions.last_key_known(f, at(known)) == key
    assert partitions.last_key_known(f, at(known) - dt.timedelta(seconds=1)) == partitions.shift(f, key, -1)


@pytest.mark.parametrize("day", ["2013-03-10", "2013-03-11", "2013-11-03", "2013-11-04", "2013-07-01"])
def test_a_day_sees_the_day_before_of_a_feed_that_takes_one_more_day(day: str) -> None:
    f = feed(delay="P1D")
    _, end = partitions.period(f, day)
    assert partitions.last_key_known(f, end) == partitions.shift(f, day, -1)


def test_what_is_known_lies_between_start_and_end() -> None:
    f = feed()
    assert partitions.last_key_known(f, at("2013-01-01T12:00+00:00")) is None
    assert partitions.keys_known(f, at("2013-01-01T12:00+00:00")) == []
    assert partitions.last_key_known(f, at("2020-01-01T00:00+00:00")) == "2013-12-31"
    assert partitions.last_key_known(feed(end=None), at("2020-01-01T12:00+00:00")) == "2019-12-31"
    assert partitions.keys_known(f, at("2013-01-04T05:00+00:00")) == ["2013-01-01", "2013-01-02", "2013-01-03"]
    assert partitions.keys_known(f, at("2013-01-04T05:00+00:00"), "2013-01-03") == ["2013-01-03"]
    assert partitions.keys_known(f, at("2013-01-02T05:00+00:00"), "2012-01-01") == ["2013-01-01"]
    assert partitions.in_range(f, "2013-12-31")
    assert not partitions.in_range(f, "2014-01-01")


def test_keys_between_and_shifts() -> None:
    f = feed()
    assert partitions.keys_between(f, "2013-02-27", "2013-03-01") == ["2013-02-27", "2013-02-28", "2013-03-01"]
    assert partitions.keys_between(f, "2013-03-01", "2013-02-27") == []
    assert partitions.next_key(f, "2013-12-31") == "2014-01-01"
    assert partitions.shift(f, "2013-03-01", -1) == "2013-02-28"


@pytest.mark.parametrize(
    "key", ["2013-2-30", "2013-02-30", "", "2013-01-01T05", "today", "２０１３-01-01", "2013-01-01 "]
)
def test_what_is_not_a_key_is_answered_with_one_sentence(key: str) -> None:
    with pytest.raises(UsageError) as caught:
        partitions.parse_key(feed(), key)
    assert str(caught.value) == f"{key} is not a partition of flights: write a day such as 2013-01-01"


def test_an_instant_needs_a_zone() -> None:
    with pytest.raises(UsageError, match="has no time zone"):
        partitions.key_of(dt.datetime(2013, 1, 1), feed())


def test_the_calendar_has_an_end() -> None:
    with pytest.raises(UsageError, match="outside the calendar"):
        partitions.shift(feed(), "9999-12-31", 1)


@settings(deadline=None)
@given(
    instant=st.datetimes(dt.datetime(1950, 1, 1), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC)),
    zone=st.sampled_from(["UTC", "America/New_York", "Europe/London", "Australia/Lord_Howe", "America/Sao_Paulo"]),
)
def test_every_instant_lies_in_the_period_of_its_key(instant: dt.datetime, zone: str) -> None:
    f = feed(timezone=zone)
    begin, end = partitions.period(f, partitions.key_of(instant, f))
    assert begin <= instant < end


@settings(deadline=None)
@given(
    as_of=st.datetimes(dt.datetime(2013, 1, 3), dt.datetime(2013, 12, 30), timezones=st.just(dt.UTC)),
    hours=st.integers(0, 72),
    days=st.integers(0, 9),
    zone=st.sampled_from(["UTC", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo"]),
)
def test_the_last_known_key_is_the_last_one_that_is_complete(
    as_of: dt.datetime, hours: int, days: int, zone: str
) -> None:
    f = feed(delay=f"P{days}DT{hours}H", start="2012-01-01", timezone=zone)
    key = partitions.last_key_known(f, as_of)
    assert key is not None
    assert partitions.known_at_instant(f, key) <= as_of
    assert partitions.known_at_instant(f, partitions.next_key(f, key)) > as_of


def test_shipped_shapes_load(specs: Folder) -> None:
    assert partitions.known_at_instant(load_feed(specs.feed(ARRIVALS)), "2013-12-31") == at("2014-01-02T05:00+00:00")
    assert partitions.known_at_instant(load_feed(specs.feed(FLIGHTS)), "2013-12-31") == at("2014-01-01T05:00+00:00")
