"""A candidate's folder: an MLflow model, and beside it (``perennial/``) all that later steps need of it.

Plain files, so that the folder can be signed, copied and opened anywhere: the resolved spec, the plan with its
snapshots, the feature definition, the baseline, the holdout's scores, the drift reference and its thresholds, facts,
what the fitted state comes to, and the model's own ``pipeline.py`` when it has one.

A bundle is verified when it is opened, and what is read from it later is compared with what was verified: nothing of a
folder that a trusted key has not signed is parsed, unpickled or executed.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from perennial.errors import RefusedError, RegistryError
from perennial.features.builder import FeatureBuilder
from perennial.features.definition import Definition
from perennial.lake.table import Fence, no_fence
from perennial.ledger import Entry, Ledger
from perennial.registry import tracking
from perennial.runs import Actor
from perennial.specs import FeedSpec, ModelSpec
from perennial.storage import to_json
from perennial.training import onnx
from perennial.training.estimators import OWN_MODULE
from perennial.trust import signing
from perennial.trust.lineage import distributions, versions

if TYPE_CHECKING:
    import pandas as pd

FOLDER, SOURCE = "perennial", "source"
#: What a bundle needs to be loaded; versions are pinned to those that made it.
_RUNTIME = ("mlflow-skinny", "scikit-learn", "numpy", "scipy", "pandas", "pyarrow", "skops", "cloudpickle")


class Held(Protocol):
    """What has a bundle: a candidate, a version, an arm."""

    @property
    def run_id(self) -> str: ...

    @property
    def model_id(self) -> str: ...


@dataclass(frozen=True)
class Bundle:
    """A bundle on local disk.

    :raises RefusedError: when it is not what a trusted key has signed; whoever knows the version uses :meth:`open`.
    """

    folder: Path

    @classmethod
    def open(
        cls,
        model: str,
        held: Held,
        *,
        actor: Actor | None = None,
        fence: Fence = no_fence,
        cache: tracking.BundleCache | None = None,
    ) -> Bundle:
        """The verified bundle of a candidate or a version.

        One that is refused is noted in the ledger, and its local copy is put aside, so that the next task downloads it
        anew.

        :param cache: where it is downloaded to; default: the process's.
        :raises RefusedError: when it is not what a trusted key has signed, or the bundle of another run.
        :raises RegistryError: when MLflow does not have it.
        """
        own = cache or tracking.cache_folder()
        folder = own.fetch(held.model_id)
        version = getattr(held, "version", None)
        try:
            bundle = cls(folder)
            bundle._check_identity(model, held)
        except RefusedError as e:
            name = f"{model} version {version}" if version else f"the candidate of MLflow run {held.run_id} of {model}"
            reason = f"{name} is refused: {e}"
            record_refusal(model, version, held, reason, actor, fence)
            if cache is None:
                reason += f"; its local copy was moved to {own.put_aside(held.model_id)}, see docs/trust.md"
            raise RefusedError(reason) from e
        return bundle

    def __post_init__(self) -> None:
        _ = self.signed

    @cached_property
    def signed(self) -> signing.Signed:
        """Who signed it, and the digests of its files."""
        return signing.verify(self.folder)

    def _check_identity(self, model: str, held: Held) -> None:
        """Refuse the good bundle of another model or run, or one that was signed anew, in this one's place."""
        of = (self.document("plan")["spec"]["name"], self.facts.get("mlflow_run"))
        if of != (model, held.run_id):
            raise RefusedError(f"its bundle is that of {of[0]} in MLflow run {of[1]}, not of run {held.run_id}")
        registered = getattr(held, "tags", {}).get(signing.DIGEST_TAG, self.signed.digest)
        if registered != self.signed.digest:
            raise RefusedError(
                f"it was signed anew since it was registered: its digest was {registered[:16]} then, and is "
                f"{self.signed.digest[:16]} now"
            )

    def read(self, name: str) -> bytes:
        """A file of the bundle, as it was verified.

        :raises FileNotFoundError: when there is none.
        """
        path = f"{FOLDER}/{name}"
        if path not in self.signed.files:
            raise FileNotFoundError(path)
        raw = (self.folder / path).read_bytes()
        if hashlib.sha256(raw).hexdigest() != self.signed.files[path]:
            raise RefusedError(f"{self.folder.name} is refused: {path} was changed after it was verified")
        return raw

    def document(self, name: str) -> Any:
        """A JSON document of the bundle.

        :raises RegistryError: when it is not there.
        """
        try:
            return json.loads(self.read(f"{name}.json"))
        except FileNotFoundError:
            raise RegistryError(
                f"{self.folder.name} is not a bundle of Perennial: it has no {FOLDER}/{name}.json"
            ) from None

    def frame(self, name: str) -> pd.DataFrame:
        """A Parquet table of the bundle."""
        import pandas as pd

        return pd.read_parquet(io.BytesIO(self.read(f"{name}.parquet")))

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
        own = f"{FOLDER}/{SOURCE}/"
        names = sorted(n.removeprefix(own) for n in self.signed.files if n.startswith(own))
        return {n: self.read(f"{SOURCE}/{n}") for n in names}

    @cached_property
    def model(self) -> Any:
        """The fitted estimator. Loading runs the version's code, so it is verified once more, directly before.

        :raises RefusedError: when it was changed since it was opened.
        """
        import mlflow.sklearn

        if signing.verify(self.folder).digest != self.signed.digest:
            raise RefusedError(f"{self.folder.name} is refused: it was replaced after it was verified")
        return mlflow.sklearn.load_model(str(self.folder))

    @cached_property
    def scorer(self) -> Any:
        """What scores rows: the fitted estimator, or ONNX Runtime in its place when the version passed its parity
        gate. Loading runs the version's code."""
        if not self.facts.get("onnx", {}).get("on"):
            return self.model
        blob = self.read(onnx.FILE)
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


def record_refusal(model: str, version: str | None, held: Held, reason: str, actor: Actor | None, fence: Fence) -> None:
    """Note in the ledger that a bundle was refused; the same finding of the same act once."""
    what = hashlib.sha256(reason.encode()).hexdigest()[:12]
    act = ("signature", version or held.run_id, what)
    Ledger().append(
        Entry(
            id=actor.entry_id(*act) if actor else "/".join(act),
            event="signature",
            subject=model,
            version=version,
            verdict="refused",
            reason=reason,
            figures={"mlflow_run": held.run_id, "mlflow_model": held.model_id},
            actor=actor.to_dict() if actor else {},
        ),
        fence=fence,
    )


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
