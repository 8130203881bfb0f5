"""Fit a candidate and log its bundle. One function from a plan and its snapshots to a bundle, in any process."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perennial.errors import SpecError
from perennial.gates.baseline import fit_baseline
from perennial.gates.blocks import estimate
from perennial.gates.metrics import get_metric
from perennial.lake.table import Fence, Snapshot, no_fence
from perennial.monitoring.reference import build_reference
from perennial.registry import tracking
from perennial.runs import Actor, RunState
from perennial.storage import to_json
from perennial.training import estimators, golden, onnx
from perennial.training.bundle import write_bundle
from perennial.training.classes import problem_of_holdout, score_columns
from perennial.training.data import Rows
from perennial.training.learn import Progress, learn
from perennial.training.plan import TrainingPlan, pipeline_digest
from perennial.training.readme import read_readme
from perennial.trust import signing
from perennial.trust.lineage import runtime

#: The MLflow tag that names the fitted state.
STATE_TAG = "state_sha256"


@dataclass(frozen=True)
class Candidate:
    """A trained bundle in an MLflow run; it becomes a version once no gate fails or holds."""

    run_id: str
    model_id: str

    def to_dict(self) -> dict[str, str]:
        return {"run_id": self.run_id, "model_id": self.model_id}


def fit(
    plan: TrainingPlan,
    train: Mapping[str, Snapshot],
    holdout: Mapping[str, Snapshot],
    actor: Actor,
    progress: Progress = lambda text: None,
    fence: Fence = no_fence,
) -> Candidate:
    """Fit on ``train``, score ``holdout``, log the bundle. A retry finds the bundle of the first try.

    :raises DataError: when there is nothing to learn from.
    :raises SpecError: when the model's own code is not what was planned with.
    :raises SignatureError: when there is no key to sign the bundle with.
    """
    sources = _sources(plan)
    signing.signing().ready()  # at once, and not after hours of fitting
    run_id = tracking.run_of(plan.spec.name, actor, _inputs(plan, train, holdout), fence)
    done = tracking.bundle_of(run_id)
    if done is not None:
        progress(f"run {run_id} has its bundle already")
        return Candidate(run_id, done)
    with estimators.threads(plan.spec, Path(plan.folder)) as threads:
        return _fit(plan, train, holdout, run_id, sources, threads, actor, progress, fence)


def _fit(
    plan: TrainingPlan,
    train: Mapping[str, Snapshot],
    holdout: Mapping[str, Snapshot],
    run_id: str,
    sources: Mapping[str, bytes],
    threads: Mapping[str, int],
    actor: Actor,
    progress: Progress,
    fence: Fence,
) -> Candidate:
    learned = learn(plan, train, holdout, progress)
    spec, rows, judged, model = plan.spec, learned.rows, learned.judged, learned.model
    task, params, threshold, scores = spec.task.type, learned.params, learned.threshold, learned.scores
    metric = get_metric(spec.metric.name, task)
    known = ~np.isnan(judged.y)
    value = float("nan")
    if known.any() and not problem_of_holdout(judged.y[known], rows.classes):
        blocks = None if spec.rows_are_blocks else judged.blocks[known]
        of = (judged.y[known], scores[known], blocks)
        value = estimate(metric, *of, within=spec.metric.within, threshold=threshold).value
    baseline = fit_baseline(rows.X, rows.y, spec.gates.baseline.by, task, metric)
    progress("calibrating drift on blocks inside the training window")
    reference = build_reference(learned.window.X, learned.window.blocks, spec.monitoring, plan.seed, plan.entity.every)
    onnx_model = None
    onnx_facts: dict[str, Any] = {}
    if spec.scoring.runtime == "onnx":
        onnx_model, parity = onnx.converted(model, judged.X, task)
        progress(f"ONNX Runtime {'scores' if parity.on else 'is off'}: {parity.reason}")
        onnx_facts = {"onnx": parity.to_dict()}
    scorer = onnx.OnnxModel(model, onnx_model, spec.compute.cpus) if onnx_model else model
    facts = {
        **onnx_facts,
        "train_end": plan.train_end.isoformat(),
        "as_of": plan.as_of.isoformat(),
        "threshold": threshold,
        "columns": list(rows.X.columns),
        "train_rows": len(rows.y),
        "train_partitions": len(plan.train_keys),
        "holdout_rows": int(known.sum()),
        "seed": plan.seed,
        "cpus": spec.compute.cpus,
        "threads": dict(threads),
        "runtime": runtime(learned.packages),
        "state_sha256": learned.state["sha256"],
        "mlflow_run": run_id,
        "search": params,
        "metric": {"name": metric.name, "value": None if np.isnan(value) else value},
        **({"classes": list(rows.classes)} if task == "multiclass" else {}),
    }
    with RunState(actor).scratch("bundle") as temporary:
        target = temporary / "bundle"
        write_bundle(
            target,
            model,
            sample=rows.X.head(200),
            predictions=model.predict(rows.X.head(200))
            if task == "regression"
            else model.predict_proba(rows.X.head(200)),
            task=task,
            documents={
                "plan": plan.to_dict(),
                "snapshots": {
                    "train": {k: s.to_dict() for k, s in train.items()},
                    "holdout": {k: s.to_dict() for k, s in holdout.items()},
                },
                "facts": facts,
                "baseline": baseline.to_dict(),
                "drift": reference.document,
                "state": learned.state,
                "readme": {"text": read_readme(Path(plan.folder))},
            },
            frames={
                "reference": reference.sample,
                "holdout": _holdout_frame(judged, scores),
                **golden.make(scorer, judged.X if len(judged.X) else rows.X, task),
            },
            packages=(*learned.packages, *(("onnxruntime",) if onnx_model else ())),
            sources=sources,
            onnx_model=onnx_model,
        )
        signed = signing.sign(target)
        progress(f"signed {len(signed.files)} files with the key {signed.signer[:16]}")
        model_id = tracking.log_bundle(
            run_id,
            target,
            params={
                "estimator": spec.estimator.type,
                **{f"estimator.{k}": v for k, v in {**spec.estimator.params, **params}.items()},
                "seed": plan.seed,
                "as_of": plan.as_of.isoformat(),
                "train_end": plan.train_end.isoformat(),
                "window_days": plan.window_days or "expanding",
                "train_rows": len(rows.y),
                "features": len(rows.X.columns),
            },
            metrics={f"holdout_{metric.name}": value},
            tags={
                **{k.replace(":", "."): str(v) for k, v in plan.digests.items()},
                "seed": str(plan.seed),
                "threads": str(spec.compute.cpus),
                STATE_TAG: str(learned.state["sha256"]),
                **signing.tags(signed),
            },
            snapshots={
                f"{part}_{k}": s for part, group in (("train", train), ("holdout", holdout)) for k, s in group.items()
            },
            fence=fence,
        )
    return Candidate(run_id, model_id)


def _sources(plan: TrainingPlan) -> dict[str, bytes]:
    """The model's own code, which travels with the version; empty for an importable class.

    :raises SpecError: when it is not what was planned with.
    """
    folder, kind = Path(plan.folder), plan.spec.estimator.type
    if plan.digests.get("pipeline") != pipeline_digest(plan.spec, folder):
        raise SpecError(f"{plan.spec.name}: {kind} was edited in mid-run: clear the run as a whole")
    name, own, _ = kind.partition(":")
    return {name: (folder / name).read_bytes()} if own else {}


def _inputs(plan: TrainingPlan, *groups: Mapping[str, Snapshot]) -> str:
    """Digest of everything that decides what :func:`fit` returns."""
    whole = [plan.to_dict(), *({k: s.to_dict() for k, s in group.items()} for group in groups)]
    return hashlib.sha256(to_json(whole)).hexdigest()


def _holdout_frame(rows: Rows, scores: Any) -> Any:
    import pandas as pd

    return pd.DataFrame({"partition": rows.blocks, "label": rows.y, **score_columns(scores)})
