"""From a spec's ``estimator`` to something that fits our rows, scores new ones, and travels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perennial.errors import SpecError
from perennial.specs import ModelSpec
from perennial.specs.loader import load_specs
from perennial.training import estimators

pytestmark = pytest.mark.fast

CLASSES = {
    "sklearn.ensemble.HistGradientBoostingClassifier": {"max_iter": 10},
    "sklearn.ensemble.RandomForestClassifier": {"n_estimators": 10},
    "sklearn.linear_model.LogisticRegression": {},
    "lightgbm.LGBMClassifier": {"n_estimators": 10, "verbose": -1, "subsample": 0.5, "subsample_freq": 1},
    "xgboost.XGBClassifier": {"n_estimators": 10, "subsample": 0.5},
}
REGRESSORS = {
    "sklearn.ensemble.HistGradientBoostingRegressor": {"max_iter": 10},
    "sklearn.linear_model.Ridge": {},
    "lightgbm.LGBMRegressor": {"n_estimators": 10, "verbose": -1},
    "xgboost.XGBRegressor": {"n_estimators": 10},
}


def spec(home: Path, kind: str, params: dict[str, Any] | None = None, task: str = "binary") -> ModelSpec:
    found = load_specs(only="flight_delay").model("flight_delay")
    changes = {
        "estimator": found.estimator.model_copy(update={"type": kind, "params": params or {}}),
        "task": found.task.model_copy(update={"type": task}),
    }
    return found.model_copy(update=changes)


@pytest.fixture
def X() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    temp = rng.normal(size=400)
    temp[::7] = np.nan
    carrier = rng.choice(["AA", "B6", "<missing>"], 400)
    return pd.DataFrame({"carrier": carrier.astype(object), "temp": temp, "hour": rng.integers(0, 24, 400) * 1.0})


@pytest.fixture
def y(X: pd.DataFrame) -> Any:
    noise = np.random.default_rng(1).normal(size=len(X))
    return ((X["hour"].to_numpy() / 12 + (X["carrier"] == "AA") + noise) > 1.5).astype(np.float64)


@pytest.mark.parametrize("kind", CLASSES)
def test_classifiers_take_categories_gaps_and_what_they_never_saw(
    home: Path, X: pd.DataFrame, y: Any, kind: str
) -> None:
    asked = spec(home, kind, CLASSES[kind])
    model = estimators.fit(asked, estimators.make(asked, home, X, 7), X, y)
    new = X.head(20).copy()
    new.loc[0:9, "carrier"] = "ZZ"
    new["temp"] = np.nan
    new.loc[5, "hour"] = np.nan
    found = estimators.score(model, new, "binary")
    assert found.shape == (20,) and np.isfinite(found).all() and ((found >= 0) & (found <= 1)).all()
    whole = estimators.score(model, X, "binary")
    assert np.corrcoef(whole, y)[0, 1] > 0.2


@pytest.mark.parametrize("kind", REGRESSORS)
def test_regressors_too(home: Path, X: pd.DataFrame, kind: str) -> None:
    asked = spec(home, kind, REGRESSORS[kind], "regression")
    target = X["hour"].to_numpy() * 2
    model = estimators.fit(asked, estimators.make(asked, home, X, 7), X, target)
    found = estimators.score(model, X.assign(carrier="ZZ"), "regression")
    assert np.isfinite(found).all() and np.corrcoef(found, target)[0, 1] > 0.5


@pytest.mark.parametrize("kind", CLASSES)
def test_the_same_seed_gives_the_same_predictions(home: Path, X: pd.DataFrame, y: Any, kind: str) -> None:
    asked = spec(home, kind, CLASSES[kind])

    def predicted(seed: int) -> Any:
        return estimators.score(estimators.fit(asked, estimators.make(asked, home, X, seed), X, y), X, "binary")

    assert np.array_equal(predicted(7), predicted(7))
    if "Forest" in kind or "XGB" in kind:
        assert not np.array_equal(predicted(7), predicted(8)), "the seed must reach the estimator"


def test_a_seed_of_the_spec_s_own_is_kept(home: Path, X: pd.DataFrame) -> None:
    asked = spec(home, "sklearn.ensemble.RandomForestClassifier", {"random_state": 3})
    assert estimators.make(asked, home, X, 7).get_params()["model__random_state"] == 3


def test_who_would_take_all_cores_gets_those_of_the_spec(home: Path, X: pd.DataFrame) -> None:
    for kind in ("lightgbm.LGBMClassifier", "xgboost.XGBClassifier"):
        assert estimators.make(spec(home, kind), home, X, 7).get_params()["model__n_jobs"] == 1
        assert estimators.make(spec(home, kind, {"n_jobs": 3}), home, X, 7).get_params()["model__n_jobs"] == 3


def test_trees_keep_gaps_and_linear_models_get_them_filled(home: Path, X: pd.DataFrame) -> None:
    trees = estimators.make(spec(home, "sklearn.ensemble.HistGradientBoostingClassifier"), home, X, 7)
    linear = estimators.make(spec(home, "sklearn.linear_model.LogisticRegression"), home, X, 7)
    assert np.isnan(trees.named_steps["columns"].fit_transform(X)).any()
    filled = linear.named_steps["columns"].fit_transform(X)
    assert np.isfinite(filled).all() and filled.shape[1] == 3 + 2 + 1, "three carriers, two numbers, one indicator"


@pytest.mark.parametrize(
    ("kind", "params", "says"),
    [
        ("sklearn.ensemble.HistGradientBosting", {}, "cannot be imported"),
        ("nowhere.Model", {}, "cannot be imported: No module named 'nowhere'"),
        ("sklearn.linear_model.LogisticRegression", {"maxiter": 3}, "unexpected keyword argument 'maxiter'"),
        (
            "sklearn.svm.LinearSVC",
            {},
            "sklearn.svm.LinearSVC gives no probabilities; wrap it in CalibratedClassifierCV",
        ),
        ("collections.OrderedDict", {}, "gives OrderedDict, which is no scikit-learn estimator"),
        ("pipeline.py:build", {}, "is not there"),
    ],
)
def test_what_cannot_be_is_a_sentence(
    home: Path, X: pd.DataFrame, kind: str, params: dict[str, Any], says: str
) -> None:
    with pytest.raises(SpecError, match=says):
        estimators.make(spec(home, kind, params), home, X, 7)


def test_a_value_that_scikit_learn_refuses_is_a_sentence(home: Path, X: pd.DataFrame, y: Any) -> None:
    asked = spec(home, "sklearn.linear_model.LogisticRegression", {"C": -1.0})
    with pytest.raises(SpecError, match=r"estimator sklearn\.linear_model\.LogisticRegression: The 'C' param"):
        estimators.fit(asked, estimators.make(asked, home, X, 7), X, y)


PIPELINE = """
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline

class Hours(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.mean_ = float(np.nanmean(X["hour"]))
        return self
    def transform(self, X):
        return np.column_stack([X["hour"].fillna(self.mean_), helper(X["carrier"])])

def helper(column):
    return (column == "AA").astype(float)

def build(trees=5):
    return make_pipeline(Hours(), RandomForestClassifier(n_estimators=trees))
"""


def test_a_factory_of_the_model_s_own(home: Path, tmp_path: Path, X: pd.DataFrame, y: Any) -> None:
    folder = tmp_path / "flight_delay"
    folder.mkdir()
    (folder / "pipeline.py").write_text(PIPELINE)
    asked = spec(home, "pipeline.py:build", {"trees": 8})
    model = estimators.make(asked, folder, X, 7)
    assert model.get_params()["randomforestclassifier__random_state"] == 7
    assert model.get_params()["randomforestclassifier__n_estimators"] == 8
    fitted = estimators.fit(asked, model, X, y)
    assert np.isfinite(estimators.score(fitted, X, "binary")).all()
    with pytest.raises(SpecError, match="has no function 'other'"):
        estimators.make(spec(home, "pipeline.py:other"), folder, X, 7)
    (folder / "pipeline.py").write_text("import nowhere\n")
    with pytest.raises(SpecError, match=r"pipeline\.py:1: ModuleNotFoundError: No module named 'nowhere'"):
        estimators.make(asked, folder, X, 7)


def test_a_fit_has_the_threads_that_its_spec_grants_in_any_process(home: Path) -> None:
    """Also where scikit-learn was not imported yet, and the environment says one."""
    code = (
        "from pathlib import Path; from perennial.specs.loader import load_specs\n"
        "from perennial.training.estimators import threads\n"
        "spec = load_specs(only='flight_delay').model('flight_delay')\n"
        "spec = spec.model_copy(update={'compute': spec.compute.model_copy(update={'cpus': 2})})\n"
        "with threads(spec, Path()) as found:\n"
        "    from sklearn.utils._openmp_helpers import _openmp_effective_n_threads as effective\n"
        "    print(found['openmp'], found['blas'], effective())"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert done.stdout.split() == ["2", "2", "2"], done.stderr[-2000:]


def test_a_bundle_of_the_model_s_own_code_needs_no_file(home: Path, tmp_path: Path, X: pd.DataFrame, y: Any) -> None:
    """It is loaded in another process, where the model's folder is gone."""
    from perennial.training.bundle import write_bundle
    from perennial.trust import signing

    folder = tmp_path / "flight_delay"
    folder.mkdir()
    (folder / "pipeline.py").write_text(PIPELINE)
    asked = spec(home, "pipeline.py:build")
    model = estimators.fit(asked, estimators.make(asked, folder, X, 7), X, y)
    bundle = tmp_path / "bundle"
    write_bundle(
        bundle, model, sample=X.head(5), predictions=model.predict_proba(X.head(5)), task="binary", documents={},
        frames={}, packages=["sklearn"],
    )  # fmt: skip
    signing.sign(bundle)
    (folder / "pipeline.py").unlink()
    X.to_parquet(tmp_path / "x.parquet")
    code = (
        "import sys, pandas as pd; from pathlib import Path; from perennial.training.bundle import Bundle\n"
        "from perennial.training.estimators import score\n"
        "model = Bundle(Path(sys.argv[1]) / 'bundle').model\n"
        "print(score(model, pd.read_parquet(sys.argv[1] + '/x.parquet'), 'binary').sum())"
    )
    run = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) == pytest.approx(estimators.score(model, X, "binary").sum())
