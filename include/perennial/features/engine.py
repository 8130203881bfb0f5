"""Runs a definition over feeds that are cut to what may be known: the place where time leaks are kept out.

The feeds' rows of the whole window are loaded into DuckDB once; per partition only the views over them change. One
thread, and rows in key order, so that the same inputs give the same bits.
"""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from perennial.errors import DataError, SpecError
from perennial.features.definition import SQL_TYPES, Definition
from perennial.lake.table import PARTITION
from perennial.specs import FeedSpec
from perennial.specs.partitions import parse_key

if TYPE_CHECKING:
    import pyarrow as pa


class Engine:
    """A DuckDB connection with one view per feed.

    :param definition: what to run.
    :param feeds: the feeds that the definition reads, by name.
    """

    def __init__(self, definition: Definition, feeds: Mapping[str, FeedSpec]) -> None:
        import duckdb

        self.definition, self.feeds = definition, feeds
        self._connection = duckdb.connect(config={"threads": 1})
        self._connection.execute("SET TimeZone = 'UTC'")
        # sums of floats depend on the order of rows: a plan must follow from the query, not from how much was loaded
        self._connection.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
        # a definition reads its feeds and nothing else: no file, no variable of this process
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET python_enable_replacements = false")
        for name in definition.feeds:
            columns = ", ".join(f'"{c}" {SQL_TYPES[t]}' for c, t in feeds[name].columns.items())
            self._connection.execute(f'CREATE TABLE "_{name}" ({columns}, "{PARTITION}" {_type(feeds[name])})')
            self._connection.execute(f'CREATE VIEW "{name}" AS FROM "_{name}"')

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def load(self, feed: str, rows: pa.Table) -> None:
        """Make rows of a feed available; they carry the lake's ``partition`` column."""
        spec = self.feeds[feed]
        self._connection.register("_incoming", rows if spec.every == "day" else _dated(spec, rows))
        columns = ", ".join(
            f"CAST({f'{chr(34)}{c}{chr(34)}' if c in rows.column_names else 'NULL'} AS {SQL_TYPES[t]})"
            for c, t in spec.columns.items()
        )
        order = ", ".join(f'"{c}"' for c in (PARTITION, *spec.key))
        partition = f'CAST("{PARTITION}" AS {_type(spec)})'
        self._connection.execute(
            f'INSERT INTO "_{feed}" SELECT {columns}, {partition} FROM _incoming ORDER BY {order}'  # noqa: S608 - names come from a validated spec
        )
        self._connection.unregister("_incoming")

    def cut(
        self,
        feed: str,
        span: tuple[dt.date, dt.date] | None,
        *,
        known_by: dt.datetime,
        event_until: dt.datetime | None = None,
    ) -> None:
        """Let the definition see the partitions that begin within ``span``, both ends included, and no more.

        :param span: when the first and the last begin; ``None``: it sees none at all.
        :param known_by: rows whose ``known_at`` column is later are hidden (feeds that declare one).
        :param event_until: hide rows that happened or became known later, too (used by the point-in-time audit).
        """
        spec = self.feeds[feed]
        conditions = [f'"{PARTITION}" BETWEEN {_literal(span[0])} AND {_literal(span[1])}' if span else "false"]
        if spec.known_at:
            if event_until is not None and feed != self.definition.entity:
                known_by = min(known_by, event_until)
            conditions.append(f"\"{spec.known_at}\" <= TIMESTAMPTZ '{known_by.isoformat()}'")
        if event_until is not None and spec.event_time:
            conditions.append(f"\"{spec.event_time}\" <= TIMESTAMPTZ '{event_until.isoformat()}'")
        self._connection.execute(
            f'CREATE OR REPLACE VIEW "{feed}" AS SELECT * FROM "_{feed}" WHERE {" AND ".join(conditions)}'  # noqa: S608
        )

    def describe(self) -> dict[str, str]:
        """Columns and SQL types of the result."""
        if self.definition.kind == "python":
            table = self._python(self._some_partition)
            return {f.name: str(f.type) for f in table.schema}
        import duckdb

        query = f"DESCRIBE {self._query}"
        try:
            rows = self._connection.execute(query, self._parameters(self._some_partition)).fetchall()
        except duckdb.Error as e:
            raise SpecError(f"{self.definition.name}: {_first_lines(e)}") from e
        return {str(r[0]): str(r[1]) for r in rows}

    def run(self, partition: dt.date) -> pa.Table:
        """The definition's rows for one partition.

        :param partition: when it begins: a day, or, for an hour, a time (UTC). The query knows it as ``$partition``.
        :raises DataError: when the query fails on these rows.
        """
        if self.definition.kind == "python":
            return self._python(partition)
        import duckdb

        try:
            return self._arrow(self._query, self._parameters(partition))
        except duckdb.Error as e:
            raise DataError(f"{self.definition.name} failed for partition {partition}: {_first_lines(e)}") from e

    def entity_rows(self, partition: dt.date) -> pa.Table:
        """The rows of the entity feed that need features."""
        names = ", ".join(
            f'"{c}"' for c in (*self.definition.key, *([self.definition.event] if self.definition.event else []))
        )
        return self._arrow(
            f'SELECT {names} FROM "_{self.definition.entity}" WHERE "{PARTITION}" = {_literal(partition)}'  # noqa: S608
        )

    def _arrow(self, query: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """A query's rows. Executed, not made a relation: that would bind the query twice, which is half the time."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # says that the rows are copied once: there are few
            return self._connection.execute(query, parameters or {}).to_arrow_table()

    @property
    def _some_partition(self) -> dt.date:
        """A partition for binding the definition without data."""
        hourly = self.feeds[self.definition.entity].every == "hour"
        return dt.datetime(2000, 1, 1) if hourly else dt.date(2000, 1, 1)

    @property
    def _query(self) -> str:
        return self.definition.source.rstrip().rstrip(";")

    def _parameters(self, partition: dt.date) -> dict[str, Any]:
        return {"partition": partition} if "$partition" in self.definition.source else {}

    def _python(self, partition: dt.date) -> pa.Table:
        import pyarrow as pa

        name = self.definition.name
        namespace: dict[str, Any] = {"__name__": name.removesuffix(".py")}
        # The definition is the model owner's code, as their estimator is; it travels with the version.
        exec(compile(self.definition.source, name, "exec"), namespace)  # noqa: S102
        function = namespace.get("features")
        if not callable(function):
            raise SpecError(f"{name} must define features(feeds, partition) and return a DataFrame")
        frames = {n: self._connection.sql(f'FROM "{n}"').to_arrow_table().to_pandas() for n in self.definition.feeds}
        try:
            return pa.Table.from_pandas(function(frames, partition), preserve_index=False)
        except Exception as e:
            raise DataError(f"{name} failed for partition {partition}: {type(e).__name__}: {e}") from e


def _type(feed: FeedSpec) -> str:
    """SQL type of the ``partition`` column: when a partition begins."""
    return "TIMESTAMP" if feed.every == "hour" else "DATE"


def _literal(partition: dt.date) -> str:
    return f"{'TIMESTAMP' if isinstance(partition, dt.datetime) else 'DATE'} '{partition}'"


def _dated(feed: FeedSpec, rows: pa.Table) -> pa.Table:
    """The rows with the begin of their partition instead of its key (days are written like the dates that they are)."""
    import pyarrow as pa

    keys = rows.column(PARTITION).combine_chunks().dictionary_encode()
    kind = pa.timestamp("us") if feed.every == "hour" else pa.date32()
    begins = pa.array([parse_key(feed, k) for k in keys.dictionary.to_pylist()], kind)
    return rows.set_column(rows.column_names.index(PARTITION), PARTITION, begins.take(keys.indices))


def _first_lines(error: Exception, lines: int = 4) -> str:
    return "\n".join(str(error).strip().splitlines()[:lines])
