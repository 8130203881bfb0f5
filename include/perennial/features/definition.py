"""A model's feature definition: ``features.sql`` or ``features.py``, and what can be known of it without data.

The definition is a value: its text travels with every model version, and its digest names the feature table. The
digest is taken of the parsed form, so that a comment or a line break rebuilds nothing.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from perennial.errors import SpecError
from perennial.specs import FeedSpec, ModelSpec
from perennial.specs.grains import GRAINS
from perennial.storage import to_json

#: How a feed's declared types are spelled in DuckDB.
SQL_TYPES = {
    "string": "VARCHAR",
    "integer": "BIGINT",
    "float": "DOUBLE",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMPTZ",
    "date": "DATE",
}

#: What SQL can ask besides its tables, and would answer differently tomorrow.
_IMPURE_WORDS = frozenset({"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"})
_IMPURE = _IMPURE_WORDS | {
    "gen_random_uuid", "get_current_time", "get_current_timestamp", "getenv", "nextval", "now", "random", "setseed",
    "today", "transaction_timestamp", "txid_current", "uuid", "uuidv4", "uuidv7",
}  # fmt: skip
#: Functions that may stand in FROM: they make rows out of their arguments.
_TABLE_FUNCTIONS = frozenset({"generate_series", "range", "unnest"})


@dataclass(frozen=True)
class Definition:
    """How the feature rows of one partition are made.

    :param kind: ``sql`` or ``python``.
    :param source: the file's text.
    :param name: the file's name, for messages.
    :param lookback_days: how many days before the partition being built may be read (P12W: 84; a month counts 30).
    :param entity: the feed whose rows get features.
    :param key: the columns that identify a row of the entity feed.
    """

    kind: str
    source: str
    name: str
    lookback_days: int
    entity: str
    key: tuple[str, ...]
    event: str | None

    @cached_property
    def feeds(self) -> tuple[str, ...]:
        """Names of the tables that the definition reads, the entity first."""
        named = _sql_tables(self.source, self.name) if self.kind == "sql" else _python_feeds(self.source, self.name)
        return (self.entity, *sorted(named - {self.entity}))

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of the parsed definition and everything else that decides what rows come out."""
        parsed: Any = (
            _sql_tree(self.source, self.name) if self.kind == "sql" else ast.dump(_module(self.source, self.name))
        )
        whole = [self.kind, parsed, self.lookback_days, self.entity, list(self.key), self.event]
        return hashlib.sha256(to_json(whole)).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "source": self.source,
            "name": self.name,
            "lookback_days": self.lookback_days,
            "entity": self.entity,
            "key": list(self.key),
            "event": self.event,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Definition:
        return cls(**{**value, "key": tuple(value["key"])})

    def check_feeds(self, feeds: Mapping[str, FeedSpec]) -> None:
        """Refuse tables that are not feeds.

        :raises SpecError: naming the table and the nearest feed.
        """
        for name in self.feeds:
            if name not in feeds:
                near = difflib.get_close_matches(name, feeds, n=1)
                hint = f"did you mean {near[0]}?" if near else f"feeds are {', '.join(sorted(feeds))}"
                raise SpecError(f"{self.name} reads from {name!r}, which is not a feed: {hint}")
            if feeds[name].every != feeds[self.entity].every:
                raise SpecError(
                    f"{self.name} reads from {name!r}, which has partitions of {GRAINS[feeds[name].every].one}, and "
                    f"{self.entity!r} of {GRAINS[feeds[self.entity].every].one}: feeds of one model share their grain"
                )

    def describe(self, feeds: Mapping[str, FeedSpec]) -> dict[str, str]:
        """Columns and SQL types that the definition yields, found by binding it to empty feeds.

        :raises SpecError: when it does not bind, or lacks the entity's key or event time.
        """
        from perennial.features.engine import Engine

        self.check_feeds(feeds)
        with Engine(self, {n: feeds[n] for n in self.feeds}) as engine:
            columns = engine.describe()
        needed = [*self.key, *([self.event] if self.event else [])]
        for name in needed:
            if name not in columns:
                raise SpecError(
                    f"{self.name} does not return {name!r}: it must return the key and the event time of "
                    f"{self.entity} ({', '.join(needed)}) beside the features"
                )
        if not set(columns) - set(needed):
            raise SpecError(f"{self.name} returns no feature: only {', '.join(columns)}")
        return columns


def load_definition(spec: ModelSpec, folder: Path, feeds: Mapping[str, FeedSpec]) -> Definition:
    """Read the definition that a model's spec names.

    :param folder: the model's folder.
    :raises SpecError: when the file is missing or of an unknown kind.
    """
    path = folder / spec.features.path
    kinds = {".sql": "sql", ".py": "python"}
    if path.suffix not in kinds:
        raise SpecError(f"{path}: features come from a .sql or a .py file, not from {path.suffix or 'this'}")
    try:
        source = path.read_text(encoding="utf-8")
    except OSError as e:
        raise SpecError(f"{path} cannot be read ({e.strerror}); the spec of {spec.name} names it under features") from e
    entity = feeds.get(spec.entity)
    if entity is None:
        raise SpecError(f"{spec.name}: entity {spec.entity!r} is not a feed; feeds are {', '.join(sorted(feeds))}")
    return Definition(
        kind=kinds[path.suffix],
        source=source,
        name=path.name,
        lookback_days=spec.features.lookback.days,
        entity=entity.name,
        key=tuple(entity.key),
        event=entity.event_time,
    )


@cache
def _sql_tree(source: str, name: str) -> Any:
    """The parse tree of a SELECT, without the positions of its tokens."""
    import duckdb

    with duckdb.connect() as connection:
        row = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [source.rstrip().rstrip(";")]).fetchone()
    tree: Any = json.loads(row[0]) if row else {"error": True, "error_message": "empty file"}
    if tree.get("error"):
        place = ""
        if "position" in tree:
            before = source[: int(tree["position"])]
            place = f", line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"
        raise SpecError(f"{name}{place}: {tree['error_message']}")
    if len(tree["statements"]) != 1:
        raise SpecError(f"{name} has {len(tree['statements'])} statements: write one SELECT (WITH … is fine)")
    return _without_positions(tree)


def _without_positions(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: _without_positions(v) for k, v in node.items() if not k.startswith("query_location")}
    if isinstance(node, list):
        return [_without_positions(v) for v in node]
    return node


def _sql_tables(source: str, name: str) -> set[str]:
    """Tables that are read from outside the query: not its CTEs, though a CTE may be named after the feed it reads.

    :raises SpecError: when the query looks at anything but tables: files, the clock, chance.
    """
    tables: set[str] = set()

    def refuse(what: str) -> None:
        raise SpecError(
            f"{name} uses {what}: features follow from the feeds and $partition alone, so that they can be built again"
        )

    def walk(node: Any, local: frozenset[str]) -> None:
        if isinstance(node, list):
            for value in node:
                walk(value, local)
            return
        if not isinstance(node, dict):
            return
        for entry in (node.get("cte_map") or {}).get("map", []):
            recursive = json.dumps(entry["value"]).find('"RECURSIVE_CTE_NODE"') >= 0
            walk(entry["value"], local | {entry["key"]} if recursive else local)
            local |= {entry["key"]}
        kind = node.get("type")
        if kind == "BASE_TABLE" and node["table_name"] not in local:
            tables.add(node["table_name"])
        elif kind == "TABLE_FUNCTION" and node["function"]["function_name"] not in _TABLE_FUNCTIONS:
            refuse(f"{node['function']['function_name']}()")
        elif kind == "FUNCTION" and node.get("function_name") in _IMPURE:
            refuse(f"{node['function_name']}()")
        elif kind == "COLUMN_REF" and node["column_names"][-1].lower() in _IMPURE_WORDS:
            refuse(node["column_names"][-1])
        for key, value in node.items():
            if key != "cte_map":
                walk(value, local)

    walk(_sql_tree(source, name), frozenset())
    return tables


def _module(source: str, name: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as e:
        raise SpecError(f"{name}, line {e.lineno}: {e.msg}") from e


def _python_feeds(source: str, name: str) -> set[str]:
    for node in _module(source, name).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "FEEDS" for t in node.targets):
            try:
                value = ast.literal_eval(node.value)
            except ValueError:
                break
            if isinstance(value, Iterable) and all(isinstance(v, str) for v in value):
                return set(value)
    raise SpecError(f'{name} must say which feeds it reads: FEEDS = ["flights", "weather"], literally, at module level')
