"""What is built, what is built again, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from features_world import World

from perennial.errors import DataError, NotReadyError, SpecError
from perennial.lake.homes import feed_table
from perennial.lake.table import PartitionedTable
from perennial.specs.partitions import keys_between

pytestmark = pytest.mark.fast

DAY = "2013-01-17"
BASE = "SELECT flight_id, sched_dep, origin, distance FROM flights WHERE partition = $partition"


def days(world: World, first: int, last: int) -> list[str]:
    return keys_between(world.specs.feed("flights"), f"2013-01-{first:02d}", f"2013-01-{last:02d}")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (BASE + " AND distance > 500", "features.sql dropped "),
        (
            "SELECT f.flight_id, f.sched_dep, w.temp FROM flights f JOIN weather w ON w.origin = f.origin AND "
            "w.time_hour = date_trunc('hour', f.sched_dep) AND temp > 40 WHERE f.partition = $partition",
            "use LEFT JOIN",
        ),
        (
            "SELECT f.flight_id, f.sched_dep, w.temp FROM flights f LEFT JOIN weather w ON w.origin = f.origin "
            "WHERE f.partition = $partition",
            "returned a key twice for partition 2013-01-17: a join multiplies rows",
        ),
        ("SELECT flight_id, sched_dep, distance FROM flights", "rows that are not flights of partition 2013-01-17"),
        (BASE.replace("origin", "sched_dep AS other"), "returns 'other' as timestamp"),
        (BASE.replace("origin", "partition AS day"), "returns 'day' as date32"),
        (BASE.replace("origin", "INTERVAL 1 DAY AS gone"), "returns 'gone' as"),
        (BASE.replace("origin", "[1, 2] AS both"), "returns 'both' of 2013-01-17 as list"),
        (BASE.replace("sched_dep", "hour"), "returned no column 'sched_dep' for partition 2013-01-17"),
        (BASE.replace("sched_dep", "sched_dep + INTERVAL 1 HOUR AS sched_dep"), "changes 'sched_dep' in partition"),
        (BASE.replace("sched_dep", "'x' AS sched_dep"), "returns 'sched_dep' of 2013-01-17 as"),
        (BASE.replace("origin", "CAST(origin AS INT) AS o"), "failed for partition 2013-01-17: Conversion Error"),
    ],
)
def test_what_a_definition_must_not_do_has_its_sentence(world: World, source: str, sentence: str) -> None:
    builder = world.builder(world.sql(source))
    with pytest.raises(DataError) as caught:
        builder.ensure([DAY])
    assert sentence in str(caught.value)
    assert "features.sql" in str(caught.value)
    assert builder.table.version is None


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("return None", "features.py failed for partition 2013-01-17"),
        ("raise KeyError('x')", "features.py failed for partition 2013-01-17: KeyError: 'x'"),
        ("return f[['flight_id', 'sched_dep', 'distance']].head(3)", "features.py dropped"),
    ],
)
def test_python_has_its_sentences_too(world: World, body: str, sentence: str) -> None:
    source = (
        "FEEDS = ['flights']\ndef features(feeds, partition):\n    f = feeds['flights']\n"
        f"    f = f[f['partition'] == partition]\n    {body}\n"
    )
    with pytest.raises(DataError) as caught:
        world.build(world.python(source), DAY)
    assert sentence in str(caught.value)


def test_python_and_sql_give_the_same_rows(world: World) -> None:
    sql = world.sql(
        "SELECT f.flight_id, f.sched_dep, f.origin, f.tailnum, f.hour, f.distance > 1000 AS far, w.temp FROM flights f "
        "LEFT JOIN weather w ON w.origin = f.origin AND w.time_hour = date_trunc('hour', f.sched_dep) "
        "WHERE f.partition = $partition"
    )
    python = world.python(
        "FEEDS = ['flights', 'weather']\n"
        "def features(feeds, partition):\n"
        "    f = feeds['flights']\n"
        "    f = f[f['partition'] == partition].assign(time_hour=lambda f: f['sched_dep'].dt.floor('h'))\n"
        "    f = f.merge(feeds['weather'][['origin', 'time_hour', 'temp']], how='left', on=['origin', 'time_hour'])\n"
        "    f['far'] = f['distance'] > 1000\n"
        "    f['nothing'] = None\n"
        "    return f[['flight_id', 'sched_dep', 'origin', 'tailnum', 'hour', 'far', 'temp', 'nothing']]\n"
    )
    assert sql.feeds == python.feeds == ("flights", "weather")
    one, other = world.build(sql, DAY), world.build(python, DAY)
    assert one.equals(other.select(one.column_names))
    assert {str(t) for t in one.schema.types} == {"string", "double", "timestamp[us, tz=UTC]"}


def test_only_what_is_missing_is_built(world: World) -> None:
    builder = world.builder(world.definition())
    first = builder.ensure(days(world, 15, 17))
    assert first.built == tuple(days(world, 15, 17))
    version = builder.table.version
    again = world.builder(world.definition()).ensure(days(world, 15, 17))
    assert (again.built, again.reused) == ((), tuple(days(world, 15, 17)))
    assert again.digests == first.digests
    assert builder.table.version == version
    more = builder.ensure(days(world, 16, 18))
    assert (more.built, more.reused) == ((DAY[:-2] + "18",), tuple(days(world, 16, 17)))
    assert set(more.digests) == set(days(world, 16, 18))


def test_a_corrected_input_makes_its_dependents_stale_by_window(world: World) -> None:
    definition = world.sql(
        "SELECT flight_id, sched_dep, (SELECT avg(air_time) FROM arrivals) AS a FROM flights "
        "WHERE partition = $partition"
    )  # lookback 3
    builder = world.builder(definition)
    before = builder.ensure(days(world, 8, 18))
    # the same rows again are no correction
    feed = world.specs.feed("arrivals")
    rows = feed_table(feed).read(["2013-01-12"])
    assert rows is not None
    feed_table(feed).replace({"2013-01-12": rows.drop_columns(["partition", "digest"]).slice(0)})
    assert builder.ensure(days(world, 8, 18)).built == ()
    world.change("arrivals", "2013-01-12", lambda rows: [r | {"air_time": 500.0} for r in rows])
    after = builder.ensure(days(world, 8, 18))
    assert after.built == tuple(days(world, 13, 15))  # 12 is seen from the day after on, three days long
    assert {k for k in before.digests if before.digests[k] != after.digests[k]} == set(days(world, 13, 15))
    assert after.inputs["2013-01-14"]["arrivals/2013-01-12"] != before.inputs["2013-01-14"]["arrivals/2013-01-12"]


def test_a_late_input_makes_its_dependents_stale(world: World) -> None:
    definition = world.definition()
    builder = world.builder(definition)
    feed_table(world.specs.feed("weather")).replace({"2013-01-10": read(world, "weather", "2013-01-10").slice(0, 0)})
    first = builder.ensure(days(world, 15, 16))
    assert first.inputs["2013-01-15"]["weather/2013-01-10"] == "missing"  # an old gap does not stop anything
    feed_table(world.specs.feed("weather")).replace({"2013-01-10": read(world, "weather", "2013-01-11")})
    assert builder.ensure(days(world, 15, 16)).built == tuple(days(world, 15, 16))


def read(world: World, feed: str, key: str) -> Any:
    table = feed_table(world.specs.feed(feed)).read([key])
    assert table is not None
    return table.drop_columns(["partition", "digest"])


def test_what_has_not_landed_is_named(world: World) -> None:
    builder = world.builder(world.definition())
    assert builder.missing("2013-01-20") == []
    assert builder.missing("2013-01-21") == ["flights 2013-01-21", "weather 2013-01-21"]
    assert builder.ready(["2013-01-20", "2013-01-21", "2013-01-22"]) == ["2013-01-20"]
    with pytest.raises(NotReadyError, match="features of 2013-01-21 wait for flights 2013-01-21, weather 2013-01-21"):
        builder.ensure(["2013-01-20", "2013-01-21"])
    assert builder.table.version is None
    with pytest.raises(NotReadyError, match="features of 2012-12-31 wait for flights 2012-12-31"):
        builder.ensure(["2012-12-31"])


def test_a_degraded_partition_is_built_without_what_is_late_and_anew_with_it(world: World) -> None:
    builder = world.builder(world.definition())
    weather = feed_table(world.specs.feed("weather"))
    rows = read(world, "weather", "2013-01-15")
    whole = builder.ensure(["2013-01-15"]).digests
    weather.replace({"2013-01-15": rows.slice(0, 0)})
    with pytest.raises(NotReadyError, match="wait for weather 2013-01-15"):
        builder.ensure(["2013-01-15"])
    built = builder.ensure(["2013-01-15"], degraded=True)
    assert built.inputs["2013-01-15"]["weather/2013-01-15"] == "missing" and built.digests != whole
    weather.replace({"2013-01-15": rows})
    assert builder.ensure(["2013-01-15"]).digests == whole
    with pytest.raises(NotReadyError, match=r"features of 2013-01-21 wait for flights 2013-01-21$"):
        builder.ensure(["2013-01-21"], degraded=True)


def test_an_entity_with_a_delay_sees_its_own_partition(world: World) -> None:
    flights = world.specs.feed("flights")
    world.specs.feeds["flights"] = flights.model_copy(update={"delay": world.specs.feed("arrivals").delay})
    assert world.build(world.sql(BASE), DAY).num_rows == len(world.rows("flights", DAY))


def test_a_column_that_is_not_in_the_lake_yet_is_null(world: World) -> None:
    flights = world.specs.feed("flights")
    columns = {**flights.columns, "gate": "string"}
    world.specs.feeds["flights"] = flights.model_copy(update={"columns": columns})
    assert world.build(world.sql(BASE.replace("origin", "gate")), DAY)["gate"].null_count > 0


def test_a_changed_definition_has_its_own_table(world: World) -> None:
    old, new = world.sql(BASE), world.sql(BASE.replace("distance", "distance * 2 AS distance"))
    before = world.builder(old).ensure([DAY])
    built = world.builder(new).ensure([DAY])
    assert built.built == (DAY,)
    assert built.digests != before.digests
    assert world.builder(old).table.uri != world.builder(new).table.uri
    assert world.builder(old).ensure([DAY]).built == ()


AVERAGES = """
SELECT f.flight_id, f.sched_dep, avg(a.air_time * 1.1) OVER () AS overall, r.air_time
FROM flights f
LEFT JOIN (
    SELECT g.origin, avg(a.air_time / 7.0 + w.temp / 3.0) AS air_time, stddev(a.air_time) AS spread
    FROM arrivals a JOIN flights g USING (flight_id)
    JOIN weather w ON w.origin = g.origin AND w.time_hour = date_trunc('hour', g.sched_dep)
    GROUP BY g.origin
) r ON r.origin = f.origin
LEFT JOIN arrivals a ON a.flight_id = f.flight_id
WHERE f.partition = $partition
"""


@pytest.mark.parametrize("source", ["flight_delay", "flight_duration", AVERAGES])
def test_builds_give_the_same_bits_alone_and_together(world: World, source: str) -> None:
    definition = world.definition(source) if source in world.specs.models else world.sql(source, lookback=10)
    keys = days(world, 12, 18)
    together = world.builder(definition, "a").ensure(keys).digests
    assert world.builder(definition, "b").ensure(keys).digests == together
    alone = world.builder(definition, "c")
    assert {k: alone.ensure([k]).digests[k] for k in reversed(keys)} == together


def test_builds_do_not_depend_on_the_order_of_rows_in_the_lake(world: World) -> None:
    definition = world.sql(AVERAGES, lookback=10)
    before = world.builder(definition, "a").ensure([DAY]).digests
    for feed in ("flights", "arrivals", "weather"):
        table = feed_table(world.specs.feed(feed))
        known = {k: read(world, feed, k) for k in days(world, 7, 17)}
        table.replace({k: t.slice(0, 0) for k, t in known.items()})
        table.replace({k: t.take(list(reversed(range(t.num_rows)))) for k, t in known.items()})
    assert world.builder(definition, "b").ensure([DAY]).digests == before


def test_a_fence_stops_the_build_before_it_is_written(world: World) -> None:
    def dead() -> None:
        raise BrokenPipeError

    builder = world.builder(world.sql(BASE))
    with pytest.raises(BrokenPipeError):
        builder.ensure([DAY], fence=dead)
    assert builder.table.version is None


def test_tables_that_are_no_feeds_are_named(world: World) -> None:
    with pytest.raises(SpecError, match="reads from 'wether', which is not a feed: did you mean weather"):
        world.builder(world.sql(BASE.replace("FROM flights", "FROM flights, wether")))
    assert isinstance(world.builder(world.sql(BASE)).table, PartitionedTable)


def test_the_plan_does_not_follow_from_how_much_was_loaded() -> None:
    """Sums of floats depend on the order of rows. A history loads more than a day does, and must give the same bits."""
    import datetime as dt
    import math

    import pyarrow as pa

    from perennial.features.definition import Definition
    from perennial.features.engine import Engine
    from perennial.specs import FeedSpec

    said = {"version": 1, "owner": "x", "start": "2013-01-01", "source": {"path": "{partition}.csv"}, "key": ["id"]}
    feeds = {
        "a": FeedSpec.model_validate(said | {"name": "a", "columns": {"id": "integer", "x": "float"}}),
        "b": FeedSpec.model_validate(
            said
            | {"name": "b", "columns": {"k": "integer", "id": "integer", "g": "integer", "y": "float"}, "key": ["k"]}
        ),
    }
    query = "SELECT g, avg(x * y) AS m FROM a JOIN b USING (id) GROUP BY g ORDER BY g"
    definition = Definition("sql", query, "features.sql", 1, "a", ("id",), None)
    day, later = dt.date(2013, 1, 1), dt.date(2013, 1, 2)

    def run(more: int) -> list[dict[str, float]]:
        ids = [i * 7919 % 1000 for i in range(1000)]
        with Engine(definition, feeds) as engine:
            engine.load("a", pa.table({"id": ids, "x": [math.sin(i) * 1e3 for i in ids], "partition": [day] * 1000}))
            n = range(1000 + more)
            b = {"k": [i * 7919 % 100_003 for i in n], "id": n, "g": [i % 3 for i in n], "y": [math.cos(i) for i in n]}
            engine.load("b", pa.table(b | {"partition": [day] * 1000 + [later] * more}))
            for feed in feeds:
                engine.cut(feed, (day, day), known_by=dt.datetime(2013, 1, 3, tzinfo=dt.UTC))
            return list(engine.run(day).to_pylist())

    assert run(0) == run(500) == run(20_000)
