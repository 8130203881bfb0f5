"""What a card is made of, before it is HTML or Markdown: sections with text, facts, tables, plots and somebody's prose.

Both forms are written from the same parts, so neither can say less than the other. A part without content says so: no
section is silently empty, and a figure that is not there is "not known".
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from perennial.specs.durations import format_duration

UNKNOWN = "not known"
#: A cell where nothing is meant to stand.
NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph. ``soft``: an aside."""

    text: str
    soft: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values, one below the other."""

    items: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a header. ``state``: the column whose words are a verdict. ``none``: what to say without rows."""

    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    state: int | None = None
    none: str = "none"
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing as SVG (in HTML only; a table beside it says the same)."""

    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class Prose:
    """Markdown that somebody wrote: never trusted."""

    markdown: str


Part: TypeAlias = Text | Facts | Table | Plot | Prose


@dataclass(frozen=True, slots=True)
class Section:
    """A heading of the card."""

    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline: what, its value, and a note below. ``state`` colours it."""

    what: str
    value: str
    note: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """A whole card. ``links``: where its run and its decision can be opened; ``meta``: the front matter."""

    title: str
    lead: str
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]
    links: tuple[tuple[str, str], ...]
    meta: dict[str, Any]


def words(value: Any) -> str:
    """A value for people; one that is not there is never blank."""
    if value is None or value == "":
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dt.datetime):
        return f"{value:%Y-%m-%d %H:%M} UTC"
    if isinstance(value, dt.timedelta):
        return format_duration(value)
    if isinstance(value, list | tuple):
        return ", ".join(words(v) for v in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{k}: {words(v)}" for k, v in value.items()) or "none"
    return str(value)


def cell(value: Any) -> str:
    """A value in a table, where an empty text means that there is nothing to say."""
    return NOTHING if value == "" else words(value)


def number(value: float | None, digits: int = 4) -> str:
    """Four significant digits; NaN and infinity are not known."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.{digits}g}"


def interval(low: float | None, high: float | None) -> str:
    """A two-sided 95 % interval."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return UNKNOWN
    return f"{low:,.4g} to {high:,.4g}"


def span(keys: Sequence[str]) -> str:
    """The first and the last of some keys."""
    if not keys:
        return "none"
    return keys[0] if len(keys) == 1 else f"{keys[0]} to {keys[-1]}"
