"""From a spec's ``estimator`` to something that can be fitted on our rows.

An importable class gets what it needs around it: ordinal codes for categories where it takes missing values itself
(trees), else imputation, scaling and one-hot columns. A factory ``pipeline.py:build`` in the model's folder gets the
rows as they are and is left alone.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from perennial.errors import DataError, SpecError
from perennial.specs import ModelSpec

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

#: How modules are named that were loaded from a model's own file.
OWN_MODULE = "perennial_model_"


def resolve(kind: str, folder: Path) -> Any:
    """The class, or the factory function, that ``estimator.type`` names.

    :raises SpecError: when it is not there.
    """
    if ".py:" in kind:
        file, _, function = kind.partition(":")
        found = getattr(_load(folder / file), function, None)
        if not callable(found):
            raise SpecError(f"estimator {kind}: {folder / file} has no function {function!r}")
        return found
    module, _, name = kind.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as e:
        raise SpecError(f"estimator {kind} cannot be imported: {e}") from e


def _load(path: Path) -> ModuleType:
    """Import a model's own file under a name of its own; pickles carry it by value, so a version needs no file."""
    import importlib.util

    import cloudpickle

    name = f"{OWN_MODULE}{path.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SpecError(f"{path} is not there")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        lines = [f.lineno for f in traceback.extract_tb(e.__traceback__) if f.filename == str(path)]
        line = e.lineno if isinstance(e, SyntaxError) else next(reversed(lines), 1)
        raise SpecError(f"{path}:{line}: {type(e).__name__}: {e}") from e
    cloudpickle.register_pickle_by_value(module)
    return module


def make(spec: ModelSpec, folder: Path, X: pd.DataFrame, seed: int, params: Mapping[str, Any] | None = None) -> Any:
    """A fresh, unfitted estimator for rows like ``X``.

    :param params: on top of the spec's own (a trial of a search).
    :raises SpecError: when the parameters do not fit.
    """
    factory = resolve(spec.estimator.type, folder)
    given = {**spec.estimator.params, **(params or {})}
    try:
        estimator = factory(**given)
    except TypeError as e:
        raise SpecError(f"{spec.name}: estimator {spec.estimator.type}: {e}") from e
    if not all(callable(getattr(estimator, method, None)) for method in ("fit", "predict", "get_params")):
        raise SpecError(
            f"{spec.name}: estimator {spec.estimator.type} gives {type(estimator).__name__}, which is no scikit-learn "
            "estimator: it needs fit, predict and get_params"
        )
    own = ".py:" in spec.estimator.type
    model = _settled(estimator, seed, None if own else spec.compute.cpus)
    if not own:
        model = _around(model, X)
    if spec.task.type != "regression" and not hasattr(model, "predict_proba"):
        raise SpecError(
            f"{spec.name}: {spec.estimator.type} gives no probabilities; wrap it in CalibratedClassifierCV, in a "
            "pipeline.py:build"
        )
    return model


def _settled(estimator: Any, seed: int, cpus: int | None) -> Any:
    """Seed what has no seed; and where an unset ``n_jobs`` means all cores (LightGBM, XGBoost), give it ours."""
    parameters = estimator.get_params()
    names = [n for n in parameters if n == "random_state" or n.endswith("__random_state")]
    settled: dict[str, Any] = {n: seed for n in names if parameters[n] is None}
    greedy = not type(estimator).__module__.startswith("sklearn.")
    if cpus is not None and greedy and parameters.get("n_jobs", cpus) is None:
        settled["n_jobs"] = cpus
    return estimator.set_params(**settled) if settled else estimator


@contextmanager
def threads(spec: ModelSpec, folder: Path) -> Iterator[dict[str, int]]:
    """Give native code ``compute.cpus`` threads, and say how many each kind has: ``openmp``, ``blas``.

    The estimator's libraries are loaded first: a limit reaches only what is there.
    """
    import sklearn.ensemble  # noqa: F401 - its OpenMP
    from threadpoolctl import threadpool_info, threadpool_limits

    resolve(spec.estimator.type, folder)
    with threadpool_limits(limits=spec.compute.cpus):
        found: dict[str, int] = {}
        for library in threadpool_info():
            kind = library["user_api"]
            found[kind] = max(found.get(kind, 0), library["num_threads"])
        yield found


def fit(spec: ModelSpec, model: Any, X: pd.DataFrame, y: NDArray[np.float64]) -> Any:
    """Fit on labelled rows.

    :raises SpecError: when scikit-learn refuses a parameter. :raises DataError: when it refuses the rows.
    """
    try:
        return model.fit(X, y if spec.task.type == "regression" else y.astype(np.int64))
    except ValueError as e:
        if type(e).__name__ != "InvalidParameterError":  # scikit-learn keeps the class to itself
            first = (str(e).splitlines() or [""])[0]
            raise DataError(f"{spec.name}: estimator {spec.estimator.type} refuses the rows: {first}") from e
        raise SpecError(f"{spec.name}: estimator {spec.estimator.type}: {e}") from e


def takes_missing(estimator: Any) -> bool:
    """Whether the estimator takes NaN by itself, as histogram trees do."""
    from sklearn.utils import get_tags

    return bool(get_tags(estimator).input_tags.allow_nan)


def _around(estimator: Any, X: pd.DataFrame) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    text = [c for c in X.columns if X[c].dtype.kind not in "fiub"]
    numbers = [c for c in X.columns if c not in text]
    if takes_missing(estimator):
        codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
        columns = ColumnTransformer([("text", codes, text), ("numbers", "passthrough", numbers)])
    else:
        columns = ColumnTransformer(
            [
                (
                    "text",
                    OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=20, sparse_output=False),
                    text,
                ),
                ("numbers", make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), numbers),
            ]
        )
    columns.set_output(transform="default")
    return Pipeline([("columns", columns), ("model", estimator)])


def score(model: Any, X: pd.DataFrame, task: str) -> NDArray[np.float64]:
    """What the model says: the probability of the positive class, or the predicted value.

    Multiclass: a row's probabilities of all classes, in the order of their numbers.
    """
    if task == "regression":
        return np.asarray(model.predict(X), dtype=np.float64)
    classes = list(model.classes_)
    if task == "multiclass":
        order = [classes.index(k) for k in range(len(classes))]
        return np.asarray(model.predict_proba(X)[:, order], dtype=np.float64)
    return np.asarray(model.predict_proba(X)[:, classes.index(1)], dtype=np.float64)
