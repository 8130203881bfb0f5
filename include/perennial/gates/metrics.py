"""Metrics: one name, one direction, one way to say what a gain is.

A name is any scikit-learn scorer (``roc_auc``, ``neg_log_loss``, ``f1``, ``neg_mean_absolute_error``, ...; the plain
``mean_absolute_error`` means the same) or ``module:function``, called as ``function(y, score)``. Which way is better
comes from the metric: scikit-learn's sign, or a function's attribute ``greater_is_better`` (default True). ``neg_*``
scorers are shown as positive values under their plain names, and lower is better.

A gain is positive when better. For a regression loss it is relative, ``1 - new / old``; a regression metric where
greater is better (``r2``) has no natural zero, so its gain is the difference.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perennial.errors import SpecError

Floats: TypeAlias = NDArray[np.float64]
TaskType = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that knows its direction and what it needs. Call it as ``metric(y, s)`` or ``metric(y, s, threshold)``.

    ``rowwise`` gives one loss per row when the metric is ``finish(mean of losses)``; block sums then replace
    recomputation. ``counted``: scikit-learn's function of labels and decisions takes weights, so how often each pair of
    them occurs is all it needs. Both are optimisations: the value is the same (tested against scikit-learn).

    Multiclass: ``y`` are numbers of classes, ``s`` a matrix of probabilities with a column per class; decisions are
    the likeliest class.
    """

    name: str
    task_type: str
    greater_is_better: bool
    relative: bool
    needs: Literal["score", "label"]
    function: Callable[[Any, Any], float]
    rowwise: Callable[[Floats, Floats], Floats] | None = None
    finish: Callable[[Floats], Floats] | None = None
    counted: bool = False

    def __call__(self, y: Any, s: Any, threshold: float | None = None) -> float:
        """The metric of scores ``s`` (or of decisions ``s >= threshold``) against labels ``y``; NaN if undefined."""
        y = np.asarray(y)
        return float(self.function(y, self.decisions(s, threshold)))

    def decisions(self, s: Any, threshold: float | None = None) -> NDArray[Any]:
        """What the metric reads: the scores themselves, or decisions where it needs labels."""
        read: NDArray[Any] = np.asarray(s)
        if self.needs == "score":
            return read
        if read.ndim == 2:
            return np.asarray(read.argmax(axis=1))
        if self.task_type != "binary":
            return read
        if threshold is None:
            raise ValueError(f"metric {self.name} needs a decision threshold")
        return np.asarray(read >= threshold).astype(np.int64)

    def losses(self, y: Any, s: Any, threshold: float | None = None) -> Floats | None:
        """One loss per row, or None when the metric is not a mean over rows."""
        read = self.decisions(s, threshold)
        if self.rowwise is None:
            return None
        return self.rowwise(np.asarray(y, dtype=np.float64), read.astype(np.float64))

    @property
    def auc(self) -> Literal["binary", "classes"] | None:
        """Whether it is an area under the ROC curve, or the mean of those of each class against the rest."""
        if self.task_type == "binary" and self.name == "roc_auc":
            return "binary"
        return "classes" if self.task_type == "multiclass" and self.name == "roc_auc_ovr" else None


def gain(metric: Metric, new: float, old: float) -> float:
    """How much better ``new`` is than ``old``: positive when better, relative for regression losses."""
    if metric.relative:
        if old == 0:
            return 0.0 if new == 0 else -math.inf
        return 1.0 - new / old
    return (new - old) if metric.greater_is_better else (old - new)


def gains(metric: Metric, new: Floats, old: Floats) -> Floats:
    """:func:`gain` over arrays."""
    if metric.relative:
        with np.errstate(divide="ignore", invalid="ignore"):
            out = 1.0 - new / old
        return np.where(old == 0, np.where(new == 0, 0.0, -np.inf), out)
    return (new - old) if metric.greater_is_better else (old - new)


def roc_auc(y: Any, s: Any) -> float:
    """Area under the ROC curve by mid-ranks (ties count one half); NaN when one class is missing."""
    from scipy.stats import rankdata

    positive = np.asarray(y) == 1
    n1 = int(positive.sum())
    n0 = positive.size - n1
    if n1 == 0 or n0 == 0:
        return math.nan
    return float((rankdata(s)[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def roc_auc_ovr(y: Any, s: Any) -> float:
    """The mean over classes of the area under the ROC curve of the class against the rest; NaN when one is missing."""
    y, s = np.asarray(y), np.asarray(s)
    return float(np.mean([roc_auc(y == k, s[:, k]) for k in range(s.shape[1])]))


def _class_log_loss_rows(y: Floats, s: Floats) -> Floats:
    eps = np.finfo(np.float64).eps
    return np.asarray(-np.log(np.clip(s[np.arange(len(y)), y.astype(np.int64)], eps, 1 - eps)))


def _log_loss_rows(y: Floats, s: Floats) -> Floats:
    eps = np.finfo(np.float64).eps
    p = np.clip(s, eps, 1 - eps)
    return np.asarray(-np.log(np.where(y == 1, p, 1 - p)))


def log_loss(y: Any, s: Any) -> float:
    """Mean negative log likelihood of a label (a matrix of scores: of a class); NaN for scores outside [0, 1]."""
    s = np.asarray(s, dtype=np.float64)
    if s.size == 0 or s.min() < 0 or s.max() > 1:
        return math.nan
    rows = _log_loss_rows if s.ndim == 1 else _class_log_loss_rows
    return float(rows(np.asarray(y, dtype=np.float64), s).mean())


def _absolute(y: Floats, s: Floats) -> Floats:
    return np.abs(y - s)


def _squared(y: Floats, s: Floats) -> Floats:
    return np.asarray(np.square(y - s))


def _same(y: Floats, s: Floats) -> Floats:
    return np.asarray(y == s, dtype=np.float64)


#: (task types, losses per row, what is applied to their mean); must agree with scikit-learn, and a test says so.
_ROWWISE: dict[str, tuple[tuple[str, ...], Callable[[Floats, Floats], Floats], Callable[[Floats], Floats] | None]] = {
    "neg_log_loss": (("binary",), _log_loss_rows, None),
    "neg_brier_score": (("binary",), _squared, None),
    "accuracy": (("binary", "multiclass"), _same, None),
    "neg_mean_absolute_error": (("regression",), _absolute, None),
    "neg_mean_squared_error": (("regression",), _squared, None),
    "neg_root_mean_squared_error": (("regression",), _squared, np.sqrt),
}


@functools.cache
def get_metric(name: str, task_type: str) -> Metric:
    """The metric called ``name`` for a task of ``task_type`` (binary, multiclass, regression).

    :raises SpecError: the name is neither a scikit-learn scorer nor an importable ``module:function``.
    """
    if ":" in name:
        return _imported(name, task_type)
    from sklearn.metrics import get_scorer, get_scorer_names

    names = get_scorer_names()
    scorer_name = name if name in names else f"neg_{name}"
    if scorer_name not in names:
        close = difflib.get_close_matches(name, [*names, *(n.removeprefix("neg_") for n in names)], n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise SpecError(f"metric {name!r} is neither a scikit-learn scorer nor module:function{hint}")
    scorer = get_scorer(scorer_name)
    greater = scorer._sign > 0
    plain = scorer_name if greater else scorer_name.removeprefix("neg_")
    labels_only = scorer._response_method == "predict" and task_type != "regression"
    tasks, rowwise, finish = _ROWWISE.get(scorer_name, ((), None, None))
    rowwise, finish = (rowwise, finish) if task_type in tasks else (None, None)
    if scorer_name == "neg_log_loss" and task_type == "multiclass":
        rowwise = _class_log_loss_rows
    function: Callable[[Any, Any], float]
    if scorer_name == "roc_auc" and task_type == "binary":
        function = roc_auc
    elif scorer_name == "roc_auc_ovr" and task_type == "multiclass":
        function = roc_auc_ovr
    elif rowwise is not None:
        function = functools.partial(_mean_of, rowwise, finish, scorer_name == "neg_log_loss")
    else:
        function = functools.partial(_scored, scorer._score_func, dict(scorer._kwargs))
    return Metric(
        name=plain,
        task_type=task_type,
        greater_is_better=greater,
        relative=task_type == "regression" and not greater,
        needs="label" if labels_only else "score",
        function=function,
        rowwise=rowwise,
        finish=finish,
        counted=labels_only,
    )


def counted_value(metric: Metric, y: NDArray[Any], decisions: NDArray[Any], counts: NDArray[Any]) -> float:
    """A ``counted`` metric of pairs of label and decision, each of which occurs so many times."""
    some = counts > 0
    if not some.any():
        return math.nan
    return float(metric.function(y[some], decisions[some], sample_weight=counts[some]))  # type: ignore[call-arg]


def _mean_of(
    rowwise: Callable[[Floats, Floats], Floats],
    finish: Callable[[Floats], Floats] | None,
    probabilities: bool,
    y: Any,
    s: Any,
) -> float:
    s = np.asarray(s, dtype=np.float64)
    if s.size == 0:
        return math.nan
    if probabilities and (s.min() < 0 or s.max() > 1):
        raise ValueError("log loss needs scores between 0 and 1")
    mean = rowwise(np.asarray(y, dtype=np.float64), s).mean()
    return float(mean if finish is None else finish(mean))


def _scored(function: Callable[..., float], kwargs: dict[str, Any], y: Any, s: Any, sample_weight: Any = None) -> float:
    given = kwargs if sample_weight is None else {**kwargs, "sample_weight": sample_weight}
    return float(function(y, s, **given))


def _imported(name: str, task_type: str) -> Metric:
    module, _, attribute = name.partition(":")
    try:
        function = functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise SpecError(f"metric {name!r} cannot be imported: {error}") from error
    if not callable(function):
        raise SpecError(f"metric {name!r} is not a function")
    greater = bool(getattr(function, "greater_is_better", True))
    needs: Literal["score", "label"] = "label" if getattr(function, "needs", "score") == "label" else "score"
    return Metric(
        name=attribute,
        task_type=task_type,
        greater_is_better=greater,
        relative=task_type == "regression" and not greater,
        needs=needs,
        function=function,
    )
