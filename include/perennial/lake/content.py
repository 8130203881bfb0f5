"""A digest of what a table says, whatever file, row order or library version it came in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perennial.lake.rows import ParquetRows, ascends


def content_digest(table: pa.Table, key: Sequence[str]) -> str:
    """sha256 (hex) of the rows of ``table``, sorted by ``key``, over its columns in name order.

    Two tables have the same digest when they hold the same names, types and values, whatever the order of their rows.
    Nulls are hashed as nulls; NaN equals NaN. A column without any value says as much as no column: a partition written
    before a column was added keeps its digest.
    """
    columns = sorted(table.column_names)
    table = pa.table({name: _decoded(table.column(name)) for name in columns})
    by = [k for k in key if k in columns] or columns
    if table.num_rows:
        found = table.sort_by([(k, "ascending") for k in by])
        if by != columns and not ascends(found.select(by)).all():  # a key twice, or without a value
            found = table.sort_by([(k, "ascending") for k in (*by, *(c for c in columns if c not in by))])
        table = found
    sha = hashlib.sha256(f"{table.num_rows}".encode())
    for name in columns:
        column = table.column(name).combine_chunks()
        if column.null_count == len(column):
            continue
        sha.update(f"\x00{name}\x00{_family(column.type)}\x00".encode())
        sha.update(_validity(column))
        sha.update(_values(column))
    return sha.hexdigest()


def streamed_digest(rows: ParquetRows, key: Sequence[str], columns: Sequence[str] | None = None) -> str:
    """:func:`content_digest` of rows in a file, a batch at a time: the same value for the same rows.

    :param columns: those that count; default: all.
    """
    names = sorted(rows.column_names if columns is None else columns)
    by = [k for k in key if k in names] or names
    if rows.ordered(by):
        return _digest_in_order(rows, names)
    with rows.sorted(by) as inorder:
        if inorder.ordered(by):
            return _digest_in_order(inorder, names)
    # a key twice, or without a value: all columns settle the order. No contract lets such rows pass, so here it is
    # enough to be right
    return content_digest(rows.table().select(names), key)


def _digest_in_order(rows: ParquetRows, names: Sequence[str]) -> str:
    """Column by column, as :func:`content_digest` does; a column is read once for each part of it that is hashed."""
    sha = hashlib.sha256(f"{rows.num_rows}".encode())
    for name in names:
        begun, valid, kind = sha.copy(), 0, _decoded(pa.chunked_array([], rows.schema.field(name).type)).type
        begun.update(f"\x00{name}\x00{_family(kind)}\x00".encode())
        for column in _column(rows, name):
            valid += len(column) - column.null_count
            begun.update(_validity(column))
        if not valid:
            continue
        sha = begun
        if _family(kind) == "string":
            for part in (_lengths, _text):
                for column in _column(rows, name):
                    sha.update(part(column))
        elif _plain(kind):
            for column in _column(rows, name):
                sha.update(_values(column))
        else:
            for i, column in enumerate(_column(rows, name)):
                sha.update(b", " if i else b"[")
                sha.update(_values(column)[1:-1])
            sha.update(b"]")
    return sha.hexdigest()


def _column(rows: ParquetRows, name: str) -> Iterator[pa.Array]:
    for batch in rows.batches([name]):
        yield _decoded(pa.chunked_array([batch.column(0)])).combine_chunks()


def combined_digest(parts: Sequence[tuple[str, str]]) -> str:
    """sha256 (hex) over named digests, in name order."""
    return hashlib.sha256("\n".join(f"{k}={v}" for k, v in sorted(parts)).encode()).hexdigest()


def _family(kind: pa.DataType) -> str:
    """A type's name with its storage variants folded together (``large_string`` and ``string_view`` are ``string``)."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "string"
    if pa.types.is_timestamp(kind):
        return "timestamp"
    return str(kind)


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """How a column is stored is no part of what it says: one way for dictionaries, views and dates."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    return column.cast(pa.date32()) if pa.types.is_date64(column.type) else column


def _validity(column: pa.Array) -> bytes:
    return bytes(pc.is_valid(column).to_numpy(zero_copy_only=False).astype(np.uint8).tobytes())


def _plain(kind: pa.DataType) -> bool:
    """Whether values are numbers of a fixed width, as far as hashing goes."""
    tests = ("is_timestamp", "is_date", "is_boolean", "is_integer", "is_floating")
    return any(getattr(pa.types, test)(kind) for test in tests)


def _offsets(column: pa.Array) -> tuple[pa.Array, Any]:
    filled = pc.fill_null(column.cast(pa.large_string()), "")
    return filled, np.frombuffer(filled.buffers()[1], np.int64)[filled.offset : filled.offset + len(filled) + 1]


def _lengths(column: pa.Array) -> bytes:
    return bytes(np.diff(_offsets(column)[1]).tobytes())


def _text(column: pa.Array) -> bytes:
    filled, offsets = _offsets(column)
    text = filled.buffers()[2]
    return memoryview(text)[offsets[0] : offsets[-1]].tobytes() if text is not None else b""


def _values(column: pa.Array) -> bytes:
    kind = column.type
    if _family(kind) == "string":
        return _lengths(column) + _text(column)
    if not _plain(kind):
        return repr(column.to_pylist()).encode()  # decimals, lists: rare, and numpy would hash addresses
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(pa.int64())
    elif pa.types.is_date(kind):
        column = column.cast(pa.int32())
    elif pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    array = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), np.float64("nan"), array + 0.0)  # one NaN, and no negative zero
    return bytes(np.ascontiguousarray(array).tobytes())
