"""Rows in a file are what the same rows in memory are: same digest, same partition, in little memory."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perennial.lake import rows as module
from perennial.lake.content import content_digest, streamed_digest
from perennial.lake.rows import ParquetRows
from perennial.lake.table import PartitionedTable

pytestmark = pytest.mark.fast

D1, D2 = "2013-01-01", "2013-01-02"
T0 = dt.datetime(2013, 1, 1, 5, tzinfo=dt.UTC)


def filed(folder: Path, table: pa.Table, row_group: int = 3) -> ParquetRows:
    path = folder / "rows.parquet"
    pq.write_table(table, path, row_group_size=row_group)
    return ParquetRows(path)


def wide(n: int) -> pa.Table:
    def some(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array([None if i % 5 == 3 else v for i, v in enumerate(values)], kind)

    return pa.table(
        {
            "id": pa.array([f"k{(i * 7919) % 1000:04d}" for i in range(n)]),
            "x": some([(-1) ** i * i / 3 if i % 4 else float("nan") for i in range(n)], pa.float64()),
            "zero": pa.array([-0.0 if i % 2 else 0.0 for i in range(n)]),
            "i": some(list(range(n)), pa.int32()),
            "s": some([f"é{i % 3}" * (i % 3) for i in range(n)], pa.large_string()),
            "b": some([i % 2 == 0 for i in range(n)], pa.bool_()),
            "t": some([T0 + dt.timedelta(minutes=i) for i in range(n)], pa.timestamp("us", "America/New_York")),
            "d": some([T0.date() + dt.timedelta(days=i) for i in range(n)], pa.date32()),
            "m": some([decimal.Decimal(i) / 4 for i in range(n)], pa.decimal128(9, 2)),
            "c": pa.array([f"c{i % 2}" for i in range(n)]).dictionary_encode(),
            "none": pa.nulls(n, pa.float64()),
        }
    )


@pytest.mark.parametrize("n", [0, 1, 2, 50])
@pytest.mark.parametrize("batch", [1, 4, 1000])
def test_a_file_has_the_digest_of_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, batch: int) -> None:
    monkeypatch.setattr(module, "BATCH", batch)
    monkeypatch.setattr(ParquetRows.batches, "__defaults__", (None, batch))
    table = wide(n)
    for key in (["id"], ["c", "id"], ["i"], ["s"], ["x"], ["zero", "t"], []):
        decoded = table.set_column(table.column_names.index("c"), "c", table["c"].cast(pa.string()))
        for ordered in (table, decoded.sort_by([(k, "ascending") for k in key]) if key else decoded):
            assert streamed_digest(filed(tmp_path, ordered), key) == content_digest(table, key), key
    own = [c for c in table.column_names if c not in ("x", "none")]
    assert streamed_digest(filed(tmp_path, table), ["id"], own) == content_digest(table.select(own), ["id"])
    assert [p.name for p in tmp_path.iterdir()] == ["rows.parquet"], "what was sorted is gone"


KEYS = st.none() | st.text(max_size=3) | st.sampled_from(["a", "B", "é", "Z", "\U0001f600", "\uffff"])


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(KEYS, st.none() | st.integers(-2, 2), st.none() | st.floats()), max_size=12),
    key=st.sampled_from([["k"], ["k", "n"], ["n", "k"], ["x"], []]),
)
def test_any_rows_in_any_order_have_one_digest(tmp_path: Path, rows: list[Any], key: list[str]) -> None:
    """DuckDB sorts as Arrow does: text by its bytes, nulls last, NaN before them."""
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    table = pa.table(
        {
            "k": pa.array(columns[0], pa.string()),
            "n": pa.array(columns[1], pa.int64()),
            "x": pa.array(columns[2], pa.float64()),
        }
    )
    assert streamed_digest(filed(tmp_path, table), key) == content_digest(table, key)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(*[st.integers(0, 1)] * 3), max_size=5), tidy=st.booleans(), size=st.integers(1, 6))
def test_order_is_lexicographic_and_strict(tmp_path: Path, rows: list[tuple[int, ...]], tidy: bool, size: int) -> None:
    rows = sorted(rows) if tidy else rows
    table = pa.table({c: pa.array([r[i] for r in rows], pa.int64()) for i, c in enumerate("abc")})
    ParquetRows.batches.__defaults__ = (None, size)
    try:
        found = filed(tmp_path, table).ordered(["a", "b", "c"])
    finally:
        ParquetRows.batches.__defaults__ = (None, module.BATCH)
    assert found == all(a < b for a, b in itertools.pairwise(rows))


def test_nulls_are_never_in_order(tmp_path: Path) -> None:
    for values in (["a", None], [1.0, float("nan")], [float("nan"), 1.0], [1.0, float("nan"), 2.0]):
        assert not filed(tmp_path, pa.table({"k": values})).ordered(["k"]), values


def test_sorted_rows_keep_their_types(tmp_path: Path) -> None:
    table = wide(40)
    with filed(tmp_path, table).sorted(["t", "id"]) as found:
        rows = pa.Table.from_batches(found.batches(), found.schema)
    assert rows.schema.equals(filed(tmp_path, table).schema)
    expected = table.sort_by([("t", "ascending"), ("id", "ascending")])
    assert rows["id"].to_pylist() == expected["id"].to_pylist()
    assert rows["m"].to_pylist() == expected["m"].to_pylist() and rows["t"].to_pylist() == expected["t"].to_pylist()


def test_a_partition_from_a_file_is_the_one_from_memory(tmp_path: Path) -> None:
    rows = wide(40).drop_columns(["c", "none"])
    at = rows.column_names.index("t")
    rows = rows.set_column(at, "t", rows["t"].cast(pa.timestamp("us", "UTC")))
    streamed = PartitionedTable((tmp_path / "streamed").as_uri(), ["id"], labels=("inputs",), volatile=("x",))
    held = PartitionedTable((tmp_path / "held").as_uri(), ["id"], labels=("inputs",), volatile=("x",))
    labels = {D1: {"inputs": "one"}, D2: {"inputs": "two"}}
    other = pa.table({"id": ["z"], "i": pa.array([2**40], pa.int64())})  # another type of i: the stream widens it
    a = streamed.replace({D1: filed(tmp_path, rows), D2: other}, labels=labels)
    b = held.replace({D1: rows, D2: other}, labels=labels)
    assert a == b
    for table in (streamed, held):
        assert table.partitions()[D1].rows == 40 and table.partitions()[D1].labels == {"inputs": "one"}
    one, two = (t.read([D1, D2]).sort_by([("id", "ascending")]) for t in (streamed, held))  # type: ignore[union-attr]
    assert one.schema.equals(two.schema)
    assert repr(one.to_pylist()) == repr(two.to_pylist())  # NaN is not equal to itself
    version = streamed.version
    shuffled = filed(tmp_path, rows.take(pa.array(range(39, -1, -1))))
    assert streamed.replace({D1: shuffled}, labels={D1: labels[D1]}) == {D1: a[D1]}
    assert streamed.version == version, "the same rows in another order change nothing"
    empty = filed(tmp_path, rows.slice(0, 0))
    streamed.replace({D1: empty}, labels={D1: labels[D1]})
    assert set(streamed.partitions()) == {D2}


def test_a_fence_stops_a_streamed_write(tmp_path: Path) -> None:
    table = PartitionedTable((tmp_path / "t").as_uri(), ["id"])

    def dead() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        table.replace({D1: filed(tmp_path, wide(5))}, fence=dead)
    assert table.version is None


def test_batches_of_a_partition_are_read_in_small_pieces(tmp_path: Path) -> None:
    table = PartitionedTable((tmp_path / "t").as_uri(), ["id"])
    table.replace({D1: pa.table({"id": pa.array(range(300_000))})})
    sizes = [b.num_rows for b in table.batches([D1], batch_size=10_000)]
    assert sum(sizes) == 300_000 and max(sizes) <= 10_000
    found = [b.column(0) for b in table.batches([D1], columns=["id"], batch_size=10_000)]
    assert pc.count_distinct(pa.chunked_array(found)).as_py() == 300_000
