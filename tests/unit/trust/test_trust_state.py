"""The digest of a fitted state: the same for the same fit in any process, another for another fit."""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import lightgbm
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import skops.io
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

from perennial.trust.state import differing, fitted_state

pytestmark = pytest.mark.fast

MODELS: dict[str, Callable[[], Any]] = {
    "boosting": lambda: HistGradientBoostingClassifier(max_iter=8, random_state=7),
    "categories": lambda: HistGradientBoostingClassifier(max_iter=8, random_state=7, categorical_features=[0]),
    "sampled": lambda: HistGradientBoostingClassifier(
        max_iter=8, random_state=7, max_features=0.5, early_stopping=True
    ),
    "regression": lambda: HistGradientBoostingRegressor(max_iter=8, random_state=7, loss="absolute_error"),
    "forest": lambda: RandomForestClassifier(5, random_state=7),
    "linear": lambda: LogisticRegression(C=0.5),
    "network": lambda: MLPClassifier((4,), max_iter=5, random_state=7),
    "neighbours": lambda: KNeighborsClassifier(),
    "grid": lambda: GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}),
    "lightgbm": lambda: lightgbm.LGBMClassifier(n_estimators=8, random_state=7, verbose=-1, n_jobs=1),
    "xgboost": lambda: xgboost.XGBClassifier(n_estimators=8, random_state=7, n_jobs=1),
}


def data() -> tuple[pd.DataFrame, Any]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"carrier": rng.choice(["AA", "B6", "UA"], 400).astype(object), "temp": rng.normal(size=400)})
    return X, ((X["temp"] + (X["carrier"] == "AA") + rng.normal(size=400)) > 0.5).to_numpy().astype(np.int64)


def fitted(make: Callable[[], Any]) -> Any:
    columns = ColumnTransformer([("text", OrdinalEncoder(), ["carrier"]), ("numbers", StandardScaler(), ["temp"])])
    return Pipeline([("columns", columns), ("model", make())]).fit(*data())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_the_same_fit_has_the_same_digest_and_another_seed_or_row_has_not(name: str) -> None:
    one, other = fitted(MODELS[name]), fitted(MODELS[name])
    found = fitted_state(one)
    assert found == fitted_state(other) and len(found.sha256) == 64
    assert fitted_state(cloudpickle.loads(cloudpickle.dumps(one))) == found
    X, y = data()
    another = other.fit(X[1:], y[1:])
    assert fitted_state(another).sha256 != found.sha256
    assert differing(found.parts, fitted_state(another).parts)


@pytest.mark.filterwarnings("ignore")
def test_the_digest_is_the_same_in_another_process() -> None:
    names = list(MODELS)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import warnings; warnings.simplefilter('ignore')\n"
        "from test_trust_state import MODELS, fitted, fitted_state\n"
        "print('\\n'.join(fitted_state(fitted(m)).sha256 for m in MODELS.values()))"
    )
    run = [sys.executable, "-c", code, str(Path(__file__).parent)]
    for seed in ("1", "2"):  # of Python's string hashes: sets come in another order
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(run, capture_output=True, text=True, check=True, env=env)
        assert dict(zip(names, done.stdout.split(), strict=True)) == {
            n: fitted_state(fitted(m)).sha256 for n, m in MODELS.items()
        }


def test_a_file_s_bytes_are_no_part_of_it() -> None:
    """skops writes other bytes every time; what it gives back has the state that was put in."""
    model = fitted(MODELS["boosting"])
    blobs = [skops.io.dumps(model) for _ in range(2)]
    assert blobs[0] != blobs[1]
    back = skops.io.loads(blobs[0], trusted=skops.io.get_untrusted_types(data=blobs[0]))
    assert fitted_state(back) == fitted_state(model)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda m: m["model"]._predictors[3][0].nodes["value"].__setitem__(0, 9.0), "[1]._predictors[3][0].nodes"),
        (lambda m: m["columns"].transformers_[1][1].mean_.__setitem__(0, 9.0), ".mean_"),
        (lambda m: m["model"].__setattr__("l2_regularization", 1.0), "[1].l2_regularization"),
    ],
)  # fmt: skip
def test_where_two_states_differ(change: Callable[[Any], None], part: str) -> None:
    model = fitted(MODELS["boosting"])
    changed = copy.deepcopy(model)
    change(changed)
    one, other = fitted_state(model), fitted_state(changed)
    assert one.sha256 != other.sha256
    (found,) = differing(one.parts, other.parts)
    assert found.endswith(part)


def test_circumstances_are_no_part_of_it() -> None:
    one, other = (RandomForestClassifier(5, random_state=7, n_jobs=n, verbose=v) for n, v in ((1, 0), (2, 0)))
    X, y = data()
    assert fitted_state(one.fit(X[["temp"]], y)).sha256 == fitted_state(other.fit(X[["temp"]], y)).sha256


def test_packages_are_those_of_the_classes() -> None:
    assert fitted_state(fitted(MODELS["linear"])).packages == ("sklearn",)
    assert {"lightgbm", "sklearn"} <= set(fitted_state(fitted(MODELS["lightgbm"])).packages)


class Box:
    """Anything, with attributes."""

    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)


def sha(value: Any) -> str:
    return fitted_state(value).sha256


def test_values_that_say_the_same() -> None:
    array = np.arange(6.0)
    assert sha({"a": 1, "b": 2}) == sha({"b": 2, "a": 1}) and sha({3, 1, 2}) == sha({2, 3, 1})
    assert sha(np.float64(0.1)) == sha(0.1) and sha(np.int32(3)) == sha(3)
    assert sha(array.reshape(2, 3)) == sha(np.asfortranarray(array.reshape(2, 3)))
    assert sha(array) == sha(array.astype(">f8"))
    assert sha(np.array([np.nan])) == sha(np.array([-np.nan]))
    assert sha(np.random.default_rng(3)) == sha(np.random.default_rng(3))
    matrix = scipy.sparse.coo_matrix(([1.0, 2.0, 3.0], ([0, 1, 1], [1, 0, 0])))
    assert sha(matrix) == sha(matrix.tocsr())
    padded = np.zeros(3, dtype=np.dtype([("flag", "u1"), ("value", "f8")], align=True))
    dirty = padded.copy()
    dirty.view(np.uint8).reshape(3, -1)[:, 3] = 255  # between the fields
    assert sha(padded) == sha(dirty)
    times = {"mean_fit_time": np.array([0.3]), "params": [1]}
    assert sha(times) == sha({**times, "mean_fit_time": np.array([0.4])})


def test_values_that_do_not() -> None:
    same = [
        1, 1.5, True, "1", b"1", None, [1], (1,), {1},
        {"a": 1}, {"a": 2}, {"b": 1}, [1, 2], [2, 1], [[1], [2]], [[1], 2],
        np.array([1.0]), np.array([1.0], np.float32), np.array([[1.0]]), np.array([1]), np.array(["1"], object),
        np.random.default_rng(3), np.random.default_rng(4), np.random.RandomState(3), np.random.RandomState(4),
        pd.Series([1.0]), pd.Series([1.0], name="a"), pd.DataFrame({"a": [1.0]}), pd.DataFrame({"b": [1.0]}),
        scipy.sparse.csr_matrix([[1.0]]), np.ma.array([1.0, 2.0], mask=[0, 1]), np.ma.array([1.0, 2.0], mask=[1, 0]),
        Box(a=1), Box(a=2), Box(b=1), Box(), Box, len, np.exp, np.log, lambda x: x, lambda x: x + 1, lambda x: x + 2,
    ]  # fmt: skip
    assert len({sha(v) for v in same}) == len(same)


def test_what_refers_to_itself_and_what_has_no_state() -> None:
    def ring(value: int) -> Box:
        box = Box(value=value)
        box.inner = Box(back=box)
        return box

    assert sha(ring(1)) == sha(ring(1)) != sha(ring(2))
    with pytest.raises(TypeError, match="cannot pickle"):
        fitted_state(Box(lock=threading.Lock()))
    with pytest.raises(TypeError, match="cannot pickle"):
        fitted_state(Box(file=io.TextIOWrapper(io.BytesIO())))
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(TypeError, match="list is nested too deeply"):
        fitted_state(deep)


def test_many_parts_are_told_apart_at_a_coarser_level() -> None:
    wide = {f"k{i}": Box(a=i, b=[[i], i]) for i in range(400)}
    found = fitted_state(wide).parts
    assert len(found) == 400 and "[k7]" in found
    narrow = fitted_state({"a": [Box(b=1), 2]}).parts
    assert list(narrow) == ["[a][0].b", "[a][1]"]
