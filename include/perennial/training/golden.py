"""The golden sample: some rows of the holdout with their scores, by which a version is known again anywhere."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from perennial.training import estimators
from perennial.training.data import to_matrix

if TYPE_CHECKING:
    import pandas as pd

    from perennial.training.bundle import Bundle

ROWS = 256
#: Names of the tables in a bundle.
SAMPLE, SCORES = "golden", "golden_scores"


def make(scorer: Any, X: pd.DataFrame, task: str) -> dict[str, pd.DataFrame]:
    """Tables of a bundle: rows spread evenly over ``X``, and what ``scorer`` says of them on one thread.

    :param scorer: what will score: the fitted estimator, or what stands in for it.
    """
    import pandas as pd
    from threadpoolctl import threadpool_limits

    chosen = np.unique(np.linspace(0, len(X) - 1, min(len(X), ROWS)).astype(int))
    rows = X.iloc[chosen].reset_index(drop=True)
    with threadpool_limits(limits=1):
        scores = score(scorer, pa.Table.from_pandas(rows, preserve_index=False), list(X.columns), task)
    return {SAMPLE: rows, SCORES: pd.DataFrame(scores, columns=[str(i) for i in range(scores.shape[1])])}


def read(bundle: Bundle) -> tuple[pa.Table, NDArray[np.float64]]:
    """The rows and their scores, as a bundle keeps them."""
    rows = pq.read_table(io.BytesIO(bundle.read(f"{SAMPLE}.parquet")))
    return rows, bundle.frame(SCORES).to_numpy(dtype=np.float64)


def score(scorer: Any, rows: pa.Table, columns: Sequence[str], task: str) -> NDArray[np.float64]:
    """Scores of Arrow rows as scoring makes them; one column, or one per class."""
    found = np.asarray(estimators.score(scorer, to_matrix(rows, columns), task), dtype=np.float64)
    return found.reshape(len(found), -1)
