"""One Delta table whose unit of change is the partition.

Every partition carries the sha256 of its content as a second Delta partition column, ``digest``: it is written in the
same commit as the rows, and reading it costs a look at the log, not at the data. That digest, and not the table's
version, says whether an input changed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any
from urllib.parse import unquote, urlparse

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler

from perennial.errors import ConflictError, DataError
from perennial.lake.content import combined_digest, content_digest, streamed_digest
from perennial.lake.rows import ParquetRows
from perennial.storage import storage_options

#: Columns that the lake itself adds to every table.
PARTITION, DIGEST = "partition", "digest"

#: Small enough row groups for a reader with little memory; large enough to compress well.
_WRITER = WriterProperties(max_row_group_size=65_536)
#: Rows handed to the writer at a time: it keeps hundreds of such batches in hand.
_WRITE = 1_024

Fence = Callable[[], None]


def no_fence() -> None:
    """For callers that nobody supervises: the command line, notebooks, tests."""


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """What the log says of a partition, without reading it."""

    key: str
    digest: str
    rows: int
    labels: Mapping[str, str]  # further partition columns, such as ``inputs``
    files: int = 1
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A name for exactly these rows, for ever: table, version, predicate, and what they hash to."""

    uri: str
    version: int
    partitions: tuple[str, ...]
    sha256: str
    rows: int

    @property
    def predicate(self) -> str:
        """The SQL condition that selects the rows."""
        return _in(self.partitions)

    def to_dict(self) -> dict[str, Any]:
        return {
            "uri": self.uri,
            "version": self.version,
            "partitions": list(self.partitions),
            "sha256": self.sha256,
            "rows": self.rows,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Snapshot:
        return cls(value["uri"], value["version"], tuple(value["partitions"]), value["sha256"], value["rows"])


class PartitionedTable:
    """A Delta table with columns ``partition`` and ``digest`` (and ``labels``) beside the rows' own.

    :param uri: ``file://`` or ``s3://``.
    :param key: columns that identify a row inside a partition; the digest sorts by them.
    :param labels: names of further per-partition constants, kept in the log like the digest.
    :param volatile: columns that say who wrote a row and when; they are no part of its content.
    """

    def __init__(self, uri: str, key: Sequence[str], labels: Sequence[str] = (), volatile: Sequence[str] = ()) -> None:
        self.uri, self.key, self.labels, self.volatile = uri, tuple(key), tuple(labels), frozenset(volatile)
        self._options = storage_options(uri)

    def _open(self, version: int | None = None) -> DeltaTable | None:
        try:
            return DeltaTable(self.uri, version=version, storage_options=self._options)
        except TableNotFoundError:
            return None
        except DeltaError as e:
            if version is None:
                raise
            raise DataError(f"{self.uri} has no version {version} (any more): {_first_line(e)}") from e

    @property
    def version(self) -> int | None:
        """The newest version, or ``None`` before the first write."""
        table = self._open()
        return None if table is None else table.version()

    def partitions(self, version: int | None = None) -> dict[str, PartitionInfo]:
        """Every partition that holds rows, by key, in key order."""
        table = self._open(version)
        if table is None:
            return {}
        found: dict[str, PartitionInfo] = {}
        for a in _files(table, (PARTITION, DIGEST, *self.labels), ("num_records", "size_bytes")).to_pylist():
            key = a[f"partition.{PARTITION}"]
            before = found.get(key)
            found[key] = PartitionInfo(
                key,
                a[f"partition.{DIGEST}"],
                (before.rows if before else 0) + a["num_records"],
                {n: a[f"partition.{n}"] for n in self.labels},
                (before.files if before else 0) + 1,
                (before.bytes if before else 0) + a["size_bytes"],
            )
        return dict(sorted(found.items()))

    def replace(
        self,
        partitions: Mapping[str, pa.Table | ParquetRows],
        *,
        labels: Mapping[str, Mapping[str, str]] | None = None,
        metadata: Mapping[str, str] | None = None,
        fence: Fence = no_fence,
        attempts: int = 8,
    ) -> dict[str, str]:
        """Replace whole partitions in one atomic commit. An empty table empties its partition.

        Doing it twice changes nothing: partitions whose digest and labels are already there are left alone.

        :param partitions: rows per partition key, without the lake's own columns. Rows in a file are streamed.
        :param fence: called directly before the commit; raises when this process may no longer act.
        :returns: the digest of each partition.
        :raises ConflictError: when other writers of the same partition win ``attempts`` times in a row.
        """
        digests = {k: self._digest(t) for k, t in partitions.items()}
        wanted = labels or {k: {} for k in partitions}
        for attempt in range(attempts):
            known = self.partitions()
            stale = [
                k
                for k in partitions
                if (k in known or partitions[k].num_rows)
                and (k not in known or (known[k].digest, known[k].labels) != (digests[k], dict(wanted[k])))
            ]
            if not stale:
                return digests
            frame = self._stamped({k: (partitions[k], digests[k], wanted[k]) for k in stale})
            fence()
            try:
                self._write(frame, stale, metadata or {})
            except CommitFailedError:
                time.sleep(random.uniform(0.05, 0.2) * (attempt + 1))  # noqa: S311 - jitter, not a secret
                continue
            except DeltaError as e:
                if not any(word in str(e).lower() for word in ("cast", "schema")):
                    raise
                raise DataError(
                    f"{self.uri}: partition {', '.join(stale[:3])} does not fit the table's columns: {_first_line(e)}"
                ) from e
            return digests
        raise ConflictError(
            f"{self.uri}: partition {', '.join(partitions)} was being written by others {attempts} times in a row; "
            "run this again when they are done"
        )

    def drop(
        self,
        keys: Sequence[str],
        *,
        metadata: Mapping[str, str] | None = None,
        fence: Fence = no_fence,
        attempts: int = 8,
    ) -> list[str]:
        """Take partitions out of the newest version, in one atomic commit. Older versions, and so snapshots, keep them.

        :returns: the keys that were there.
        :raises ConflictError: when other writers of these partitions win ``attempts`` times in a row.
        """
        for attempt in range(attempts):
            table = self._open()
            known = self.partitions() if table is not None else {}
            there = sorted(k for k in set(keys) if k in known)
            if table is None or not there:
                return []
            fence()
            try:
                table.delete(_in(there), commit_properties=CommitProperties(custom_metadata=dict(metadata or {})))
            except CommitFailedError:
                time.sleep(random.uniform(0.05, 0.2) * (attempt + 1))  # noqa: S311 - jitter, not a secret
                continue
            return there
        raise ConflictError(
            f"{self.uri}: partitions that were to go were being written by others {attempts} times in a row; "
            "run this again when they are done"
        )

    def _digest(self, rows: pa.Table | ParquetRows) -> str:
        own = {PARTITION, DIGEST, *self.labels, *self.volatile}
        columns = [c for c in rows.column_names if c not in own]
        if isinstance(rows, ParquetRows):
            return streamed_digest(rows, self.key, columns)
        return content_digest(rows.select(columns), self.key)

    def _stamped(
        self, partitions: Mapping[str, tuple[pa.Table | ParquetRows, str, Mapping[str, str]]]
    ) -> pa.Table | pa.RecordBatchReader:
        """Rows of several partitions with the lake's own columns; a stream when some of them lie in a file."""
        tables = [self._stamp(rows, k, d, w) for k, (rows, d, w) in partitions.items() if isinstance(rows, pa.Table)]
        if len(tables) == len(partitions):
            return pa.concat_tables(tables, promote_options="permissive")
        empty = [
            self._stamp(rows.schema.empty_table(), k, digest, labels)
            for k, (rows, digest, labels) in partitions.items()
        ]
        schema = pa.concat_tables(empty, promote_options="permissive").schema

        def batches() -> Iterator[pa.RecordBatch]:
            for key, (rows, digest, labels) in partitions.items():
                for batch in rows.to_batches() if isinstance(rows, pa.Table) else rows.batches(size=4 * _WRITE):
                    part = self._stamp(pa.Table.from_batches([batch]), key, digest, labels)
                    whole = pa.concat_tables([schema.empty_table(), part], promote_options="permissive")
                    yield from whole.to_batches(max_chunksize=_WRITE)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def _write(self, frame: pa.Table | pa.RecordBatchReader, keys: Sequence[str], metadata: Mapping[str, str]) -> None:
        if self._open() is None:
            DeltaTable.create(
                self.uri,
                schema=frame.schema,
                mode="ignore",
                partition_by=[PARTITION, DIGEST, *self.labels],
                # without this, the first checkpoint after 30 days removes the history that snapshots name
                configuration={"delta.enableExpiredLogCleanup": "false"},
                storage_options=self._options,
            )
        write_deltalake(
            self.uri,
            frame,
            mode="overwrite",
            predicate=_in(keys),
            schema_mode="merge",
            writer_properties=_WRITER,
            storage_options=self._options,
            commit_properties=CommitProperties(custom_metadata=dict(metadata)),
        )

    def _stamp(self, table: pa.Table, key: str, digest: str, labels: Mapping[str, str]) -> pa.Table:
        taken = {PARTITION, DIGEST, *self.labels} & set(table.column_names)
        if taken:
            raise DataError(f"{self.uri}: partition {key} has a column named {sorted(taken)[0]!r}, which the lake owns")
        n = table.num_rows
        stamps = {PARTITION: key, DIGEST: digest, **{name: labels[name] for name in self.labels}}
        for name, value in stamps.items():
            table = table.append_column(pa.field(name, pa.string()), pa.repeat(pa.scalar(value, pa.string()), n))
        return table

    def dataset(self, keys: Sequence[str] | None = None, version: int | None = None) -> pads.Dataset | None:
        """Some partitions (default: all) as an Arrow dataset, for streaming reads; ``None`` before the first write.

        The dataset is made of the files of exactly these partitions, with their partition columns and nothing else
        known of them: reading the statistics of every column of every file, as ``to_pyarrow_dataset`` does, costs a
        millisecond a file, which is most of the time of a table with thousands of partitions.
        """
        table = self._open(version)
        if table is None:
            return None
        names = table.metadata().partition_columns
        files = _files(table, names, ("path",)).sort_by("path")  # a partition's files are numbered
        if keys is not None:
            wanted = pa.array(list(keys), pa.string())
            files = files.filter(pc.is_in(files.column(f"partition.{PARTITION}"), wanted))
        paths = [unquote(p) for p in files.column("path").to_pylist()]
        values = zip(*(files.column(f"partition.{n}").to_pylist() for n in names), strict=True)
        filesystem = self._filesystem()
        kind = pads.ParquetFileFormat(default_fragment_scan_options=pads.ParquetFragmentScanOptions(pre_buffer=True))
        fields = [pc.field(n) for n in names]
        fragments = [
            kind.make_fragment(path, filesystem, reduce(and_, (f == v for f, v in zip(fields, of, strict=True))))
            for path, of in zip(paths, values, strict=True)
        ]
        schema = pa.schema(table.schema().to_arrow(as_large_types=False))
        return pads.FileSystemDataset(fragments, schema, kind, filesystem)

    def _filesystem(self) -> Any:
        if self.uri.startswith("file://"):
            return pafs.SubTreeFileSystem(unquote(urlparse(self.uri).path), pafs.LocalFileSystem())
        return pafs.PyFileSystem(DeltaStorageHandler(self.uri, self._options))

    def read(
        self, keys: Sequence[str], *, columns: Sequence[str] | None = None, version: int | None = None
    ) -> pa.Table | None:
        """Rows of some partitions as one Arrow table (``None`` when the table does not exist)."""
        dataset = self.dataset(keys, version)
        if dataset is None:
            return None
        return dataset.to_table(columns=self._names(dataset, columns))

    def batches(
        self,
        keys: Sequence[str],
        *,
        columns: Sequence[str] | None = None,
        batch_size: int = 65_536,
        version: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Stream the rows of some partitions in batches of at most ``batch_size``, file after file.

        The rows of a file need not be in the order in which they were handed to the writer, which permutes batches.
        """
        dataset = self.dataset(keys, version)
        if dataset is None:
            return
        scanner = dataset.scanner(
            columns=self._names(dataset, columns),
            batch_size=batch_size,
            # one batch ahead, and no whole file before it is asked for: the defaults hold millions of rows in memory
            batch_readahead=1,
            fragment_readahead=1,
            fragment_scan_options=pads.ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True),
            use_threads=False,
        )
        yield from scanner.to_batches()

    def snapshot(self, keys: Sequence[str]) -> Snapshot:
        """Freeze the present rows of ``keys`` under a name.

        :raises DataError: when a partition is not there, or none is asked for.
        """
        version = self.version
        known = self.partitions(version)
        missing = sorted({k for k in keys if k not in known})
        if version is None or missing or not keys:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise DataError(f"{self.uri} has no rows for partition {missing[0] if missing else '(none named)'}{more}")
        chosen = [known[k] for k in sorted(set(keys))]
        return Snapshot(
            self.uri,
            version,
            tuple(p.key for p in chosen),
            combined_digest([(p.key, p.digest) for p in chosen]),
            sum(p.rows for p in chosen),
        )

    def read_snapshot(self, snapshot: Snapshot, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows that a snapshot names, as they were. Their digests are computed again, so a changed file shows.

        :raises DataError: when the table no longer has them, or they are not what was recorded.
        """
        known = self.partitions(snapshot.version)
        if not known:
            raise DataError(
                f"{self.uri} has no version {snapshot.version} (any more): its log was removed or cleaned up"
            )
        found = combined_digest([(k, known[k].digest if k in known else "gone") for k in snapshot.partitions])
        if found != snapshot.sha256:
            raise DataError(f"{self.uri} version {snapshot.version} is not what the snapshot recorded (sha256 differs)")
        try:
            table = self.read(snapshot.partitions, version=snapshot.version)
        except (pa.ArrowInvalid, FileNotFoundError) as e:
            raise DataError(f"{self.uri} version {snapshot.version} cannot be read: {_first_line(e)}") from e
        if table is None:
            raise DataError(f"{self.uri}: the table of the snapshot is gone")
        for key in snapshot.partitions:
            if self._digest(table.filter(pc.equal(table.column(PARTITION), key))) != known[key].digest:
                raise DataError(f"{self.uri}: rows of partition {key} are not what was written (sha256 differs)")
        return table if columns is None else table.select(list(columns))

    def _names(self, dataset: pads.Dataset, columns: Sequence[str] | None) -> list[str] | None:
        if columns is None:
            return None
        absent = [c for c in columns if c not in dataset.schema.names]
        if absent:
            raise DataError(f"{self.uri} has no column {absent[0]!r}; it has {', '.join(dataset.schema.names)}")
        return list(columns)


def _files(table: DeltaTable, partition_columns: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """What the log says of every file: these columns, and the values of partition columns as ``partition.<name>``."""
    actions = pa.table(table.get_add_actions(flatten=True))
    return actions.select([*columns, *(f"partition.{n}" for n in partition_columns)])


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _in(keys: Sequence[str]) -> str:
    for k in keys:
        if not k or not all(c.isalnum() or c in "-_T:W" for c in k):
            raise DataError(f"{k!r} is not a partition key")
    return f"{PARTITION} IN ({', '.join(repr(k) for k in sorted(keys))})"
