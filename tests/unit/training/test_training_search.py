"""The search for parameters: repeatable, in time order, never on the holdout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perennial.errors import DataError
from perennial.specs.loader import load_specs
from perennial.training import estimators
from perennial.training.data import Rows
from perennial.training.search import search

pytestmark = pytest.mark.fast

SPACE = {
    "max_iter": {"int": [2, 12]},
    "learning_rate": {"float": [0.01, 0.5], "log": True},
    "max_leaf_nodes": {"choice": [3, 7, 15]},
}


@pytest.fixture
def spec(home: Path) -> Any:
    found = load_specs(only="flight_delay").model("flight_delay")
    return found.model_copy(update={"search": found.search.model_copy(update={"trials": 4, "space": SPACE})})


def rows(days: int = 20, each: int = 60, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"hour": rng.uniform(0, 24, days * each), "temp": rng.normal(size=days * each)})
    y = (X["hour"] / 24 + rng.normal(size=len(X)) > 0.7).to_numpy().astype(np.float64)
    blocks = np.repeat([f"2013-01-{d + 1:02d}" for d in range(days)], each)
    return Rows(X, y, blocks)


def test_the_same_rows_space_and_seed_give_the_same_choice(spec: Any, home: Path) -> None:
    said: list[tuple[int, float]] = []
    one = search(spec, home, rows(), 7, lambda n, best: said.append((n, best)))
    again: list[tuple[int, float]] = []
    assert search(spec, home, rows(), 7, lambda n, best: again.append((n, best))) == one
    assert said == again and [n for n, _ in said] == [1, 2, 3, 4]
    assert set(one) == set(SPACE) and one["max_leaf_nodes"] in (3, 7, 15)
    turned = spec.search.model_copy(update={"space": dict(reversed(SPACE.items()))})
    assert search(spec.model_copy(update={"search": turned}), home, rows(), 7) == one, "a stored spec is in name order"
    other: list[tuple[int, float]] = []
    search(spec, home, rows(), 8, lambda n, best: other.append((n, best)))
    assert other != said


def test_inner_splits_are_in_time_order(spec: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a trial trains on lies wholly before what it is scored on, and no row is in both."""
    given = rows()
    index = {tuple(row): day for row, day in zip(given.X.to_numpy().tolist(), given.blocks, strict=True)}
    fitted: list[set[str]] = []
    scored: list[set[str]] = []
    fit, score = estimators.fit, estimators.score

    def days(X: pd.DataFrame) -> set[str]:
        return {index[tuple(row)] for row in X.to_numpy().tolist()}

    monkeypatch.setattr(estimators, "fit", lambda s, m, X, y: (fitted.append(days(X)), fit(s, m, X, y))[1])
    monkeypatch.setattr(estimators, "score", lambda m, X, t: (scored.append(days(X)), score(m, X, t))[1])
    search(spec, home, given, 7)
    assert len(fitted) == len(scored) == 12
    for train, test in zip(fitted, scored, strict=True):
        assert max(train) < min(test)
        assert min(train) == "2013-01-01"
    assert [len(t) for t in fitted[:3]] == [10, 13, 16] and [len(t) for t in scored[:3]] == [3, 3, 3]


def test_too_few_days_to_split_is_a_sentence(spec: Any, home: Path) -> None:
    with pytest.raises(DataError, match="at least 10 training partitions to split by time, not 9"):
        search(spec, home, rows(9), 7)


def test_splits_without_a_class_are_a_sentence(spec: Any, home: Path) -> None:
    given = rows()
    quiet = np.where(given.blocks > "2013-01-10", 0.0, given.y)
    with pytest.raises(DataError, match="no trial of the search gave a finite roc_auc"):
        search(spec, home, Rows(given.X, quiet, given.blocks), 7)
