"""Judges large partitions without showing Great Expectations more than a rule looks at.

The answer of a rule on single values depends on that value alone. So GX, which stays the judge, is shown each distinct
value once, and its answer holds for all rows that have it; rules about nulls are shown one null and one other value.
Of a column of numbers with nearly as many values as rows, GX is shown the least and the greatest of each block of rows
where a rule asks for a range: when both lie in it, all of the block do; the other blocks it is shown whole. Other such
columns are shown whole, but alone and without nulls: GX copies (and fingerprints) all of a frame for each rule. Rules
on whole columns see those columns only, and a count of rows sees no value at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

#: Below this many rows, one look at all of them is cheaper than looking for distinct values first.
LARGE = 50_000
#: Rows that GX is shown at a time of a column that is shown whole; bounds memory.
CHUNK = 2_500_000
#: Rows of which GX is shown the least and the greatest number.
BLOCK = 512
#: A column is shown by its distinct values when there are at most this share of its rows.
SHARE = 0.2
_SAMPLE = 20_000

#: Rules on the table that look at no value: only at how many rows there are, or at the columns' names.
_COUNTS = {"expect_table_row_count_to_be_between", "expect_table_row_count_to_equal"}
_RANGE = "expect_column_values_to_be_between"
_NAMES = {
    "expect_table_column_count_to_be_between",
    "expect_table_column_count_to_equal",
    "expect_table_columns_to_match_ordered_list",
    "expect_table_columns_to_match_set",
}

#: From positions of what GX was shown to the rows that they stand for.
_Rows = Callable[["NDArray[np.int64]"], "NDArray[np.int64]"]
Run = Callable[[Sequence[Any], "pd.DataFrame"], list[dict[str, Any]]]


def run_by_value(expectations: Sequence[Any], frame: pd.DataFrame, run: Run) -> list[dict[str, Any]]:
    """What ``run`` says of each rule on ``frame``, with ``bad`` as an array of row positions.

    :param expectations: rules whose answer for a value depends on that value alone.
    :param run: shows GX a frame; one result per rule, ``bad`` being positions in that frame.
    """
    if len(frame) < LARGE:
        return [_positions(r) for r in run(expectations, frame)]
    results: dict[int, dict[str, Any]] = {}
    whole: dict[str, list[int]] = {}
    ranges: dict[str, list[int]] = {}
    few: dict[str, list[int]] = {}
    presence: dict[str, list[int]] = {}
    absent: list[int] = []
    columns = {c: _Column(frame[c]) for c in {_column(e) for e in expectations} & set(frame.columns)}
    for i, e in enumerate(expectations):
        name = _column(e)
        if name not in columns:
            absent.append(i)
        elif about_nulls(e):
            presence.setdefault(name, []).append(i)
        elif columns[name].few:
            few.setdefault(name, []).append(i)
        elif e.configuration.type == _RANGE and columns[name].numbers is not None:
            ranges.setdefault(name, []).append(i)
        else:
            whole.setdefault(name, []).append(i)
    if absent:
        found = run([expectations[i] for i in absent], frame.head(1))
        results |= {i: _positions(r) for i, r in zip(absent, found, strict=True)}
    results |= _together(expectations, presence, {c: columns[c].presence() for c in presence}, run)
    results |= _together(expectations, few, {c: columns[c].distinct() for c in few}, run)
    results |= _ranges(expectations, ranges, {c: columns[c] for c in ranges}, run)
    for name, mine in whole.items():
        results |= columns[name].whole(expectations, mine, run)
    return [results[i] for i in range(len(expectations))]


def run_alone(expectations: Sequence[Any], frame: pd.DataFrame, run: Run) -> list[dict[str, Any]]:
    """What ``run`` says of rules on whole columns or the whole table, each shown only what it looks at."""
    import pandas as pd

    if len(frame) < LARGE:
        return run(expectations, frame)
    results: dict[int, dict[str, Any]] = {}
    alike: dict[tuple[str, ...] | str, list[int]] = {}
    for i, e in enumerate(expectations):
        kind, columns = str(e.configuration.type), columns_of(e)
        look: tuple[str, ...] | str = tuple(columns)
        if not columns:
            look = "count" if kind in _COUNTS else "names" if kind in _NAMES else "all"
        alike.setdefault(look, []).append(i)
    for look, mine in alike.items():
        if look == "count":
            shown = pd.DataFrame({"row": np.zeros(len(frame), np.int8)})
        elif look == "names":
            shown = frame.head(1)
        else:
            shown = frame  # GX is given the columns of its rules only
        results |= dict(zip(mine, run([expectations[i] for i in mine], shown), strict=True))
    return [results[i] for i in range(len(expectations))]


def columns_of(expectation: Any) -> list[str]:
    """Columns that a rule reads; none: it looks at the table."""
    kwargs = expectation.configuration.kwargs
    named = [kwargs.get(k) for k in ("column", "column_A", "column_B")]
    return [c for c in (*named, *(kwargs.get("column_list") or [])) if isinstance(c, str)]


def about_nulls(expectation: Any) -> bool:
    """Whether a rule is about a value being there at all; every other rule passes over nulls."""
    return str(expectation.configuration.type).endswith(("_be_null", "_not_be_null"))


def _column(expectation: Any) -> str:
    return str(expectation.configuration.kwargs["column"])


def _positions(result: Mapping[str, Any]) -> dict[str, Any]:
    return {**result, "bad": np.sort(np.asarray(result["bad"], dtype=np.int64))}


class _Column:
    """One column: which rows have a value, and, when they are few, which values there are."""

    def __init__(self, series: pd.Series[Any]) -> None:
        self.series = series
        self.null = series.isna().to_numpy()
        self.codes: NDArray[np.int64] | None = None
        self.values: Any = None
        self._count()

    @property
    def few(self) -> bool:
        return self.codes is not None

    def _count(self) -> None:
        import pandas as pd

        n = len(self.series)
        step = max(1, n // _SAMPLE)
        try:
            sample = self.series.iloc[::step]
            if sample.nunique() > max(1, SHARE * len(sample)):
                return
            codes, values = pd.factorize(self.series)  # nulls are -1
        except TypeError:  # values that cannot be hashed: lists, for example
            return
        if 0 < len(values) <= SHARE * n:
            self.codes, self.values = codes, pd.Series(values, dtype=self.series.dtype)

    @cached_property
    def there(self) -> NDArray[np.int64]:
        """Rows that have a value."""
        return np.flatnonzero(~self.null)

    @cached_property
    def numbers(self) -> NDArray[Any] | None:
        """The values that are there, when they are numbers."""
        values = _native(self.series if not self.null.any() else self.series.iloc[self.there])
        return values.to_numpy() if values.dtype in ("int64", "float64") and len(values) else None

    def presence(self) -> tuple[pd.Series[Any], _Rows]:
        """One null and one other value, as far as there are such; and the rows that each stands for."""
        kinds = [rows for rows in (np.flatnonzero(self.null), self.there) if len(rows)]
        return self.series.iloc[[rows[0] for rows in kinds]].reset_index(drop=True), lambda bad: np.sort(
            np.concatenate([kinds[i] for i in bad])
        )

    def distinct(self) -> tuple[pd.Series[Any], _Rows]:
        """Each value once; and the rows that it stands for."""
        codes = self.codes
        assert codes is not None
        return self.values, lambda bad: np.flatnonzero(np.isin(codes, bad))

    def extremes(self) -> tuple[pd.Series[Any], _Rows]:
        """The least and the greatest number of each block; and the rows of the blocks."""
        import pandas as pd

        numbers = self.numbers
        assert numbers is not None
        starts = np.arange(0, len(numbers), BLOCK)
        both = np.concatenate([np.minimum.reduceat(numbers, starts), np.maximum.reduceat(numbers, starts)])

        def rows(bad: NDArray[np.int64]) -> NDArray[np.int64]:
            blocks = np.unique(bad % len(starts))
            inside = (blocks[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)
            return np.asarray(self.there[inside[inside < len(numbers)]])

        return pd.Series(both), rows

    def some(self, rows: NDArray[np.int64]) -> tuple[pd.Series[Any], _Rows]:
        """The values of some rows."""
        return self.series.iloc[rows].reset_index(drop=True), lambda bad: rows[bad]

    def whole(self, expectations: Sequence[Any], mine: Sequence[int], run: Run) -> dict[int, dict[str, Any]]:
        """All values, a chunk at a time."""
        there = self.there
        found: dict[int, list[dict[str, Any]]] = {i: [] for i in mine}
        for start in range(0, max(1, len(there)), CHUNK):
            rows = there[start : start + CHUNK]
            values = self.series if len(rows) == len(self.series) else self.series.iloc[rows]
            frame = _native(values).reset_index(drop=True).to_frame()
            for i, r in zip(mine, run([expectations[i] for i in mine], frame), strict=True):
                found[i].append({**r, "bad": rows[np.asarray(r["bad"], dtype=np.int64)]})
        return {i: _merged(parts) for i, parts in found.items()}


def _native(values: pd.Series[Any]) -> pd.Series[Any]:
    """Integers without nulls as NumPy's own: GX compares pandas' nullable ones one by one, in Python."""
    return values.astype("int64") if str(values.dtype) == "Int64" and not bool(values.isna().any()) else values


def _together(
    expectations: Sequence[Any],
    groups: Mapping[str, Sequence[int]],
    shown: Mapping[str, tuple[pd.Series[Any], _Rows]],
    run: Run,
) -> dict[int, dict[str, Any]]:
    """Run the rules of several columns on one frame of what stands for them; short columns repeat their first value."""
    import pandas as pd

    if not groups:
        return {}
    n = max(len(values) for values, _ in shown.values())
    frame = pd.DataFrame(
        {c: _native(v).reindex(range(n), fill_value=_native(v).iloc[0]) for c, (v, _) in shown.items()}, copy=False
    )
    order = [i for mine in groups.values() for i in mine]
    results = {}
    for i, r in zip(order, run([expectations[i] for i in order], frame), strict=True):
        values, rows = shown[_column(expectations[i])]
        bad = np.asarray(r["bad"], dtype=np.int64)
        bad = bad[bad < len(values)]
        results[i] = {**r, "bad": np.sort(rows(bad)) if len(bad) else bad}
    return results


def _ranges(
    expectations: Sequence[Any], groups: Mapping[str, Sequence[int]], columns: Mapping[str, _Column], run: Run
) -> dict[int, dict[str, Any]]:
    """Rules that ask for a range: first of the extremes of blocks of rows, then of the rows of blocks that fail."""
    results = _together(expectations, groups, {c: columns[c].extremes() for c in groups}, run)
    again = {c: [i for i in mine if len(results[i]["bad"])] for c, mine in groups.items()}
    again = {c: mine for c, mine in again.items() if mine}
    rows = {c: reduce(np.union1d, [results[i]["bad"] for i in mine]) for c, mine in again.items()}
    return results | _together(expectations, again, {c: columns[c].some(rows[c]) for c in again}, run)


def _merged(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    errors = [p["error"] for p in parts if p["error"]]
    return {
        "success": all(p["success"] for p in parts),
        "bad": np.sort(np.concatenate([p["bad"] for p in parts])),
        "error": errors[0] if errors else None,
        "result": parts[0]["result"],
    }
