"""Retrain a version from what is on record, and say whether the same model comes out.

Everything comes from the version itself: its bundle's plan, snapshots and code. Today's spec files play no part.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.errors import DataError, RegistryError
from perennial.lake.homes import feed_table
from perennial.lake.table import PartitionedTable, Snapshot
from perennial.registry import tracking, versions
from perennial.settings import settings
from perennial.storage import join, to_json
from perennial.training.bundle import Bundle
from perennial.training.classes import scores_of
from perennial.training.fit import STATE_TAG
from perennial.training.plan import TrainingPlan
from perennial.training.refit import SAID
from perennial.trust.lineage import code_identity
from perennial.trust.state import differing

UNKNOWN, EDITED = "not on record", " (edited)"


@dataclass(frozen=True)
class Input:
    """One thing that a fit follows from: as the version recorded it, and as it is now."""

    item: str
    recorded: str
    now: str

    @property
    def same(self) -> bool:
        return self.recorded == self.now


@dataclass(frozen=True)
class Reproduction:
    """What a retraining came to.

    :param inputs: what the fit followed from, the likeliest causes of a difference first.
    :param rows: rows of the holdout; ``differing`` of them have another prediction, by at most ``max_difference``
        (``None``: the holdouts have different numbers of rows, or a prediction is not finite).
    :param chosen: what the search chose, recorded and now.
    :param state: digest of the fitted state, recorded and now (``None``: there is none, and ``no_state`` says why).
    :param parts: where the fitted state differs.
    """

    model: str
    version: str
    inputs: tuple[Input, ...]
    rows: int
    differing: int
    max_difference: float | None
    chosen: tuple[Mapping[str, Any], Mapping[str, Any]]
    state: tuple[str | None, str | None]
    parts: tuple[str, ...]
    no_state: str | None

    @property
    def identical(self) -> bool:
        """Whether every prediction and the whole fitted state are the same. What is not on record is not the same."""
        recorded, now = self.state
        return self.differing == 0 and recorded is not None and recorded == now

    @property
    def differences(self) -> list[str]:
        """What differs in the outcome, in words."""
        found = []
        if self.chosen[0] != self.chosen[1]:
            found.append(f"the search chose {_said(self.chosen[1])}, not {_said(self.chosen[0])}")
        if self.differing:
            by = "" if self.max_difference is None else f", by at most {self.max_difference:.3g}"
            found.append(f"{self.differing:,} of {self.rows:,} predictions over the holdout differ{by}")
        recorded, now = self.state
        if recorded is None or now is None:
            found.append(f"the fitted state cannot be compared: {self.no_state}")
        elif recorded != now:
            first = f": {len(self.parts)} parts of it, the first {self.parts[0]}" if self.parts else ""
            found.append(f"the fitted state differs{first}")
        return found

    @property
    def suspect(self) -> str | None:
        """The likeliest cause of a difference; ``None`` when no difference was found."""
        recorded, now = self.state
        if not self.differing and (recorded is None or now is None or recorded == now):
            return None
        changed = [i for i in self.inputs if not i.same and i.recorded != UNKNOWN]
        if changed:
            first, others = changed[0], len(changed) - 1
            more = f" ({others} more differ{'s' if others == 1 else ''})" if others else ""
            return f"{first.item} {first.recorded} -> {first.now}{more}"
        if any(i.now.endswith(EDITED) for i in self.inputs):
            return "code that is not committed, so that two states of it cannot be told apart"
        return "nothing on record changed, so the training itself is not repeatable: look for randomness without a seed"

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "version": self.version,
            "identical": self.identical,
            "differences": self.differences,
            "suspect": self.suspect,
            "inputs": [{"item": i.item, "recorded": i.recorded, "now": i.now, "same": i.same} for i in self.inputs],
            "predictions": {
                "rows": self.rows,
                "differing": self.differing,
                "max_difference": self.max_difference,
            },
            "search": {"recorded": dict(self.chosen[0]), "now": dict(self.chosen[1])},
            "state": {"recorded": self.state[0], "now": self.state[1], "parts": list(self.parts)},
        }


def reproduce(model: str, version: str, progress: Callable[[str], None] = lambda text: None) -> Reproduction:
    """Retrain a version in a clean process with its own threads, and compare. Nothing is logged anywhere.

    :param version: its number, or an alias.
    :raises UsageError: when there is no such version.
    :raises DataError: when the rows that it was trained on are gone, or are not those.
    :raises RegistryError: when MLflow does not answer, or has no bundle of it.
    :raises RefusedError: when its bundle is not what a trusted key has signed.
    """
    with tracking.reached():
        found = versions.named(model, version)
        bundle = Bundle.open(model, found)
        _check(bundle, found)
    plan = TrainingPlan.from_dict(bundle.document("plan"))
    snapshots = {
        part: {k: _located(plan, k, Snapshot.from_dict(s)) for k, s in group.items()}
        for part, group in bundle.document("snapshots").items()
    }
    with tempfile.TemporaryDirectory(prefix="perennial-") as temporary:
        work = Path(temporary)
        task = {
            "bundle": str(bundle.folder),
            "snapshots": {p: {k: s.to_dict() for k, s in g.items()} for p, g in snapshots.items()},
        }
        (work / "task.json").write_text(json.dumps(task), encoding="utf-8")
        result = _in_a_clean_process(work, plan, progress)
        scores = np.load(work / "scores.npy")
    rows, count, most = _compared(scores_of(bundle.frame("holdout")), scores)
    recorded, now = _state(bundle), result["state"]
    return Reproduction(
        model=model,
        version=found.version,
        inputs=tuple(_inputs(bundle, plan, result)),
        rows=rows,
        differing=count,
        max_difference=most,
        chosen=(bundle.facts["search"], result["params"]),
        state=(recorded["sha256"], now["sha256"]),
        parts=tuple(differing(recorded["parts"], now["parts"])) if recorded["sha256"] and now["sha256"] else (),
        no_state=recorded["error"] or now["error"],
    )


def _check(bundle: Bundle, found: versions.Version) -> None:
    """Refuse a bundle that says something else than its MLflow run, or lacks its own code."""
    name = f"{found.model} version {found.version}"
    said = tracking.client().get_run(found.run_id).data.tags.get(STATE_TAG)
    own = bundle.facts.get("state_sha256")
    if said is not None and said != str(own):
        both = f"{said[:12]}, the bundle {str(own)[:12]}"
        raise RegistryError(f"the bundle of {name} was changed: its MLflow run says fitted state {both}")
    if ".py:" in bundle.spec.estimator.type and not bundle.sources():
        raise RegistryError(
            f"the bundle of {name} has no pipeline.py: it is older than the release that keeps it there"
        )


def _state(bundle: Bundle) -> dict[str, Any]:
    """The fitted state on record; an empty one for a bundle that is older than the record."""
    try:
        return dict(bundle.document("state"))
    except RegistryError:
        return {"sha256": None, "parts": {}, "error": "it is older than that record"}


def _located(plan: TrainingPlan, kind: str, snapshot: Snapshot) -> Snapshot:
    """The snapshot where its table lies now: where it was, or at the same place in a lake that has been moved.

    Its rows are compared with its sha256 when they are read, so a wrong place cannot pass.
    """
    moved = feed_table(plan.label_feed).uri
    if kind == "features":
        moved = join(settings().lake, "features", plan.spec.name, snapshot.uri.rsplit("/", 1)[-1])
    for uri in (snapshot.uri, moved):
        if PartitionedTable(uri, ()).version is not None:
            return replace(snapshot, uri=uri)
    raise DataError(
        f"the {kind} that {plan.spec.name} was trained on are gone: there is no table at {snapshot.uri}; restore it "
        "from a backup to reproduce this version"
    )


def _in_a_clean_process(work: Path, plan: TrainingPlan, progress: Callable[[str], None]) -> dict[str, Any]:
    cpus = str(plan.spec.compute.cpus)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), cpus)
    # what a model's own code may log lands in the folder that is thrown away
    kept = {k: v for k, v in os.environ.items() if k != "PERENNIAL_SIGNING_KEY"}  # the model's own code runs there
    env = {**kept, **threads, "MLFLOW_TRACKING_URI": f"sqlite:///{work / 'mlflow.db'}"}
    command = [sys.executable, "-P", "-m", "perennial.training.refit", str(work)]
    with (
        (work / "errors").open("w+", encoding="utf-8") as errors,
        subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8", errors="replace"
        ) as child,
    ):
        for line in child.stdout or ():
            if line.startswith(SAID):
                progress(line.removeprefix(SAID).rstrip())
    try:
        result: dict[str, Any] = json.loads((work / "result.json").read_text("utf-8"))
    except FileNotFoundError:
        said = (work / "errors").read_text("utf-8").strip().splitlines()
        why = said[-1] if said else f"exit code {child.returncode}"
        raise DataError(f"the retraining of {plan.spec.name} broke off: {why}") from None
    if "error" in result:
        raise DataError(result["error"])
    return result


def _compared(recorded: NDArray[np.float64], now: NDArray[np.float64]) -> tuple[int, int, float | None]:
    """Rows, how many differ, and the largest difference."""
    if recorded.shape != now.shape:
        return len(recorded), max(len(recorded), len(now)), None
    same = (recorded == now) | (np.isnan(recorded) & np.isnan(now))
    most = float(np.abs(recorded - now)[~same].max()) if not same.all() else 0.0
    rows = same if same.ndim == 1 else same.all(axis=1)
    return len(recorded), int((~rows).sum()), most if np.isfinite(most) else None


def _inputs(bundle: Bundle, plan: TrainingPlan, result: Mapping[str, Any]) -> Iterator[Input]:
    """Everything that the fit followed from, the likeliest causes of a difference first."""
    recorded = bundle.document("snapshots")
    for part in ("train", "holdout"):
        for kind, snapshot in recorded[part].items():
            yield Input(f"{part} {kind}", snapshot["sha256"], result["snapshots"][f"{part} {kind}"])
    digests, facts, ran = plan.digests, bundle.facts, _runtime(bundle)
    yield Input("spec", digests["spec"], sha256(to_json(bundle.document("plan")["spec"])).hexdigest())
    if "pipeline" in digests:
        yield Input("pipeline.py", digests["pipeline"], result["pipeline"])
    yield Input("seed", str(facts["seed"]), str(plan.seed))
    now = result["runtime"]
    for name in dict.fromkeys([*now["libraries"], *ran["libraries"]]):
        absent = "not installed" if ran["libraries"] else UNKNOWN
        yield Input(name, ran["libraries"].get(name, absent), now["libraries"].get(name, "not installed"))
    yield Input("python", ran["python"], now["python"])
    yield Input("threads", _said(facts.get("threads")), _said(result["threads"]))
    yield Input("blas", ran["blas"], now["blas"])
    yield Input("machine", ran["machine"], now["machine"])
    yield Input("features", digests["features"], plan.definition.digest)
    folder = Path(plan.folder)
    code = code_identity(folder if folder.is_dir() else settings().specs[0]).to_dict()
    yield Input("lock", digests.get("lock_sha256", UNKNOWN), code["lock_sha256"])
    yield Input("commit", _commit(digests), _commit(code))


def _runtime(bundle: Bundle) -> dict[str, Any]:
    """What ran when the version was trained; blanks for a bundle that is older than the record."""
    return bundle.facts.get("runtime") or {"python": UNKNOWN, "machine": UNKNOWN, "blas": UNKNOWN, "libraries": {}}


def _commit(said: Mapping[str, str]) -> str:
    commit = said.get("git_commit", UNKNOWN)
    return commit + EDITED if said.get("git_dirty") == "true" and commit != "unknown" else commit


def _said(value: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{k} {v}" for k, v in sorted(value.items())) if value else UNKNOWN
