"""Groups of rows with names that people can read: values as they are, ranges of a number, or named sets of values.

A row without a value belongs to a group of its own, ``missing``: leaving it out would hide whoever has no entry.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.errors import DataError
from perennial.specs.gates import Cut
from perennial.specs.group_rules import MISSING, OTHER

#: More groups than this were not meant: the column is a number, or a key.
MAX_GROUPS = 200
_NULLS = frozenset({"", "<missing>", "<NA>", "NaT", "nan", "None"})


def group_labels(values: Any, cut: Cut, column: str) -> NDArray[np.str_]:
    """The group of each row.

    :param values: the column's values: numbers, texts, truth values; ``None``, NaN and ``<missing>`` are none.
    :param column: its name, for messages.
    :raises DataError: bins over something that is not a number, or more than 200 groups.
    """
    texts = _texts(np.asarray(values))
    distinct, inverse = np.unique(texts, return_inverse=True)
    if cut.bins:
        named = np.array([_range(v, cut.bins, column) for v in distinct], dtype=object)
    elif cut.groups:
        names = {_text(v): name for name, listed in cut.groups.items() for v in listed}
        named = np.array([v if v == MISSING else names.get(v, OTHER) for v in distinct], dtype=object)
    else:
        named = distinct.astype(object)
    if len(set(named)) > MAX_GROUPS:
        raise DataError(
            f"{column} has {len(set(named)):,} different values, more than {MAX_GROUPS}: write bins or groups for it"
        )
    return np.asarray(named[inverse.reshape(-1)], dtype=str) if named.size else np.empty(0, dtype="<U1")


def ordered(labels: NDArray[np.str_], cut: Cut) -> list[str]:
    """The groups that occur, in the order in which people expect them; ``other`` and ``missing`` come last."""
    found = {str(v) for v in np.unique(labels)}
    if cut.bins:
        wanted = [*(_name(i, cut.bins) for i in range(len(cut.bins) + 1))]
    elif cut.groups:
        wanted = [*cut.groups]
    else:
        wanted = sorted(found - {MISSING}, key=_by_number)
    wanted += [OTHER] if cut.groups else []
    return [g for g in (*wanted, MISSING) if g in found]


def _by_number(text: str) -> tuple[int, float, str]:
    try:
        return 0, float(text), text
    except ValueError:
        return 1, 0.0, text


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _text(value: Any) -> str:
    if value is None or value != value:
        return MISSING
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        return _number(float(value))
    text = str(value)
    return MISSING if text in _NULLS else text


def _texts(values: NDArray[Any]) -> NDArray[np.str_]:
    if values.dtype.kind in "f":
        distinct, inverse = np.unique(values, return_inverse=True)
        return np.array([_text(v) for v in distinct], dtype=str)[inverse.reshape(-1)] if values.size else _empty()
    return np.array([_text(v) for v in values.tolist()], dtype=str) if values.size else _empty()


def _empty() -> NDArray[np.str_]:
    return np.empty(0, dtype="<U1")


def _range(text: str, bins: list[float], column: str) -> str:
    if text == MISSING:
        return MISSING
    try:
        number = float(text)
    except ValueError:
        message = f'{column} has the value "{text}", which is no number, so its bins do not apply'
        raise DataError(message) from None
    return _name(int(np.searchsorted(bins, number, side="right")), bins)


def _name(i: int, bins: list[float]) -> str:
    if i == 0:
        return f"under {_number(bins[0])}"
    if i == len(bins):
        return f"{_number(bins[-1])} and over"
    return f"{_number(bins[i - 1])} to under {_number(bins[i])}"
