"""Why one published score is what it is: who scored it, from which feature values, and what each contributed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perennial.errors import DataError, UsageError
from perennial.lake.homes import feature_table, feed_table, prediction_table
from perennial.lake.table import PartitionedTable
from perennial.registry import versions
from perennial.scoring.contributions import contributions
from perennial.specs import FeedSpec, ModelSpec
from perennial.specs.partitions import period
from perennial.training import estimators
from perennial.training.bundle import Bundle
from perennial.training.data import MISSING, to_matrix

#: A published score counts as made again when it is this close (ONNX Runtime computes with 32 bits).
_SAME = 1e-6
#: So many older versions of the features are searched for the values that were scored.
_BACK = 300


@dataclass(frozen=True)
class Feature:
    """One feature of the row.

    :param value: as it was scored. ``typical``: median, or most frequent value, of the training window.
    :param rank: share of training rows below the value (numbers), or with it (texts); ``None``: no value.
    :param contribution: what it adds to the score, against rows of the training window; ``error``: its standard error.
    """

    name: str
    value: Any
    typical: Any
    rank: float | None
    contribution: float
    error: float


@dataclass(frozen=True)
class Explanation:
    """A published score and where it comes from.

    :param published: the published row. ``lineage``: version, run, data and digests behind it.
    :param again: the score that the version gives now on the feature values that are shown.
    :param as_it_was: whether that is the published score; if not, the values are not those that were scored.
    :param base: mean score of the training rows that the row is compared with.
    :param outcome: what happened, when the label has landed.
    """

    model: str
    partition: str
    key: Mapping[str, str]
    published: Mapping[str, Any]
    lineage: Mapping[str, Any]
    features: tuple[Feature, ...]
    again: float
    as_it_was: bool
    base: float
    outcome: Any

    def to_dict(self) -> dict[str, Any]:
        """As JSON can say it, largest contribution first."""
        return asdict(self)


def explain(spec: ModelSpec, feeds: Mapping[str, FeedSpec], key: str, partition: str) -> Explanation:
    """Explain the published score of one entity.

    :param key: value of the entity's key; of several columns: ``a=1,b=2``.
    :raises UsageError: when the key cannot be read, or nothing is published for it.
    :raises DataError: when the version's features of the partition are gone.
    """
    entity = feeds[spec.entity]
    period(entity, partition)  # a key that makes no sense is refused in a sentence
    wanted = _key(entity, key)
    row = _published(spec, entity, wanted, partition)
    found = versions.get(spec.name, str(row["model_version"]))
    bundle = Bundle.open(spec.name, found)
    again, X, source = _features(bundle, wanted, partition, row)
    background = bundle.frame("reference")[bundle.facts["columns"]]
    why = contributions(
        lambda rows: _score(bundle, bundle.model, rows, row), X, background, seed=int(bundle.facts["seed"])
    )
    features = [
        Feature(
            name,
            _shown(X[name].iloc[0]),
            *_place(X[name].iloc[0], background[name]),
            float(why.values[i]),
            float(why.error[i]),
        )
        for i, name in enumerate(why.columns)
    ]
    plan = bundle.document("plan")
    return Explanation(
        spec.name,
        partition,
        wanted,
        {k: v for k, v in row.items() if k not in wanted},
        {
            "version": found.version,
            "mlflow_run": found.run_id,
            "trained_until": bundle.facts["train_end"],
            "train_rows": bundle.facts["train_rows"],
            "seed": bundle.facts["seed"],
            "digests": dict(plan["digests"]),
            **source,
        },
        tuple(sorted(features, key=lambda f: -abs(f.contribution))),
        again,
        abs(again - float(row["score"])) <= _SAME * max(1.0, abs(again)),
        why.base,
        _outcome(spec, feeds, wanted, partition),
    )


def _key(entity: FeedSpec, text: str) -> dict[str, str]:
    """The key's columns with their values, as text."""
    if len(entity.key) == 1:
        return {entity.key[0]: text}
    parts = dict(p.strip().partition("=")[::2] for p in text.split(","))
    if set(parts) != set(entity.key):
        raise UsageError(f"a key of {entity.name} has the columns {', '.join(entity.key)}: write " + ",".join(
            f"{c}=..." for c in entity.key))  # fmt: skip
    return parts


def _with_key(rows: pa.Table | None, key: Mapping[str, str]) -> pa.Table | None:
    """The rows that have this key, compared as text."""
    for column, value in key.items():
        if rows is None or column not in rows.column_names:
            return None
        rows = rows.filter(pc.equal(pc.cast(rows.column(column), pa.string()), value))
    return rows


def _published(spec: ModelSpec, entity: FeedSpec, key: Mapping[str, str], partition: str) -> dict[str, Any]:
    """The published row; of several outputs the one that was decided for, else the likeliest."""
    everything = prediction_table(spec, entity).read([partition])
    if everything is None or not everything.num_rows:
        raise UsageError(f"nothing is published for {spec.name} {partition}: score it first (DAG {spec.name}.score)")
    rows = _with_key(everything, key)
    if rows is None or not rows.num_rows:
        first = ",".join(str(everything.column(c)[0].as_py()) for c in key)
        raise UsageError(
            f"{spec.name} {partition} has {everything.num_rows:,} published scores, but none for "
            f"{', '.join(key.values())}; its keys look like {first}"
        )
    listed = rows.to_pylist()
    return max(listed, key=lambda r: (r["decision"] is True, r["score"])) if len(listed) > 1 else listed[0]


def _score(bundle: Bundle, model: Any, X: Any, row: Mapping[str, Any]) -> NDArray[np.float64]:
    """What a model says of rows; of several classes, of the one that the published row is about."""
    scores = estimators.score(model, X, bundle.spec.task.type)
    return scores if scores.ndim == 1 else scores[:, bundle.facts["classes"].index(row["output"])]


def _features(
    bundle: Bundle, key: Mapping[str, str], partition: str, row: Mapping[str, Any]
) -> tuple[float, Any, dict[str, Any]]:
    """The feature row that gives the published score: the present one, or, if features were rebuilt since, the newest
    that does. When none does, the present one.

    :returns: the score made again, the row as a design matrix, and where it was read.
    """
    table = feature_table(bundle.spec.name, bundle.definition.digest, list(bundle.definition.key))
    best: tuple[float, Any, dict[str, Any]] | None = None
    for version, digest in _states(table, partition):
        try:
            rows = _with_key(table.read([partition], version=version), key)
        except (FileNotFoundError, pa.ArrowInvalid):  # the log still names it, its files were vacuumed
            break
        if rows is None or rows.num_rows != 1:
            continue
        X = to_matrix(rows, bundle.facts["columns"])
        score = float(_score(bundle, bundle.scorer, X, row)[0])
        found = (score, X, {"features": table.uri, "features_version": version, "features_sha256": digest})
        if abs(score - float(row["score"])) <= _SAME * max(1.0, abs(score)):
            return found
        best = best or found
    if best is None:
        raise DataError(
            f"{bundle.spec.name}: the features of {partition} that version {row['model_version']} scored are not in "
            "the lake any more (retention); only the published score is left"
        )
    return best


def _states(table: PartitionedTable, partition: str) -> Iterator[tuple[int, str]]:
    """Versions of the table in which the partition held other rows, newest first."""
    newest = table.version
    seen = set()
    for version in range(newest, max(-1, newest - _BACK), -1) if newest is not None else ():
        try:
            info = table.partitions(version).get(partition)
        except DataError:  # its log was cleaned up
            return
        if info is not None and info.digest not in seen:
            seen.add(info.digest)
            yield version, info.digest


def _place(value: Any, column: Any) -> tuple[Any, float | None]:
    """What is typical of a column, and where the value lies in it."""
    if column.dtype.kind in "fiu":
        known = column.dropna()
        typical = None if known.empty else float(known.median())
        return typical, None if known.empty or value != value else float((known < value).mean())
    counts = column.value_counts()
    return (None if counts.empty else _shown(counts.index[0])), float((column == value).mean())


def _shown(value: Any) -> Any:
    """A value as people write it; ``None`` for none."""
    if value is None or value != value or value == MISSING:
        return None
    return value.item() if isinstance(value, np.generic) else value


def _outcome(spec: ModelSpec, feeds: Mapping[str, FeedSpec], key: Mapping[str, str], partition: str) -> Any:
    """The label of this entity; ``None`` when it has not landed."""
    table = feed_table(feeds[spec.labels.feed])
    rows = _with_key(table.read([partition]), key)
    return None if rows is None or rows.num_rows != 1 else rows.column(spec.labels.column)[0].as_py()


def when(value: Any) -> str:
    """An instant as people read it."""
    return f"{value:%Y-%m-%d %H:%M} UTC" if isinstance(value, dt.datetime) else str(value)
