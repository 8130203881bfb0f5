"""No feature sees the future. These tests plant rows that nobody could have known and look whether anything changes."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest
from features_world import World

from perennial.errors import DataError
from perennial.specs.partitions import keys_between, period

pytestmark = pytest.mark.fast

DAY, NEXT, BEFORE = "2013-01-17", "2013-01-18", "2013-01-16"
MODELS = ["flight_delay", "flight_duration"]
NOON = dt.datetime(2013, 1, 17, 17, tzinfo=dt.UTC)  # 12:00 in New York

Row = dict[str, Any]


def wild(feed: str, row: Row) -> Row:
    """A row that would change every feature that saw it."""
    spoiled: dict[str, Row] = {
        "flights": {"origin": "EWR", "dest": "IAH", "carrier": "UA", "distance": 1.0},
        "weather": dict.fromkeys(
            ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"], 9e3
        ),
        "arrivals": {"late": 1, "arr_delay": 1500.0, "air_time": 850.0},
    }
    return row | spoiled[feed]


def all_wild(feed: str) -> Any:
    return lambda rows: [wild(feed, r) for r in rows]


def earlier(rows: pa.Table) -> list[Row]:
    return [r for r in rows.to_pylist() if r["sched_dep"] <= NOON]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("feed", ["flights", "weather", "arrivals"])
def test_rows_of_later_partitions_change_nothing(world: World, model: str, feed: str) -> None:
    definition = world.definition(model)
    before = world.build(definition, DAY)
    for key in keys_between(world.specs.feed(feed), NEXT, "2013-01-20"):
        world.change(feed, key, all_wild(feed))
    if feed == "arrivals":  # complete a day after its day: not even the day's own
        world.change(feed, DAY, all_wild(feed))
    assert world.build(definition, DAY, "again").equals(before)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("feed", ["flights", "weather", "arrivals"])
def test_rows_of_later_hours_change_nothing_before_them(world: World, model: str, feed: str) -> None:
    definition = world.definition(model)
    before = world.build(definition, DAY)

    def plant(rows: list[Row]) -> list[Row]:
        if feed == "arrivals":
            return [*rows, wild(feed, rows[0] | {"flight_id": "planted"})]
        time = world.specs.feed(feed).event_time or ""
        late = NOON + dt.timedelta(minutes=1)
        changed = [wild(feed, r) if r[time] > NOON else r for r in rows]
        new = {"flight_id": "planted", time: late} if feed == "flights" else {"origin": "JFK", time: late}
        return [*changed, wild(feed, rows[0]) | new]

    world.change(feed, DAY, plant)
    after = world.build(definition, DAY, "again")
    assert len(earlier(before)) > 100
    assert earlier(after) == earlier(before)
    if feed == "weather":  # and what came later does see it: the plant is real
        assert not after.equals(before)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("feed", ["flights", "weather", "arrivals"])
def test_rows_of_the_past_do_change_features(world: World, model: str, feed: str) -> None:
    """So that the two tests above do not pass because nothing is read at all."""
    definition = world.definition(model)
    before = world.build(definition, DAY)
    world.change(feed, DAY if feed == "weather" else BEFORE, all_wild(feed))
    assert not world.build(definition, DAY, "again").equals(before)


def test_nothing_before_the_lookback_is_read(world: World) -> None:
    definition = world.sql(
        "SELECT f.flight_id, f.sched_dep, (SELECT count(*) FROM arrivals) AS n, (SELECT min(partition) FROM flights) - "
        "DATE '2013-01-01' AS first, (SELECT sum(air_time) FROM arrivals) AS flown FROM flights f "
        "WHERE f.partition = $partition",
        lookback=3,
    )
    before = world.build(definition, DAY)
    assert before["first"][0].as_py() == 13.0  # January 14
    assert before["n"][0].as_py() == sum(len(world.rows("arrivals", f"2013-01-{d}")) for d in (14, 15, 16))
    world.change("arrivals", "2013-01-13", all_wild("arrivals"))
    world.change("flights", "2013-01-13", all_wild("flights"))
    assert world.build(definition, DAY, "again").equals(before)
    world.change("arrivals", "2013-01-14", all_wild("arrivals"))
    assert not world.build(definition, DAY, "more").equals(before)


def test_labels_are_cut_by_their_delay(world: World) -> None:
    newest = world.sql(
        "SELECT flight_id, sched_dep, (SELECT max(partition) FROM arrivals) - DATE '2013-01-01' AS newest, "
        "(SELECT count(*) FROM arrivals WHERE partition = $partition) AS own FROM flights WHERE partition = $partition"
    )
    rows = world.build(newest, DAY)
    assert set(rows["newest"].to_pylist()) == {15.0}  # January 16
    assert set(rows["own"].to_pylist()) == {0.0}


@pytest.mark.parametrize(("day", "newest"), [("2013-03-10", "2013-03-09"), ("2013-03-11", "2013-03-10")])
def test_the_day_before_is_seen_also_where_clocks_change(world: World, day: str, newest: str) -> None:
    assert world.builder(world.definition()).visible("arrivals", day) == (
        (dt.date.fromisoformat(day) - dt.timedelta(days=14)).isoformat(),
        newest,
    )
    assert f"arrivals/{newest}" in world.builder(world.definition()).inputs(day)
    assert f"arrivals/{day}" not in world.builder(world.definition()).inputs(day)


def test_rows_are_cut_by_when_they_became_known(world: World) -> None:
    """A bitemporal feed: a row of an old partition that became known tomorrow is not there today."""
    weather = world.specs.feed("weather").model_copy(update={"known_at": "time_hour", "event_time": None})
    world.specs.feeds["weather"] = weather
    definition = world.sql(
        "SELECT f.flight_id, f.sched_dep, (SELECT max(temp) FROM weather w WHERE w.partition < $partition "
        "AND w.time_hour <= f.sched_dep) AS warmest FROM flights f WHERE f.partition = $partition"
    )
    before = world.build(definition, DAY)
    _, end = period(weather, DAY)

    def plant(late: dt.timedelta) -> Any:
        return lambda rows: [*rows, rows[0] | {"temp": 9e3, "time_hour": end + late, "origin": "XXX"}]

    world.change("weather", BEFORE, plant(dt.timedelta(seconds=1)))
    assert world.build(definition, DAY, "again").equals(before)
    leak = world.sql(definition.source.replace("AND w.time_hour <= f.sched_dep", ""))
    world.change("weather", BEFORE, plant(-dt.timedelta(minutes=1)))  # known at 23:59: too late for every flight
    with pytest.raises(DataError, match="sees the future"):
        world.build(leak, DAY)


LEAKS = {
    "the whole day's weather": (
        "WITH w AS (SELECT origin, avg(temp) AS temp FROM weather WHERE partition = $partition GROUP BY origin) "
        "SELECT f.flight_id, f.sched_dep, w.temp FROM flights f LEFT JOIN w USING (origin) "
        "WHERE f.partition = $partition"
    ),
    "the weather of the next hour": (
        "SELECT f.flight_id, f.sched_dep, w.temp FROM flights f LEFT JOIN weather w ON w.origin = f.origin AND "
        "w.time_hour = date_trunc('hour', f.sched_dep) + INTERVAL 1 HOUR WHERE f.partition = $partition"
    ),
    "the nearest hour": (
        "SELECT f.flight_id, f.sched_dep, w.temp FROM flights f LEFT JOIN weather w ON w.origin = f.origin AND "
        "w.time_hour = date_trunc('hour', f.sched_dep + INTERVAL 30 MINUTE) WHERE f.partition = $partition"
    ),
    "the day's traffic": (
        "SELECT flight_id, sched_dep, count(*) OVER (PARTITION BY origin) AS traffic FROM flights "
        "WHERE partition = $partition"
    ),
    "the next flight": (
        "SELECT flight_id, sched_dep, lead(distance) OVER (ORDER BY sched_dep, flight_id) AS next FROM flights "
        "WHERE partition = $partition"
    ),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_definition_that_leaks_inside_the_day_is_refused(world: World, leak: str) -> None:
    with pytest.raises(DataError) as caught:
        world.build(world.sql(LEAKS[leak]), DAY)
    said = str(caught.value)
    assert said.startswith(f"features.sql sees the future: in partition {DAY}, ")
    assert "when rows after 2013-01-17T" in said
    assert said.endswith("are hidden; join on event time <= the row's own")
    assert world.builder(world.sql(LEAKS[leak])).table.version is None  # nothing was written


def test_joins_as_of_the_event_are_no_leak(world: World) -> None:
    fine = world.sql(
        "SELECT f.flight_id, f.sched_dep, w.temp, (SELECT count(*) FROM flights e WHERE e.origin = f.origin "
        "AND e.partition = $partition AND e.sched_dep < f.sched_dep) AS before FROM flights f ASOF LEFT JOIN weather w "
        "ON w.origin = f.origin AND w.time_hour <= f.sched_dep WHERE f.partition = $partition"
    )
    rows = world.build(fine, DAY)
    assert rows["temp"].null_count == 0
    assert max(rows["before"].to_pylist()) > 50


PYTHON = """
FEEDS = ["flights", "weather"]

def features(feeds, partition):
    flights = feeds["flights"]
    today = flights[flights["partition"] == partition]
    weather = feeds["weather"].assign(hour_of=feeds["weather"]["time_hour"])[["origin", "hour_of", "temp"]]
    today = today.assign(hour_of=today["sched_dep"].dt.floor("h")%s)
    return today.merge(weather, how="left", on=["origin", "hour_of"])[["flight_id", "sched_dep", "origin", "temp"]]
"""


def test_python_is_cut_like_sql(world: World) -> None:
    with pytest.raises(DataError, match=r"features\.py sees the future: in partition 2013-01-17, temp of flight_id"):
        world.build(world.python(PYTHON % " + __import__('pandas').Timedelta(hours=1)"), DAY)
    seen = world.python(
        "FEEDS = ['flights', 'arrivals', 'weather']\n"
        "def features(feeds, partition):\n"
        "    f = feeds['flights']\n"
        "    f = f[f['partition'] == partition][['flight_id', 'sched_dep']]\n"
        "    return f.assign(**{n: (max(t['partition']) - partition).days for n, t in feeds.items()},\n"
        "                    first=(min(feeds['arrivals']['partition']) - partition).days)\n",
        lookback=5,
    )
    row = world.build(seen, DAY).to_pylist()[0]
    assert (row["flights"], row["weather"], row["arrivals"], row["first"]) == (0, 0, -1, -5)
