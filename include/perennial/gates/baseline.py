"""Baseline: does the model beat what anybody could do with a table of averages?

The baseline is fitted on the training rows alone: the rate (classification), the mean or, for absolute errors, the
median (the value that minimises the mean absolute error, as the mean minimises the squared one) of the label per
segment (``by``), for example by hour. Segments with fewer than 20 training rows, and those never seen, get the
overall value. The comparison is paired and judged by rule 2's bound, as against a champion. Choose segments with
care: without any the AUC of the baseline is .5, which never binds; with too many cells the baseline is noise or, on
flights by carrier and hour, so good that a first version's bound was -.03.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perennial.errors import DataError
from perennial.gates.blocks import Within
from perennial.gates.metrics import Floats, Metric
from perennial.gates.paired import DECIDING, judge
from perennial.gates.verdict import GateResult, disabled, guarded
from perennial.specs.gates import BaselineGate

GATE = "baseline"
MIN_ROWS = 20
_MEDIAN = {"mean_absolute_error", "median_absolute_error", "mean_absolute_percentage_error"}


class Frame(Protocol):
    """A pandas DataFrame, or a dict of arrays."""

    def __getitem__(self, key: str, /) -> Any: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Baseline:
    """A table of averages. ``values`` maps a segment's key to its value; everything else gets ``overall``.

    Of a multiclass task there is one table per class, ``classes``, and nothing else counts.
    """

    by: tuple[str, ...]
    task_type: str
    statistic: str
    overall: float
    rows: int
    values: dict[str, float] = field(default_factory=dict)
    classes: tuple[Baseline, ...] = ()

    def predict(self, frame: Frame) -> Floats:
        """The baseline's score for each row of a frame that has the columns ``by``; multiclass: a column per class."""
        if self.classes:
            return np.column_stack([of.predict(frame) for of in self.classes])
        if not self.by:
            return np.full(_length(frame), self.overall)
        keys, inverse = np.unique(_keys(frame, self.by), return_inverse=True)
        table = np.array([self.values.get(str(key), self.overall) for key in keys], dtype=np.float64)
        return np.asarray(table[inverse.reshape(-1)]) if keys.size else np.empty(0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "by": list(self.by),
            "task_type": self.task_type,
            "statistic": self.statistic,
            "overall": self.overall,
            "rows": self.rows,
            "values": dict(self.values),
            **({"classes": [of.to_dict() for of in self.classes]} if self.classes else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Baseline:
        """The inverse of :meth:`to_dict`."""
        return cls(
            by=tuple(data["by"]),
            task_type=data["task_type"],
            statistic=data["statistic"],
            overall=float(data["overall"]),
            rows=int(data["rows"]),
            values={str(k): float(v) for k, v in data["values"].items()},
            classes=tuple(cls.from_dict(of) for of in data.get("classes", ())),
        )


def fit_baseline(train: Frame, y: Any, by: Sequence[str], task_type: str, metric: Metric | None = None) -> Baseline:
    """Fit the table of averages on the training rows.

    :param train: the training features (a DataFrame or a dict of arrays) with the columns ``by``.
    :param y: the labels of the same rows; binary ones are 0 and 1, multiclass ones 0 to K - 1.
    :param metric: the model's metric; a regression judged by absolute errors gets medians.
    """
    y = np.asarray(y, dtype=np.float64)
    if y.size == 0 or not bool(np.isfinite(y).all()):
        raise DataError(f"the baseline needs finite labels: {int((~np.isfinite(y)).sum())} of {y.size} are not")
    if task_type == "multiclass":
        each = tuple(fit_baseline(train, y == k, by, "binary") for k in range(int(y.max()) + 1))
        return Baseline(tuple(by), task_type, "rate", 1.0, int(y.size), classes=each)
    median = task_type == "regression" and (metric is None or metric.name in _MEDIAN)
    statistic = np.median if median else np.mean
    values: dict[str, float] = {}
    if by:
        keys, inverse, counts = np.unique(_keys(train, by), return_inverse=True, return_counts=True)
        if inverse.size != y.size:
            raise DataError(f"the baseline has {inverse.size} rows of features and {y.size} labels")
        order = np.argsort(inverse.reshape(-1), kind="stable")
        groups = np.split(y[order], np.cumsum(counts)[:-1])
        values = {str(k): float(statistic(g)) for k, g in zip(keys, groups, strict=True) if g.size >= MIN_ROWS}
    name = "median" if median else ("rate" if task_type == "binary" else "mean")
    return Baseline(tuple(by), task_type, name, float(statistic(y)), int(y.size), values)


def baseline_gate(
    y: Any,
    score: Any,
    baseline_score: Any,
    blocks: Any,
    *,
    spec: BaselineGate,
    metric: Metric,
    within: Within,
    min_gain: float,
    threshold: float | None = None,
    threshold_baseline: float | None = None,
    left_out: int = 0,
    first_version: bool = False,
) -> GateResult:
    """Judge the model's scores against the baseline's on the rows of one holdout.

    :param first_version: decide on the point estimate, standard error shown, as a first version's gates do.
    """
    if spec.mode == "disabled":
        return disabled(GATE)

    def gate() -> GateResult:
        judged = judge(
            metric,
            y,
            score,
            baseline_score,
            blocks,
            within=within,
            confidence=spec.confidence,
            min_gain=min_gain,
            names=("candidate", "baseline"),
            left_out=left_out,
            threshold_new=threshold,
            threshold_old=threshold if threshold_baseline is None else threshold_baseline,
            by_point=first_version,
        )
        figures = {**judged.figures, "by": ", ".join(spec.by) or "overall", "decided_by": _by(first_version)}
        return GateResult(GATE, judged.verdict, judged.reason, figures, spec.mode)

    return guarded(GATE, spec.mode, gate, ("gain", "min_gain") if first_version else DECIDING)


def _by(first_version: bool) -> str:
    return "point estimate" if first_version else "lower bound"


def _length(frame: Frame) -> int:
    if isinstance(frame, Mapping):
        return len(next(iter(frame.values()))) if frame else 0
    return len(frame)


def _keys(frame: Frame, by: Sequence[str]) -> NDArray[np.str_]:
    """One string per row. Numbers and booleans compare by value, so 5 and 5.0 are one segment; nulls are one too."""
    columns = []
    for name in by:
        try:
            values = np.asarray(frame[name])
        except KeyError as error:
            raise DataError(f"the baseline's column {name!r} is not among the features") from error
        columns.append(_texts(values))
    out = columns[0]
    for column in columns[1:]:
        out = np.char.add(np.char.add(out, "\x1f"), column)
    return out


def _texts(values: NDArray[Any]) -> NDArray[np.str_]:
    if values.dtype.kind in "biuf":
        unique, inverse = np.unique(values.astype(np.float64), return_inverse=True)
        return np.array(["null" if v != v else repr(float(v)) for v in unique], dtype=np.str_)[inverse.reshape(-1)]
    return np.array([_text(v) for v in values], dtype=np.str_)


def _text(value: Any) -> str:
    if isinstance(value, bool | int | float | np.bool_ | np.integer | np.floating):
        return "null" if value != value else repr(float(value))
    text = "null" if value is None else str(value)
    return "null" if text in ("<NA>", "NaT") else text
