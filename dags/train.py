"""Training: one DAG per model, on its cron or by hand."""

from __future__ import annotations

from airflow.sdk import DAG

from perennial.specs import ModelSpec
from perennial.specs.loader import SpecSet
from perennial_airflow import schedules
from perennial_airflow.factory import build_models, common
from perennial_airflow.training_steps import FORM, training_steps

DOC = """
### {name}: training
{description}

Freezes a data version as of the run's instant, trains, judges on later data that nobody trained on, and passes the
gates (floor, baseline, champion). What passes is registered in MLflow and promoted; what fails or holds is rejected,
with figures: see the *Report* button of `evaluate` and the ledger. Before the rollout stands a checklist, computed from
facts; it and everything else about a version is on its *Model card*.

The form starts it by hand: another instant, a shorter window, another seed, or a dry run.
"""


def train(spec: ModelSpec, specs: SpecSet) -> DAG:
    entity = specs.feeds[spec.entity]
    with DAG(
        **common(spec, "train", f"Train {spec.name}: {spec.description}"),
        schedule=schedules.cron(spec, entity),
        **schedules.bounds(entity),
        params=FORM,
        max_active_runs=1,
        doc_md=DOC.format(name=spec.name, description=spec.description),
    ) as dag:
        training_steps(spec)
    return dag


for dag in build_models("train", train):
    globals()[dag.dag_id] = dag
