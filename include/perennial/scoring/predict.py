"""The steps of a scoring run.

``resolve_arms`` decides once which version scores the partition; scoring uses that version's own feature definition;
publication replaces the whole partition in one commit. Doing it all again publishes the same rows.
"""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from perennial.errors import DataError
from perennial.features.builder import FeatureBuilder
from perennial.lake.homes import feed_table, prediction_table
from perennial.lake.table import Fence, no_fence
from perennial.ledger import Ledger
from perennial.registry import tracking, versions
from perennial.runs import RunState
from perennial.specs import FeedSpec, ModelSpec
from perennial.specs.partitions import period
from perennial.training import estimators
from perennial.training.bundle import Bundle
from perennial.training.data import to_matrix

#: Rows scored at a time: more is slower and takes memory (measured: 50-100k is best).
BATCH = 65_536


@dataclass(frozen=True)
class Arm:
    """A version that scores the partition, and under which name its scores are published."""

    name: str
    version: str
    model_id: str

    def to_dict(self) -> dict[str, str]:
        return {"name": self.name, "version": self.version, "model_id": self.model_id}


def resolve_arms(
    spec: ModelSpec, entity: FeedSpec, key: str, as_of: dt.datetime, ledger: Ledger, override: str | None = None
) -> list[Arm]:
    """Which version scores ``key``.

    An override of the form wins; then the version that published this partition before; then the champion, or, when
    ``as_of`` precedes that champion's promotion, the champion that the ledger names for then.

    :raises RegistryError: when there is no such version, or no champion.
    """
    before = published(spec, entity, key)
    version = override or (before.version if before else None)
    found = versions.get(spec.name, version) if version else versions.serving_at(spec.name, as_of, ledger)
    return [Arm("champion", found.version, found.model_id)]


@dataclass(frozen=True)
class Published:
    """What is published for a partition: by which version, and whether an input was missing."""

    version: str
    degraded: bool


def published(spec: ModelSpec, entity: FeedSpec, key: str) -> Published | None:
    """What is published for ``key``, if anything."""
    for batch in prediction_table(spec, entity).batches([key], columns=["model_version", "degraded"], batch_size=1):
        if batch.num_rows:
            return Published(str(batch.column(0)[0].as_py()), bool(batch.column(1)[0].as_py()))
    return None


def builders_of(arms: Sequence[Arm], feeds: Mapping[str, FeedSpec]) -> list[FeatureBuilder]:
    """The feature builders of the arms' own definitions."""
    return [_bundle(a).builder(feeds) for a in arms]


def _bundle(arm: Arm) -> Bundle:
    return Bundle(tracking.cache_folder().fetch(arm.model_id))


def score_partition(
    spec: ModelSpec,
    feeds: Mapping[str, FeedSpec],
    key: str,
    arms: Sequence[Arm],
    state: RunState,
    *,
    now: dt.datetime,
    degraded: bool = False,
    fence: Fence = no_fence,
) -> dict[str, Any]:
    """Materialise the features of ``key``, score them with every arm, and stage the predictions.

    :param degraded: score without the inputs that have not landed, and mark the rows.
    :returns: rows, mean score, share of positive decisions, and the inputs that were missing.
    :raises NotReadyError: when a declared input has not landed (``degraded``: the entity's own partition).
    """
    staged: list[pa.Table] = []
    lacking: set[str] = set()
    for arm in arms:
        bundle = _bundle(arm)
        builder = bundle.builder(feeds)
        builder.ensure([key], degraded=degraded, fence=fence)
        lacking.update(builder.missing(key))
        staged.extend(_scored(bundle, builder, arm, key, state.actor.run_id, now))
    whole = pa.concat_tables(staged)
    import pyarrow.parquet

    sink = io.BytesIO()
    pyarrow.parquet.write_table(whole, sink)
    state.store.put(state.key("predictions.parquet"), sink.getvalue())
    values = whole.column("score").to_numpy()
    decisions = whole.column("decision").to_numpy(zero_copy_only=False)
    return {
        "rows": whole.num_rows,
        "mean_score": float(np.mean(values)) if len(values) and np.isfinite(values).all() else None,
        "positive": float(np.mean(decisions)) if spec.task.type == "binary" and len(values) else None,
        "version": arms[0].version,
        "missing": sorted(lacking),
    }


def _scored(bundle: Bundle, builder: FeatureBuilder, arm: Arm, key: str, run: str, now: dt.datetime) -> list[pa.Table]:
    task, facts = bundle.spec.task, bundle.facts
    degraded = bool(builder.missing(key))
    _, end = period(builder.entity, key)
    in_sample = end <= dt.datetime.fromisoformat(facts["train_end"])
    tables = []
    for batch in builder.table.batches([key], batch_size=BATCH):
        if not batch.num_rows:
            continue
        rows = pa.Table.from_batches([batch])
        lacking = [c for c in facts["columns"] if c not in rows.column_names]
        if lacking:
            raise DataError(
                f"{bundle.spec.name} version {arm.version} needs feature {lacking[0]!r}, which {key} does not have"
            )
        score = estimators.score(bundle.model, to_matrix(rows, facts["columns"]), task.type)
        n = rows.num_rows
        threshold = facts["threshold"]
        columns = {
            **{k: rows.column(k) for k in builder.definition.key},
            "output": pa.array([str(task.positive) if task.type == "binary" else "value"] * n, pa.string()),
            "score": pa.array(score, pa.float64()),
            "decision": pa.array(score >= threshold if threshold is not None else [None] * n, pa.bool_()),
            "model_version": pa.array([arm.version] * n, pa.string()),
            "arm": pa.array([arm.name] * n, pa.string()),
            "in_sample": pa.array([in_sample] * n, pa.bool_()),
            "degraded": pa.array([degraded] * n, pa.bool_()),
            "run": pa.array([run] * n, pa.string()),
            "scored_at": pa.array([now] * n, pa.timestamp("us", tz="UTC")),
        }
        tables.append(pa.table(columns))
    if not tables:
        raise DataError(f"{bundle.spec.name}: partition {key} has no rows to score")
    return tables


def check_output(spec: ModelSpec, feeds: Mapping[str, FeedSpec], key: str, state: RunState) -> list[str]:
    """What is wrong with the staged predictions; an empty list when nothing is.

    Every entity row of the partition has exactly one finite score per arm; probabilities lie in [0, 1].
    """
    rows = _staged(state)
    entity = feeds[spec.entity]
    problems = []
    scores = rows.column("score").to_numpy()
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        problems.append(f"{bad} of {len(scores)} scores are not finite numbers")
    elif spec.task.type == "binary" and len(scores) and (scores.min() < 0 or scores.max() > 1):
        problems.append(f"scores lie between {scores.min():.3f} and {scores.max():.3f}, outside [0, 1]")
    keys = rows.select(entity.key)
    if (
        rows.select([*entity.key, "output", "model_version"])
        .group_by([*entity.key, "output", "model_version"])
        .aggregate([])
        .num_rows
        != rows.num_rows
    ):
        problems.append("a row was scored twice by the same version")
    wanted = feed_table(entity).read([key], columns=list(entity.key))
    if wanted is None or wanted.num_rows == 0:
        problems.append(f"{entity.name} {key} is not in the lake")
    else:
        lost = wanted.join(keys, keys=entity.key, join_type="left anti").num_rows
        if lost:
            problems.append(f"{lost} of {wanted.num_rows} {entity.name} of {key} have no score")
        extra = keys.join(wanted, keys=entity.key, join_type="left anti").num_rows
        if extra:
            problems.append(f"{extra} scores are of no {entity.name} of {key}")
    return problems


def publish(spec: ModelSpec, entity: FeedSpec, key: str, state: RunState, fence: Fence = no_fence) -> dict[str, Any]:
    """Replace the partition's predictions in one commit. The same scores again change nothing.

    :returns: rows and the content digest.
    """
    rows = _staged(state)
    digests = prediction_table(spec, entity).replace(
        {key: rows}, metadata={"perennial.run": state.actor.run_id}, fence=fence
    )
    return {"rows": rows.num_rows, "digest": digests[key]}


def _staged(state: RunState) -> pa.Table:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(io.BytesIO(state.store.get(state.key("predictions.parquet"))))
    except KeyError:
        raise DataError("this run has staged no predictions: clear it from its scoring task") from None
