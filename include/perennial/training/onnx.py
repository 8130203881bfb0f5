"""Scoring by ONNX Runtime instead of scikit-learn, where that is faster and provably says the same.

Only the last step of a pipeline is converted; what encodes the columns stays as it is. Converters err without a word:
scikit-learn's native categories become wrong scores, and features are rounded to 32 bits. So a converted model counts
only when it passes a parity gate on the rows of the holdout, at registration; else scikit-learn scores, and the facts
of the version say why. ``skl2onnx`` and ``onnxruntime`` are needed for it, and are no dependencies of Perennial.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

FILE = "model.onnx"
#: Largest difference to scikit-learn that passes: absolute for probabilities, relative to the spread for values.
LIMIT = 1e-5
#: At most so many rows of the holdout are compared.
ROWS = 200_000


@dataclass(frozen=True)
class Parity:
    """Whether ONNX Runtime may score, and why (not).

    :param max_error: the largest difference to scikit-learn among ``rows`` rows; ``None`` when nothing was converted.
    """

    on: bool
    reason: str
    max_error: float | None = None
    rows: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class OnnxModel:
    """A fitted estimator whose last step runs in ONNX Runtime. It has the methods that scoring uses.

    :param model: the fitted estimator. ``blob``: its last step, converted. ``threads``: for one batch.
    """

    def __init__(self, model: Any, blob: bytes, threads: int = 1) -> None:
        import onnxruntime

        self._columns, last = _split(model)
        self.classes_ = getattr(last, "classes_", None)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(blob, options, providers=["CPUExecutionProvider"])

    def predict_proba(self, X: pd.DataFrame) -> NDArray[np.float64]:
        """A column per class, in the order of ``classes_``."""
        return np.asarray(self._run(X)[1], dtype=np.float64)

    def predict(self, X: pd.DataFrame) -> NDArray[np.float64]:
        """The predicted values of a regression."""
        return np.asarray(self._run(X)[0], dtype=np.float64).reshape(-1)

    def _run(self, X: pd.DataFrame) -> list[Any]:
        found: list[Any] = self._session.run(None, {"X": _matrix(self._columns, X)})
        return found


def converted(model: Any, X: pd.DataFrame, task: str) -> tuple[bytes | None, Parity]:
    """Convert the last step of ``model``, and compare it with scikit-learn on ``X``.

    :param X: rows that the model was not fitted on, such as the holdout's.
    :returns: the converted step, or ``None`` with the reason. Never raises: a version is as good without it.
    """
    from perennial.training import estimators

    try:
        rows = X.iloc[:ROWS]
        blob = _convert(model, rows.iloc[:10])
        theirs = estimators.score(model, rows, task)
        ours = estimators.score(OnnxModel(model, blob), rows, task)
    except Exception as e:  # a converter may fail in any way, and its libraries may be absent
        said = (str(e).strip().splitlines() or [""])[0][:200]
        return None, Parity(False, f"it cannot be converted: {type(e).__name__}: {said}")
    size = float(np.std(theirs)) if task == "regression" else 1.0
    return judged(blob, np.asarray(ours), np.asarray(theirs), size)


def judged(
    blob: bytes, ours: NDArray[np.float64], theirs: NDArray[np.float64], size: float
) -> tuple[bytes | None, Parity]:
    """The parity gate: every score is there, finite, and within :data:`LIMIT` (times ``size``) of scikit-learn's."""
    if not len(theirs) or ours.shape != theirs.shape:
        return None, Parity(False, f"there is nothing to compare: {ours.shape} scores against {theirs.shape}")
    error = float(np.max(np.abs(ours - theirs))) / (size or 1.0)
    if not error <= LIMIT:  # NaN included
        return None, Parity(
            False, f"its scores differ from scikit-learn's by up to {error:.2g} (limit {LIMIT:g})", error, len(theirs)
        )
    return blob, Parity(True, f"its scores are scikit-learn's within {error:.2g}", error, len(theirs))


def _split(model: Any) -> tuple[Any, Any]:
    """What makes a matrix of the columns (or ``None``), and the estimator behind it."""
    from sklearn.pipeline import Pipeline

    return (model[:-1], model[-1]) if isinstance(model, Pipeline) and len(model) > 1 else (None, model)


def _matrix(columns: Any, X: pd.DataFrame) -> NDArray[np.float32]:
    return np.asarray(X if columns is None else columns.transform(X), dtype=np.float32)


def _convert(model: Any, X: pd.DataFrame) -> bytes:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    columns, last = _split(model)
    width = _matrix(columns, X).shape[1]
    options = {"zipmap": False} if hasattr(last, "classes_") else None
    with _plain_attributes():
        found = to_onnx(last, initial_types=[("X", FloatTensorType([None, width]))], options=options)
    blob: bytes = found.SerializeToString()
    return blob


@contextmanager
def _plain_attributes() -> Iterator[None]:
    """skl2onnx 1.20 passes NumPy's numbers and booleans of histogram trees on; ONNX takes Python's integers only."""
    from skl2onnx.common._container import ModelComponentContainer as Container

    before = Container.add_node

    def add_node(self: Any, op_type: str, inputs: Any, outputs: Any, *args: Any, **attributes: Any) -> Any:
        return before(self, op_type, inputs, outputs, *args, **{k: _plain(v) for k, v in attributes.items()})

    Container.add_node = add_node
    try:
        yield
    finally:
        Container.add_node = before


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, bool | np.bool_):
        return int(value)
    return value.item() if isinstance(value, np.generic) else value
