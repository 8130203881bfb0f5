"""Drift of the inputs: Evidently's measures, with methods pinned per column; data failures are something else.

Numbers: the Wasserstein distance divided by the reference's standard deviation. Categories, booleans and numbers with
at most five distinct values: the Jensen-Shannon distance over their values. The default methods of Evidently depend on
the number of rows and can mix p-values with distances in one report, so method and threshold are always given.

What Evidently would let pass or trip over is checked first (:func:`check_presence`): a missing column drops out
silently, an empty one raises, one that became 90 % null passes. Those are failures of the data. They alert; they
never ask for retraining.

Distances are computed with numpy, from counts of distinct values: Evidently's own take thirty times as long, because
they draw every column, and calibration needs some forty blocks times every column. They are Evidently's figures: parity
tests compare every method on every kind of column. Evidently makes the page that people look at, with the thresholds
that decided.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from perennial.errors import DataError
from perennial.monitoring.calibration import Calibration

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["numeric", "discrete", "categorical"]
Engine = Literal["evidently", "numpy"]
FEW = 5
MIN_STD = 0.001  # Evidently's own floor under the standard deviation
METHODS: dict[Kind, str] = {"numeric": "wasserstein", "discrete": "jensenshannon", "categorical": "jensenshannon"}


# ---------------------------------------------------------------------------------------------------------------- plan


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """How each column is read and compared, decided once on the reference and pinned with the version."""

    kinds: dict[str, Kind]
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are compared."""
        return tuple(self.kinds)

    def method(self, column: str) -> str:
        """Evidently's name of the column's method."""
        return METHODS[self.kinds[column]]

    def only(self, columns: Iterable[str]) -> ColumnPlan:
        """The same plan for some of the columns."""
        wanted = set(columns)
        return ColumnPlan({c: k for c, k in self.kinds.items() if c in wanted}, self.skipped)

    @classmethod
    def choose(cls, reference: pd.DataFrame, columns: Sequence[str] | None = None) -> ColumnPlan:
        """A plan for the reference's columns (or the named ones): times and columns without a value are skipped."""
        kinds: dict[str, Kind] = {}
        skipped: dict[str, str] = {}
        for name in reference.columns if columns is None else columns:
            kind, why = _kind(reference[name])
            if kind is None:
                skipped[str(name)] = why
            else:
                kinds[str(name)] = kind
        return cls(kinds, skipped)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ColumnPlan:
        """The inverse of :meth:`to_dict`."""
        return cls({c: cast(Kind, k) for c, k in data["kinds"].items()}, dict(data.get("skipped") or {}))


def _kind(series: pd.Series[Any]) -> tuple[Kind | None, str]:
    from pandas.api import types

    if not bool(series.notna().any()):
        return None, "no value in the reference"
    dtype = series.dtype
    inferred = types.infer_dtype(series, skipna=True) if types.is_object_dtype(dtype) else ""
    if types.is_datetime64_any_dtype(dtype) or types.is_timedelta64_dtype(dtype) or "date" in inferred:
        return None, "a time always moves on"
    numbers = ("integer", "floating", "mixed-integer-float", "decimal")
    if types.is_bool_dtype(dtype) or not (types.is_numeric_dtype(dtype) or inferred in numbers):
        return "categorical", ""
    values = _read(series, "numeric")
    if not bool(values.notna().any()):
        return None, "no finite value in the reference"
    return ("discrete" if values.nunique() <= FEW else "numeric"), ""


def _read(series: pd.Series[Any], kind: Kind) -> pd.Series[Any]:
    """A column as both engines see it: finite floats, or strings; everything else null."""
    import pandas as pd

    if kind == "categorical":
        return pd.Series(_texts(series), index=series.index, dtype=object)
    values = _numbers(series)
    values = np.where(np.isfinite(values), values, np.nan) + 0.0  # no negative zero
    if kind == "numeric":
        return pd.Series(values, index=series.index)
    codes, distinct = pd.factorize(values)  # NaN is -1, the last one
    texts = np.array([*(repr(float(v)) for v in distinct), None], dtype=object)
    return pd.Series(texts[codes], index=series.index, dtype=object)


def _texts(series: pd.Series[Any]) -> NDArray[np.object_]:
    """Every value as text. Where values are texts or flags, each distinct one is looked at once."""
    import pandas as pd
    from pandas.api import types

    plain = types.is_bool_dtype(series.dtype) or isinstance(series.dtype, pd.StringDtype)
    if plain or types.infer_dtype(series, skipna=True) == "string":
        codes, distinct = pd.factorize(series)
        return np.array([*(str(v) for v in distinct), None], dtype=object)[codes]
    return np.array([None if pd.isna(v) else str(v) for v in series.astype(object)], dtype=object)


def _numbers(series: pd.Series[Any]) -> NDArray[np.float64]:
    """Every value as a float; NaN for what is none."""
    import pandas as pd
    from pandas.api import types

    if types.is_numeric_dtype(series.dtype) and not types.is_bool_dtype(series.dtype):
        return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
    given = series.astype(object).where(~series.isna(), None)
    return np.asarray(pd.to_numeric(given, errors="coerce").astype("float64").to_numpy())


def _coded(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """``np.unique`` with the inverse; texts are hashed instead of sorted, which takes a tenth of the time."""
    if values.dtype != object:
        grid, codes = np.unique(values, return_inverse=True)
        return grid, codes.reshape(-1)
    import pandas as pd

    codes, distinct = pd.factorize(values)
    order = np.argsort(distinct)
    rank = np.empty(order.size, np.int64)
    rank[order] = np.arange(order.size)
    return distinct[order], rank[codes]


def _columns(frame: pd.DataFrame, plan: ColumnPlan, which: str) -> dict[str, pd.Series[Any]]:
    """The plan's columns with their nulls; an absent or empty one is an error."""
    out = {}
    for name, kind in plan.kinds.items():
        if name not in frame:
            raise DataError(f"column {name!r} is missing from the {which} data")
        values = _read(frame[name], kind)
        if not bool(values.notna().any()):
            raise DataError(f"column {name!r} has no usable value in the {which} data")
        out[name] = values
    return out


# ----------------------------------------------------------------------------------------------------------- presence


@dataclass(frozen=True, slots=True)
class Problem:
    """A failure of the data: not drift, and no reason to retrain."""

    kind: Literal["missing", "empty", "nulls", "type", "rows"]
    column: str | None
    message: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def check_presence(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    *,
    columns: Sequence[str] | None = None,
    null_jump: float = 0.2,
    min_rows: int = 100,
) -> list[Problem]:
    """What must be right before distances mean anything.

    :param columns: the columns to look at; default: all of the reference.
    :param null_jump: a share of nulls that rose by more than this is a failure. (Weekly shares of nulls of a healthy
        sensor move by .16 on flights' air pressure; a broken join is near 1.)
    :param min_rows: a window with fewer rows is a failure.
    """
    problems: list[Problem] = []
    if len(current) < min_rows:
        problems.append(Problem("rows", None, f"{len(current)} rows, at least {min_rows} are needed"))
    for name in [str(c) for c in reference.columns] if columns is None else columns:
        if name not in reference:
            raise DataError(f"column {name!r} is missing from the reference data")
        if name not in current:
            problems.append(Problem("missing", name, f"column {name!r} is missing"))
            continue
        if len(current) == 0:
            continue
        problem = _nulls(name, reference[name], current[name], null_jump)
        if problem:
            problems.append(problem)
    return problems


def _nulls(name: str, reference: pd.Series[Any], current: pd.Series[Any], null_jump: float) -> Problem | None:
    kind, _ = _kind(reference)
    if kind is None:
        before, now, given = float(reference.isna().mean()), float(current.isna().mean()), float(current.isna().mean())
    else:
        before, now = float(_read(reference, kind).isna().mean()), float(_read(current, kind).isna().mean())
        given = float(current.isna().mean())
    if before < 1 and now == 1:
        what = "has no value" if given == 1 else f"has no usable value where {kind} ones were"
        return Problem("empty" if given == 1 else "type", name, f"column {name!r} {what}")
    if now - before > null_jump:
        rise = f"from {before:.1%} to {now:.1%}"
        if now - given > null_jump:
            return Problem("type", name, f"column {name!r}: values that are no finite numbers rise {rise}")
        return Problem("nulls", name, f"column {name!r}: nulls rise {rise}")
    return None


# ----------------------------------------------------------------------------------------------------------- distances


def distances(
    reference: pd.DataFrame, current: pd.DataFrame, plan: ColumnPlan, *, engine: Engine = "numpy"
) -> dict[str, float]:
    """The distance of each planned column between reference and current rows.

    :raises DataError: a column is missing or has no value; check with :func:`check_presence` first.
    """
    old, new = _columns(reference, plan, "reference"), _columns(current, plan, "current")
    if not plan.kinds:
        raise DataError("the drift plan has no column")
    return _by_evidently(old, new, plan) if engine == "evidently" else _by_counts(old, new, plan)


def _by_counts(
    old: Mapping[str, pd.Series[Any]], new: Mapping[str, pd.Series[Any]], plan: ColumnPlan
) -> dict[str, float]:
    out = {}
    for name, kind in plan.kinds.items():
        a, b = old[name].dropna().to_numpy(), new[name].dropna().to_numpy()
        values, codes = _coded(np.concatenate([a, b]))
        reference = np.bincount(codes[: a.size], minlength=values.size)
        current = np.bincount(codes[a.size :], minlength=values.size)
        out[name] = _distance(values, reference, current, kind)
    return out


def _distance(values: NDArray[Any], reference: NDArray[Any], current: NDArray[Any], kind: Kind) -> float:
    """A column's distance from how often each distinct value occurs."""
    p, q = reference / reference.sum(), current / current.sum()
    if kind == "numeric":
        mean = float(p @ values)
        std = math.sqrt(float(p @ np.square(values - mean)))
        area = float(np.abs(np.cumsum(p - q)[:-1]) @ np.diff(values))
        return area / max(std, MIN_STD)
    from scipy.spatial.distance import jensenshannon

    with np.errstate(invalid="ignore"):
        return _zero_for_rounding(float(jensenshannon(p, q)))


def _zero_for_rounding(value: float) -> float:
    """Two equal distributions can give the root of a tiny negative number."""
    return 0.0 if math.isnan(value) else value


def _by_evidently(
    old: Mapping[str, pd.Series[Any]], new: Mapping[str, pd.Series[Any]], plan: ColumnPlan
) -> dict[str, float]:
    from evidently.metrics import ValueDrift

    metrics = [ValueDrift(column=name, method=plan.method(name)) for name in plan.kinds]
    out: dict[str, float] = {}
    for entry in _run(metrics, old, new, plan).dict()["metrics"]:
        name = entry["config"]["column"]
        value = float(entry["value"])
        out[name] = _zero_for_rounding(value) if plan.method(name) == "jensenshannon" else value
    wrong = [name for name in plan.kinds if not math.isfinite(out.get(name, math.nan))]
    if wrong:
        raise DataError(f"Evidently gave no distance for {', '.join(wrong)}")
    return {name: out[name] for name in plan.kinds}


def _run(
    metrics: list[Any],
    old: Mapping[str, pd.Series[Any]],
    new: Mapping[str, pd.Series[Any]],
    plan: ColumnPlan,
    tests: bool = False,
) -> Any:
    import warnings

    import pandas as pd
    from evidently import DataDefinition, Dataset, Report

    definition = DataDefinition(
        numerical_columns=[c for c, k in plan.kinds.items() if k == "numeric"],
        categorical_columns=[c for c, k in plan.kinds.items() if k != "numeric"],
    )
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore")
        return Report(metrics, include_tests=tests).run(
            Dataset.from_pandas(pd.DataFrame(dict(new)), data_definition=definition),
            Dataset.from_pandas(pd.DataFrame(dict(old)), data_definition=definition),
        )


@dataclass(frozen=True, slots=True)
class BlockDistances:
    """Distances of blocks inside the reference: a row per block, a column per planned column."""

    columns: tuple[str, ...]
    starts: tuple[str, ...]
    matrix: NDArray[np.float64]
    reference_days: int


def block_distances(reference: pd.DataFrame, days: Any, plan: ColumnPlan, *, window_days: int = 7) -> BlockDistances:
    """Distances of each block of ``window_days`` days, slid by a day, to the rest of the reference.

    Where the unit is longer than a day, "days" are weeks or months, named by their consecutive numbers.

    :param days: the day of each row (dates, ``YYYY-MM-DD``, or numbers). Blocks in which a column has no value are left
        out.
    """
    day = np.asarray(days).astype("datetime64[D]").astype(np.int64)
    if day.size != len(reference) or day.size == 0:
        raise DataError(f"the drift reference has {len(reference)} rows and {day.size} days")
    first, last = int(day.min()), int(day.max())
    starts = np.arange(first, last - window_days + 2)
    matrix = np.full((starts.size, len(plan.kinds)), np.nan)
    for j, (name, values) in enumerate(_columns(reference, plan, "reference").items()):
        kept = values.notna().to_numpy()
        grid, codes = _coded(values.to_numpy()[kept])
        order = np.argsort(day[kept], kind="stable")
        codes, sorted_days = codes[order], day[kept][order]
        total = np.bincount(codes, minlength=grid.size)
        edges = np.searchsorted(sorted_days, np.stack([starts, starts + window_days]))
        for i, (a, b) in enumerate(edges.T):
            if a < b and b - a < codes.size:
                block = np.bincount(codes[a:b], minlength=grid.size)
                matrix[i, j] = _distance(grid, total - block, block, plan.kinds[name])
    whole = np.isfinite(matrix).all(axis=1)
    return BlockDistances(
        columns=plan.columns,
        starts=tuple(str(np.datetime64(int(s), "D")) for s in starts[whole]),
        matrix=matrix[whole],
        reference_days=last - first + 1,
    )


# ----------------------------------------------------------------------------------------------------------- judging


@dataclass(frozen=True, slots=True)
class WindowDrift:
    """One window against the pinned thresholds."""

    flagged: bool
    share: float
    drifted: tuple[str, ...]
    needed: int
    columns: int
    distances: dict[str, float]
    thresholds: dict[str, float]
    reason: str

    @property
    def state(self) -> Literal["quiet", "flagged"]:
        """For ``rule.judge``."""
        return "flagged" if self.flagged else "quiet"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "drifted": list(self.drifted)}


def judge_window(distances: Mapping[str, float], calibration: Calibration) -> WindowDrift:
    """Flag a window when enough columns exceed their thresholds.

    :raises DataError: a calibrated column has no finite distance; the window's data failed.
    """
    missing = [c for c in calibration.columns if not math.isfinite(distances.get(c, math.nan))]
    if missing:
        raise DataError(f"no distance for {', '.join(missing)}: the window's data failed")
    over = {c: distances[c] / calibration.thresholds[c] for c in calibration.columns}
    drifted = tuple(sorted((c for c, ratio in over.items() if ratio > 1), key=lambda c: -over[c]))
    total = len(calibration.columns)
    flagged = len(drifted) >= calibration.needed
    reason = f"{len(drifted)} of {total} columns drifted, {calibration.needed} flag a window"
    return WindowDrift(
        flagged=flagged,
        share=len(drifted) / total,
        drifted=drifted,
        needed=calibration.needed,
        columns=total,
        distances={c: float(distances[c]) for c in calibration.columns},
        thresholds=dict(calibration.thresholds),
        reason=reason + (f": {', '.join(drifted[:5])}" if drifted else ""),
    )


def report(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    plan: ColumnPlan,
    thresholds: Mapping[str, float],
    path: str | os.PathLike[str],
) -> None:
    """Write Evidently's page (HTML) with the pinned methods and thresholds; whole or not at all.

    :param thresholds: of the calibrated columns (``Calibration.thresholds``); the others are not shown.
    """
    from evidently.metrics import ValueDrift

    plan = plan.only(c for c in plan.kinds if c in thresholds)
    old, new = _columns(reference, plan, "reference"), _columns(current, plan, "current")
    # no DriftedColumnsCount: it measures every column a second time, and our own page has the count
    metrics = [ValueDrift(column=c, method=plan.method(c), threshold=float(thresholds[c])) for c in plan.kinds]
    page = _run(metrics, old, new, plan, tests=True)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".html")
    os.close(handle)
    try:
        page.save_html(name)
        Path(name).chmod(0o644)
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)
