"""What a spec says that cannot work, or does not work yet, each with the place and with what to write instead."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from perennial.specs import cron, grain_rules, group_rules, metrics
from perennial.specs.durations import format_duration
from perennial.specs.feeds import RESERVED_COLUMNS, FeedRetention, FeedSpec
from perennial.specs.grains import GRAINS
from perennial.specs.models import ModelRetention, ModelSpec
from perennial.specs.source import Loc, Problem, suggest
from perennial.specs.values import ONE_DAY

#: Values that the spec language has and the program has not: (place, allowed today).
_VALUES: dict[str, dict[Loc, tuple[Any, ...]]] = {
    "feed": {("source", "kind"): ("files",)},
    "model": {
        ("rollout", "strategy"): ("immediate",),
        ("compute", "backend"): ("local",),
        ("scoring", "shards"): (1,),
        ("gates", "champion", "block"): ("partition", "row"),
    },
}
_KNOWN_VALUES: dict[Loc, tuple[Any, ...]] = {
    ("source", "kind"): ("sql", "derived"),
    ("rollout", "strategy"): ("shadow", "canary", "ab", "blue_green"),
    ("compute", "backend"): ("docker", "ecs", "kubernetes"),
}

_BLOCKS = ("partition", "row")  # and, one day, a column that names a cluster

#: Keys that the spec language will have: (place, what is there today instead).
_KEYS: dict[str, dict[Loc, str]] = {
    "feed": {
        ("source", "query"): "kind: files",
        ("contract", "on_missing"): "nothing here, a missing partition fails its run with a sentence",
    },
    "model": {
        ("approval",): "nothing here, a version that passes its gates is promoted",
        ("notify",): "nothing here",
        ("retirement",): "nothing here, versions are kept",
        ("costs",): "nothing here",
        ("rollout", "steps"): "strategy: immediate",
        ("rollout", "compare"): "strategy: immediate",
        ("rollout", "horizon"): "strategy: immediate",
        ("rollout", "confidence"): "strategy: immediate",
        ("compute", "memory"): "backend: local, which takes what the task needs",
        ("compute", "image"): "backend: local",
        ("training", "end"): "start, the history ends with the entity feed",
        ("training", "weight"): "nothing here, all rows weigh the same",
    },
}


def allowed_today(kind: str, loc: Loc) -> tuple[Any, ...] | None:
    """What a value may be at present, where the spec language knows more."""
    return _VALUES[kind].get(loc)


def values_today(kind: str) -> Iterator[tuple[Loc, tuple[Any, ...]]]:
    """Every value that is narrower today than the spec language: (place, allowed today)."""
    yield from _VALUES[kind].items()


def not_yet(kind: str, data: dict[str, Any]) -> Iterator[Problem]:
    """Things that are in the language and not built yet; they are also taken out of ``data``."""
    for loc, instead in _KEYS[kind].items():
        holder = _at(data, loc[:-1])
        if isinstance(holder, dict) and loc[-1] in holder:
            value = holder.pop(loc[-1])
            if loc == ("training", "weight") and value is None:
                continue
            yield Problem(f"{_dotted(loc)} is not available yet (allowed today: {instead})", loc, on_key=True)
    for loc, today in _VALUES[kind].items():
        value = _at(data, loc)
        known = value in _KNOWN_VALUES.get(loc, ()) if isinstance(value, str) else False
        if known or _too_many(loc, value) or _other_block(loc, value):
            _at(data, loc[:-1])[loc[-1]] = today[0]
            words = ", ".join(map(str, today))
            yield Problem(f"{_dotted(loc)}: {value} is not available yet (allowed today: {words})", loc)
    if kind == "model" and isinstance(_at(data, ("scoring", "on")), dict):
        data["scoring"]["on"] = "data"
        yield Problem("scoring.on: {at: ...} is not available yet (allowed today: data)", ("scoring", "on"))


def _too_many(loc: Loc, value: Any) -> bool:
    return loc == ("scoring", "shards") and type(value) is int and value > 1


def _other_block(loc: Loc, value: Any) -> bool:
    return loc == ("gates", "champion", "block") and isinstance(value, str) and value not in _BLOCKS


def _at(data: Any, loc: Loc) -> Any:
    for part in loc:
        if not isinstance(data, dict) or part not in data:
            return None
        data = data[part]
    return data


def _dotted(loc: Loc) -> str:
    return ".".join(map(str, loc))


# --------------------------------------------------------------------------------------------------------------- feeds


def feed_rules(feed: FeedSpec) -> Iterator[Problem]:
    """What a feed says that cannot work."""
    if feed.end is not None and feed.end < feed.start:
        yield Problem(f"end ({feed.end}) lies before start ({feed.start})", ("end",))
    yield from grain_rules.feed_rules(feed)
    yield from _retention_rules(feed.retention)
    yield from _column_rules(feed)


def _retention_rules(kept: FeedRetention | ModelRetention) -> Iterator[Problem]:
    for name in type(kept).model_fields:
        said = getattr(kept, name)
        if said is not None and said < ONE_DAY:
            message = f"retention.{name} of {format_duration(said)} keeps nothing: write at least P1D"
            yield Problem(message, ("retention", name))


def _column_rules(feed: FeedSpec) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for column in feed.columns:
        lower = column.lower()
        if lower in RESERVED_COLUMNS or lower.startswith("_perennial"):
            message = f'a column may not be called "{column}", the lake adds one of that name: rename it in prepare.py'
            yield Problem(message, ("columns", column), on_key=True)
        if lower in seen:
            message = f'"{column}" and "{seen[lower]}" differ only in case, which SQL does not see: rename one'
            yield Problem(message, ("columns", column), on_key=True)
        seen[lower] = column
    places: list[tuple[Loc, str]] = [(("key", i), c) for i, c in enumerate(feed.key)]
    for field in ("event_time", "known_at"):
        column = getattr(feed, field)
        if column is None:
            continue
        places.append(((field,), column))
        if feed.columns.get(column, "timestamp") != "timestamp":
            message = f'{field} must be a timestamp, and "{column}" is declared as {feed.columns[column]}'
            yield Problem(message, (field,))
    for loc, column in places:
        if column not in feed.columns:
            hint = suggest(column, feed.columns)
            message = (
                f'"{column}" is not among the columns{hint}: declare it under columns (declared: {_some(feed.columns)})'
            )
            yield Problem(message, loc)
    for i, column in enumerate(feed.key):
        if column in feed.key[:i]:
            yield Problem(f'"{column}" is in the key twice', ("key", i))
        if feed.columns.get(column) == "float":
            yield Problem(f'"{column}" is a float, and floats cannot be compared exactly: use another key', ("key", i))


# -------------------------------------------------------------------------------------------------------------- models


def model_rules(model: ModelSpec) -> Iterator[Problem]:
    """What a model says that cannot work, whatever its feeds are."""
    yield from _task_rules(model)
    yield from _metric_rules(model)
    yield from _gate_rules(model)
    yield from group_rules.model_rules(model)
    yield from _search_rules(model)
    yield from _retention_rules(model.retention)
    schedule = model.training.schedule
    if schedule is not None and (problem := cron.problem_with(schedule)):
        yield Problem(problem, ("training", "schedule"))
    rule = model.monitoring.rule
    if rule.k > rule.n:
        message = f"k ({rule.k}) is larger than n ({rule.n}), so the rule could never speak: write k: {rule.n} or less"
        yield Problem(message, ("monitoring", "rule", "k"))
    waived = [w.item for w in model.waive]
    for i, item in enumerate(waived):
        if item in waived[:i]:
            yield Problem(f'"{item}" is waived twice', ("waive", i, "item"))
    if not model.compute.timeout:
        yield Problem("no fit ends in no time: write a timeout such as PT2H", ("compute", "timeout"))


def _task_rules(model: ModelSpec) -> Iterator[Problem]:
    threshold = model.scoring.threshold
    place = ("scoring", "threshold")
    if model.task.type == "regression":
        if threshold is not None:
            yield Problem("a regression has no decision threshold: delete this line", place)
        for name, what in (("positive", "positive class"), ("classes", "classes")):
            if name in model.task.model_fields_set:
                yield Problem(f"a regression has no {what}: delete this", ("task", name))
        return
    yield from _class_rules(model)
    if model.task.type == "multiclass":
        if threshold is not None:
            yield Problem("a multiclass task decides for the likeliest class: delete this line", place)
        named = model.task.classes
        if named and "positive" in model.task.model_fields_set and model.task.positive not in named:
            message = f"{model.task.positive!r} is not among the classes: write one of {_some(map(str, named))}"
            yield Problem(message, ("task", "positive"))
    elif threshold is not None and not 0 < threshold < 1:
        yield Problem(f"a threshold is a probability, and {threshold:g} is not between 0 and 1", place)


def _class_rules(model: ModelSpec) -> Iterator[Problem]:
    classes = model.task.classes
    place = ("task", "classes")
    if classes is None:
        return
    if model.task.type == "binary":
        yield Problem("a binary task has a positive class and the rest: write positive instead", place)
        return
    if len(classes) < 3:
        message = f"{len(classes)} classes are no multiclass task: write task: {{type: binary, positive: ...}}"
        yield Problem(message, place)
    names = [str(c) for c in classes]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        yield Problem(f"the class {twice[0]} is there twice", place)


def _metric_rules(model: ModelSpec) -> Iterator[Problem]:
    names: list[tuple[Loc, str]] = [(("metric", "name"), model.metric.name)]
    floors: dict[Loc, dict[str, float]] = {("gates", "floor", "minimum"): model.gates.floor.minimum}
    floors |= {("gates", "slices", i, "minimum"): s.minimum for i, s in enumerate(model.gates.slices)}
    names += [((*loc, name), name) for loc, minimum in floors.items() for name in minimum]
    task = model.task.type
    mine = metrics.BY_TASK[task]
    for loc, name in names:
        if name in mine | metrics.PLAIN[task] or re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
            continue
        other = next((t for t, known in metrics.BY_TASK.items() if name in known | metrics.PLAIN[t]), None)
        on_key = loc[0] == "gates"
        if other is not None:
            what = {"binary": "two classes", "multiclass": "several classes"}.get(other, other)
            what = "classification" if task == "regression" else what
            message = f"{name} is a metric of {what}, and the task is {task} (allowed: {', '.join(sorted(mine))})"
        else:
            extra = ["mode", "minimum"] if loc[:2] == ("gates", "floor") else []
            hint = suggest(name, [*mine, *extra])
            message = f'"{name}" is not a metric{hint} (allowed: {", ".join(sorted(mine))}, or module:function)'
        yield Problem(message, loc, on_key=on_key)
    for loc, minimum in floors.items():
        for name, least in minimum.items():
            if name in metrics.SHARES and not 0 <= least <= 1:
                message = f"{name} lies between 0 and 1, so a floor of {least:g} cannot be meant"
                yield Problem(message, (*loc, name))


def _gate_rules(model: ModelSpec) -> Iterator[Problem]:
    for name in ("baseline", "champion"):
        gain = getattr(model.gates, name).min_gain
        if gain is not None and not -1 < gain < 1:
            message = f"a gain of {gain:g} cannot be meant: it is the difference of two metrics (regression: a share)"
            yield Problem(message, ("gates", name, "min_gain"))


def _search_rules(model: ModelSpec) -> Iterator[Problem]:
    search = model.search
    if search.trials and not search.space:
        message = "a search needs a space: write {max_leaf_nodes: {int: [7, 63], log: true}} or trials: 0"
        yield Problem(message, ("search", "trials"))
    for name, said in search.space.items():
        if problem := _space_problem(said):
            yield Problem(f"search.space.{name}: {problem}", ("search", "space", name), on_key=True)


def _space_problem(said: Mapping[str, Any]) -> str | None:
    kinds = [k for k in ("int", "float", "choice") if k in said]
    if len(kinds) != 1:
        return "write one of {int: [7, 63]}, {float: [0.01, 0.3], log: true}, {choice: [a, b]}"
    kind, value = kinds[0], said[kinds[0]]
    rest = set(said) - {kind} - (set() if kind == "choice" else {"log"})
    if rest:
        word = sorted(rest)[0]
        return f'"{word}" is not known here{suggest(word, ["log"])}'
    if kind == "choice":
        fine = (
            isinstance(value, list) and value and all(isinstance(v, (str, int, float, bool, type(None))) for v in value)
        )
        return None if fine else "choice needs a list of values, such as {choice: [sqrt, log2]}"
    types: tuple[type, ...] = (int,) if kind == "int" else (int, float)
    if not isinstance(value, list) or len(value) != 2 or any(type(v) not in types for v in value):
        return f"{kind} needs two numbers, lowest and highest, such as {{{kind}: [7, 63]}}"
    if value[0] >= value[1]:
        return f"the lowest value ({value[0]}) must be smaller than the highest ({value[1]})"
    if not isinstance(said.get("log", False), bool):
        return "log is true or false"
    if said.get("log") and value[0] <= 0:
        return "a logarithmic scale needs a lowest value above 0"
    return None


# --------------------------------------------------------------------------------------------------- models with feeds


def joint_rules(
    model: ModelSpec, feeds: Mapping[str, FeedSpec], broken: Mapping[str, str], names: Collection[str]
) -> Iterator[Problem]:
    """What a model says that does not fit its feeds.

    ``broken``: files of feeds that exist and have errors; ``names``: of all feeds there are.
    """
    found = []
    for loc, name in ((("entity",), model.entity), (("labels", "feed"), model.labels.feed)):
        if name in feeds:
            found.append(feeds[name])
        elif name in broken:
            yield Problem(f'the feed "{name}" has errors of its own: see {broken[name]}', loc)
        else:
            hint = suggest(name, names)
            known = _some(sorted(names)) if names else "there are none yet"
            yield Problem(f'there is no feed "{name}"{hint} (feeds: {known})', loc)
    if model.entity in feeds:
        yield from grain_rules.model_rules(model, feeds[model.entity])
    if len(found) != 2:
        return
    entity, labels = found
    if labels.known_at:
        message = f"{labels.name} has known_at, and labels cut by it are not available yet (allowed today: delay)"
        yield Problem(message, ("labels", "feed"))
    yield from _fit_rules(entity, labels)
    yield from _label_rules(model, entity, labels)
    if entity.every == labels.every:
        yield from grain_rules.wait_rules(model, entity, labels)
    yield from _start_rules(model, entity)


def _fit_rules(entity: FeedSpec, labels: FeedSpec) -> Iterator[Problem]:
    place = ("labels", "feed")
    if entity.every != labels.every:
        message = (
            f'"{labels.name}" has partitions of {GRAINS[labels.every].one} and "{entity.name}" of '
            f"{GRAINS[entity.every].one}: "
            "feeds of one model share their grain (there are no rollups yet)"
        )
        yield Problem(message, place)
    if entity.timezone != labels.timezone:
        message = (
            f'"{labels.name}" counts {entity.every}s in {labels.timezone} and "{entity.name}" in {entity.timezone}: '
            "feeds of one model share their time zone, or their partitions would never meet"
        )
        yield Problem(message, place)
    missing = [c for c in entity.key if c not in labels.columns]
    if missing:
        message = (
            f'"{labels.name}" cannot be joined to "{entity.name}": it lacks the key column{"s" * (len(missing) > 1)} '
            f'{", ".join(missing)} (the key of "{entity.name}" is {", ".join(entity.key)})'
        )
        yield Problem(message, place)
    for column in entity.key:
        mine, theirs = entity.columns[column], labels.columns.get(column)
        if theirs not in (None, mine):
            message = (
                f'"{column}" is {mine} in "{entity.name}" and {theirs} in "{labels.name}", so they would never match'
            )
            yield Problem(message, place)


def _label_rules(model: ModelSpec, entity: FeedSpec, labels: FeedSpec) -> Iterator[Problem]:
    column, place = model.labels.column, ("labels", "column")
    kind = labels.columns.get(column)
    if kind is None:
        hint = suggest(column, labels.columns)
        yield Problem(f'"{labels.name}" has no column "{column}"{hint} (columns: {_some(labels.columns)})', place)
        return
    if column in entity.key:
        yield Problem(f'"{column}" is part of the key of "{entity.name}" and cannot be the label', place)
    if model.task.type == "regression":
        if kind not in ("integer", "float"):
            yield Problem(f'a regression predicts a number, and "{column}" is declared as {kind}', place)
        return
    if kind in ("timestamp", "date"):
        yield Problem(f'a class cannot be a {kind}, as "{column}" is declared', place)
    if model.task.type == "multiclass":
        yield from _multiclass_label_rules(model, column, kind)
        return
    positive = model.task.positive
    fits = {"string": isinstance(positive, str), "boolean": positive in (0, 1) and not isinstance(positive, str)}
    if not fits.get(kind, not isinstance(positive, str)):
        loc: Loc = ("task", "positive") if "positive" in model.task.model_fields_set else ("task",)
        message = (
            f'the positive class is {positive!r}, and the label "{column}" is declared as {kind}: '
            "write task: {type: binary, positive: ...} with the value that counts as positive"
        )
        yield Problem(message, loc)


def _multiclass_label_rules(model: ModelSpec, column: str, kind: str) -> Iterator[Problem]:
    if kind in ("float", "boolean"):
        message = f'the classes of a multiclass task are text or integers, and "{column}" is declared as {kind}'
        yield Problem(message, ("labels", "column"))
        return
    wanted = str if kind == "string" else int
    for i, value in enumerate(model.task.classes or ()):
        if not isinstance(value, wanted):
            message = f'the class {value!r} would never match: the label "{column}" is declared as {kind}'
            yield Problem(message, ("task", "classes", i))


def _start_rules(model: ModelSpec, entity: FeedSpec) -> Iterator[Problem]:
    start = model.training.start
    if start is not None and start < entity.start:
        yield Problem(
            f'"{entity.name}" begins only on {entity.start}: write that or a later day', ("training", "start")
        )
    if start is not None and entity.end is not None and start > entity.end:
        yield Problem(f'"{entity.name}" ends on {entity.end}: write an earlier day', ("training", "start"))


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
