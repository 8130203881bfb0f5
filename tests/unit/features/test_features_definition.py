"""A definition as a value: its digest, the feeds that it reads, and what it may not ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from perennial.errors import SpecError
from perennial.features.definition import Definition, load_definition
from perennial.specs import load_specs

pytestmark = pytest.mark.fast

SQL = "SELECT f.flight_id, f.sched_dep, f.distance FROM flights f WHERE f.partition = $partition"
PYTHON = 'FEEDS = ["weather", "flights"]\n\ndef features(feeds, partition):\n    return feeds["flights"]\n'


def of(source: str, kind: str = "sql", lookback: int = 14) -> Definition:
    name = "features.sql" if kind == "sql" else "features.py"
    return Definition(kind, source, name, lookback, "flights", ("flight_id",), "sched_dep")


@pytest.mark.parametrize(
    "same",
    [
        "-- what we know\n" + SQL,
        SQL.replace(" FROM", "\n/* the schedule */\nFROM").replace("SELECT", "select"),
        SQL + ";\n",
        SQL.replace("f.partition = $partition", "(f.partition\t=\n\n$partition)"),
    ],
)
def test_comments_and_line_breaks_rebuild_nothing(same: str) -> None:
    assert of(same).digest == of(SQL).digest


@pytest.mark.parametrize(
    "other",
    [
        SQL.replace("f.distance", "f.distance + 0"),
        SQL.replace("f.distance", "f.distance AS far"),
        SQL.replace("f.distance", "f.hour"),
        SQL.replace("= $partition", ">= $partition"),
    ],
)
def test_another_meaning_is_another_digest(other: str) -> None:
    assert of(other).digest != of(SQL).digest
    assert of(SQL, lookback=15).digest != of(SQL).digest


def test_the_digest_of_python_is_of_its_code() -> None:
    assert of("# why\n" + PYTHON.replace("\n\n", "\n\n\n"), "python").digest == of(PYTHON, "python").digest
    assert of(PYTHON.replace('"flights"]\n', '"flights"].copy()\n'), "python").digest != of(PYTHON, "python").digest


def test_a_definition_travels(home: Path) -> None:
    assert Definition.from_dict(of(SQL).to_dict()) == of(SQL)
    assert Definition.from_dict(of(SQL).to_dict()).digest == of(SQL).digest


@pytest.mark.parametrize(
    ("source", "feeds"),
    [
        (SQL, ("flights",)),
        ("WITH a AS (SELECT * FROM arrivals), b AS (FROM a) SELECT * FROM b, flights", ("flights", "arrivals")),
        ("WITH arrivals AS (SELECT * FROM arrivals WHERE late = 1) SELECT * FROM arrivals", ("flights", "arrivals")),
        ("SELECT (WITH w AS (FROM weather) SELECT count(*) FROM w) FROM flights, w", ("flights", "w", "weather")),
        ("WITH RECURSIVE r AS (SELECT 1 x UNION ALL SELECT x + 1 FROM r WHERE x < 3) FROM r", ("flights",)),
        ("SELECT * FROM flights WHERE origin IN (SELECT origin FROM weather) UNION FROM arrivals",
         ("flights", "arrivals", "weather")),
        ("SELECT * FROM flights, range(3), unnest([1, 2])", ("flights",)),
    ],
)  # fmt: skip
def test_the_feeds_that_are_read(source: str, feeds: tuple[str, ...]) -> None:
    assert of(source).feeds == feeds


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("SELECT now() FROM flights", "now()"),
        ("SELECT current_date FROM flights", "current_date"),
        ("WITH x AS (SELECT random() FROM flights) FROM x", "random()"),
        ("SELECT * FROM flights, read_parquet('/lake/arrivals/**')", "read_parquet()"),
        ("SELECT * FROM query_table('_arrivals')", "query_table()"),
    ],
)
def test_neither_files_nor_clock_nor_chance(source: str, what: str) -> None:
    with pytest.raises(SpecError) as caught:
        _ = of(source).feeds
    assert str(caught.value).startswith(f"features.sql uses {what}: features follow from the feeds")


def test_errors_say_where(home: Path) -> None:
    feeds = load_specs().feeds
    with pytest.raises(SpecError, match=r"features\.sql, line 2, column \d+: syntax error"):
        _ = of("SELECT flight_id\nFRM flights f WHERE").digest
    with pytest.raises(SpecError, match="has 2 statements: write one SELECT"):
        _ = of("SELECT 1; SELECT 2").digest
    with pytest.raises(SpecError, match=r"features\.py, line 1:"):
        _ = of("def (", "python").digest
    with pytest.raises(SpecError, match="must say which feeds it reads"):
        _ = of("FEEDS = list('ab') and x\n", "python").feeds
    with pytest.raises(SpecError, match="which is not a feed"):
        of("SELECT * FROM '/etc/passwd'").check_feeds(feeds)
    with pytest.raises(SpecError, match="which is not a feed"):
        of("SELECT * FROM _arrivals").check_feeds(feeds)
    with pytest.raises(SpecError, match="does not return 'sched_dep'"):
        of("SELECT flight_id, hour FROM flights").describe(feeds)
    with pytest.raises(SpecError, match="returns no feature"):
        of("SELECT flight_id, sched_dep FROM flights").describe(feeds)
    with pytest.raises(SpecError, match="distence"):
        of(SQL.replace("distance", "distence")).describe(feeds)


@pytest.mark.parametrize("model", ["flight_delay", "flight_duration"])
def test_shipped_definitions_bind(home: Path, model: str) -> None:
    specs = load_specs()
    definition = load_definition(specs.model(model), specs.folder_of("model", model), specs.feeds)
    assert definition.feeds == ("flights", "arrivals", "weather")
    assert definition.lookback_days == 14
    assert {"flight_id", "sched_dep", "temp"} < set(definition.describe(specs.feeds))
