"""Classes of a multiclass task: labels become numbers 0..K-1, in the order of the classes' names.

Which classes there are is decided once, by the training rows (or by ``task.classes``, which they must then match), and
stored with the version; a label of any other class has the number -1, which no gate lets pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from perennial.errors import DataError
from perennial.specs import ModelSpec

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

UNSEEN = -1.0
MAX_CLASSES = 100  # more are rather a column of names


def declared(spec: ModelSpec) -> tuple[str, ...]:
    """The classes that the spec names, in order; none when it leaves that to the labels."""
    return tuple(sorted(str(c) for c in spec.task.classes or ()))


def classes_among(values: Sequence[Any]) -> tuple[str, ...]:
    """The classes that occur among labels, in order."""
    return tuple(sorted({str(v) for v in values if v is not None}))


def codes(column: pa.ChunkedArray, classes: Sequence[str]) -> NDArray[np.float64]:
    """Labels as numbers of their classes: NaN for none, -1 for a class that is not among ``classes``."""
    coded = column.combine_chunks().dictionary_encode()
    number = {name: float(i) for i, name in enumerate(classes)}
    found = np.array([number.get(str(v), UNSEEN) for v in coded.dictionary.to_pylist()] + [np.nan])
    at = coded.indices.fill_null(len(found) - 1).to_numpy(zero_copy_only=False)
    return np.asarray(found[at], dtype=np.float64)


def check_training(spec: ModelSpec, y: NDArray[np.float64], classes: Sequence[str]) -> None:
    """Every class must have been seen, and nothing else.

    :param y: class numbers of the labelled training rows.
    :raises DataError: a class is missing or not declared, or there are too few or too many of them.
    """
    seen = np.unique(y)
    lost = [name for i, name in enumerate(classes) if i not in seen]
    if UNSEEN in seen:
        raise DataError(
            f"{spec.name}: {int((y == UNSEEN).sum()):,} training rows have a label that task.classes does not name "
            f"({', '.join(classes)}): add it there, or leave it out of the labels"
        )
    if lost:
        raise DataError(f"{spec.name}: no training row is of the class {', '.join(lost)}: train on a longer window")
    if len(classes) < 2:
        raise DataError(f"{spec.name}: every training row is of the class {classes[0]}; there is nothing to learn")
    if len(classes) > MAX_CLASSES:
        raise DataError(
            f"{spec.name}: the label {spec.labels.column} has {len(classes):,} different values, more than "
            f"{MAX_CLASSES} classes: is it the right column?"
        )


def problem_of_holdout(y: NDArray[np.float64], classes: Sequence[str]) -> str | None:
    """One sentence when a holdout cannot judge a model of these classes; None when it can.

    :param y: class numbers of the holdout's labelled rows. ``classes``: none when the task is not multiclass.
    """
    if not classes:
        return None
    unseen = int((y == UNSEEN).sum())
    if unseen:
        return f"{unseen:,} of {len(y):,} labels of the holdout are of a class that training has not seen"
    lost = [name for i, name in enumerate(classes) if not (y == i).any()]
    if len(y) and lost:
        return f"the holdout has no row of the class {', '.join(lost)}"
    return None


def aligned(scores: NDArray[np.float64], theirs: Sequence[str], ours: Sequence[str]) -> NDArray[np.float64] | None:
    """Another version's probabilities in the order of our classes: 0 for a class that it does not know.

    None when it knows a class that we do not: what it says of that one would have no column.
    """
    if set(theirs) - set(ours):
        return None
    out = np.zeros((len(scores), len(ours)))
    out[:, [list(ours).index(name) for name in theirs]] = scores
    return out


def score_columns(scores: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Scores as columns of a table: ``score``, or ``score_0``, ``score_1``, ... of a multiclass model."""
    if scores.ndim == 1:
        return {"score": scores}
    return {f"score_{k}": scores[:, k] for k in range(scores.shape[1])}


def scores_of(frame: pd.DataFrame) -> NDArray[np.float64]:
    """The inverse of :func:`score_columns`, from the holdout's table in a bundle."""
    if "score" in frame:
        return np.asarray(frame["score"].to_numpy(), dtype=np.float64)
    names = [f"score_{k}" for k in range(sum(str(c).startswith("score_") for c in frame.columns))]
    return np.asarray(frame[names].to_numpy(), dtype=np.float64)
