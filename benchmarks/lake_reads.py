"""How reading a table grows with its partitions: 10, 1,000 and 10,000 of them, before and after maintenance.

The table is what hourly ingestion leaves: one commit and one file per partition, a checkpoint every hundred commits.
The commits are written as Delta's protocol has them, because ten thousand real ones take half an hour; data files are
copies of one that was really written. The baseline is ``to_pyarrow_dataset`` of the Delta library on the same table.
CPU seconds are of this process, all threads; the operating system's file cache is warm.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
from benchmarks.harness import Result, result
from deltalake import DeltaTable

from perennial.housekeeping.places import Place
from perennial.housekeeping.tables import tidy, vacuum
from perennial.lake.table import PartitionedTable

SIZES = (10, 1_000, 10_000)
ROWS, COLUMNS, WEEK = 40, 15, 168
#: Delta writes a checkpoint by itself after so many commits.
CHECKPOINT = 100
#: CPU milliseconds that reading one partition may take, whatever the table holds.
ONE_PARTITION = 250.0


def build(home: Path, partitions: int) -> tuple[Place, PartitionedTable, list[str]]:
    """A table of so many hourly partitions, each committed by itself."""
    begin = dt.datetime(2013, 1, 1)
    keys = [(begin + dt.timedelta(hours=i)).strftime("%Y-%m-%dT%H") for i in range(partitions)]
    place = Place(f"feeds/hourly_{partitions}")
    table = PartitionedTable(place.uri, ["id"])
    rows = pa.table(
        {
            "id": pa.array(range(ROWS), pa.int64()),
            **{f"v{i}": pa.array([float(i * j) for j in range(ROWS)]) for i in range(COLUMNS)},
        }
    )
    table.replace({keys[0]: rows})
    root = home / "lake" / place.name
    log = root / "_delta_log"
    first = [json.loads(line) for line in (log / f"{table.version:020d}.json").read_text().splitlines()]
    info = next(a for a in first if "commitInfo" in a)
    add = next(a["add"] for a in first if "add" in a)
    digest = add["partitionValues"]["digest"]
    for number, key in enumerate(keys[1:], 2):
        path = f"partition={key}/digest={digest}/part-{number:08d}.parquet"
        (root / path).parent.mkdir(parents=True)
        shutil.copyfile(root / add["path"], root / path)
        mine = {"add": {**add, "path": path, "partitionValues": {"partition": key, "digest": digest}}}
        (log / f"{number:020d}.json").write_text(json.dumps(info) + "\n" + json.dumps(mine) + "\n")
        if number % CHECKPOINT == CHECKPOINT - 1:
            DeltaTable(place.uri).create_checkpoint()
    return place, table, keys


def costs(job: Callable[[], Any], times: int) -> list[float]:
    """CPU seconds of each of so many calls, after one that is not counted."""
    job()
    found = []
    for _ in range(times):
        began = time.process_time()
        job()
        found.append(time.process_time() - began)
    return found


def by_the_library(table: PartitionedTable, keys: Sequence[str]) -> pa.Table:
    """The same rows as :meth:`PartitionedTable.read`, as the Delta library reads them."""
    chosen = [("partition", "in", list(keys))]
    return DeltaTable(table.uri).to_pyarrow_dataset(file_pruning_predicate=chosen, as_large_types=False).to_table()


def measure(home: Path, partitions: int, times: int, *, goal: bool) -> list[Result]:
    """All figures of one size."""
    place, table, keys = build(home, partitions)
    week, folder = keys[-WEEK:], home / "lake" / place.name
    jobs: dict[str, Callable[[], Any]] = {
        "list the partitions": table.partitions,
        "read the newest": lambda: table.read(keys[-1:]),
        "read a week": lambda: table.read(week),
        "read all": lambda: table.read(keys),
    }
    results = []

    def figures(when: str) -> None:
        for name, job in jobs.items():
            n = max(3, times // 4) if name == "read all" else times
            most = ONE_PARTITION if goal and (name, when) == ("read the newest", "after") else None
            samples = [c * 1000 for c in costs(job, n)]
            about = f"{name} of {partitions:,} partitions, {when} maintenance"
            results.append(result(about, samples, unit="CPU ms", at_most=most))
        size = sum(p.stat().st_size for p in (folder / "_delta_log").iterdir()) / 1e6
        results.append(result(f"log of {partitions:,} partitions, {when} maintenance", [size], unit="MB"))

    figures("before")
    old = time.time() - 30 * 86400
    for path in folder.rglob("*"):
        os.utime(path, (old, old))
    began = time.process_time()
    tidy(place, [])
    vacuum(place, [])
    results.append(result(f"maintenance of {partitions:,} partitions", [time.process_time() - began], unit="CPU s"))
    figures("after")
    for name, some in (("the newest", keys[-1:]), ("a week", week), ("all", keys)):
        n = max(3, times // 4) if name == "all" else times
        theirs = costs(lambda some=some: by_the_library(table, some), n)
        ours = costs(lambda some=some: table.read(some), n)
        ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
        about = f"read {name} of {partitions:,} partitions, times less CPU"
        results.append(result(about, ratios, unit="x", against="deltalake's to_pyarrow_dataset"))
    return results


def run(folder: Path, *, quick: bool = False) -> list[Result]:
    """Take every figure, in ``folder``."""
    sizes, times = ((10, 300), 3) if quick else (SIZES, 12)
    results = []
    with mock.patch.dict(os.environ, {"PERENNIAL_HOME": str(folder)}):
        for size in sizes:
            results += measure(folder, size, times, goal=size == sizes[-1])
    return results
