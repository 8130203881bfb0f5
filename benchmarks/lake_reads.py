"""How reading a table grows with its partitions: 10, 1,000 and 10,000 of them, before and after maintenance.

    python -m benchmarks.lake_reads            writes benchmarks/results/lake_reads.json

The table is what hourly ingestion leaves: one commit and one file per partition, a checkpoint every hundred commits.
The commits are written as Delta's protocol has them, because ten thousand real ones take half an hour; data files are
copies of one that was really written. The baseline is ``to_pyarrow_dataset`` of the Delta library on the same table.
CPU seconds are of this process, all threads; the operating system's file cache is warm.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
from deltalake import DeltaTable

from perennial.housekeeping.places import Place
from perennial.housekeeping.tables import tidy, vacuum
from perennial.lake.table import PartitionedTable

SIZES = (10, 1_000, 10_000)
ROWS, COLUMNS, WEEK = 40, 15, 168
#: Delta writes a checkpoint by itself after so many commits.
CHECKPOINT = 100
RESULTS = Path(__file__).resolve().parent / "results" / "lake_reads.json"


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


def measure(home: Path, partitions: int, times: int) -> list[dict[str, Any]]:
    """All figures of one size."""
    place, table, keys = build(home, partitions)
    week = keys[-WEEK:]
    jobs: dict[str, Callable[[], Any]] = {
        "list partitions": table.partitions,
        "read the newest": lambda: table.read(keys[-1:]),
        "read a week": lambda: table.read(week),
        "read all": lambda: table.read(keys),
    }
    rows = []

    def figures(when: str) -> None:
        for name, job in jobs.items():
            n = max(3, times // 4) if name == "read all" else times
            against = f"{partitions:,} partitions, {when} maintenance"
            rows.append(row(f"lake: {name}", [c * 1000 for c in costs(job, n)], "CPU ms", against))
        size = sum(p.stat().st_size for p in (home / "lake" / place.name / "_delta_log").iterdir()) / 1e6
        rows.append(row("lake: size of the log", [size], "MB", f"{partitions:,} partitions, {when} maintenance"))

    figures("before")
    old = time.time() - 30 * 86400
    for path in (home / "lake" / place.name).rglob("*"):
        os.utime(path, (old, old))
    began = time.process_time()
    tidy(place, [])
    vacuum(place, [])
    rows.append(row("lake: maintenance itself", [time.process_time() - began], "CPU s", f"{partitions:,} partitions"))
    figures("after")
    for name, some in (("the newest", keys[-1:]), ("a week", week), ("all", keys)):
        n = max(3, times // 4) if name == "all" else times
        theirs, ours = (
            costs(lambda some=some: by_the_library(table, some), n),
            costs(lambda some=some: table.read(some), n),
        )
        ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
        rows.append(
            row(f"lake: read {name}, times faster", ratios, "x", f"to_pyarrow_dataset, {partitions:,} partitions")
        )
    return rows


def row(name: str, samples: Sequence[float], unit: str, against: str, at_most: float | None = None) -> dict[str, Any]:
    """A row of the results."""
    value = statistics.median(samples)
    return {
        "measure": name,
        "value": float(f"{value:.4g}"),
        "unit": unit,
        "against": against,
        "n": len(samples),
        "spread": [float(f"{min(samples):.4g}"), float(f"{max(samples):.4g}")],
        "goal": "" if at_most is None else f"<= {at_most:g}",
        "met": None if at_most is None else value <= at_most,
    }


def judged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, and what a year of hours costs next to ten partitions: what reading one partition grows by."""

    def of(name: str, against: str) -> float:
        return float(next(r["value"] for r in rows if (r["measure"], r["against"]) == (name, against)))

    most = f"{SIZES[-1]:,} partitions, after maintenance"
    a_year = of("lake: read the newest", most)
    return [*rows, row("lake: read the newest, a year of hours", [a_year], "CPU ms", most, at_most=250)]


def run(sizes: Sequence[int] = SIZES, times: int = 12) -> list[dict[str, Any]]:
    """Take every figure, in a folder that is removed afterwards."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"PERENNIAL_HOME": folder}):
        for size in sizes:
            rows += measure(Path(folder), size, times)
    stamp = {
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "versions": {n: importlib.metadata.version(n) for n in ("deltalake", "pyarrow")},
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }
    return [{**r, **stamp} for r in judged(rows)]


if __name__ == "__main__":
    found = run()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for r in found:
        sys.stdout.write(f"{r['measure']:42} {r['value']:>10g} {r['unit']:7} {r['against']}\n")
