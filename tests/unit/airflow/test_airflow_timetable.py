"""One timetable for four ways of starting: cron, keyed events, manual keys, backfills."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from typing import Any
from zoneinfo import ZoneInfo

import pytest

pytestmark = pytest.mark.fast

NEW_YORK = ZoneInfo("America/New_York")


def timetable(ticks: bool = False) -> Any:
    """As Airflow's scheduler sees it: written to the metadata database and read back."""
    from airflow.serialization.encoders import coerce_to_core_timetable

    from perennial.specs.loader import load_specs
    from perennial_airflow import assets
    from perennial_airflow.schedules import keyed

    feed = load_specs(only="flights").feed("flights")
    return coerce_to_core_timetable(keyed(feed, assets.feed("flights") | assets.feed("weather"), ticks=ticks))


def restriction(latest: dt.datetime | None = None, *, catchup: bool = True) -> Any:
    import pendulum
    from airflow.timetables.base import TimeRestriction

    start = dt.datetime(2013, 1, 1, tzinfo=NEW_YORK)
    return TimeRestriction(pendulum.instance(start), latest and pendulum.instance(latest), catchup)


def test_a_tick_stands_for_the_local_day_that_has_just_ended() -> None:
    from airflow.timetables.base import DagRunInfo

    table = timetable(ticks=True)
    first = table.next_dagrun_info_v2(last_dagrun_info=None, restriction=restriction())
    assert isinstance(first, DagRunInfo)
    assert (first.partition_key, first.run_after) == ("2013-01-01", dt.datetime(2013, 1, 2, 5, tzinfo=dt.UTC))
    second = table.next_dagrun_info_v2(last_dagrun_info=first, restriction=restriction())
    assert (second.partition_key, second.run_after) == ("2013-01-02", dt.datetime(2013, 1, 3, 5, tzinfo=dt.UTC))


def test_no_ticks_where_cron_starts_nothing() -> None:
    assert timetable(ticks=False).next_dagrun_info_v2(last_dagrun_info=None, restriction=restriction()) is None


def test_nothing_is_due_after_the_feed_has_ended() -> None:
    """Shipped specs end with 2013: a fresh installation starts no run that nobody asked for."""
    end = dt.datetime(2014, 1, 1, tzinfo=NEW_YORK)
    found = timetable(ticks=True).next_dagrun_info_v2(
        last_dagrun_info=None, restriction=restriction(end, catchup=False)
    )
    assert found is None


@pytest.mark.parametrize(
    ("first", "last", "hours"),
    [("2013-03-09", "2013-03-12", [24, 23, 24]), ("2013-11-02", "2013-11-05", [24, 25, 24])],
)
def test_a_backfill_over_a_clock_change_has_every_day_once(first: str, last: str, hours: list[int]) -> None:
    table = timetable()
    bounds = [dt.datetime.fromisoformat(d).replace(tzinfo=dt.UTC) for d in (first, last)]
    found = list(table.iter_partition_dagrun_infos(earliest=bounds[0], latest=bounds[1]))
    day = dt.date.fromisoformat(first)
    assert [i.partition_key for i in found] == [(day + dt.timedelta(days=n)).isoformat() for n in range(4)]
    dates = [i.partition_date for i in found]
    assert [(b - a).total_seconds() / 3600 for a, b in itertools.pairwise(dates)] == hours
    assert all(d.astimezone(NEW_YORK).hour == 0 for d in dates)


def test_it_survives_the_metadata_database() -> None:
    from airflow.serialization.decoders import decode_timetable
    from airflow.serialization.encoders import encode_timetable

    table = timetable(ticks=True)
    written = json.loads(json.dumps(encode_timetable(table)))
    back = decode_timetable(written)
    assert type(back) is type(table)
    assert encode_timetable(back) == written
    assert back.resolve_partition_date("2013-03-10") == table.resolve_partition_date("2013-03-10")
    assert (back.can_be_scheduled, back.periodic, back.partitioned) == (True, True, True)
    assert {a.name for _, a in back.asset_condition.iter_assets()} == {"flights", "weather"}


def test_a_key_is_the_local_midnight_that_it_names() -> None:
    table = timetable()
    assert table.resolve_partition_date("2013-07-04") == dt.datetime(2013, 7, 4, 4, tzinfo=dt.UTC)
    assert table.resolve_partition_date(None) is None


@pytest.mark.parametrize("key", ["2013-13-01", "yesterday", "2013-1-5", "2013-01-05T00", "20130105"])
def test_a_bad_key_is_refused(key: str) -> None:
    from airflow.exceptions import InvalidPartitionKeyError

    with pytest.raises(InvalidPartitionKeyError, match=key):
        timetable().resolve_partition_date(key)


def test_an_event_s_key_becomes_the_run_s() -> None:
    from airflow.timetables.simple import PartitionedAssetTimetable

    table = timetable()
    assert isinstance(table, PartitionedAssetTimetable)
    assert table.default_partition_mapper.to_downstream("2013-03-10") == "2013-03-10"


def test_run_ids_name_the_key() -> None:
    from airflow.utils.types import DagRunType

    when = dt.datetime(2013, 3, 2, tzinfo=dt.UTC)
    for kind in (DagRunType.MANUAL, DagRunType.BACKFILL_JOB, DagRunType.ASSET_TRIGGERED, DagRunType.SCHEDULED):
        made = timetable().generate_run_id(
            run_type=kind, run_after=when, data_interval=None, partition_key="2013-03-01"
        )
        assert made.startswith(f"{kind.value}__"), made


def test_training_runs_in_the_entity_s_zone() -> None:
    from perennial.specs.loader import load_specs
    from perennial_airflow.schedules import bounds, cron

    specs = load_specs(only="flight_delay")
    table = cron(specs.model("flight_delay"), specs.feed("flights"))
    assert "America/New_York" in repr(table)
    found = bounds(specs.feed("flights"))
    assert found["start_date"] == dt.datetime(2013, 1, 1, 5, tzinfo=dt.UTC)
    assert found["end_date"] == dt.datetime(2014, 1, 1, 5, tzinfo=dt.UTC)
