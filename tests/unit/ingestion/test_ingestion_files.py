"""Files as upstream systems deliver them, read as the feed declares them or refused in one sentence."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perennial.errors import DataError, NotReadyError, SpecError
from perennial.lake.landing import Landed, has_landed, read_landed
from perennial.specs import FeedSpec

pytestmark = pytest.mark.fast

DAY = "2013-01-05"
GOOD = "id,city,temp,at\n1,NA,1.5,2013-01-05T06:00:00Z\n2,,,\n"


def feed(suffix: str = "csv") -> FeedSpec:
    return FeedSpec.model_validate(
        {
            "version": 1,
            "name": "obs",
            "owner": "x",
            "start": "2013-01-01",
            "source": {"path": f"obs/{{partition}}.{suffix}"},
            "columns": {"id": "integer", "city": "string", "temp": "float", "at": "timestamp"},
            "key": ["id"],
        }
    )


class Landing:
    def __init__(self, home: Path, folder: Path) -> None:
        self.home, self.folder = home, folder

    def read(self, data: bytes | str | pa.Table, suffix: str = "csv") -> Landed:
        if isinstance(data, pa.Table):
            sink = io.BytesIO()
            pq.write_table(data, sink)
            data = sink.getvalue()
        path = self.home / "landing" / "obs" / f"{DAY}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        assert has_landed(feed(suffix), DAY)
        return read_landed(feed(suffix), self.folder, DAY)

    def refused(self, data: bytes | str | pa.Table, suffix: str = "csv") -> str:
        with pytest.raises(DataError) as caught:
            self.read(data, suffix)
        assert f"landing/obs/{DAY}.{suffix}" in str(caught.value)
        return str(caught.value)


@pytest.fixture
def landing(home: Path, tmp_path: Path) -> Landing:
    folder = tmp_path / "feed"
    folder.mkdir()
    return Landing(home, folder)


def good(**changes: Any) -> pa.Table:
    return pa.table({"id": [1], "city": ["x"], "temp": [1.5], "at": pa.array([0], pa.timestamp("us", "UTC"))} | changes)


def test_what_is_declared_is_read(landing: Landing) -> None:
    found = landing.read(GOOD)
    assert found.table.to_pydict()["city"] == ["NA", None]  # a country, and nothing
    assert found.table.to_pydict()["temp"] == [1.5, None]
    assert [str(t) for t in found.table.schema.types] == ["int64", "string", "double", "timestamp[us, tz=UTC]"]
    assert landing.read(gzip.compress(GOOD.encode()), "csv.gz").table.equals(found.table)
    assert landing.read(b"\xef\xbb\xbf" + GOOD.encode()).table.equals(found.table)
    assert landing.read(GOOD.replace("\n", "\r\n")).table.equals(found.table)
    assert landing.read("at,temp,city,id\n,,,7\n").table.column_names == ["id", "city", "temp", "at"]


def test_a_file_that_has_not_landed(home: Path, tmp_path: Path) -> None:
    assert not has_landed(feed(), DAY)
    with pytest.raises(NotReadyError, match=f"obs {DAY} has not landed: file://.*/obs/{DAY}.csv is not there"):
        read_landed(feed(), tmp_path, DAY)


def test_undeclared_columns_are_left_out_and_said(landing: Landing) -> None:
    found = landing.read(GOOD.replace("at\n", "at,wind\n").replace("Z\n", "Z,5\n").replace(",,,\n", ",,,,\n"))
    assert found.notes == ("undeclared columns left out: wind",)
    assert "wind" not in found.table.column_names


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty (0 bytes)"),
        ("\n\n", "cannot be read: "),
        (GOOD.replace("temp", "tempp"), "has no column 'temp'; it has 'tempp': was the column renamed?"),
        (GOOD.replace("1.5", "warm"), "column 'temp' to double: invalid value 'warm'"),
        (GOOD.replace("1.5", "n/a"), "column 'temp' to double: invalid value 'n/a'"),
        (GOOD.replace("1,NA", "1.5,NA"), "column 'id' to int64: invalid value '1.5'"),
        (GOOD.replace(":00Z", ":00"), "column 'at' to timestamp[us, tz=UTC]: expected a zone offset"),
        (GOOD.replace("NA", '"NA'), "cannot be read: "),
        (GOOD.replace("NA", "New, York"), "Expected 4 columns, got 5"),
        (GOOD.encode().replace(b"NA", b"Z\xfcrich"), "column 'city' to string: invalid UTF8 data"),
        (GOOD.encode("utf-16"), "cannot be read: "),
        (GOOD.replace("at\n", "at,id\n").replace("Z\n", "Z,5\n").replace(",,,\n", ",,,,\n"), "has column 'id' 2 times"),
    ],
)
def test_csv_that_cannot_be_read_as_declared(landing: Landing, text: bytes | str, sentence: str) -> None:
    assert sentence in landing.refused(text)


def test_other_files_that_cannot_be_read(landing: Landing) -> None:
    sink = io.BytesIO()
    pq.write_table(good(), sink)
    whole = sink.getvalue()
    for broken in (whole[:-8] + b"spoiled!", whole[: len(whole) // 2], b"PAR1", b"PAR1" + b"x" * 100 + b"PAR1"):
        assert "cannot be read: " in landing.refused(broken, "parquet")
    assert "cannot be read: " in landing.refused(gzip.compress(GOOD.encode())[:-12], "csv.gz")
    assert "cannot be read: " in landing.refused(GOOD, "csv.gz")
    assert "has no column 'temp'" in landing.refused(good().drop_columns(["temp"]), "parquet")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"temp": ["warm"]}, "column 'temp' is string, not float"),
        ({"temp": [[1.0]]}, "column 'temp' is list<"),
        ({"id": [1.5]}, "column 'id' is double, not integer"),
        ({"at": ["2013-01-05T06:00:00"]}, "column 'at' is string, not timestamp"),
        ({"at": [{"a": 1}]}, "column 'at' is struct<"),
    ],
)
def test_parquet_of_other_types(landing: Landing, changes: dict[str, Any], sentence: str) -> None:
    assert sentence in landing.refused(good(**changes), "parquet")


@pytest.mark.parametrize(
    "changes",
    [
        {"temp": [1]},
        {"id": pa.array([1], pa.uint32())},
        {"id": [1.0]},
        {"city": pa.array(["x"]).dictionary_encode()},
        {"at": pa.array([1], pa.timestamp("ns"))},
        {"at": pa.array([0], pa.timestamp("ms", "America/New_York"))},
        {"temp": pa.nulls(1)},
    ],
)
def test_parquet_that_says_the_same_in_other_types(landing: Landing, changes: dict[str, Any]) -> None:
    table = landing.read(good(**changes), "parquet").table
    assert [str(t) for t in table.schema.types] == ["int64", "string", "double", "timestamp[us, tz=UTC]"]
    assert table["at"][0].value == 0


# ----------------------------------------------------------------------------------------------------------- prepare.py


def test_prepare_makes_rows_out_of_what_came(landing: Landing) -> None:
    (landing.folder / "prepare.py").write_text(
        "import pandas as pd\n"
        "def prepare(frame):\n"
        "    frame = frame.rename(columns={'station': 'city'})\n"
        "    frame['at'] = pd.to_datetime(frame['at'], dayfirst=True, utc=True)\n"
        "    return frame\n"
    )
    table = landing.read("id,station,temp,at\n1,x,NA,05/01/2013 06:00\n").table
    row = table.to_pylist()[0]
    assert (row["id"], row["city"], row["temp"]) == (1, "x", None)
    assert row["at"].isoformat() == "2013-01-05T06:00:00+00:00"


@pytest.mark.parametrize(
    ("code", "error", "sentence"),
    [
        (
            "def prepare(frame):\n    return frame['nope']\n",
            DataError,
            f"{DAY}.csv: prepare.py failed: KeyError: 'nope'",
        ),
        ("def prepare(frame):\n    return None\n", DataError, "prepare.py failed: "),
        ("x = 1\n", SpecError, "must define prepare(frame) and return a DataFrame"),
        ("def prepare(:\n", SpecError, "prepare.py cannot be run: SyntaxError"),
    ],
)
def test_prepare_that_fails(landing: Landing, code: str, error: type[Exception], sentence: str) -> None:
    (landing.folder / "prepare.py").write_text(code)
    with pytest.raises(error) as caught:
        landing.read(GOOD)
    assert sentence in str(caught.value)
