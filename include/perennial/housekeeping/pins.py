"""What must stay: the Delta versions that registered models, and runs that are not over yet, were made from.

Read from MLflow's data set inputs (or the bundle, where those are not there) and from the runs' own documents. When
MLflow cannot say it this raises, and then nothing at all may be removed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from perennial.errors import RegistryError
from perennial.housekeeping.places import name_of
from perennial.registry import tracking
from perennial.registry.tracking import MODEL_TAG, RUN_TAG
from perennial.runs import Actor, RunState
from perennial.settings import settings
from perennial.storage import open_store

_PAGE = 500


@dataclass(frozen=True)
class Pins:
    """What registered versions and open runs need.

    :param versions: Delta versions by table, such as ``feeds/arrivals``.
    :param bundles: ids of logged models. ``mlflow_runs``: ids of runs. ``runs``: names of run folders in the state.
    """

    versions: Mapping[str, frozenset[int]]
    bundles: frozenset[str]
    mlflow_runs: frozenset[str]
    runs: frozenset[str]

    def of(self, table: str) -> list[int]:
        """The versions of a table that must stay readable."""
        return sorted(self.versions.get(table, ()))

    def to_dict(self) -> dict[str, Any]:
        return {
            "versions": {k: sorted(v) for k, v in sorted(self.versions.items())},
            "bundles": sorted(self.bundles),
            "mlflow_runs": sorted(self.mlflow_runs),
            "runs": sorted(self.runs),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Pins:
        return cls(
            {k: frozenset(v) for k, v in value["versions"].items()},
            frozenset(value["bundles"]),
            frozenset(value["mlflow_runs"]),
            frozenset(value["runs"]),
        )


def find_pins() -> Pins:
    """Ask MLflow and the runs' documents. Whatever MLflow raises is passed on.

    :raises RegistryError: when MLflow does not say what a version of ours was made from.
    """
    versions: dict[str, set[int]] = defaultdict(set)
    bundles: set[str] = set()
    mlflow_runs: set[str] = set()
    runs: set[str] = set()
    for raw in _registered():
        run = _run(raw.run_id)
        name = run.data.tags.get(RUN_TAG) if run is not None else None
        if run is None or name is None:
            continue  # not one of ours
        model_id = raw.model_id or run.data.tags.get(MODEL_TAG) or str(raw.source).removeprefix("models:/")
        bundles.add(model_id)
        mlflow_runs.add(raw.run_id)
        dag_id, _, run_id = name.partition("/")
        runs.add(RunState(Actor(dag_id, run_id)).name)
        named = list(_from_inputs(run)) or list(_from_bundle(model_id))
        if not named:
            raise RegistryError(
                f"MLflow does not say which data version {raw.version} of {raw.name} was trained on, so nothing can be "
                "removed safely: delete that version, or log its data sets"
            )
        for table, version in named:
            versions[table].add(version)
    for table, version in _from_runs():
        versions[table].add(version)
    return Pins(
        {k: frozenset(v) for k, v in versions.items()}, frozenset(bundles), frozenset(mlflow_runs), frozenset(runs)
    )


def _registered() -> Iterator[Any]:
    """Every registered version of every model. An outage is raised as it is: it is worth a retry."""
    token: str | None = None
    while True:
        page = tracking.client().search_model_versions(max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _run(run_id: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return tracking.client().get_run(run_id) if run_id else None
    except MlflowException as e:
        if e.error_code in tracking.ABSENT:
            return None
        raise


def _from_inputs(run: Any) -> Iterator[tuple[str, int]]:
    for used in run.inputs.dataset_inputs if run.inputs else ():
        tags = {t.key: t.value for t in used.tags}
        table = name_of(str(json.loads(used.dataset.source).get("uri", "")))
        if table is not None and "delta_version" in tags:
            yield table, int(tags["delta_version"])


def _from_bundle(model_id: str) -> Iterator[tuple[str, int]]:
    path = tracking.cache_folder().fetch(model_id) / "perennial" / "snapshots.json"
    if path.exists():
        yield from _from_snapshots(json.loads(path.read_bytes()))


def _from_runs() -> Iterator[tuple[str, int]]:
    """Snapshots of runs whose documents are still there: a candidate may be on its way to becoming a version."""
    state = open_store(settings().state)
    for name in state.folders("runs"):
        try:
            yield from _from_snapshots(json.loads(state.get(f"runs/{name}/snapshots.json")))
        except KeyError:
            continue


def _from_snapshots(groups: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, int]]:
    for group in groups.values():
        for snapshot in group.values():
            table = name_of(snapshot["uri"])
            if table is not None:
                yield table, int(snapshot["version"])
