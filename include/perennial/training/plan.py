"""Which rows a training may use: everything that follows from the spec, ``as_of`` and what is in the lake.

The plan is made once, by a run's first task, and is all that later tasks look at: they never read the spec again.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perennial.errors import DataError, SpecError, UsageError
from perennial.features.builder import FeatureBuilder
from perennial.features.definition import Definition, load_definition
from perennial.lake.homes import feed_table
from perennial.specs import FeedSpec, ModelSpec
from perennial.specs.loader import digest
from perennial.specs.partitions import (
    block_of,
    first_key,
    grain_of,
    in_range,
    keys_between,
    last_key_known,
    last_of_block,
    period,
    shift,
)
from perennial.trust.lineage import code_identity


@dataclass(frozen=True)
class TrainingPlan:
    """A run's own copy of everything that decides its outcome.

    :param as_of: exclusive instant (UTC) up to which the run knows things.
    :param train_keys: partitions to train on. ``holdout_keys``: later ones to judge on.
    :param train_end: exclusive end of the last training partition (UTC).
    :param missing: partitions of the training window that cannot be used, with the reason.
    :param window_days: length of the training window in days (weekly and monthly feeds: weeks, months); ``None``:
        expanding.
    """

    spec: ModelSpec
    feeds: Mapping[str, FeedSpec]
    definition: Definition
    as_of: dt.datetime
    seed: int
    window_days: int | None
    train_keys: tuple[str, ...]
    holdout_keys: tuple[str, ...]
    train_end: dt.datetime
    missing: Mapping[str, str]
    holdout_missing: Mapping[str, str]
    dry_run: bool
    digests: Mapping[str, str]
    folder: str

    @property
    def entity(self) -> FeedSpec:
        return self.feeds[self.spec.entity]

    @property
    def label_feed(self) -> FeedSpec:
        return self.feeds[self.spec.labels.feed]

    def builder(self) -> FeatureBuilder:
        """The feature builder of this run's definition."""
        return FeatureBuilder(self.spec.name, self.definition, self.feeds)

    def to_dict(self) -> dict[str, Any]:
        return {
            "spec": self.spec.model_dump(mode="json"),
            "feeds": {n: f.model_dump(mode="json") for n, f in self.feeds.items()},
            "definition": self.definition.to_dict(),
            "as_of": self.as_of.isoformat(),
            "seed": self.seed,
            "window_days": self.window_days,
            "train_keys": list(self.train_keys),
            "holdout_keys": list(self.holdout_keys),
            "train_end": self.train_end.isoformat(),
            "missing": dict(self.missing),
            "holdout_missing": dict(self.holdout_missing),
            "dry_run": self.dry_run,
            "digests": dict(self.digests),
            "folder": self.folder,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> TrainingPlan:
        return cls(
            spec=ModelSpec.stored(value["spec"]),
            feeds={n: FeedSpec.stored(f) for n, f in value["feeds"].items()},
            definition=Definition.from_dict(value["definition"]),
            as_of=dt.datetime.fromisoformat(value["as_of"]),
            seed=value["seed"],
            window_days=value["window_days"],
            train_keys=tuple(value["train_keys"]),
            holdout_keys=tuple(value["holdout_keys"]),
            train_end=dt.datetime.fromisoformat(value["train_end"]),
            missing=value["missing"],
            holdout_missing=value["holdout_missing"],
            dry_run=value["dry_run"],
            digests=value["digests"],
            folder=value["folder"],
        )


def make_plan(
    spec: ModelSpec,
    feeds: Mapping[str, FeedSpec],
    folder: Path,
    *,
    as_of: dt.datetime,
    window_days: int | None = None,
    seed: int | None = None,
    dry_run: bool = False,
) -> TrainingPlan:
    """Decide on training and holdout partitions as of an instant.

    The holdout is the last labelled blocks (partitions; of an hourly feed whole days); a gap of at least horizon +
    delay lies between it and ``train_end``.

    :param window_days: train on this many blocks only; default: what the spec says.
    :raises DataError: when too little is labelled by then, or too many partitions are missing.
    """
    definition = load_definition(spec, folder, feeds)
    definition.check_feeds(feeds)
    entity, labels = feeds[spec.entity], feeds[spec.labels.feed]
    grain = grain_of(entity)
    block, size = grain.block, grain.per_block
    start = first_key(entity, spec.training.start)
    known = last_labelled(spec, labels, as_of)
    last = known and last_of_block(labels, known)
    if last is None or last < start:
        raise DataError(f"{spec.name}: nothing is labelled by {as_of:%Y-%m-%d %H:%M} UTC; choose a later as_of")
    labelled = len(keys_between(entity, start, last)) // size
    holdout_blocks, gap = spec.holdout_blocks(labelled, entity.every), spec.gap_partitions(labels)
    first_holdout = shift(entity, last, 1 - holdout_blocks * size)
    last_train = shift(entity, first_holdout, -gap - 1)
    if window_days is None and spec.training.window != "expanding":
        window_days = block.whole(spec.training.window)
    first_train = start
    if window_days is not None:
        first_train = max(first_train, shift(entity, last_train, 1 - window_days * size))
    builder = FeatureBuilder(spec.name, definition, feeds)
    first_train = max([first_train, *_kept_from(builder, labels)])
    if last_train < first_train:
        said = str(gap) if size == 1 else grain.words(gap)
        raise DataError(
            f"{spec.name}: as of {as_of:%Y-%m-%d} there are {labelled} labelled {block.every}s; the holdout takes "
            f"{holdout_blocks} and the gap {said}, which leaves none to train on"
        )
    train, missing = _usable(builder, labels, keys_between(entity, first_train, last_train))
    holdout, holdout_missing = _usable(builder, labels, keys_between(entity, first_holdout, last))
    holdout = _in_whole_blocks(spec, entity, holdout, holdout_missing)
    wanted = len(train) + len(missing)
    if len(missing) > spec.training.max_missing * wanted:
        some = "; ".join(f"{k}: {why}" for k, why in list(missing.items())[:3])
        raise DataError(
            f"{spec.name}: {len(missing)} of {wanted} training partitions cannot be used, more than max_missing "
            f"{spec.training.max_missing:.0%} ({some})"
        )
    if not holdout:
        raise DataError(f"{spec.name}: no partition of the holdout {first_holdout} to {last} can be used")
    code = code_identity(folder)
    digests = {
        "spec": digest(spec),
        "features": definition.digest,
        **{f"feed:{n}": digest(feeds[n]) for n in {*definition.feeds, labels.name}},
        **code.to_dict(),
    }
    pipeline = pipeline_digest(spec, folder)
    if pipeline is not None:
        digests["pipeline"] = pipeline
    return TrainingPlan(
        spec=spec,
        feeds={n: feeds[n] for n in sorted({*definition.feeds, spec.entity, labels.name})},
        definition=definition,
        as_of=as_of,
        seed=spec.training.seed if seed is None else seed,
        window_days=window_days,
        train_keys=tuple(train),
        holdout_keys=tuple(holdout),
        train_end=period(entity, last_train)[1],
        missing=missing,
        holdout_missing=holdout_missing,
        dry_run=dry_run,
        digests=digests,
        folder=str(folder),
    )


def pipeline_digest(spec: ModelSpec, folder: Path) -> str | None:
    """sha256 of the model's own ``pipeline.py``; ``None`` when the estimator is an importable class.

    :raises SpecError: when the file is not there.
    """
    file, own, _ = spec.estimator.type.partition(":")
    if not own:
        return None
    try:
        return hashlib.sha256((folder / file).read_bytes()).hexdigest()
    except OSError as e:
        raise SpecError(f"{folder / file} cannot be read ({e.strerror}); the spec of {spec.name} names it") from e


def last_labelled(spec: ModelSpec, labels: FeedSpec, as_of: dt.datetime) -> str | None:
    """The newest partition whose outcomes are complete at ``as_of``: end + horizon + delay <= as_of."""
    return last_key_known(labels, as_of - spec.labels.horizon)


def _usable(builder: FeatureBuilder, labels: FeedSpec, keys: list[str]) -> tuple[list[str], dict[str, str]]:
    labelled = feed_table(labels).partitions()
    usable: list[str] = []
    missing: dict[str, str] = {}
    for k in keys:
        gaps = builder.missing(k)
        if gaps:
            missing[k] = f"no {', no '.join(gaps)}"
        elif k not in labelled:
            missing[k] = f"no {labels.name} {k}"
        else:
            usable.append(k)
    return usable, missing


def _in_whole_blocks(spec: ModelSpec, entity: FeedSpec, keys: list[str], missing: dict[str, str]) -> list[str]:
    """Those of ``keys`` whose block is there almost whole; the others are noted in ``missing``.

    A day with three of its hours is no observation like the others.
    """
    size = grain_of(entity).per_block
    found = Counter(block_of(entity, k) for k in keys)
    kept = []
    for k in keys:
        there = found[block_of(entity, k)]
        if there >= spec.labels.min_coverage * size:
            kept.append(k)
        else:
            missing[k] = f"only {there} of {size} {entity.every}s of {block_of(entity, k)} are there"
    return kept


def _kept_from(builder: FeatureBuilder, labels: FeedSpec) -> list[str]:
    """Per feed with a retention: the first partition that can be trained on, now that earlier ones may have left.

    Features look back, so theirs begin that much later: built over rows that are gone they would say something else.
    """
    found = []
    for feed in {**builder.feeds, labels.name: labels}.values():
        there = feed_table(feed).partitions() if feed.retention.rows is not None else {}
        if not there or not in_range(feed, shift(feed, min(there), -1)):
            continue
        key = oldest = min(there)
        while feed.name in builder.feeds and (seen := builder.visible(feed.name, key)) and seen[0] < oldest:
            key = shift(feed, key, 1)
        found.append(key)
    return found


def resolve_as_of(value: str | None, run_after: dt.datetime, entity: FeedSpec) -> dt.datetime:
    """The instant a form or a schedule means. A date is the start of that day in the entity feed's zone.

    :raises UsageError: when the text is neither a date nor an instant.
    """
    from zoneinfo import ZoneInfo

    if not value:
        return run_after.astimezone(dt.UTC)
    try:
        instant = dt.datetime.fromisoformat(value)
    except ValueError:
        raise UsageError(f"as_of {value!r} is not a date: write 2013-03-01, or an instant with its zone") from None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=ZoneInfo(entity.timezone))
    return instant.astimezone(dt.UTC)
