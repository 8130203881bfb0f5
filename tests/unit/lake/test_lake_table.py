"""Delta tables whose unit of change is the partition."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perennial.errors import ConflictError, DataError
from perennial.lake.table import PartitionedTable, Snapshot

pytestmark = pytest.mark.fast

D1, D2, D3 = "2013-01-01", "2013-01-02", "2013-01-03"


@pytest.fixture
def lake(tmp_path: Path) -> PartitionedTable:
    return PartitionedTable((tmp_path / "lake" / "t").as_uri(), ["id"])


def rows(*values: float | None, start: int = 0) -> pa.Table:
    return pa.table(
        {"id": pa.array(range(start, start + len(values)), pa.int64()), "v": pa.array(values, pa.float64())}
    )


def state(lake: PartitionedTable, version: int | None = None) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    table = lake.read(list(lake.partitions(version)), version=version)
    for r in table.to_pylist() if table is not None else []:
        found.setdefault(r["partition"], []).append((r["id"], r["v"]))
    return {k: sorted(v) for k, v in found.items()}


def test_before_the_first_write_there_is_nothing(lake: PartitionedTable) -> None:
    assert lake.version is None
    assert lake.partitions() == {}
    assert lake.read([D1]) is None
    assert list(lake.batches([D1])) == []
    with pytest.raises(DataError, match="has no rows for partition 2013-01-01"):
        lake.snapshot([D1])
    assert lake.replace({}) == {}
    lake.replace({D1: rows()})
    assert lake.version is None


def test_partitions_are_replaced_and_the_others_stay(lake: PartitionedTable) -> None:
    lake.replace({D1: rows(1, 2), D2: rows(3), D3: rows(4)})
    before = lake.version
    digests = lake.replace({D1: rows(9), D3: rows(8, 7)})
    assert before is not None
    assert lake.version == before + 1  # both in one commit
    assert state(lake) == {D1: [(0, 9)], D2: [(0, 3)], D3: [(0, 8), (1, 7)]}
    assert {k: p.rows for k, p in lake.partitions().items()} == {D1: 1, D2: 1, D3: 2}
    assert {k: lake.partitions()[k].digest for k in digests} == digests
    assert state(lake, before) == {D1: [(0, 1), (1, 2)], D2: [(0, 3)], D3: [(0, 4)]}


def test_the_same_content_makes_no_new_version(lake: PartitionedTable) -> None:
    first = lake.replace({D1: rows(1, 2), D2: rows(3)})
    version = lake.version
    again = pa.concat_tables([rows(2, start=1), rows(1)])  # other order, other chunks
    assert lake.replace({D1: again, D2: rows(3)}) == first
    assert lake.version == version
    lake.replace({D1: again, D2: rows(4)})
    files = DeltaTable(lake.uri).history(1)[0]["operationMetrics"]
    assert files["num_added_files"] == 1  # only what changed was written


def test_an_empty_table_empties_the_partition(lake: PartitionedTable) -> None:
    lake.replace({D1: rows(1), D2: rows(2)})
    lake.replace({D1: rows()})
    assert state(lake) == {D2: [(0, 2)]}
    version = lake.version
    lake.replace({D1: rows()})
    assert lake.version == version
    lake.replace({D2: rows()})
    assert lake.partitions() == {}
    assert lake.read([D2]) is not None
    lake.replace({D2: rows(5)})
    assert state(lake) == {D2: [(0, 5)]}


def test_labels_are_kept_and_a_changed_one_is_a_change(tmp_path: Path) -> None:
    lake = PartitionedTable((tmp_path / "t").as_uri(), ["id"], labels=("inputs",))
    lake.replace({D1: rows(1), D2: rows(2)}, labels={D1: {"inputs": "a"}, D2: {"inputs": "b"}})
    version = lake.version
    lake.replace({D1: rows(1)}, labels={D1: {"inputs": "a"}})
    assert lake.version == version
    lake.replace({D1: rows(1)}, labels={D1: {"inputs": "c"}})
    assert {k: p.labels for k, p in lake.partitions().items()} == {D1: {"inputs": "c"}, D2: {"inputs": "b"}}
    assert state(lake) == {D1: [(0, 1)], D2: [(0, 2)]}


def test_volatile_columns_are_no_content(tmp_path: Path) -> None:
    lake = PartitionedTable((tmp_path / "t").as_uri(), ["id"], volatile=("run",))

    def by(run: str, *values: float) -> pa.Table:
        return rows(*values).append_column("run", pa.array([run] * len(values)))

    first = lake.replace({D1: by("a", 1)})
    version = lake.version
    assert lake.replace({D1: by("b", 1)}) == first
    assert lake.version == version
    assert lake.replace({D1: by("b", 2)}) != first
    assert lake.read([D1])["run"].to_pylist() == ["b"]  # type: ignore[index]
    lake.read_snapshot(lake.snapshot([D1]))


def test_a_new_column_is_merged_and_old_partitions_keep_their_digest(lake: PartitionedTable) -> None:
    first = lake.replace({D1: rows(1)})
    lake.replace({D2: rows(2).append_column("w", pa.array(["new"]))})
    assert lake.read([D1, D2], columns=["partition", "w"]).sort_by("partition")["w"].to_pylist() == [None, "new"]  # type: ignore[union-attr]
    assert lake.partitions()[D1].digest == first[D1]
    lake.replace({D3: rows(3)})
    assert lake.read([D3])["w"].to_pylist() == [None]  # type: ignore[index]
    assert lake.read_snapshot(lake.snapshot([D1, D2, D3])).num_rows == 3


def test_a_column_of_another_type_is_refused_with_a_sentence(lake: PartitionedTable) -> None:
    lake.replace({D1: rows(1)})
    with pytest.raises(DataError, match="partition 2013-01-02 does not fit the table's columns"):
        lake.replace({D2: pa.table({"id": [1], "v": ["text"]})})
    assert state(lake) == {D1: [(0, 1)]}


@pytest.mark.parametrize("name", ["partition", "digest"])
def test_the_lakes_own_columns_are_refused(lake: PartitionedTable, name: str) -> None:
    with pytest.raises(DataError, match=f"a column named '{name}', which the lake owns"):
        lake.replace({D1: rows(1).append_column(name, pa.array(["x"]))})


@pytest.mark.parametrize("key", ["", "a'b", "2013-01-01' OR '1'='1", "a/b", "a b"])
def test_what_is_not_a_key_is_refused(lake: PartitionedTable, key: str) -> None:
    lake.replace({D1: rows(1)})
    with pytest.raises(DataError, match="is not a partition key"):
        lake.replace({key: rows(2)})
    assert state(lake) == {D1: [(0, 1)]}


def test_the_fence_is_asked_before_the_write_and_stops_it(lake: PartitionedTable) -> None:
    asked: list[int | None] = []
    lake.replace({D1: rows(1)}, fence=lambda: asked.append(lake.version))
    lake.replace({D1: rows(2)}, fence=lambda: asked.append(lake.version))
    lake.replace({D1: rows(2)}, fence=lambda: asked.append(-1))  # nothing to write, nobody to ask
    assert asked[0] is None
    assert asked[1:] == [lake.version - 1]  # type: ignore[operator]

    def dead() -> None:
        raise BrokenPipeError

    version = lake.version
    with pytest.raises(BrokenPipeError):
        lake.replace({D1: rows(3), D2: rows(4)}, fence=dead)
    fresh = PartitionedTable(f"{lake.uri}2", ["id"])
    with pytest.raises(BrokenPipeError):
        fresh.replace({D1: rows(3)}, fence=dead)
    assert (lake.version, fresh.version) == (version, None)


def test_it_gives_up_with_a_sentence_and_retries_before(
    lake: PartitionedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deltalake.exceptions import CommitFailedError

    from perennial.lake import table

    write, fenced = table.write_deltalake, []
    failures = iter([True, True, False])

    def contended(*args: Any, **kwargs: Any) -> None:
        if next(failures, True):
            raise CommitFailedError("somebody was faster")
        write(*args, **kwargs)

    monkeypatch.setattr(table, "write_deltalake", contended)
    monkeypatch.setattr(table.time, "sleep", lambda _: None)
    lake.replace({D1: rows(1)}, fence=lambda: fenced.append(1))
    assert len(fenced) == 3
    assert state(lake) == {D1: [(0, 1)]}
    with pytest.raises(ConflictError, match="partition 2013-01-01 was being written by others 2 times"):
        lake.replace({D1: rows(2)}, attempts=2)


# ------------------------------------------------------------------------------------------------------------ snapshots


def test_a_snapshot_keeps_naming_the_old_rows(lake: PartitionedTable) -> None:
    lake.replace({D1: rows(1, 2), D2: rows(3), D3: rows(9)})
    taken = lake.snapshot([D2, D1, D1])
    assert (taken.partitions, taken.rows) == ((D1, D2), 3)
    assert taken.predicate == f"partition IN ('{D1}', '{D2}')"
    lake.replace({D1: rows(7)})
    lake.replace({D2: rows()})
    old = lake.read_snapshot(Snapshot.from_dict(taken.to_dict()))
    assert sorted(old["v"].to_pylist()) == [1, 2, 3]
    assert lake.read_snapshot(taken, columns=["v"]).column_names == ["v"]
    assert lake.snapshot([D1]).sha256 != taken.sha256
    assert lake.snapshot([D3]).sha256 == PartitionedTable(lake.uri, ["id"]).snapshot([D3]).sha256


def test_a_snapshot_of_what_is_not_there_is_a_clear_error(lake: PartitionedTable) -> None:
    lake.replace({D1: rows(1)})
    with pytest.raises(DataError, match="has no rows for partition 2013-01-02 and 1 more"):
        lake.snapshot([D1, D3, D2])
    with pytest.raises(DataError, match="has no rows for partition"):
        lake.snapshot([])


def test_a_tampered_snapshot_is_detected(lake: PartitionedTable) -> None:
    lake.replace({D1: rows(1), D2: rows(2)})
    good = lake.snapshot([D1, D2]).to_dict()
    for change in ({"sha256": "0" * 64}, {"partitions": [D1]}, {"partitions": [D1, D2, D3]}):
        with pytest.raises(DataError, match="sha256 differs"):
            lake.read_snapshot(Snapshot.from_dict(good | change))
    with pytest.raises(DataError, match="has no version 99"):
        lake.read_snapshot(Snapshot.from_dict(good | {"version": 99}))


def test_changed_rows_under_a_snapshot_are_detected(lake: PartitionedTable, tmp_path: Path) -> None:
    """Somebody writes other rows under the digest of the old ones, or spoils a file."""
    from deltalake import write_deltalake

    lake.replace({D1: rows(1), D2: rows(2)})
    taken = lake.snapshot([D1, D2])
    forged = lake.read([D2]).set_column(1, "v", pa.array([2.5]))  # type: ignore[union-attr]
    write_deltalake(lake.uri, forged, mode="overwrite", predicate=f"partition = '{D2}'")
    assert lake.read_snapshot(taken).num_rows == 2
    with pytest.raises(DataError, match="rows of partition 2013-01-02 are not what was written"):
        lake.read_snapshot(Snapshot.from_dict(taken.to_dict() | {"version": lake.version}), columns=["id"])
    for file in (tmp_path / "lake" / "t" / f"partition={D1}").rglob("*.parquet"):
        file.write_bytes(b"spoiled")
    with pytest.raises(DataError, match="cannot be read"):
        lake.read_snapshot(taken)


# -------------------------------------------------------------------------------------------------------------- reading


def test_batches_stream(lake: PartitionedTable) -> None:
    lake.replace({D1: rows(*range(1000)), D2: rows(*range(500)), D3: rows(1)})
    batches = list(lake.batches([D1, D2], columns=["id"], batch_size=128))
    assert sum(b.num_rows for b in batches) == 1500
    assert max(b.num_rows for b in batches) <= 128
    assert batches[0].schema.names == ["id"]


def test_reading_columns_and_keys(lake: PartitionedTable) -> None:
    lake.replace({D1: rows(1)})
    assert lake.read([]).num_rows == 0  # type: ignore[union-attr]
    assert lake.read([D2]).num_rows == 0  # type: ignore[union-attr]
    assert list(lake.batches([D2])) == [] or sum(b.num_rows for b in lake.batches([D2])) == 0
    with pytest.raises(DataError, match="has no column 'nope'; it has id, v, partition, digest"):
        lake.read([D1], columns=["nope"])


def test_history_is_not_cleaned_up(lake: PartitionedTable) -> None:
    lake.replace({D1: rows(1)})
    assert DeltaTable(lake.uri).metadata().configuration["delta.enableExpiredLogCleanup"] == "false"


# ---------------------------------------------------------------------------------------------------------- concurrency


def write(uri: str, me: int, key: str) -> None:
    lake = PartitionedTable(uri, ["id"])
    for turn in range(3):
        lake.replace({key: rows(*[me * 10 + turn] * 20)}, attempts=50)


def test_writers_of_one_partition_and_of_many_double_nothing_and_lose_nothing(lake: PartitionedTable) -> None:
    """From the very first write on, when the table is not there yet."""
    everybody = [(lake.uri, me, D1 if me < 4 else f"2013-02-{me:02d}") for me in range(8)]
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(write, everybody, chunksize=1)
    found = state(lake)
    assert {k: len(v) for k, v in found.items()} == {D1: 20} | {f"2013-02-{me:02d}": 20 for me in range(4, 8)}
    assert all(len({v for _, v in part}) == 1 for part in found.values())
    assert all({v for _, v in found[f"2013-02-{me:02d}"]} == {me * 10 + 2} for me in range(4, 8))
    assert {v for _, v in found[D1]} <= {me * 10 + 2 for me in range(4)}
    lake.read_snapshot(lake.snapshot(list(found)))


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    writes=st.lists(
        st.dictionaries(st.sampled_from([D1, D2, D3]), st.lists(st.none() | st.integers(0, 3), max_size=3), min_size=1),
        max_size=6,
    )
)
def test_any_sequence_of_writes_ends_like_a_dict(tmp_path_factory: pytest.TempPathFactory, writes: Any) -> None:
    lake = PartitionedTable((tmp_path_factory.mktemp("lake") / "t").as_uri(), ["id"])
    model: dict[str, list[Any]] = {}
    for write in writes:
        before, changed = lake.version, {k: v for k, v in write.items() if model.get(k, []) != v}
        lake.replace({k: rows(*v) for k, v in write.items()})
        model = {k: v for k, v in (model | write).items() if v}
        assert state(lake) == {k: list(enumerate(v)) for k, v in model.items()}
        assert {k: p.rows for k, p in lake.partitions().items()} == {k: len(v) for k, v in sorted(model.items())}
        if not changed:
            assert lake.version == before
