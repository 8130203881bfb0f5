"""The lake of a test about features, and ways to change what is in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from perennial.features.builder import FeatureBuilder
from perennial.features.definition import Definition, load_definition
from perennial.lake.homes import feed_table
from perennial.lake.landing import arrow_schema
from perennial.specs import SpecSet


class World:
    """The lake of a test."""

    def __init__(self, specs: SpecSet) -> None:
        self.specs = specs

    def definition(self, model: str = "flight_delay") -> Definition:
        return load_definition(self.specs.model(model), self.specs.folder_of("model", model), self.specs.feeds)

    def sql(self, source: str, lookback: int = 3) -> Definition:
        return Definition("sql", source, "features.sql", lookback, "flights", ("flight_id",), "sched_dep")

    def python(self, source: str, lookback: int = 3) -> Definition:
        return Definition("python", source, "features.py", lookback, "flights", ("flight_id",), "sched_dep")

    def builder(self, definition: Definition, name: str = "m") -> FeatureBuilder:
        return FeatureBuilder(name, definition, self.specs.feeds)

    def build(self, definition: Definition, key: str, name: str = "m") -> pa.Table:
        """The feature rows of a partition, in key order."""
        builder = self.builder(definition, name)
        builder.ensure([key])
        rows = builder.table.read([key])
        assert rows is not None
        return rows.drop_columns(["digest", "inputs"]).sort_by("flight_id")

    def rows(self, feed: str, key: str) -> list[dict[str, Any]]:
        table = feed_table(self.specs.feed(feed)).read([key])
        assert table is not None
        return table.drop_columns(["partition", "digest"]).to_pylist()

    def change(self, feed: str, key: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
        """Ingest other rows for a partition, as a correction does."""
        spec = self.specs.feed(feed)
        feed_table(spec).replace({key: pa.Table.from_pylist(change(self.rows(feed, key)), arrow_schema(spec))})
