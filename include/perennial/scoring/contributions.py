"""How much each feature contributes to one score: Shapley values against rows of the training window.

The contribution of a feature is what knowing its value adds to the expected score, averaged over all orders in which
the features could become known; what is not known yet comes from the background rows (Shapley 1953; for models:
Štrumbelj and Kononenko, Knowledge and Information Systems 41, 2014; "interventional" in Lundberg et al., Nature
Machine Intelligence 2, 2020). They add up to the score less the background's mean score.

They are sampled over random orders and their reverses, for any model and of the probability itself. (The shap package
was tried: its tree explainer rescales contributions to log-odds, which on a small model was up to .08 off the
definition; its permutation explainer does what is done here, and takes numbers only.) A contribution says what the
model did, not what causes the outcome; features that belong together share it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

#: Background rows, and pairs of an order and its reverse, of the sampled method.
BACKGROUND, PAIRS = 100, 16

Score = Callable[["pd.DataFrame"], "NDArray[np.float64]"]


@dataclass(frozen=True)
class Contributions:
    """Contributions of the features, in their order.

    :param base: mean score of the background. ``score``: of the row.
    :param error: standard error of each value, which comes from sampling orders.
    """

    columns: tuple[str, ...]
    values: NDArray[np.float64]
    base: float
    score: float
    error: NDArray[np.float64]


def contributions(
    score: Score, row: pd.DataFrame, background: pd.DataFrame, *, seed: int, pairs: int = PAIRS
) -> Contributions:
    """Explain the score of one row; the values of each order add up by themselves.

    :param score: from rows to what is explained.
    :param row: one row of the design matrix. ``background``: rows of the training window, of which some are used.
    """
    import pandas as pd

    background = background.sample(min(BACKGROUND, len(background)), random_state=seed)
    columns, n = list(row.columns), len(background)
    p = len(columns)
    rng = np.random.default_rng(seed)
    steps = np.repeat(np.arange(p + 1), n)  # after step k, the first k features of the order are known
    found = np.empty((pairs, p))
    for i in range(pairs):
        order = rng.permutation(p)
        both = np.zeros(p)
        for way in (order, order[::-1]):
            place = np.argsort(way)
            data = {}
            for j, name in enumerate(columns):
                known = steps > place[j]
                data[name] = np.where(known, row[name].iloc[0], np.tile(background[name].to_numpy(), p + 1))
            frame = pd.DataFrame(data).astype(row.dtypes.to_dict())
            means = score(frame).reshape(p + 1, n).mean(axis=1)
            both[way] += np.diff(means) / 2
        found[i] = both
    error = found.std(axis=0, ddof=1) / np.sqrt(pairs)
    base, own = float(score(background).mean()), float(score(row)[0])
    return Contributions(tuple(columns), found.mean(axis=0), base, own, error)
