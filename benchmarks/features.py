"""Sixty daily feature partitions, against one query over the whole window that somebody took care to write."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks import flights
from benchmarks.harness import Cost, Result, alternately, fresh, result, watch

LAST = "2013-03-01"  # the sixtieth day
#: The features of ``include/models/flight_delay/features.sql`` for all days at once. What is known on a day is written
#: out by hand: arrivals of the fourteen days before it, by whatever they are averaged over.
QUERY = """
WITH ended AS (
    SELECT f.day, f.carrier, f.origin, f.dest, a.late
    FROM arrivals a JOIN flights f USING (flight_id)
    WHERE a.late IS NOT NULL
),
days AS (SELECT DISTINCT day FROM flights),
carrier_days AS (SELECT day, carrier, sum(late) AS late, count(*) AS n FROM ended GROUP BY ALL),
route_days AS (SELECT day, origin, dest, sum(late) AS late, count(*) AS n FROM ended GROUP BY ALL),
origin_days AS (SELECT day, origin, sum(late) AS late, count(*) AS n FROM ended GROUP BY ALL),
by_carrier AS (
    SELECT d.day, e.carrier, sum(e.late) / sum(e.n) AS late_rate
    FROM days d JOIN carrier_days e ON e.day BETWEEN d.day - 14 AND d.day - 1
    GROUP BY ALL HAVING sum(e.n) >= 20
),
by_route AS (
    SELECT d.day, e.origin, e.dest, sum(e.late) / sum(e.n) AS late_rate
    FROM days d JOIN route_days e ON e.day BETWEEN d.day - 14 AND d.day - 1
    GROUP BY ALL HAVING sum(e.n) >= 20
),
by_origin AS (
    SELECT d.day, e.origin, sum(e.late) / sum(e.n) AS late_rate
    FROM days d JOIN origin_days e ON e.day BETWEEN d.day - 14 AND d.day - 1
    GROUP BY ALL
)
SELECT
    f.flight_id, f.sched_dep, f.carrier, f.origin, f.dest, f.distance,
    f.hour::DOUBLE AS hour, f.minute::DOUBLE AS minute, (f.sched_arr_hhmm // 100)::DOUBLE AS arrival_hour,
    isodow(f.day)::DOUBLE AS weekday,
    w.temp, w.dewp, w.humid, w.wind_dir, w.wind_speed, w.precip, w.pressure, w.visib,
    c.late_rate AS carrier_late_rate, r.late_rate AS route_late_rate, o.late_rate AS origin_late_rate,
    f.day::VARCHAR AS partition
FROM flights f
LEFT JOIN weather w ON w.day = f.day AND w.origin = f.origin AND w.time_hour = date_trunc('hour', f.sched_dep)
LEFT JOIN by_carrier c ON c.day = f.day AND c.carrier = f.carrier
LEFT JOIN by_route r ON r.day = f.day AND r.origin = f.origin AND r.dest = f.dest
LEFT JOIN by_origin o ON o.day = f.day AND o.origin = f.origin
ORDER BY f.day, f.flight_id
"""


def run(folder: Path, *, quick: bool) -> list[Result]:
    """Build both from the same lake, alternately, and compare them row by row."""
    home = str(folder / "home")
    rows = fresh("flights:land", home=home, last=LAST).value
    ours, by_hand = alternately(
        1 if quick else 5, lambda: fresh("features:ours", home=home), lambda: fresh("features:by_hand", home=home)
    )
    compared = fresh("features:compare", home=home).value
    if compared != rows:
        raise RuntimeError(f"{compared} of {rows} rows are the same, so the times say nothing")
    return [
        result(
            "feature build of 60 daily partitions, CPU s / one query over the whole window",
            [a.cpu / b.cpu for a, b in zip(ours, by_hand, strict=True)],
            unit="x",
            against="a hand-written, leak-free DuckDB query, read from and written to Delta; the same rows, checked",
            at_most=3,
            note=f"{rows:,} flights, 19 features, three of them late rates of the fourteen days before. Ours includes "
            "a content digest of every partition and the audit that hides later hours.",
        ),
        result("that build", _cpu(ours), unit="CPU s"),
        result("that query", _cpu(by_hand), unit="CPU s"),
    ]


def _cpu(costs: list[Cost]) -> list[float]:
    return [c.cpu for c in costs]


def _import() -> None:
    import deltalake  # noqa: F401
    import duckdb  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.dataset  # noqa: F401

    import perennial.features.builder
    import perennial.features.engine  # noqa: F401


def ours(home: str) -> None:
    """``FeatureBuilder.ensure``, as scoring and training call it."""
    specs = flights.enter(home)
    _import()
    from perennial.features.builder import FeatureBuilder
    from perennial.features.definition import load_definition
    from perennial.specs.partitions import keys_between

    spec = specs.model(flights.MODEL)
    keys = keys_between(specs.feed(spec.entity), flights.FIRST, LAST)
    shutil.rmtree(Path(home) / "lake" / "features", ignore_errors=True)
    with watch.running():
        definition = load_definition(spec, specs.folder_of("model", spec.name), specs.feeds)
        built = FeatureBuilder(spec.name, definition, specs.feeds).ensure(keys).built
    if len(built) != 60:
        raise RuntimeError(f"{len(built)} partitions were built")


def by_hand(home: str) -> None:
    """Read the feeds, run the query, write a table with one partition a day."""
    specs = flights.enter(home)
    _import()
    import duckdb
    from deltalake import DeltaTable, write_deltalake

    from perennial.lake.homes import feed_table

    target = str(Path(home) / "by_hand")
    shutil.rmtree(target, ignore_errors=True)
    with watch.running(), duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name in ("flights", "weather", "arrivals"):
            rows = DeltaTable(feed_table(specs.feed(name)).uri).to_pyarrow_dataset()
            connection.register(f"_{name}", rows)
            connection.execute(f"CREATE TABLE {name} AS SELECT *, partition::DATE AS day FROM _{name}")
        write_deltalake(target, connection.sql(QUERY).to_arrow_table(), partition_by=["partition"])


def compare(home: str) -> int:
    """How many rows of both are the same, in every column."""
    specs = flights.enter(home)
    import numpy as np
    from deltalake import DeltaTable

    from perennial.features.definition import load_definition
    from perennial.lake.homes import feature_table

    spec = specs.model(flights.MODEL)
    definition = load_definition(spec, specs.folder_of("model", spec.name), specs.feeds)
    table = feature_table(spec.name, definition.digest, list(definition.key))
    order = [("flight_id", "ascending")]
    one = table.read(list(table.partitions())).drop_columns(["digest", "inputs"]).sort_by(order)  # type: ignore[union-attr]
    other = DeltaTable(str(Path(home) / "by_hand")).to_pyarrow_table().sort_by(order).select(one.column_names)
    same = np.ones(one.num_rows, bool)
    for name in one.column_names:
        a, b = (t.column(name).to_numpy(zero_copy_only=False) for t in (one, other))
        same &= np.isclose(a, b, rtol=1e-12, atol=0, equal_nan=True) if a.dtype.kind == "f" else _equal(a, b)
    return int(same.sum())


def _equal(a: Any, b: Any) -> Any:
    return a == b
