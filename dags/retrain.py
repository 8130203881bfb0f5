"""Retraining: one DAG per model, when monitoring asks or somebody does. Guards first, then the training steps."""

from __future__ import annotations

from airflow.sdk import DAG, Label, TaskGroup

from perennial.specs import ModelSpec
from perennial.specs.loader import SpecSet
from perennial_airflow import assets, schedules
from perennial_airflow.factory import build_models, common
from perennial_airflow.operators.training import DeclinedOperator, GuardsOperator
from perennial_airflow.training_steps import FORM, training_steps

DOC = """
### {name}: retraining
Starts when `{name}.monitor` asks, or by hand (form: as of). Guards decide whether to start at all: cooldown, budget,
enough new labels. Then the same steps and the same gates as `{name}.train`.
"""


def retrain(spec: ModelSpec, specs: SpecSet) -> DAG:
    entity = specs.feeds[spec.entity]
    with DAG(
        **common(spec, "retrain", f"Retrain {spec.name} when monitoring asks"),
        schedule=schedules.keyed(entity, assets.retraining_requested(spec.name)),
        **schedules.bounds(entity),
        params=FORM,
        max_active_runs=1,
        doc_md=DOC.format(name=spec.name),
    ) as dag:
        guards = GuardsOperator(task_id="guards", name=spec.name, pool="perennial_light")
        declined = DeclinedOperator(task_id="declined", name=spec.name, pool="perennial_light")
        with TaskGroup("train", tooltip="From a plan to a version, or to a rejection") as steps:
            training_steps(spec)
        guards >> Label("may start") >> steps
        guards >> Label("declined") >> declined
    return dag


for dag in build_models("retrain", retrain):
    globals()[dag.dag_id] = dag
