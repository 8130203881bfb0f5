"""What depends on the grain of a model's feeds: defaults, what durations may be, and what cannot work.

Lengths of histories, holdouts and windows count blocks (days of hourly and daily feeds, weeks, months, years); a gap
counts partitions. Years are too few to be blocks: there every row is one (``gates.champion.block: row``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel

from perennial.specs.durations import format_duration, parse_duration
from perennial.specs.feeds import FeedSpec
from perennial.specs.grains import GRAINS, Grain
from perennial.specs.models import ModelSpec
from perennial.specs.partitions import first_day, first_key, keys_between, last_day, last_key
from perennial.specs.source import Loc, Problem

Model = TypeVar("Model", bound=BaseModel)

MIN_BLOCKS = 10  # a rule over fewer blocks holds for ever

#: Defaults that would make no sense for a grain, where the model's class has those of daily feeds.
_DEFAULTS: dict[str, dict[Loc, Any]] = {
    "hour": {("features", "lookback"): parse_duration("P7D")},
    "week": {
        ("features", "lookback"): parse_duration("P12W"),
        ("monitoring", "performance", "window"): parse_duration("P14W"),
    },
    "month": {
        ("features", "lookback"): parse_duration("P12M"),
        ("monitoring", "drift", "window"): parse_duration("P1M"),
        ("monitoring", "performance", "window"): parse_duration("P14M"),
        ("retraining", "cooldown"): parse_duration("P1M"),
    },
    "year": {
        ("features", "lookback"): parse_duration("P1Y"),
        ("gates", "champion", "block"): "row",
        ("monitoring", "drift", "window"): parse_duration("P1Y"),
        ("monitoring", "drift", "false_asks_per_year"): 0.1,  # one look a year: at 1, half of them would ask
        ("monitoring", "performance", "window"): parse_duration("P1Y"),
        ("monitoring", "rule", "k"): 1,  # two of three windows would wait for two more years
        ("monitoring", "rule", "n"): 1,
        ("retraining", "cooldown"): parse_duration("P1Y"),
    },
}


def with_defaults(model: ModelSpec, entity: FeedSpec) -> ModelSpec:
    """The model with the defaults of its entity feed's grain where it says nothing itself."""
    for loc, value in _DEFAULTS.get(entity.every, {}).items():
        model = _filled(model, loc, value)
    return model


def _filled(holder: Model, loc: Loc, value: Any) -> Model:
    name = str(loc[0])
    if len(loc) > 1:
        return holder.model_copy(update={name: _filled(getattr(holder, name), loc[1:], value)})
    # a copy's fields count as said, and so does what an earlier pass filled in: doing it twice changes nothing
    return holder if name in holder.model_fields_set else holder.model_copy(update={name: value})


def feed_rules(feed: FeedSpec) -> Iterator[Problem]:
    """What a feed's grain does not go with."""
    if feed.every == "hour" and feed.timezone != "UTC":
        message = (
            f"hours are UTC only, because 01:00 comes twice a year in a zone such as {feed.timezone}: "
            "write timezone: UTC"
        )
        yield Problem(message, ("timezone",))
    last = last_key(feed)
    if feed.end is not None and feed.start <= feed.end and last is not None and last < first_key(feed):
        message = f"no whole {feed.every} lies between {feed.start} and {feed.end}: write a later end"
        yield Problem(message, ("end",))


def notes(feed: FeedSpec) -> Iterator[str]:
    """What is worth knowing of a feed whose start or end lies inside a period."""
    first, last, one = first_key(feed), last_key(feed), GRAINS[feed.every].one
    if first_day(feed, first) != feed.start:
        yield f"start: {feed.start} lies inside {one}; the first whole one is {first}"
    if last is not None and last_day(feed, last) != feed.end:
        yield f"end: {feed.end} lies inside {one}; the last whole one is {last}"


# -------------------------------------------------------------------------------------------------------------- models


def model_rules(model: ModelSpec, entity: FeedSpec) -> Iterator[Problem]:
    """Durations that do not go with the grain of the entity feed."""
    if model.rows_are_blocks:
        yield from _row_rules(model, entity)
    if entity.every == "year" and model.search.trials and entity.end is not None:
        years = len(keys_between(entity, first_key(entity, model.training.start), last_key(entity) or ""))
        if years - model.holdout_blocks(0, "year") < MIN_BLOCKS:
            message = (
                f"a search splits the training history by time into {MIN_BLOCKS} partitions or more, and "
                f'"{entity.name}" has {years} years: write trials: 0'
            )
            yield Problem(message, ("search", "trials"))
    found = list(_length_rules(model, GRAINS[entity.every]))
    yield from found
    if not found and not model.rows_are_blocks:
        yield from _block_rules(model, GRAINS[entity.every])


def _row_rules(model: ModelSpec, entity: FeedSpec) -> Iterator[Problem]:
    if entity.every != "year":
        message = (
            f"rows of one {entity.every} are alike, and counting each as independent evidence would let everything "
            "pass: write block: partition (row is for yearly feeds)"
        )
        yield Problem(message, ("gates", "champion", "block"))
    elif model.metric.within == "block":
        yield Problem(
            "with rows as blocks there is no metric within a block: write within: pooled", ("metric", "within")
        )


def _length_rules(model: ModelSpec, grain: Grain) -> Iterator[Problem]:
    t, m = model.training, model.monitoring
    places: list[tuple[Loc, Any, Grain, int]] = [
        (("features", "lookback"), model.features.lookback, grain.block, 1),
        (("training", "window"), t.window, grain.block, 1),
        (("training", "holdout"), t.holdout, grain.block, 1),
        (("training", "gap"), t.gap, grain, 0),
        (("monitoring", "drift", "window"), m.drift.window, grain.block, 1),
        (("monitoring", "performance", "window"), m.performance.window, grain.block, 1),
    ]
    for loc, value, unit, least in places:
        if not isinstance(value, dt.timedelta):
            continue
        name = ".".join(map(str, loc))
        if value < least * unit.nominal:
            what = "one partition" if unit is grain else unit.one
            yield Problem(f"{name} is shorter than {what}: write at least {unit.duration(least)}", loc)
        elif unit.count(value) is None:
            n = value // unit.nominal
            what = f"whole partitions of {unit.one}" if unit is grain else f"whole {unit.every}s"
            message = f"{name} counts {what}: write {unit.duration(n)} or {unit.duration(n + 1)}"
            yield Problem(message, loc)
    cooldown = model.retraining.cooldown
    if cooldown < grain.nominal:
        message = (
            f"a cooldown of {format_duration(cooldown)} is shorter than one partition, so it holds nothing back: "
            f"write at least {grain.duration(1)}"
        )
        yield Problem(message, ("retraining", "cooldown"))


def _block_rules(model: ModelSpec, grain: Grain) -> Iterator[Problem]:
    """Rules over blocks need enough of them."""
    unit = grain.block
    blocks = model.holdout_blocks(0, grain.every)
    by_blocks = [name for name in ("baseline", "champion") if getattr(model.gates, name).mode != "disabled"]
    if blocks < MIN_BLOCKS and by_blocks:
        message = (
            f"a holdout of {unit.words(blocks)} has {blocks} blocks, and the {' and '.join(by_blocks)} "
            f"gate{'s' * (len(by_blocks) - 1)} cannot decide over fewer than {MIN_BLOCKS}: "
            f"write at least {unit.duration(MIN_BLOCKS)}"
        )
        if grain.every == "year":
            message += ", or gates: {champion: {block: row}}"
        yield Problem(message, ("training", "holdout"))
    performance = model.monitoring.performance
    blocks = unit.whole(performance.window)
    if blocks < MIN_BLOCKS and performance.mode != "disabled":
        message = (
            f"a performance window of {unit.words(blocks)} has {blocks} blocks, and no window is judged by fewer than "
            f"{MIN_BLOCKS}: write at least {unit.duration(MIN_BLOCKS)}, or mode: disabled"
        )
        yield Problem(message, ("monitoring", "performance", "window"))


def wait_rules(model: ModelSpec, entity: FeedSpec, labels: FeedSpec) -> Iterator[Problem]:
    """A holdout and a gap that do not reach over the wait for the labels. Feeds share their grain."""
    grain = GRAINS[entity.every]
    if any(True for _ in _length_rules(model, grain)):
        return
    unit, wait = grain.block, model.labels.horizon + labels.delay
    holdout = model.holdout_blocks(0, entity.every)
    if holdout * unit.shortest < wait:
        message = (
            f"a holdout of {unit.duration(holdout)} is shorter than the wait for its labels, "
            f"{format_duration(wait)} (horizon and delay): "
            f"write training: {{holdout: {unit.duration(max(unit.at_least(wait), MIN_BLOCKS))}}} or more"
        )
        yield Problem(message, ("training", "holdout"))
    gap, least = model.gap_partitions(labels), grain.at_least(wait)
    if gap < least:
        message = (
            f"a gap of {grain.duration(gap)} lets training see labels that were not known yet: "
            f"write auto, or at least {grain.duration(least)}"
        )
        yield Problem(message, ("training", "gap"))
    yield from _kept_rules(model, entity, labels)


def _kept_rules(model: ModelSpec, entity: FeedSpec, labels: FeedSpec) -> Iterator[Problem]:
    """Do the feeds keep what a training needs? An expanding window takes what there is."""
    grain, window = GRAINS[entity.every], model.training.window
    least = model.holdout_blocks(0, entity.every) * grain.block.nominal + model.gap_partitions(labels) * grain.nominal
    least += grain.block.nominal if window == "expanding" else window
    wait = model.labels.horizon + labels.delay
    for feed, more, loc in (
        (entity, wait + model.features.lookback, ("entity",)),
        (labels, model.labels.horizon, ("labels", "feed")),
    ):
        kept = feed.retention.rows
        if kept is not None and kept < least + more:
            message = (
                f'"{feed.name}" keeps {format_duration(kept)}, and a training needs {format_duration(least + more)} of '
                f"it (window, gap, holdout{', lookback' if feed is entity else ''}): let the feed keep more"
            )
            yield Problem(message, loc)
