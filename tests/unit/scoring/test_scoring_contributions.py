"""Contributions add up, and agree with what can be computed by hand."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perennial.scoring import contributions as c
from perennial.training import estimators

pytestmark = pytest.mark.fast


def rows(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(n, 3)), columns=["a", "b", "useless"])
    frame["kind"] = rng.choice(["x", "y", "z"], n)
    frame.loc[rng.random(n) < 0.1, "b"] = np.nan
    return frame


def outcome(X: pd.DataFrame) -> Any:
    return (X["a"] + (X["kind"] == "y") * 2 + X["b"].fillna(0) * (X["a"] > 0)).to_numpy()


def fitted(kind: str) -> tuple[Any, Any, str]:
    import sklearn.ensemble
    import sklearn.linear_model

    X = rows(2000, 1)
    made = getattr(sklearn.ensemble, kind, None) or getattr(sklearn.linear_model, kind)
    task = "regression" if kind.endswith(("Regressor", "Ridge")) else "binary"
    model = estimators._around(made(), X.drop(columns="useless"))
    y = outcome(X)
    model.fit(X.drop(columns="useless"), y if task == "regression" else (y > 0.5).astype(int))
    return model, (lambda frame: estimators.score(model, frame, task)), task


def by_hand(score: Any, row: pd.DataFrame, background: pd.DataFrame) -> dict[str, float]:
    """The definition, over all orders."""
    names = list(row.columns)
    orders = list(permutations(names))
    total = dict.fromkeys(names, 0.0)
    for order in orders:
        frame = background.copy()
        before = score(frame).mean()
        for name in order:
            frame[name] = row[name].iloc[0]
            after = score(frame).mean()
            total[name] += after - before
            before = after
    return {n: t / len(orders) for n, t in total.items()}


@pytest.mark.parametrize("kind", ["LogisticRegression", "HistGradientBoostingClassifier", "Ridge"])
def test_sampled_values_are_the_definition_s(kind: str) -> None:
    _, score, _ = fitted(kind)
    row, background = (rows(n, s).drop(columns="useless") for n, s in ((1, 5), (30, 6)))
    expected = by_hand(score, row, background)
    found = c.contributions(score, row, background, seed=1, pairs=200)
    np.testing.assert_allclose(found.values, [expected[n] for n in found.columns], atol=0.02)
    assert found.values.sum() + found.base == pytest.approx(found.score, abs=1e-9)


def test_a_feature_that_the_model_does_not_use_contributes_nothing() -> None:
    row, background = rows(1, 5), rows(30, 6)
    found = c.contributions(outcome, row, background, seed=1)
    assert dict(zip(found.columns, found.values, strict=True))["useless"] == 0
    assert found.score == pytest.approx(outcome(row)[0])


def test_the_same_seed_gives_the_same_values() -> None:
    _, score, _ = fitted("HistGradientBoostingClassifier")
    row, background = (rows(n, s).drop(columns="useless") for n, s in ((1, 5), (30, 6)))
    one, two, other = (c.contributions(score, row, background, seed=s, pairs=2).values for s in (1, 1, 2))
    assert (one == two).all()
    assert (one != other).any()
