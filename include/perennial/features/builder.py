"""Builds feature partitions, keeps them in the lake, and knows which are still true.

A feature partition is fresh when it was built by this definition (the table is named after it) from these inputs (the
``inputs`` label: a digest over the content digests of every input partition that it could see). Training and scoring
call :meth:`FeatureBuilder.ensure` and read the same rows.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perennial.errors import DataError, NotReadyError
from perennial.features.definition import Definition
from perennial.features.engine import Engine
from perennial.lake.content import combined_digest
from perennial.lake.homes import feature_table, feed_table
from perennial.lake.table import PARTITION, Fence, PartitionInfo, no_fence
from perennial.specs import FeedSpec
from perennial.specs.grains import GRAINS
from perennial.specs.partitions import first_key, keys_between, last_key_known, parse_key, period, shift
from perennial.storage import to_json

if TYPE_CHECKING:
    import pyarrow as pa

#: Partitions that are built from one load of their inputs: bounds memory, and is one commit.
CHUNK = 64

#: How many moments of a partition the audit looks at, besides its first event.
MOMENTS = 5


@dataclass(frozen=True)
class Built:
    """What :meth:`FeatureBuilder.ensure` did."""

    built: tuple[str, ...]
    reused: tuple[str, ...]
    digests: Mapping[str, str]  # content digest of each partition asked for
    inputs: Mapping[str, Mapping[str, str]]  # per partition: "feed/key" -> content digest, or "missing"


class FeatureBuilder:
    """Feature partitions of one model under one definition.

    :param model: the model's name.
    :param definition: the present one, or the one that travels with a version.
    :param feeds: specs of at least the feeds that the definition reads.
    """

    def __init__(self, model: str, definition: Definition, feeds: Mapping[str, FeedSpec]) -> None:
        definition.check_feeds(feeds)
        self.definition = definition
        self.feeds = {n: feeds[n] for n in definition.feeds}
        self.entity = feeds[definition.entity]
        self.table = feature_table(model, definition.digest, list(definition.key))
        self._cache: dict[str, tuple[int | None, dict[str, PartitionInfo]]] = {}

    # ------------------------------------------------------------------------------------------------- what is visible

    def visible(self, feed: str, key: str) -> tuple[str, str] | None:
        """First and last partition of ``feed`` that the features of ``key`` may read; ``None``: none at all.

        The last is the newest that had landed by the end of ``key``: end(P) + delay <= end(key). The entity's own
        partition is what is scored, so it is always there.
        """
        spec = self.feeds[feed]
        _, end = period(self.entity, key)
        last = key if feed == self.entity.name else last_key_known(spec, end)
        lookback = GRAINS[self.entity.every].whole(dt.timedelta(days=self.definition.lookback_days))
        first = max(shift(self.entity, key, -lookback), first_key(spec))
        return None if last is None or last < first else (first, last)

    def missing(self, key: str) -> list[str]:
        """Declared inputs of ``key`` that are not in the lake: the newest partition of each feed, as ``feed key``."""
        found = []
        for feed in self.feeds:
            seen = (key, key) if feed == self.entity.name else self.visible(feed, key)
            if seen is not None and seen[1] not in self._landed(feed):
                found.append(f"{feed} {seen[1]}")
        return found

    def ready(self, keys: Iterable[str]) -> list[str]:
        """Those of ``keys`` whose declared inputs are all there."""
        return [k for k in keys if not self.missing(k)]

    def inputs(self, key: str) -> dict[str, str]:
        """Content digest of every input partition of ``key`` (or ``missing``), and how each feed is cut."""
        found: dict[str, str] = {}
        for feed, spec in self.feeds.items():
            # how a feed is read and cut is an input too: declaring known_at later must rebuild what leaked
            found[feed] = hashlib.sha256(to_json([spec.columns, spec.known_at, spec.event_time])).hexdigest()
            seen = self.visible(feed, key)
            landed = self._landed(feed)
            for k in keys_between(spec, *seen) if seen else ():
                found[f"{feed}/{k}"] = landed[k].digest if k in landed else "missing"
        return found

    def _landed(self, feed: str) -> dict[str, PartitionInfo]:
        if feed not in self._cache:
            table = feed_table(self.feeds[feed])
            version = table.version
            self._cache[feed] = (version, table.partitions(version))
        return self._cache[feed][1]

    # --------------------------------------------------------------------------------------------------------- building

    def ensure(
        self,
        keys: Sequence[str],
        *,
        degraded: bool = False,
        fence: Fence = no_fence,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Built:
        """Make the feature partitions of ``keys`` exist and be true; build only those that are not.

        :param degraded: build without what other feeds have not brought; the ``inputs`` label says that it was missing,
            so the partition is stale, and is built anew, as soon as it has landed.
        :raises NotReadyError: when a declared input has not landed (``degraded``: the entity's own partition).
        :raises DataError: when the definition fails, drops or doubles rows, or looks into the future.
        """
        self._cache = {}
        for key in keys:
            own = f"{self.entity.name} {key}"
            gaps = [m for m in self.missing(key) if not degraded or m == own]
            if gaps:
                raise NotReadyError(f"features of {key} wait for {', '.join(gaps)}")
        inputs = {k: self.inputs(k) for k in keys}
        label = {k: combined_digest(list(v.items())) for k, v in inputs.items()}
        there = self.table.partitions()
        todo = sorted(k for k in keys if k not in there or there[k].labels["inputs"] != label[k])
        digests = {k: there[k].digest for k in keys if k in there}
        audited = bool(there)
        for start in range(0, len(todo), CHUNK):
            chunk = todo[start : start + CHUNK]
            rows = self._compute(chunk, audit=not audited)
            audited = True
            metadata = {"perennial.definition": self.definition.digest}
            written = self.table.replace(
                rows, labels={k: {"inputs": label[k]} for k in chunk}, metadata=metadata, fence=fence
            )
            digests |= written
            progress(start + len(chunk), len(todo))
        built = tuple(todo)
        return Built(built, tuple(k for k in keys if k not in set(built)), digests, inputs)

    def _compute(self, keys: Sequence[str], *, audit: bool) -> dict[str, pa.Table]:
        with Engine(self.definition, self.feeds) as engine:
            for feed, spec in self.feeds.items():
                ranges = [r for r in (self.visible(feed, k) for k in keys) if r]
                if not ranges:
                    continue
                wanted = keys_between(spec, min(r[0] for r in ranges), max(r[1] for r in ranges))
                self._landed(feed)
                version = self._cache[feed][0]  # the one whose digests are recorded as inputs
                rows = feed_table(spec).read(wanted, version=version)
                if rows is not None:
                    engine.load(feed, rows.select([c for c in (*spec.columns, PARTITION) if c in rows.column_names]))
            result = {k: self._one(engine, k) for k in keys}
            if audit:
                for k in sorted({keys[0], keys[-1]}):
                    self._audit(engine, k, result[k])
        return result

    def _one(self, engine: Engine, key: str, event_until: dt.datetime | None = None) -> pa.Table:
        begin = parse_key(self.entity, key)
        _, end = period(self.entity, key)
        for feed, spec in self.feeds.items():
            seen = self.visible(feed, key)
            span = (parse_key(spec, seen[0]), parse_key(spec, seen[1])) if seen else None
            engine.cut(feed, span, known_by=end, event_until=event_until)
        return _typed(engine.run(begin), self.definition, key, engine.entity_rows(begin), event_until)

    def _audit(self, engine: Engine, key: str, rows: pa.Table) -> None:
        """Hide everything after some moments of the partition, and see that no earlier row's features change.

        Views over whole partitions keep later ones out by construction; inside the partition a query must join as of
        the event time, and this shows whether it does. Runs when a definition is used for the first time.
        """
        import pyarrow.compute as pc

        event = self.definition.event
        if event is None:
            return
        times = sorted(set(rows.column(event).drop_null().to_pylist()))
        order = [(k, "ascending") for k in self.definition.key]
        for moment in sorted({times[len(times) * i // (MOMENTS + 1)] for i in range(MOMENTS + 1)} if times else ()):
            alone = self._one(engine, key, event_until=moment).sort_by(order)
            before = rows.filter(pc.less_equal(rows.column(event), moment)).sort_by(order)
            for name in before.column_names:
                if name in alone.column_names and before.column(name).equals(alone.column(name)):
                    continue
                old = before.column(name).to_pylist()
                new = alone.column(name).to_pylist() if name in alone.column_names else [None] * len(old)
                for i, (a, b) in enumerate(zip(old, new, strict=True)):
                    if not _same(a, b):
                        who = ", ".join(f"{k} {before.column(k)[i].as_py()}" for k in self.definition.key)
                        raise DataError(
                            f"{self.definition.name} sees the future: in partition {key}, {name} of {who} is {a!r}, "
                            f"but {b!r} when rows after {moment.isoformat()} are hidden; join on event time <= the "
                            "row's own"
                        )


def _same(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (a != a and b != b) or abs(a - b) <= 1e-9 * max(abs(a), abs(b))
    return a == b


def _cast(column: pa.ChunkedArray, target: pa.DataType, what: str) -> pa.ChunkedArray:
    import pyarrow as pa

    try:
        return column.cast(target, safe=pa.types.is_integer(target))  # a large number may lose digits as a float
    except pa.ArrowException as e:
        raise DataError(f"{what} as {column.type}, which cannot be made {target}: {str(e).splitlines()[0]}") from e


def _typed(
    rows: pa.Table, definition: Definition, key: str, entity: pa.Table, event_until: dt.datetime | None = None
) -> pa.Table:
    """Check a result against the entity's rows, and cast it: numbers to float64, everything else to string.

    MLflow signatures and most estimators are strict about integer widths and nulls in integers; float64 and string
    have none of those troubles.
    """
    import pyarrow.compute as pc

    name, ids = definition.name, list(definition.key)
    event = [definition.event] if definition.event else []
    for column in (*ids, *event):
        if column not in rows.column_names:
            raise DataError(f"{name} returned no column {column!r} for partition {key}")
    if event_until is not None and definition.event:
        entity = entity.filter(pc.less_equal(entity.column(definition.event), event_until))
    for column in (*ids, *event):
        kind, at = entity.schema.field(column).type, rows.column_names.index(column)
        rows = rows.set_column(at, column, _cast(rows.column(column), kind, f"{name} returns {column!r} of {key}"))
    order = [(k, "ascending") for k in ids]
    said, true = (t.select([*ids, *event]).sort_by(order) for t in (rows, entity))
    if not _same_keys(said, true, ids):
        _explain_keys(rows.select(ids), entity.select(ids), definition, key)
    if event and not said.column(event[0]).equals(true.column(event[0])):
        raise DataError(
            f"{name} changes {definition.event!r} in partition {key}: return {definition.entity}'s own, unchanged"
        )
    return _floats_and_texts(rows, definition, key)


def _same_keys(rows: pa.Table, entity: pa.Table, ids: Sequence[str]) -> bool:
    """Whether two tables, sorted by their keys, have the same ones, none of them twice."""
    import pyarrow.compute as pc

    columns = [(rows.column(k), entity.column(k)) for k in ids]
    if any(a.null_count or not a.equals(b) for a, b in columns):
        return False
    again = None
    for a, _ in columns:
        same = pc.equal(a.slice(1), a.slice(0, max(0, len(a) - 1)))
        again = same if again is None else pc.and_(again, same)
    return not pc.any(again, min_count=0).as_py()


def _explain_keys(keys: pa.Table, entity: pa.Table, definition: Definition, key: str) -> None:
    """Say in which way the keys of a result are not the entity's."""
    name, ids = definition.name, list(definition.key)
    if keys.group_by(ids).aggregate([]).num_rows != keys.num_rows:
        raise DataError(f"{name} returned a key twice for partition {key}: a join multiplies rows; make it one to one")
    extra = keys.join(entity, keys=ids, join_type="left anti").num_rows
    if extra:
        raise DataError(
            f"{name} returned {extra} rows that are not {definition.entity} of partition {key}: "
            "add WHERE partition = $partition"
        )
    lost = entity.num_rows - keys.num_rows
    if lost:
        raise DataError(
            f"{name} dropped {lost} of the {entity.num_rows} {definition.entity} of partition {key}: use LEFT JOIN"
        )


def _floats_and_texts(rows: pa.Table, definition: Definition, key: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    name, ids = definition.name, list(definition.key)
    arrays, fields = [], []
    for field in rows.schema:
        column, kind = rows.column(field.name).combine_chunks(), field.type
        if pa.types.is_null(kind):
            continue  # a Python definition that found no value at all: the column's type is not known
        if field.name == definition.event:
            target: pa.DataType = pa.timestamp("us", tz="UTC")
        elif field.name in ids:
            target = kind
        elif pa.types.is_decimal(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
            target = pa.float64()
        elif pa.types.is_boolean(kind):
            column, target = column.cast(pa.int8()), pa.float64()
        elif pa.types.is_temporal(kind):
            raise DataError(
                f"{name} returns {field.name!r} as {kind}: turn times into numbers, such as an hour or an age"
            )
        else:
            target = pa.string()
        column = _cast(column, target, f"{name} returns {field.name!r} of {key}")
        if pa.types.is_floating(target):
            infinite = pc.sum(pc.is_inf(column)).as_py() or 0
            if infinite:
                raise DataError(
                    f"{name} returns infinity in {field.name!r} for {infinite} of {rows.num_rows} rows of partition "
                    f"{key}: divide by nullif(x, 0), or cut the value"
                )
        arrays.append(column)
        fields.append(pa.field(field.name, target))
    return pa.table(arrays, schema=pa.schema(fields))
