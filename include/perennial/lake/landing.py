"""Reads what an upstream system landed, exactly as the feed's spec declares it, or says in one sentence why not."""

from __future__ import annotations

import csv
import datetime as dt
import difflib
import gzip
import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from perennial.errors import DataError, NotReadyError, SpecError
from perennial.settings import settings
from perennial.specs import FeedSpec
from perennial.storage import join, open_store

if TYPE_CHECKING:
    import pyarrow as pa


class UnreadableError(DataError):
    """A file that cannot be read to its end: broken, or not written to its end yet."""


@dataclass(frozen=True)
class Landed:
    """One file of a feed, as read.

    :param table: the declared columns with the declared types, in the file's row order.
    :param notes: things worth saying that refuse nothing, such as undeclared columns.
    """

    uri: str
    sha256: str
    table: pa.Table
    notes: tuple[str, ...]


def landing_path(feed: FeedSpec, key: str) -> str:
    """Path of a partition's file below the landing area."""
    return feed.source.path.format(partition=key)


def landing_uri(feed: FeedSpec, key: str) -> str:
    """Where a partition's file is expected."""
    return join(settings().landing, landing_path(feed, key))


def has_landed(feed: FeedSpec, key: str) -> bool:
    """Whether the file of a partition is there (upstream renames it into place when it is whole)."""
    return open_store(settings().landing).exists(landing_path(feed, key))


def raw_bytes(feed: FeedSpec, key: str) -> bytes:
    """The file as it came.

    :raises NotReadyError: when it has not landed.
    """
    try:
        return open_store(settings().landing).get(landing_path(feed, key))
    except KeyError:
        raise NotReadyError(f"{feed.name} {key} has not landed: {landing_uri(feed, key)} is not there") from None


def seconds_since_written(feed: FeedSpec, key: str) -> float:
    """How long ago the partition's file was last written to; infinite when it is not there."""
    at = open_store(settings().landing).modified(landing_path(feed, key))
    return float("inf") if at is None else (dt.datetime.now(dt.UTC) - at).total_seconds()


def read_landed(feed: FeedSpec, folder: Path, key: str, data: bytes | None = None) -> Landed:
    """Read one partition's file.

    :param folder: the feed's folder (for ``prepare.py``).
    :param data: the file as it came, for a caller who has read it.
    :raises NotReadyError: when it has not landed.
    :raises DataError: when it cannot be read as declared; the sentence names the column.
    """
    data = raw_bytes(feed, key) if data is None else data
    uri = landing_uri(feed, key)
    if not data:
        raise UnreadableError(f"{uri} is empty (0 bytes)")
    prepare = folder / "prepare.py"
    raw = _parse(feed, uri, data, declared=not prepare.exists())
    if prepare.exists():
        raw = _prepared(raw, prepare, uri)
    table, notes = _as_declared(feed, uri, raw)
    return Landed(uri, hashlib.sha256(data).hexdigest(), table, notes)


def arrow_schema(feed: FeedSpec) -> pa.Schema:
    """The feed's declared columns as an Arrow schema."""
    import pyarrow as pa

    kinds = {
        "string": pa.string(),
        "integer": pa.int64(),
        "float": pa.float64(),
        "boolean": pa.bool_(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "date": pa.date32(),
    }
    return pa.schema([pa.field(name, kinds[kind]) for name, kind in feed.columns.items()])


def _parse(feed: FeedSpec, uri: str, data: bytes, *, declared: bool) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if uri.endswith(".parquet"):
            return pyarrow.parquet.read_table(io.BytesIO(data))
        if uri.endswith((".csv", ".csv.gz")):
            source = pa.CompressedInputStream(io.BytesIO(data), "gzip") if uri.endswith(".gz") else io.BytesIO(data)
            types = {f.name: f.type for f in arrow_schema(feed)} if declared else None
            # as declared, only an empty field is null: 'NA' may be a country, and 'n/a' is no number
            nulls = [""] if declared else None
            return pyarrow.csv.read_csv(
                source,
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=types, strings_can_be_null=True, null_values=nulls
                ),
            )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as e:
        detail = _named_column(str(e).splitlines()[0], uri, data)
        raise UnreadableError(f"{uri} cannot be read: {detail}") from e
    raise DataError(f"{uri}: files are .csv, .csv.gz or .parquet; change source.path of feed {feed.name}")


def _named_column(detail: str, uri: str, data: bytes) -> str:
    """A message of the CSV reader with the column's name instead of its number."""
    found = re.match(r"In CSV column #(\d+): (CSV conversion error )?", detail)
    if found is None:
        return detail
    text = gzip.decompress(data) if uri.endswith(".gz") else data
    header = next(csv.reader([text.split(b"\n", 1)[0].decode("utf-8-sig", "replace").rstrip("\r")]), [])
    at = int(found[1])
    return f"column {header[at]!r} {detail[found.end() :]}" if at < len(header) else detail


def _prepared(raw: pa.Table, prepare: Path, uri: str) -> pa.Table:
    """Run the feed's own ``prepare(frame) -> frame``."""
    import runpy

    import pyarrow as pa

    try:
        function = runpy.run_path(str(prepare)).get("prepare")
    except Exception as e:
        raise SpecError(f"{prepare} cannot be run: {type(e).__name__}: {e}") from e
    if not callable(function):
        raise SpecError(f"{prepare} must define prepare(frame) and return a DataFrame")
    try:
        return pa.Table.from_pandas(function(raw.to_pandas()), preserve_index=False)
    except Exception as e:
        raise DataError(f"{uri}: {prepare.name} failed: {type(e).__name__}: {e}") from e


def _as_declared(feed: FeedSpec, uri: str, raw: pa.Table) -> tuple[pa.Table, tuple[str, ...]]:
    import pyarrow as pa

    schema = arrow_schema(feed)
    for name in schema.names:
        if name not in raw.column_names:
            near = difflib.get_close_matches(name, [c for c in raw.column_names if c not in schema.names], n=1)
            hint = f"; it has {near[0]!r}: was the column renamed?" if near else ""
            raise DataError(f"{uri} has no column {name!r}{hint}")
        if raw.column_names.count(name) > 1:
            raise DataError(f"{uri} has column {name!r} {raw.column_names.count(name)} times")
    columns = []
    for field in schema:
        column = raw.column(field.name)
        if pa.types.is_timestamp(column.type) and pa.types.is_timestamp(field.type) and column.type.tz is None:
            column = column.cast(pa.timestamp("us"), safe=False).cast(field.type)  # by contract, timestamps are UTC
        try:
            columns.append(column.cast(field.type))
        except pa.ArrowException as e:
            why = str(e).splitlines()[0]
            declared = feed.columns[field.name]
            raise DataError(f"{uri}: column {field.name!r} is {column.type}, not {declared}: {why}") from e
    extra = [c for c in raw.column_names if c not in schema.names]
    notes = (f"undeclared columns left out: {', '.join(extra)}",) if extra else ()
    return pa.table(columns, schema=schema), notes
