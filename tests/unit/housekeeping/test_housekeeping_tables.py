"""Tables are kept fast and small, and every snapshot that somebody needs can still be read."""

from __future__ import annotations

import datetime as dt
import json
import multiprocessing
import os
import time
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from perennial.errors import UsageError
from perennial.housekeeping.places import Place, name_of, places
from perennial.housekeeping.tables import MANY_FILES, old_checkpoints, tidy, vacuum
from perennial.lake.table import PartitionedTable, Snapshot

pytestmark = pytest.mark.fast

D1, D2, D3 = "2013-01-01", "2013-01-02", "2013-01-03"


def rows(*values: float) -> pa.Table:
    return pa.table({"id": pa.array(range(len(values)), pa.int64()), "v": pa.array(values, pa.float64())})


@pytest.fixture
def place(home: Path) -> Place:
    return Place("feeds/visits")


@pytest.fixture
def table(place: Place) -> PartitionedTable:
    return PartitionedTable(place.uri, ["id"])


def root(place: Place) -> Path:
    return Path(place.uri.removeprefix("file://"))


def age(place: Place, days: int = 30) -> None:
    """Make everything in the folder, and every removal in the log, this much older."""
    past = time.time() - days * 86400
    for path in root(place).rglob("*"):
        if path.suffix == ".json" and path.parent.name == "_delta_log":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for action in lines:
                if "remove" in action:
                    action["remove"]["deletionTimestamp"] -= days * 86_400_000
            path.write_text("\n".join(json.dumps(a) for a in lines))
        if path.is_file():
            os.utime(path, (past, past))


def data_files(place: Place) -> set[str]:
    return {p.name for p in root(place).rglob("part-*.parquet")}


def values(table: PartitionedTable, snapshot: Snapshot) -> list[float]:
    return sorted(table.read_snapshot(snapshot)["v"].to_pylist())


def test_vacuum_removes_what_no_version_needs_and_nothing_else(place: Place, table: PartitionedTable) -> None:
    table.replace({D1: rows(1), D2: rows(2)})
    needed = table.snapshot([D1, D2])
    table.replace({D1: rows(3)})
    table.replace({D1: rows(4)})
    table.drop([D2])
    age(place)
    (root(place) / f"partition={D1}" / "part-left-by-a-killed-writer.parquet").write_bytes(b"half")
    os.utime(root(place) / f"partition={D1}" / "part-left-by-a-killed-writer.parquet", (0, 0))
    looked = vacuum(place, [needed.version], dry_run=True)
    assert len(looked) == 2 and len(data_files(place)) == 5, "a look removes nothing"
    gone = vacuum(place, [needed.version])
    assert gone == looked
    assert any("killed-writer" in g for g in gone)
    assert values(table, needed) == [1, 2]
    assert table.read([D1])["v"].to_pylist() == [4]  # type: ignore[index]
    version = table.version
    assert vacuum(place, [needed.version]) == []
    assert table.version == version, "nothing to remove is no commit"
    vacuum(place, [])
    with pytest.raises(Exception, match="cannot be read"):
        table.read_snapshot(needed)


def test_vacuum_leaves_what_was_replaced_lately(place: Place, table: PartitionedTable) -> None:
    table.replace({D1: rows(1)})
    table.replace({D1: rows(2)})
    assert vacuum(place, []) == []
    with pytest.raises(UsageError, match="cannot keep less than 24 hours"):
        vacuum(place, [], keep_hours=1)
    assert len(data_files(place)) == 2


def test_a_pinned_version_that_a_restored_lake_does_not_have_stops_nothing(
    place: Place, table: PartitionedTable
) -> None:
    table.replace({D1: rows(1)})
    table.replace({D1: rows(2)})
    age(place)
    assert len(vacuum(place, [99])) == 1


def test_vacuum_asks_the_fence_before_it_removes(place: Place, table: PartitionedTable) -> None:
    table.replace({D1: rows(1)})
    table.replace({D1: rows(2)})
    age(place)

    def dead() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        vacuum(place, [], fence=dead)
    assert len(data_files(place)) == 2


def replace_again_and_again(uri: str, turns: int) -> None:
    table = PartitionedTable(uri, ["id"])
    for turn in range(turns):
        table.replace({D1: rows(*[100.0 + turn] * 50), D3: rows(float(turn))}, attempts=50)


def test_a_writer_at_the_same_time_loses_nothing_and_breaks_nothing(place: Place, table: PartitionedTable) -> None:
    taken = []
    for turn in range(6):
        table.replace({D1: rows(float(turn)), D2: rows(float(turn) + 0.5)})
        taken.append(table.snapshot([D1, D2]))
    needed = taken[1::2]
    for _ in range(MANY_FILES):  # a partition in many small files, as another engine may leave it
        write_deltalake(place.uri, table.read([D2]).slice(0, 1), mode="append")  # type: ignore[union-attr]
    age(place)
    pins = [s.version for s in needed]
    writer = multiprocessing.get_context("spawn").Process(target=replace_again_and_again, args=(place.uri, 12))
    writer.start()
    removed = 0
    while writer.is_alive():
        tidy(place, pins)
        removed += len(vacuum(place, pins))
    writer.join()
    assert writer.exitcode == 0
    removed += len(vacuum(place, pins))
    assert removed > 0
    for turn, snapshot in zip((1, 3, 5), needed, strict=True):
        assert values(table, snapshot) == [turn, turn + 0.5]
    assert table.read([D1])["v"].to_pylist() == [111.0] * 50  # type: ignore[index]
    assert table.read([D3])["v"].to_pylist() == [11.0]  # type: ignore[index]
    assert table.partitions()[D2].rows == MANY_FILES + 1


def test_tidy_merges_small_files_and_changes_no_row(place: Place, table: PartitionedTable) -> None:
    table.replace({D1: rows(1), D2: rows(2)})
    before = table.snapshot([D1, D2])
    extra = table.read([D1])
    for _ in range(MANY_FILES):
        write_deltalake(place.uri, extra, mode="append")
    known = table.partitions()[D1]
    assert known.files == MANY_FILES + 1
    looked = tidy(place, [], dry_run=True)
    assert looked is not None and looked.merged == MANY_FILES + 1
    assert table.partitions()[D1].files == MANY_FILES + 1
    done = tidy(place, [])
    assert done is not None and done.merged == MANY_FILES + 1
    after = table.partitions()[D1]
    assert (after.files, after.rows, after.digest) == (1, known.rows, known.digest)
    assert values(table, before) == [1, 2]
    again = tidy(place, [])
    assert again is not None and again.merged == 0


def test_tidy_writes_a_checkpoint_once_and_opening_reads_it(place: Place, table: PartitionedTable) -> None:
    for turn in range(12):
        table.replace({D1: rows(float(turn))})
    first, second = tidy(place, []), tidy(place, [])
    assert first is not None and first.checkpoint
    assert second is not None and not second.checkpoint
    pointer = json.loads((root(place) / "_delta_log" / "_last_checkpoint").read_text())
    assert pointer["version"] == table.version
    assert table.read([D1])["v"].to_pylist() == [11.0]  # type: ignore[index]
    assert tidy(Place("feeds/nothing"), []) is None


def test_old_checkpoints_go_and_every_version_can_still_be_read(place: Place, table: PartitionedTable) -> None:
    taken = []
    for turn in range(8):
        table.replace({f"2013-01-{turn + 1:02d}": rows(float(turn))})
        taken.append(table.snapshot(list(table.partitions())))
        DeltaTable(place.uri).create_checkpoint()
    assert old_checkpoints(place, []) == [], "young ones stay"
    age(place)
    pinned = taken[3].version
    gone = {int(k.rsplit("/", 1)[-1][:20]) for k in old_checkpoints(place, [pinned])}
    last = table.version
    assert last is not None
    assert gone == set(range(1, last + 1)) - {last, last - 1, pinned}
    done = tidy(place, [pinned])
    assert done is not None and done.log_files == len(gone)
    assert old_checkpoints(place, [pinned]) == []
    for turn, snapshot in enumerate(taken):
        assert values(table, snapshot) == [float(t) for t in range(turn + 1)]


def test_a_log_without_its_beginning_keeps_every_checkpoint(place: Place, table: PartitionedTable) -> None:
    for turn in range(6):
        table.replace({D1: rows(float(turn))})
        DeltaTable(place.uri).create_checkpoint()
    age(place)
    (root(place) / "_delta_log" / f"{0:020d}.json").unlink()
    assert old_checkpoints(place, []) == []


def test_tables_are_found_and_named(home: Path) -> None:
    for name in ("feeds/a", "feeds/b", "features/m/abc", "predictions/m", "quarantine"):
        PartitionedTable(Place(name).uri, ["id"], labels=("inputs",) if "features" in name else ()).replace(
            {D1: rows(1)}, labels={D1: {"inputs": "x"}} if "features" in name else None
        )
    (home / "lake" / "monitoring" / "m").mkdir(parents=True)
    found = [p.name for p in places()]
    assert found == ["features/m/abc", "feeds/a", "feeds/b", "predictions/m", "quarantine"]
    assert [p.name for p in places(["feeds/*", "quarantine"])] == ["feeds/a", "feeds/b", "quarantine"]
    assert {p.name: p.subject for p in places()}["features/m/abc"] == "m"
    assert Place("features/m/abc").table.partitions()[D1].labels == {"inputs": "x"}
    assert name_of("s3://bucket/old/lake/features/m/abc") == "features/m/abc"
    assert name_of("file:///elsewhere/feeds/a/") == "feeds/a"
    assert name_of("file:///elsewhere/other") is None


def test_dropping_partitions_is_one_commit_and_snapshots_keep_them(table: PartitionedTable) -> None:
    assert table.drop([D1]) == []
    table.replace({D1: rows(1), D2: rows(2), D3: rows(3)})
    before, version = table.snapshot([D1, D2]), table.version
    asked: list[dt.datetime] = []
    assert table.drop([D1, D2, "2012-12-31"], fence=lambda: asked.append(dt.datetime.now(dt.UTC))) == [D1, D2]
    assert (table.version, len(asked)) == (version + 1, 1)  # type: ignore[operator]
    assert list(table.partitions()) == [D3]
    assert table.drop([D1, D2]) == []
    assert values(table, before) == [1, 2]
    table.replace({D1: rows(9)})
    assert list(table.partitions()) == [D1, D3]
