"""Rows of one partition in a Parquet file: for partitions that are too large to hold in memory.

Everything here reads a batch at a time, or sorts on disk. What takes memory is one batch, one row group, and the
buffer of the sort (:data:`SORT_MEMORY`), whatever the number of rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import pyarrow.parquet as pq
    from duckdb import DuckDBPyConnection
    from numpy.typing import NDArray

#: Rows in hand at a time.
BATCH = 32_768
#: Rows of a row group: each group costs every later pass over a file a little.
GROUP = 131_072
#: What DuckDB may hold while it sorts; beyond that it uses the disk.
SORT_MEMORY = "96MB"


class ParquetRows:
    """Rows in a local Parquet file.

    :param path: a file that stays as it is while this object is used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as file:
            self.schema: pa.Schema = file.schema_arrow
            self.num_rows: int = file.metadata.num_rows

    @property
    def column_names(self) -> list[str]:
        return list(self.schema.names)

    @property
    def sql(self) -> str:
        """How DuckDB reads these rows."""
        return f"read_parquet('{_quoted(self.path)}')"

    def _open(self) -> pq.ParquetFile:
        import pyarrow.parquet as pq

        return pq.ParquetFile(self.path, pre_buffer=False, buffer_size=1 << 20)

    def batches(self, columns: Sequence[str] | None = None, size: int = BATCH) -> Iterator[pa.RecordBatch]:
        """The rows in the file's order, some or all columns."""
        with self._open() as file:
            named = None if columns is None else list(columns)
            for batch in file.iter_batches(batch_size=size, columns=named, use_threads=False):
                yield batch if named is None else batch.select(named)

    def table(self) -> pa.Table:
        """All of them in memory."""
        return pa.Table.from_batches(self.batches(), self.schema)

    def ordered(self, by: Sequence[str]) -> bool:
        """Whether every row is greater than the one before, by these columns: no null, no NaN, none twice.

        What was written in order to a Delta table need not come back in order: its writer permutes batches.
        """
        before: pa.RecordBatch | None = None
        for batch in self.batches(by):
            if not ascends(batch if before is None else pa.concat_batches([before, batch])).all():
                return False
            before = batch.slice(batch.num_rows - 1)
        return True

    @contextmanager
    def sorted(self, by: Sequence[str]) -> Iterator[ParquetRows]:
        """The same rows in the order of ``by`` (nulls last), in a file that is gone after the block.

        Whoever depends on the order looks (:meth:`ordered`): short of memory, DuckDB's COPY was once seen to write a
        part of a sorted file last.
        """
        import pyarrow.parquet as pq

        order = ", ".join(f'"{c}" ASC NULLS LAST' for c in by)
        with tempfile.TemporaryDirectory(dir=self.path.parent, prefix=".sort-") as folder:
            target = Path(folder) / "sorted.parquet"
            with scratch(Path(folder)) as connection, pq.ParquetWriter(target, self.schema) as writer:
                query = f"SELECT * FROM {self.sql} ORDER BY {order}"  # noqa: S608 - names of a schema
                # read as a stream: DuckDB's own COPY to a file takes twice as long
                for batch in connection.sql(query).to_arrow_reader(BATCH):
                    writer.write_table(pa.Table.from_batches([batch]).cast(self.schema))
            yield ParquetRows(target)


def ascends(rows: pa.RecordBatch | pa.Table) -> NDArray[np.bool_]:
    """Per row but the first: whether it is greater than the one before it, column after column; never beside a null."""
    n = max(0, rows.num_rows - 1)
    less, tied = np.zeros(n, bool), np.ones(n, bool)
    for column in rows.columns if n else ():
        old, new = column.slice(0, n), column.slice(1)
        less |= tied & _true(pc.less(old, new))
        tied &= _true(pc.equal(old, new))
        if not tied.any():
            break
    return less


def _true(found: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(found, False).to_numpy(zero_copy_only=False), dtype=bool)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


@contextmanager
def scratch(folder: Path) -> Iterator[DuckDBPyConnection]:
    """A DuckDB that holds at most :data:`SORT_MEMORY`, and uses ``folder`` beyond that."""
    import duckdb

    options = {"threads": 1, "memory_limit": SORT_MEMORY, "temp_directory": str(folder)}
    with duckdb.connect(config=options) as connection:
        yield connection
