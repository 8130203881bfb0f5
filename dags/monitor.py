"""Monitoring: one DAG per model. Drift and performance over complete windows, a k-of-n rule, and a question."""

from __future__ import annotations

from airflow.sdk import DAG, Label, Param

from perennial.specs import ModelSpec
from perennial.specs.loader import SpecSet
from perennial_airflow import assets, schedules
from perennial_airflow.factory import build_models, common
from perennial_airflow.operators import monitor as op

DOC = """
### {name}: monitoring
Runs after a partition was scored or its labels arrived, or by hand with a **Partition Key**. It looks at the last
complete calendar windows ({k} of {n} flagged windows ask), and never at a single day. Backfilled scoring asks nobody.

A missing column, a jump in nulls or an empty window is a failure of the data: it alerts, and does not ask for
retraining. One version asks once.
"""

FORM = {"as_of": Param(None, type=["null", "string"], title="As of", description="Empty: the end of the partition.")}


def monitor(spec: ModelSpec, specs: SpecSet) -> DAG:
    entity = specs.feeds[spec.entity]
    rule = spec.monitoring.rule
    with DAG(
        **common(spec, "monitor", f"Watch the inputs and the performance of {spec.name}"),
        schedule=schedules.keyed(entity, assets.predictions(spec.name) | assets.feed(spec.labels.feed)),
        **schedules.bounds(entity),
        params=FORM,
        max_active_runs=4,
        doc_md=DOC.format(name=spec.name, k=rule.k, n=rule.n),
    ) as dag:
        light = {"name": spec.name, "pool": "perennial_light"}
        plan = op.PlanMonitoringOperator(task_id="plan", **light)
        drift = op.EvidentlyDriftOperator(task_id="drift", name=spec.name, pool=spec.pool)
        performance = op.PerformanceOperator(task_id="performance", name=spec.name, pool=spec.pool)
        rule_ = op.MonitoringRuleOperator(task_id="rule", **light, trigger_rule="none_failed_min_one_success")
        quiet = op.NoteOperator(task_id="quiet", level="quiet", **light)
        alert = op.NoteOperator(task_id="alert", level="alert", **light)
        ask = op.AskOperator(task_id="ask", **light, outlets=[assets.retraining_requested(spec.name)])

        plan >> [drift, performance] >> rule_
        rule_ >> Label("nothing to say") >> quiet
        rule_ >> Label("look at it") >> alert
        rule_ >> Label("retrain") >> ask
    return dag


for dag in build_models("monitor", monitor):
    globals()[dag.dag_id] = dag
