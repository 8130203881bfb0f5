"""Rows for fitting and judging: features joined with labels, frozen in snapshots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from perennial.errors import DataError
from perennial.features.definition import Definition
from perennial.lake.homes import feature_table, feed_table
from perennial.lake.table import PARTITION, PartitionedTable, Snapshot
from perennial.specs import FeedSpec, ModelSpec
from perennial.specs.partitions import block_of
from perennial.training.classes import classes_among, codes, declared

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

#: What a missing category becomes; estimators then see a category like any other.
MISSING = "<missing>"


@dataclass(frozen=True)
class Rows:
    """Feature rows with their labels, in (partition, key) order.

    :param X: features; numbers are float64, everything else is str.
    :param y: labels; NaN where there is none. Binary: 1.0 for the positive class; multiclass: the class's number.
    :param blocks: the block of each row: its partition, or, for an hourly feed, its day.
    :param classes: names of the classes of a multiclass task, in the order of their numbers.
    """

    X: pd.DataFrame
    y: NDArray[np.float64]
    blocks: NDArray[np.str_]
    classes: tuple[str, ...] = ()

    @property
    def labelled(self) -> Rows:
        """Only the rows that have a label."""
        return self.take(~np.isnan(self.y))

    def take(self, mask: NDArray[np.bool_]) -> Rows:
        """The rows where ``mask`` is true."""
        return Rows(self.X[mask].reset_index(drop=True), self.y[mask], self.blocks[mask], self.classes)

    def coverage(self) -> dict[str, float]:
        """Share of labelled rows per block."""
        keys, inverse = np.unique(self.blocks, return_inverse=True)
        have = np.bincount(inverse, weights=~np.isnan(self.y))
        return {str(k): float(h / n) for k, h, n in zip(keys, have, np.bincount(inverse), strict=True)}


def feature_columns(schema: Sequence[str], definition: Definition) -> list[str]:
    """The feature columns among a feature table's columns, in the definition's order."""
    own = {*definition.key, definition.event, PARTITION, "digest", "inputs"}
    return [c for c in schema if c not in own]


def snapshot_rows(
    spec: ModelSpec, feeds: Mapping[str, FeedSpec], definition: Definition, keys: Sequence[str]
) -> dict[str, Snapshot]:
    """Freeze features and labels of ``keys``: table, version, predicate and sha256."""
    features = feature_table(spec.name, definition.digest, list(definition.key))
    return {"features": features.snapshot(keys), "labels": feed_table(feeds[spec.labels.feed]).snapshot(keys)}


def load_rows(
    spec: ModelSpec,
    feeds: Mapping[str, FeedSpec],
    definition: Definition,
    snapshots: Mapping[str, Snapshot],
    classes: Sequence[str] = (),
) -> Rows:
    """Read what the snapshots name, and join labels to features by the entity's key.

    :param classes: of a multiclass task; default: those that the spec declares, else those among the labels.
    :raises DataError: when the snapshots no longer hold, or a label occurs twice.
    """
    features = PartitionedTable(snapshots["features"].uri, definition.key, labels=("inputs",))
    label_feed = feeds[spec.labels.feed]
    key = list(definition.key)
    left = features.read_snapshot(snapshots["features"])
    right = PartitionedTable(snapshots["labels"].uri, label_feed.key).read_snapshot(
        snapshots["labels"], columns=[*key, spec.labels.column]
    )
    if right.select(key).group_by(key).aggregate([]).num_rows != right.num_rows:
        raise DataError(f"labels of {spec.name}: a key occurs twice in feed {label_feed.name}; a label must be unique")
    order = [(PARTITION, "ascending"), *((k, "ascending") for k in key)]
    label = "__label__"
    right = right.rename_columns([*key, label])
    joined = left.join(right, keys=key, join_type="left outer").sort_by(order)
    known = tuple(classes)
    if spec.task.type == "multiclass" and not known:
        known = declared(spec) or classes_among(joined.column(label).unique().to_pylist())
    return Rows(
        to_matrix(joined, feature_columns(left.column_names, definition)),
        label_values(spec, joined.column(label), known),
        blocks_of(feeds[spec.entity], joined),
        known,
    )


def blocks_of(entity: FeedSpec, rows: pa.Table) -> NDArray[np.str_]:
    """The block of each row of a table with the lake's ``partition`` column."""
    keys = rows.column(PARTITION).to_numpy(zero_copy_only=False).astype(str)
    if entity.every != "hour":
        return np.asarray(keys)
    found, at = np.unique(keys, return_inverse=True)
    return np.array([block_of(entity, k) for k in found], dtype=str)[at]


def observed(spec: ModelSpec, blocks: NDArray[np.str_], left_out: int) -> tuple[NDArray[np.str_] | None, int]:
    """What counts as independent observations, and how many of them are left out.

    With rows as blocks that is ``None``, and a partition that is left out counts as many rows as the others have.
    """
    if not spec.rows_are_blocks:
        return blocks, left_out
    return None, round(left_out * len(blocks) / max(1, len(np.unique(blocks))))


def label_values(spec: ModelSpec, column: pa.ChunkedArray, classes: Sequence[str] = ()) -> NDArray[np.float64]:
    """Labels as floats: NaN for none; binary: 1.0 for the positive value; multiclass: the class's number."""
    if spec.task.type == "multiclass":
        return codes(column, classes)
    if spec.task.type == "regression":
        return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    values = column.to_pylist()
    return np.array([np.nan if v is None else float(v == spec.task.positive) for v in values], dtype=np.float64)


def to_matrix(rows: pa.Table, columns: Sequence[str]) -> pd.DataFrame:
    """The design matrix: the one conversion that training and scoring share."""
    import pandas as pd

    data: dict[str, Any] = {}
    for name in columns:
        column = rows.column(name)
        if pa.types.is_floating(column.type):
            data[name] = column.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
        else:
            data[name] = pd.Series(_texts(column), dtype=object)
    return pd.DataFrame(data, columns=list(columns))


def _texts(column: pa.ChunkedArray) -> NDArray[np.object_]:
    """Texts as Python objects, one object per distinct text: making one per row costs more than scoring some models."""
    coded = column.fill_null(MISSING).combine_chunks().dictionary_encode()
    distinct = np.empty(len(coded.dictionary), dtype=object)
    distinct[:] = coded.dictionary.to_pylist()
    return np.asarray(distinct[coded.indices.to_numpy()])
