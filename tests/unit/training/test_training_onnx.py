"""ONNX Runtime scores in scikit-learn's place only where it says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perennial.training import bundle, estimators, onnx
from perennial.trust import signing

pytestmark = pytest.mark.fast

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "trees": ("HistGradientBoostingClassifier", {"max_iter": 20}),
    "regression of trees": ("HistGradientBoostingRegressor", {"max_iter": 20}),
    "linear": ("LogisticRegression", {}),
}


def rows(n: int = 4000, seed: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(n, 4)), columns=list("abcd"))
    frame["kind"] = rng.choice(["x", "y", "z"], n)
    frame.loc[rng.random(n) < 0.1, "b"] = np.nan
    return frame


def fitted(kind: str, categorical: bool = False) -> tuple[Any, str]:
    import sklearn.ensemble
    import sklearn.linear_model

    name, params = KINDS[kind]
    made = getattr(sklearn.ensemble, name, None) or getattr(sklearn.linear_model, name)
    X = rows()
    y = X["a"] * 2 + (X["kind"] == "y") * 3 + X["b"].fillna(0) + np.random.default_rng(1).normal(size=len(X))
    model = made(**params, **({"categorical_features": [0]} if categorical else {}))
    model = estimators._around(model, X)
    regression = "Regressor" in name
    return model.fit(X, y if regression else (y > 1).astype(int)), "regression" if regression else "binary"


@pytest.mark.parametrize("kind", KINDS)
def test_a_converted_model_says_what_scikit_learn_says(kind: str) -> None:
    model, task = fitted(kind)
    new = rows(seed=9).assign(kind=["w", *rows(seed=9)["kind"][1:]])  # an unseen category, too
    blob, parity = onnx.converted(model, rows(seed=5), task)
    assert blob is not None
    assert parity.on
    assert parity.rows == 4000
    ours = estimators.score(onnx.OnnxModel(model, blob), new, task)
    assert np.abs(ours - estimators.score(model, new, task)).max() <= 1e-5 * (1 if task == "binary" else 10)


def test_native_categories_convert_into_wrong_scores_and_are_refused() -> None:
    model, task = fitted("trees", categorical=True)
    blob, parity = onnx.converted(model, rows(seed=5), task)
    assert blob is None
    assert not parity.on
    assert parity.max_error is not None
    assert parity.max_error > 0.01
    assert "differ from scikit-learn's" in parity.reason


class _Odd:
    """An estimator that no converter knows."""

    classes_ = np.array([0, 1])

    def predict_proba(self, X: pd.DataFrame) -> Any:
        return np.full((len(X), 2), 0.5)


def test_what_cannot_be_converted_is_off_with_the_reason() -> None:
    blob, parity = onnx.converted(_Odd(), rows().drop(columns="kind"), "binary")
    assert blob is None
    assert parity.reason.startswith("it cannot be converted: ")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.5 + 2e-5])
def test_one_score_that_differs_is_too_many(bad: float) -> None:
    theirs = np.full(100, 0.5)
    ours = theirs.copy()
    ours[17] = bad
    assert onnx.judged(b"", ours, theirs, 1.0)[0] is None
    assert onnx.judged(b"", theirs, theirs, 1.0)[0] == b""


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([0.5], [0.5, 0.5])])
def test_nothing_to_compare_is_no_parity(ours: list[float], theirs: list[float]) -> None:
    assert onnx.judged(b"", np.array(ours), np.array(theirs), 1.0)[0] is None


@pytest.mark.parametrize("on", [True, False])
def test_a_bundle_scores_with_what_passed(home: Path, tmp_path: Path, on: bool) -> None:
    model, task = fitted("trees")
    blob, parity = onnx.converted(model, rows(seed=5), task)
    X = rows(50)
    bundle.write_bundle(
        tmp_path / "b",
        model,
        sample=X,
        predictions=model.predict_proba(X),
        task=task,
        documents={"facts": {"cpus": 1, "onnx": {**parity.to_dict(), "on": on}}},
        frames={},
        packages=["sklearn", "onnxruntime"],
        onnx_model=blob if on else None,
    )
    signing.sign(tmp_path / "b")
    found = bundle.Bundle(tmp_path / "b")
    assert isinstance(found.scorer, onnx.OnnxModel) is on
    np.testing.assert_allclose(
        estimators.score(found.scorer, X, task), estimators.score(model, X, task), atol=1e-5 if on else 0
    )
    assert "onnxruntime==" in (tmp_path / "b" / "requirements.txt").read_text()
