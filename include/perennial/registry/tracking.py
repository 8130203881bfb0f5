"""MLflow runs and bundles. A retried task finds the run and the bundle of its first try, and adds none."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from perennial.claims import claimed
from perennial.errors import RegistryError
from perennial.lake.table import Fence, Snapshot, no_fence
from perennial.registry.once import once
from perennial.runs import Actor
from perennial.settings import settings

RUN_TAG, INPUTS_TAG, MODEL_TAG = "perennial.run", "perennial.inputs", "perennial.model_id"

#: What MLflow says of something that it does not have; anything else may be an outage, and is worth a retry.
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@cache
def client() -> Any:
    """The MLflow client of this process."""
    import mlflow

    mlflow.set_tracking_uri(settings().mlflow)
    return mlflow.MlflowClient(tracking_uri=settings().mlflow, registry_uri=settings().mlflow)


def run_of(model: str, actor: Actor, inputs: str = "", fence: Fence = no_fence) -> str:
    """The MLflow run of this DAG run on these inputs: found again, or created.

    :param inputs: digest of everything that decides the outcome. A DAG run that was cleared after its data or its spec
        changed gets another MLflow run; the first one keeps saying what it was.
    :returns: the run's id.
    """
    c = client()
    experiment_id = _experiment(model)
    name = f"{actor.dag_id}/{actor.run_id}"
    same = f"tags.`{RUN_TAG}` = '{name}'" + (f" AND tags.`{INPUTS_TAG}` = '{inputs}'" if inputs else "")
    tags = {RUN_TAG: name, "perennial.model": model, "mlflow.source.type": "JOB", "mlflow.source.name": actor.dag_id}
    if inputs:
        tags[INPUTS_TAG] = inputs

    def find() -> Any:
        found = c.search_runs([experiment_id], filter_string=same, max_results=1)
        fence()
        return next(iter(found), None)

    run = once(find, lambda: c.create_run(experiment_id, run_name=actor.run_id[:200], tags=tags))
    return str(run.info.run_id)


def _experiment(model: str) -> str:
    from mlflow.exceptions import MlflowException

    c = client()
    experiment = c.get_experiment_by_name(model)
    if experiment is None:
        try:
            return str(c.create_experiment(model))
        except MlflowException as e:
            if e.error_code != "RESOURCE_ALREADY_EXISTS":  # somebody was faster
                raise
            experiment = c.get_experiment_by_name(model)
    if experiment.lifecycle_stage != "active":
        raise RegistryError(f"MLflow's experiment {model!r} was deleted: restore it (mlflow experiments restore)")
    return str(experiment.experiment_id)


def bundle_of(run_id: str) -> str | None:
    """Id of the logged model of a run, once it is whole."""
    value = client().get_run(run_id).data.tags.get(MODEL_TAG)
    return None if value is None else str(value)


def log_bundle(
    run_id: str,
    folder: Path,
    *,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    snapshots: Mapping[str, Snapshot],
    fence: Fence = no_fence,
) -> str:
    """Log a candidate's folder to its run, with parameters, metrics, lineage tags and data sets.

    :returns: the id of the logged model. The run is tagged with it last, so a half-logged one is never found.
    """
    from mlflow.entities import Metric, Param, RunTag

    c = client()
    run = c.get_run(run_id)
    logged = once(
        lambda: _whole_model(run, fence),
        lambda: c.create_logged_model(
            run.info.experiment_id, name="model", source_run_id=run_id, model_type="perennial"
        ),
    )
    if str(logged.status) != "READY":
        c.log_model_artifacts(logged.model_id, str(folder))
        fence()
        c.finalize_logged_model(logged.model_id, "READY")
    _inputs(run_id, snapshots)
    import time

    now = int(time.time() * 1000)
    have, known = run.data.params, run.data.metrics
    c.log_batch(
        run_id,
        metrics=[Metric(k, float(v), now, 0) for k, v in metrics.items() if v == v and k not in known],
        params=[Param(k, str(v)[:6000]) for k, v in params.items() if k not in have],
        tags=[RunTag(k, v) for k, v in tags.items()],
    )
    fence()
    c.set_tag(run_id, MODEL_TAG, logged.model_id)
    return str(logged.model_id)


def _whole_model(run: Any, fence: Fence) -> Any:
    """What an earlier try of the same run logged as a whole; what it left half done is removed."""
    c = client()
    same = f"source_run_id = '{run.info.run_id}'"
    found = c.search_logged_models([run.info.experiment_id], filter_string=same)
    fence()
    for logged in found:
        if str(logged.status) != "READY":
            c.delete_logged_model(logged.model_id)
    return next((m for m in found if str(m.status) == "READY"), None)


def _inputs(run_id: str, snapshots: Mapping[str, Snapshot]) -> None:
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag

    inputs = []
    for name, snapshot in snapshots.items():
        dataset = MetaDataset(resolve_dataset_source(snapshot.uri), name=name, digest=snapshot.sha256[:36])
        tags = {
            "delta_version": str(snapshot.version),
            "sha256": snapshot.sha256,
            "rows": str(snapshot.rows),
            "predicate": snapshot.predicate[:500],
        }
        inputs.append(DatasetInput(dataset._to_mlflow_entity(), [InputTag(k, v) for k, v in tags.items()]))
    client().log_inputs(run_id, inputs)


def finish(run_id: str, status: str = "FINISHED", tags: Mapping[str, str] | None = None) -> None:
    """Close a run, with what was decided as tags."""
    c = client()
    for k, v in (tags or {}).items():
        c.set_tag(run_id, k, v[:5000])
    c.set_terminated(run_id, status=status)


@dataclass(frozen=True)
class BundleCache:
    """Bundles on local disk, by logged model; a bundle never changes, so one download serves every task.

    What lies here is not believed: whoever opens a bundle verifies it.
    """

    root: Path

    def fetch(self, model_id: str) -> Path:
        """The folder of a logged model, downloaded once.

        :raises RegistryError: when MLflow does not have it.
        """
        import mlflow
        from mlflow.exceptions import MlflowException

        target = self.root / model_id
        if target.is_dir():
            return target
        client()
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        with claimed(self.root / f".{model_id}.partial", folder=True) as partial:
            if target.is_dir():
                return target  # another task was faster, and this one has waited for it
            try:
                mlflow.artifacts.download_artifacts(f"models:/{model_id}", dst_path=str(partial))
            except MlflowException as e:
                if e.error_code not in ABSENT:
                    raise
                raise RegistryError(f"MLflow at {settings().mlflow} has no bundle {model_id}: {sentence(e)}") from e
            partial.rename(target)
        return target

    def put_aside(self, model_id: str) -> Path:
        """Take a bundle that was refused out of the way, and keep it for whoever looks into it."""
        kept = self.root / "refused" / model_id
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(kept, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):  # another task was faster
            (self.root / model_id).rename(kept)
        return kept


@contextlib.contextmanager
def reached() -> Iterator[None]:
    """For people who wait: an MLflow that does not answer is one sentence.

    :raises RegistryError: saying where it was looked for.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as e:
        raise RegistryError(f"MLflow at {settings().mlflow} does not answer: {sentence(e)}") from e


def sentence(error: Exception) -> str:
    """The first line of what a library says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def cache_folder() -> BundleCache:
    """The process's bundle cache, under ``$PERENNIAL_HOME/cache``."""
    return BundleCache(settings().home / "cache" / "bundles")


def run_url(run_id: str) -> str:
    """Where a run can be looked at."""
    experiment = client().get_run(run_id).info.experiment_id
    return f"{settings().mlflow}/#/experiments/{experiment}/runs/{run_id}"
