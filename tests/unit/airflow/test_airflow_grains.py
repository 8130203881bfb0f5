"""The timetable of every grain: cron, keyed events, manual keys, backfills."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from perennial.specs import FeedSpec, partitions

pytestmark = pytest.mark.fast

EVERY = ["hour", "day", "week", "month", "year"]


def feed(every: str, **changes: object) -> FeedSpec:
    said: dict[str, object] = {
        "version": 1,
        "name": "sales",
        "owner": "x",
        "every": every,
        "timezone": "UTC" if every == "hour" else "America/New_York",
        "start": "2013-01-01",
        "source": {"path": "sales/{partition}.csv"},
        "columns": {"id": "string"},
        "key": ["id"],
    }
    return FeedSpec.model_validate(said | changes)


def timetable(spec: FeedSpec, *, ticks: bool = False) -> Any:
    """As the scheduler has it: written to the metadata database and read back."""
    from airflow.serialization.decoders import decode_timetable
    from airflow.serialization.encoders import coerce_to_core_timetable, encode_timetable

    from perennial_airflow import assets
    from perennial_airflow.schedules import keyed

    table = coerce_to_core_timetable(keyed(spec, assets.feed("sales") | assets.landed("sales"), ticks=ticks))
    return decode_timetable(json.loads(json.dumps(encode_timetable(table))))


def restriction(spec: FeedSpec, *, catchup: bool = True) -> Any:
    import pendulum
    from airflow.timetables.base import TimeRestriction

    from perennial_airflow.schedules import bounds

    found = bounds(spec)
    end = found.get("end_date")
    return TimeRestriction(pendulum.instance(found["start_date"]), end and pendulum.instance(end), catchup)


def ticks(spec: FeedSpec, n: int) -> list[Any]:
    """The first ``n`` cron runs."""
    table, last, found = timetable(spec, ticks=True), None, []
    for _ in range(n):
        last = table.next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction(spec))
        found.append(last)
    return found


@pytest.mark.parametrize(
    ("every", "start", "keys"),
    [
        ("hour", "2013-01-31", ["2013-01-31T00", "2013-01-31T01"]),
        ("week", "2015-12-20", ["2015-W52", "2015-W53", "2016-W01"]),
        ("month", "2012-12-15", ["2013-01", "2013-02", "2013-03"]),
        ("year", "2012-01-01", ["2012", "2013"]),
    ],
)
def test_a_tick_stands_for_the_period_that_has_just_ended(every: str, start: str, keys: list[str]) -> None:
    spec = feed(every, start=start)
    found = ticks(spec, len(keys))
    assert [i.partition_key for i in found] == keys
    for info in found:
        begin, end = partitions.period(spec, info.partition_key)
        assert (info.partition_date, info.run_after) == (begin, end)


@pytest.mark.parametrize(
    ("every", "end", "runs"),
    [("hour", "2013-01-01", 24), ("week", "2013-01-29", 3), ("month", "2013-03-30", 2), ("year", "2014-12-31", 2)],
)
def test_nothing_is_due_after_the_last_whole_period(every: str, end: str, runs: int) -> None:
    spec = feed(every, end=end)
    found = ticks(spec, runs + 1)
    assert found[-1] is None
    assert [i.partition_key for i in found[:-1]] == partitions.keys_known(spec, dt.datetime(2020, 1, 1, tzinfo=dt.UTC))


@pytest.mark.parametrize(
    ("every", "first", "last", "keys"),
    [
        ("hour", "2013-03-10T05:00", "2013-03-10T08:00", [f"2013-03-10T{h:02d}" for h in (5, 6, 7, 8)]),
        ("week", "2013-03-04T00:00", "2013-03-18T00:00", ["2013-W10", "2013-W11", "2013-W12"]),
        ("week", "2013-03-05T00:00", "2013-03-17T00:00", ["2013-W11"]),
        ("month", "2013-01-01T00:00", "2013-04-01T00:00", ["2013-01", "2013-02", "2013-03", "2013-04"]),
        ("year", "2012-01-01T00:00", "2013-06-01T00:00", ["2012", "2013"]),
    ],
)
def test_a_backfill_has_the_partitions_that_begin_inside_it(every: str, first: str, last: str, keys: list[str]) -> None:
    """Its bounds are local wall clock, and a clock change lies among them."""
    spec = feed(every)
    bounds = [dt.datetime.fromisoformat(t).replace(tzinfo=dt.UTC) for t in (first, last)]
    found = list(timetable(spec).iter_partition_dagrun_infos(earliest=bounds[0], latest=bounds[1]))
    assert [i.partition_key for i in found] == keys
    assert [i.partition_date for i in found] == [partitions.period(spec, k)[0] for k in keys]


@pytest.mark.parametrize(
    ("every", "key"),
    [("hour", "2013-03-10T06"), ("day", "2013-03-11"), ("week", "2015-W53"), ("month", "2012-02"), ("year", "2013")],
)
def test_a_key_given_by_hand_or_by_an_event_is_the_period_that_it_names(every: str, key: str) -> None:
    spec = feed(every)
    table = timetable(spec)
    begin = partitions.period(spec, key)[0]
    assert table.resolve_partition_date(key) == begin
    mapper = table.get_partition_mapper(name="sales")
    assert mapper.to_downstream(key) == key
    assert mapper.to_partition_date(key) == begin, "what the scheduler stamps on the runs of an event"


@pytest.mark.parametrize(
    ("every", "key"),
    [
        ("hour", "2013-01-01"),
        ("hour", "2013-01-01T24"),
        ("hour", "2013-01-01T5"),
        ("week", "2013-01-07"),
        ("week", "2013-W53"),
        ("week", "2013-W1"),
        ("month", "2013-13"),
        ("month", "2013-1"),
        ("month", "2013-01-01"),
        ("year", "13"),
        ("year", "2013-01"),
    ],
)
def test_a_bad_key_is_refused_with_a_good_one(every: str, key: str) -> None:
    from airflow.exceptions import InvalidPartitionKeyError

    from perennial.specs.grains import GRAINS

    with pytest.raises(
        InvalidPartitionKeyError, match=f"'{key}' is not {GRAINS[every].one}: write it like {GRAINS[every].example}"
    ):
        timetable(feed(every)).resolve_partition_date(key)


@pytest.mark.parametrize("every", EVERY)
def test_it_survives_the_metadata_database(every: str) -> None:
    from airflow.serialization.encoders import encode_timetable

    table = timetable(feed(every), ticks=True)
    assert (table.can_be_scheduled, table.periodic, table.partitioned) == (True, True, True)
    assert encode_timetable(table) == encode_timetable(timetable(feed(every), ticks=True))
    assert {a.name for _, a in table.asset_condition.iter_assets()} == {"sales", "sales.landed"}


def test_a_timetable_that_was_stored_before_there_were_other_grains_is_one_of_days() -> None:
    from airflow.serialization.decoders import decode_timetable
    from airflow.serialization.encoders import encode_timetable

    written = encode_timetable(timetable(feed("day")))
    old = json.loads(json.dumps(written))
    del old["__var"]["every"]
    old["__var"] |= {"cron": "0 0 * * *", "key_format": "%Y-%m-%d"}
    assert encode_timetable(decode_timetable(old)) == written


def test_bounds_are_those_of_the_whole_periods() -> None:
    from perennial_airflow.schedules import bounds

    new_york = ZoneInfo("America/New_York")
    found = bounds(feed("week", end="2013-03-12"))
    assert found["start_date"] == dt.datetime(2013, 1, 7, tzinfo=new_york)
    assert found["end_date"] == dt.datetime(2013, 3, 11, tzinfo=new_york)
    found = bounds(feed("month", start="2013-01-15"))
    assert found == {"start_date": dt.datetime(2013, 2, 1, tzinfo=new_york)}
