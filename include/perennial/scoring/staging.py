"""Predictions between scoring and publication: a Parquet file in the run's state, written and read as a stream.

Memory is bounded by a batch, whatever the size of the partition: figures are sums over batches, and whether the keys
are those of the partition is asked of two fingerprints first. Only when those differ are the keys compared one by one
(DuckDB, on disk), to say by how many they differ.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perennial.errors import DataError
from perennial.lake.rows import BATCH, GROUP, ParquetRows, scratch
from perennial.lake.table import PartitionedTable
from perennial.runs import RunState

STAGED = "predictions.parquet"
#: Columns whose values repeat; a dictionary of the others would be as long as they are.
_REPEATED = ["output", "model_version", "arm", "run"]
SUM_TOLERANCE = 1e-6  # of the probabilities of one row


@dataclass(frozen=True)
class Figures:
    """What was staged.

    :param mean_score: ``None`` when a score is not finite. ``positive``: share of positive decisions.
    """

    rows: int
    mean_score: float | None
    positive: float | None


def stage(state: RunState, batches: Iterable[pa.RecordBatch], key: Sequence[str]) -> Figures:
    """Write predictions to the run's state, whole or not at all.

    :param key: what a large file is sorted by, once: its check and its digest then need only look.
    """
    import pyarrow.parquet as pq

    rows, total, decided = 0, 0.0, 0
    with tempfile.TemporaryDirectory(prefix="perennial-") as folder:
        path = Path(folder) / STAGED
        writer, held = None, list[pa.RecordBatch]()
        try:
            for batch in batches:
                if writer is None:
                    writer = pq.ParquetWriter(path, batch.schema, use_dictionary=_REPEATED)
                held.append(batch)
                if len(held) * BATCH >= GROUP:
                    writer.write_table(pa.Table.from_batches(held))
                    held.clear()
                rows += batch.num_rows
                total += float(np.sum(batch.column("score").to_numpy()))
                decided += pc.sum(batch.column("decision"), min_count=0).as_py()
                pa.default_memory_pool().release_unused()  # else what each batch leaves behind adds up to 100 MB
        finally:
            if writer is not None:
                if held:
                    writer.write_table(pa.Table.from_batches(held))
                writer.close()
        if rows:
            _put(state, ParquetRows(path), key)
    mean = total / rows if rows else float("nan")
    return Figures(rows, mean if np.isfinite(mean) else None, decided / rows if rows else None)


def _put(state: RunState, rows: ParquetRows, key: Sequence[str]) -> None:
    if rows.num_rows <= BATCH or rows.ordered(key):
        state.store.put_file(state.key(STAGED), rows.path)
        return
    pa.default_memory_pool().release_unused()
    with rows.sorted(key) as inorder:
        state.store.put_file(state.key(STAGED), inorder.path)


@contextmanager
def staged(state: RunState) -> Iterator[ParquetRows]:
    """The staged predictions of a run, on local disk for a block.

    :raises DataError: when there are none.
    """
    try:
        file = state.store.local(state.key(STAGED))
        path = file.__enter__()
    except KeyError:
        raise DataError("this run has staged no predictions: clear it from its scoring task") from None
    try:
        yield ParquetRows(path)
    finally:
        file.__exit__(None, None, None)


def check_scores(rows: ParquetRows, *, probabilities: bool) -> list[str]:
    """Scores are finite; probabilities lie in [0, 1]."""
    bad, low, high = 0, float("inf"), float("-inf")
    for batch in rows.batches(["score"]):
        scores = batch.column(0).to_numpy(zero_copy_only=False)
        bad += int((~np.isfinite(scores)).sum())
        low, high = min(low, float(scores.min())), max(high, float(scores.max()))
    if bad:
        return [f"{bad} of {rows.num_rows} scores are not finite numbers"]
    if probabilities and rows.num_rows and (low < 0 or high > 1):
        return [f"scores lie between {low:.3f} and {high:.3f}, outside [0, 1]"]
    return []


def doubled(rows: ParquetRows, key: Sequence[str]) -> bool:
    """Whether some rows share a key."""
    if rows.ordered(key):
        return False
    with _scratch(rows) as connection:
        query = f"SELECT 1 FROM {rows.sql} GROUP BY {_names(key)} HAVING count(*) > 1 LIMIT 1"  # noqa: S608
        return connection.execute(query).fetchone() is not None


@dataclass(frozen=True)
class Compared:
    """How the staged keys differ from the partition's: rows of it, those without a score, and scores of no row."""

    wanted: int
    lost: int = 0
    extra: int = 0


def compare_keys(rows: ParquetRows, feed: PartitionedTable, partition: str, key: Sequence[str]) -> Compared:
    """Compare the keys of staged predictions with the rows of a feed's partition."""
    dataset = feed.dataset([partition])
    if dataset is None:
        return Compared(0)
    schema = pa.schema([rows.schema.field(k) for k in key])

    def wanted() -> pa.RecordBatchReader:
        batches = feed.batches([partition], columns=key)
        return pa.RecordBatchReader.from_batches(schema, (b.cast(schema) for b in batches))

    with _scratch(rows) as connection:
        print_ = f"count(*), sum(hash({_names(key)}))::VARCHAR, bit_xor(hash({_names(key)}))"
        connection.register("wanted", wanted())
        there = connection.execute(f"SELECT {print_} FROM wanted").fetchall()[0]  # noqa: S608 - names of a schema
        if there[0] == 0:
            return Compared(0)
        query = f"SELECT {print_} FROM {rows.sql} GROUP BY model_version, output"  # noqa: S608
        versions = connection.execute(query).fetchall()
        if versions and all(v == there for v in versions):
            return Compared(there[0])
        found = []
        for one, other in (("wanted", rows.sql), (rows.sql, "wanted")):
            connection.register("wanted", wanted())  # a stream is read once
            query = f"SELECT count(*) FROM {one} ANTI JOIN (SELECT {_names(key)} FROM {other}) USING ({_names(key)})"  # noqa: S608
            found.append(int(connection.execute(query).fetchall()[0][0]))
        return Compared(there[0], *found)


def check_classes(rows: ParquetRows, key: Sequence[str], classes: Mapping[str, Sequence[str]]) -> list[str]:
    """Of a multiclass model: every row has each class once, one of them decided for, and probabilities that sum to 1.

    :param classes: those that each version knows.
    """
    problems = []
    with _scratch(rows) as connection:
        found = connection.execute(f"SELECT DISTINCT model_version, output FROM {rows.sql}").fetchall()  # noqa: S608
        for version, wanted in classes.items():
            given = {output for of, output in found if of == version}
            lost, strange = sorted(set(wanted) - given), sorted(given - set(wanted))
            problems += [f"no row has a probability of {', '.join(lost)}"] if lost else []
            problems += [f"{', '.join(strange)} is no class of version {version}"] if strange else []
        one = f"SELECT count(*) n, sum(score) total, sum(decision::INT) decided, model_version FROM {rows.sql} " \
              f"GROUP BY model_version, {_names(key)}"  # fmt: skip  # noqa: S608
        size = " ".join(f"WHEN '{v}' THEN {len(names)}" for v, names in classes.items())
        uneven, off, undecided = connection.execute(
            f"SELECT count(*) FILTER (n <> CASE model_version {size} ELSE 0 END), "  # noqa: S608
            f"count(*) FILTER (NOT abs(total - 1) <= {SUM_TOLERANCE}), count(*) FILTER (decided <> 1) FROM ({one})"
        ).fetchall()[0]
    if uneven and not problems:
        problems.append(f"{uneven} rows do not have every class exactly once")
    if off:
        problems.append(f"the probabilities of {off} rows do not sum to 1")
    if undecided:
        problems.append(f"{undecided} rows are not decided for exactly one class")
    return problems


@contextmanager
def _scratch(rows: ParquetRows) -> Iterator[Any]:
    with tempfile.TemporaryDirectory(dir=rows.path.parent, prefix=".scratch-") as folder, scratch(Path(folder)) as c:
        yield c


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f'"{c}"' for c in columns)
