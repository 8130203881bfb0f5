"""A candidate's folder: an MLflow model, and beside it (``perennial/``) all that later steps need of it.

Plain files, so that the folder can be signed, copied and opened anywhere: the resolved spec, the plan with its
snapshots, the feature definition, the baseline, the holdout's scores, the drift reference and its thresholds, facts,
what the fitted state comes to, and the model's own ``pipeline.py`` when it has one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial.errors import RegistryError
from perennial.features.builder import FeatureBuilder
from perennial.features.definition import Definition
from perennial.specs import FeedSpec, ModelSpec
from perennial.storage import to_json
from perennial.training import onnx
from perennial.training.estimators import OWN_MODULE
from perennial.trust.lineage import distributions, versions

if TYPE_CHECKING:
    import pandas as pd

FOLDER, SOURCE = "perennial", "source"
#: What a bundle needs to be loaded; versions are pinned to those that made it.
_RUNTIME = ("mlflow-skinny", "scikit-learn", "numpy", "scipy", "pandas", "pyarrow", "skops", "cloudpickle")


@dataclass(frozen=True)
class Bundle:
    """A bundle on local disk."""

    folder: Path

    def document(self, name: str) -> Any:
        """A JSON document of the bundle.

        :raises RegistryError: when it is not there.
        """
        path = self.folder / FOLDER / f"{name}.json"
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            raise RegistryError(
                f"{self.folder.name} is not a bundle of Perennial: it has no {FOLDER}/{name}.json"
            ) from None

    def frame(self, name: str) -> pd.DataFrame:
        """A Parquet table of the bundle."""
        import pandas as pd

        return pd.read_parquet(self.folder / FOLDER / f"{name}.parquet")

    @cached_property
    def spec(self) -> ModelSpec:
        return ModelSpec.stored(self.document("plan")["spec"])

    @cached_property
    def feeds(self) -> dict[str, FeedSpec]:
        return {n: FeedSpec.stored(f) for n, f in self.document("plan")["feeds"].items()}

    @cached_property
    def definition(self) -> Definition:
        """The version's own feature definition."""
        return Definition.from_dict(self.document("plan")["definition"])

    def builder(self, feeds: Mapping[str, FeedSpec]) -> FeatureBuilder:
        """The feature builder of this version: its own definition, over feeds as they are specified now.

        Feeds that the model's present files no longer name are taken from the bundle.
        """
        return FeatureBuilder(self.spec.name, self.definition, {**self.feeds, **feeds})

    @cached_property
    def facts(self) -> dict[str, Any]:
        """``train_end``, ``threshold``, ``columns``, ``seed``, threads, runtime, sizes and the holdout's metric."""
        return dict(self.document("facts"))

    def sources(self) -> dict[str, bytes]:
        """The model's own code by file name; empty when the estimator is an importable class."""
        folder = self.folder / FOLDER / SOURCE
        return {p.name: p.read_bytes() for p in sorted(folder.iterdir())} if folder.is_dir() else {}

    @cached_property
    def model(self) -> Any:
        """The fitted estimator. Loading runs the version's code."""
        import mlflow.sklearn

        return mlflow.sklearn.load_model(str(self.folder))

    @cached_property
    def scorer(self) -> Any:
        """What scores rows: the fitted estimator, or ONNX Runtime in its place when the version passed its parity
        gate. Loading runs the version's code."""
        if not self.facts.get("onnx", {}).get("on"):
            return self.model
        blob = (self.folder / FOLDER / onnx.FILE).read_bytes()
        try:
            return onnx.OnnxModel(self.model, blob, self.facts["cpus"])
        except ImportError as e:
            raise RegistryError(
                f"{self.spec.name}: this version scores with ONNX Runtime, which is not installed here: {e}"
            ) from e


def write_bundle(
    folder: Path,
    model: Any,
    *,
    sample: pd.DataFrame,
    predictions: Any,
    task: str,
    documents: Mapping[str, Any],
    frames: Mapping[str, pd.DataFrame],
    packages: Iterable[str],
    sources: Mapping[str, bytes] | None = None,
    onnx_model: bytes | None = None,
) -> None:
    """Write a bundle to an empty folder.

    :param sample: some rows of the design matrix, for the signature.
    :param predictions: what the model says of them.
    :param documents: JSON documents by name; ``frames``: Parquet tables by name.
    :param packages: top-level packages of the model's classes. ``sources``: its own code, by file name.
    :param onnx_model: the estimator as ONNX, when that scores.
    """
    import mlflow.sklearn
    from mlflow.models import infer_signature

    common: dict[str, Any] = {
        "signature": infer_signature(sample, predictions),
        "pip_requirements": requirements(packages),
        "pyfunc_predict_fn": "predict" if task == "regression" else "predict_proba",
    }
    trusted = _skops_types(model)
    if trusted is None:
        mlflow.sklearn.save_model(model, str(folder), serialization_format="cloudpickle", **common)
    else:
        mlflow.sklearn.save_model(
            model, str(folder), serialization_format="skops", skops_trusted_types=trusted, **common
        )
    own = folder / FOLDER
    own.mkdir()
    for name, value in documents.items():
        (own / f"{name}.json").write_bytes(to_json(value))
    for name, frame in frames.items():
        frame.to_parquet(own / f"{name}.parquet", index=False)
    if onnx_model is not None:
        (own / onnx.FILE).write_bytes(onnx_model)
    if sources:
        (own / SOURCE).mkdir()
        for name, code in sources.items():
            (own / SOURCE / name).write_bytes(code)


def _skops_types(model: Any) -> list[str] | None:
    """Types that skops must be told to trust, or ``None`` when it cannot hold this model (then it is pickled)."""
    import skops.io

    try:
        blob = skops.io.dumps(model)
        types = list(skops.io.get_untrusted_types(data=blob))
        skops.io.loads(blob, trusted=types)
    except Exception:
        return None
    # skops keeps names and no code: what comes from a model's own file could not be loaded anywhere else
    return None if any(str(t).startswith(OWN_MODULE) for t in types) else types


def requirements(packages: Iterable[str]) -> list[str]:
    """Pinned requirements of a bundle (given, because MLflow's own inference takes 13 s)."""
    return [f"{name}=={version}" for name, version in versions([*_RUNTIME, *distributions(packages)]).items()]
