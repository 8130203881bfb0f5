"""The steps of a scoring run.

``resolve_arms`` decides once which version scores the partition; scoring uses that version's own feature definition;
publication replaces the whole partition in one commit. Doing it all again publishes the same rows.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perennial.errors import DataError
from perennial.features.builder import FeatureBuilder
from perennial.lake.homes import PREDICTION_KEY, feed_table, prediction_table
from perennial.lake.rows import BATCH
from perennial.lake.table import Fence, no_fence
from perennial.ledger import Ledger
from perennial.registry import versions
from perennial.runs import Actor, RunState
from perennial.scoring import staging
from perennial.specs import FeedSpec, ModelSpec
from perennial.specs.partitions import period
from perennial.training import estimators
from perennial.training.bundle import Bundle
from perennial.training.data import to_matrix

#: A run's document: the classes that each version knows.
CLASSES = "classes"


@dataclass(frozen=True)
class Arm:
    """A version that scores the partition, and under which name its scores are published."""

    name: str
    version: str
    model_id: str
    run_id: str

    def to_dict(self) -> dict[str, str]:
        return {"name": self.name, "version": self.version, "model_id": self.model_id, "run_id": self.run_id}


def resolve_arms(
    spec: ModelSpec,
    entity: FeedSpec,
    key: str,
    as_of: dt.datetime,
    ledger: Ledger,
    override: str | None = None,
    actor: Actor | None = None,
    fence: Fence = no_fence,
) -> list[Arm]:
    """Which version scores ``key``.

    An override of the form wins; then the version that published this partition before; then the champion, or, when
    ``as_of`` precedes that champion's promotion, the champion that the ledger names for then.

    :param actor: who asks. Where the champion decides, an alias that somebody moved in MLflow by hand is then written
        down first.
    :raises RegistryError: when there is no such version, or no champion.
    """
    before = published(spec, entity, key)
    version = override or (before.version if before else None)
    if version is None and actor is not None:
        versions.reconcile(spec.name, as_of=as_of, actor=actor, ledger=ledger, fence=fence)
    found = versions.get(spec.name, version) if version else versions.serving_at(spec.name, as_of, ledger)
    return [Arm("champion", found.version, found.model_id, found.run_id)]


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


def builders_of(
    spec: ModelSpec,
    arms: Sequence[Arm],
    feeds: Mapping[str, FeedSpec],
    actor: Actor | None = None,
    fence: Fence = no_fence,
) -> list[FeatureBuilder]:
    """The feature builders of the arms' own definitions.

    :raises RefusedError: when an arm's version is not what a trusted key has signed.
    """
    return [Bundle.open(spec.name, a, actor=actor, fence=fence).builder(feeds) for a in arms]


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
    :raises RefusedError: when an arm's version is not what a trusted key has signed.
    """
    lacking: set[str] = set()
    scored: list[Iterator[pa.RecordBatch]] = []
    classes: dict[str, list[str]] = {}
    for arm in arms:
        bundle = Bundle.open(spec.name, arm, actor=state.actor, fence=fence)
        builder = bundle.builder(feeds)
        builder.ensure([key], degraded=degraded, fence=fence)
        lacking.update(builder.missing(key))
        scored.append(_scored(bundle, builder, arm, key, state.actor.run_id, now))
        classes[arm.version] = bundle.facts.get("classes", [])
    if spec.task.type == "multiclass":
        state.write(CLASSES, classes)
    figures = staging.stage(state, itertools.chain.from_iterable(scored), (*feeds[spec.entity].key, *PREDICTION_KEY))
    return {
        "rows": figures.rows,
        "mean_score": None if spec.task.type == "multiclass" else figures.mean_score,
        "positive": figures.positive if spec.task.type == "binary" else None,
        "version": arms[0].version,
        "missing": sorted(lacking),
    }


def _scored(
    bundle: Bundle, builder: FeatureBuilder, arm: Arm, key: str, run: str, now: dt.datetime
) -> Iterator[pa.RecordBatch]:
    """Predictions of a partition, a batch at a time, in the order of its features."""
    task, facts = bundle.spec.task, bundle.facts
    degraded = bool(builder.missing(key))
    _, end = period(builder.entity, key)
    in_sample = end <= dt.datetime.fromisoformat(facts["train_end"])
    output = str(task.positive) if task.type == "binary" else "value"
    threshold, some = facts["threshold"], False
    decision: pa.Array | None = None
    size = max(1, BATCH // len(facts.get("classes", "1")))
    for batch in builder.table.batches([key], batch_size=size):
        if not batch.num_rows:
            continue
        some = True
        lacking = [c for c in facts["columns"] if c not in batch.schema.names]
        if lacking:
            raise DataError(
                f"{bundle.spec.name} version {arm.version} needs feature {lacking[0]!r}, which {key} does not have"
            )
        rows = pa.Table.from_batches([batch])
        score = estimators.score(bundle.scorer, to_matrix(rows, facts["columns"]), task.type)
        if task.type == "multiclass":
            batch, score, output, decision = _by_class(batch, score, facts["classes"])
        elif threshold is not None:
            decision = pa.array(score >= threshold)
        n = batch.num_rows
        columns = {
            **{k: batch.column(k) for k in builder.definition.key},
            "output": output if isinstance(output, pa.Array) else pa.repeat(output, n),
            "score": pa.array(score, pa.float64()),
            "decision": pa.nulls(n, pa.bool_()) if decision is None else decision,
            "model_version": pa.repeat(arm.version, n),
            "arm": pa.repeat(arm.name, n),
            "in_sample": pa.repeat(in_sample, n),
            "degraded": pa.repeat(degraded, n),
            "run": pa.repeat(run, n),
            "scored_at": pa.repeat(pa.scalar(now, pa.timestamp("us", tz="UTC")), n),
        }
        yield pa.RecordBatch.from_pydict(columns)
    if not some:
        raise DataError(f"{bundle.spec.name}: partition {key} has no rows to score")


def _by_class(
    batch: pa.RecordBatch, score: NDArray[np.float64], classes: Sequence[str]
) -> tuple[pa.RecordBatch, NDArray[np.float64], pa.Array, pa.Array]:
    """A row per entity row and class, in the order of the classes: with its probability, and whether it is the
    likeliest (of equal ones the first)."""
    n, k = score.shape
    decided = np.zeros((n, k), dtype=bool)
    decided[np.arange(n), score.argmax(axis=1)] = True
    output = pa.DictionaryArray.from_arrays(np.tile(np.arange(k, dtype=np.int32), n), list(classes)).cast(pa.string())
    return batch.take(pa.array(np.repeat(np.arange(n), k))), score.reshape(-1), output, pa.array(decided.reshape(-1))


def check_output(spec: ModelSpec, feeds: Mapping[str, FeedSpec], key: str, state: RunState) -> list[str]:
    """What is wrong with the staged predictions; an empty list when nothing is.

    Every entity row of the partition has exactly one finite score per arm; probabilities lie in [0, 1]. Of a
    multiclass model it has one for every class, and they sum to 1.
    """
    entity = feeds[spec.entity]
    several = spec.task.type == "multiclass"
    with staging.staged(state) as rows:
        problems = staging.check_scores(rows, probabilities=spec.task.type != "regression")
        if several and not problems:
            problems = staging.check_classes(rows, entity.key, state.read(CLASSES))
        if staging.doubled(rows, (*entity.key, *PREDICTION_KEY)):
            problems.append("a row was scored twice by the same version")
        found = staging.compare_keys(rows, feed_table(entity), key, entity.key)
    if found.wanted == 0:
        problems.append(f"{entity.name} {key} is not in the lake")
    if found.wanted and found.lost:
        problems.append(f"{found.lost} of {found.wanted} {entity.name} of {key} have no score")
    if found.wanted and found.extra:
        problems.append(f"{found.extra} scores are of no {entity.name} of {key}")
    return problems


def publish(spec: ModelSpec, entity: FeedSpec, key: str, state: RunState, fence: Fence = no_fence) -> dict[str, Any]:
    """Replace the partition's predictions in one commit. The same scores again change nothing.

    :returns: rows and the content digest.
    """
    with staging.staged(state) as rows:
        few = rows.num_rows <= BATCH
        digests = prediction_table(spec, entity).replace(
            {key: rows.table() if few else rows}, metadata={"perennial.run": state.actor.run_id}, fence=fence
        )
        return {"rows": rows.num_rows, "digest": digests[key]}
