"""The steps that ``train`` and ``retrain`` share: from a plan to a version, or to a rejection."""

from __future__ import annotations

from airflow.sdk import Label, Param

from perennial.specs import ModelSpec
from perennial_airflow import assets
from perennial_airflow.operators import training as op

FORM = {
    "as_of": Param(
        None,
        type=["null", "string"],
        title="As of",
        description="Know only what had landed by then: 2013-03-01 (start of that day), or an instant with its zone. "
        "Empty: the run's own instant.",
    ),
    "window": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        title="Training window",
        description="Train on this many partitions only. Empty: what the spec says.",
    ),
    "seed": Param(None, type=["null", "integer"], minimum=0, title="Seed", description="Empty: the spec's."),
    "dry_run": Param(
        False, type="boolean", title="Dry run", description="Train and judge, but register and promote nothing."
    ),
}


def training_steps(spec: ModelSpec) -> None:
    """Plan, features, fit, evaluate, gates; then register, check as in production and roll out, or reject.

    Made in the DAG or task group around the call. The heavy steps run in the spec's pool, moves of an alias in a pool
    of one slot.
    """
    light = {"name": spec.name, "pool": "perennial_light"}
    heavy = {"name": spec.name, "pool": spec.pool, "execution_timeout": spec.compute.timeout}
    own_queue = {"queue": spec.compute.queue} if spec.compute.queue else {}
    plan = op.PlanOperator(task_id="plan", **light)
    features = op.FeaturesOperator(task_id="features", **heavy)
    fit = op.FitOperator(task_id="fit", **heavy, **own_queue)
    evaluate = op.EvaluateOperator(task_id="evaluate", **heavy)
    gates = op.MetricGateOperator(task_id="gates", **light)
    register = op.RegisterOperator(task_id="register", **light, outlets=[assets.version(spec.name)])
    stage_check = op.StageCheckOperator(task_id="stage_check", **heavy)
    rollout = op.ImmediateRolloutOperator(task_id="rollout", name=spec.name, pool="perennial_promote")
    reject = op.RejectOperator(task_id="reject", **light)
    report_only = op.RejectOperator(task_id="report_only", **light)

    plan >> features >> fit >> evaluate >> gates
    gates >> Label("pass") >> register >> stage_check >> rollout
    gates >> Label("fail or hold") >> reject
    gates >> Label("dry run") >> report_only
