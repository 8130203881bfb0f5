"""Maintenance: one DAG for the whole lake. It follows ingestion, so that an idle stack stays idle."""

from __future__ import annotations

from airflow.sdk import DAG, Param, PartitionedAssetTimetable

from perennial.specs.loader import SpecSet
from perennial_airflow import assets, retries
from perennial_airflow.factory import build_shared
from perennial_airflow.operators import maintain as op

DAG_ID = "perennial.maintain"

DOC = """
### Maintenance
Runs when ingestion has committed so often that it pays, or by hand. Keeps tables fast (merged files, checkpoints),
removes files that no version needs, lets go what the specs' `retention` says, and compares landing with the lake.

What a registered version was trained on always stays. Ages count back from the newest data, never by the clock. When
MLflow cannot say what its versions need, nothing is removed. *Dry run* only looks; every removal is in the log of its
task, and on the **Report** of `report`.
"""

FORM = {
    "dry_run": Param(False, type="boolean", title="Dry run", description="Say what would go, and remove nothing."),
    "tables": Param(
        [],
        type="array",
        items={"type": "string"},
        title="Tables",
        description="Patterns such as feeds/flights or features/*. Empty: every table, and what has expired.",
    ),
    "keep_hours": Param(
        168,
        type="integer",
        minimum=24,
        title="Keep hours",
        description="Files that were replaced less than this long ago stay, for those who read them now.",
    ),
}


def maintain(specs: SpecSet) -> DAG:
    with DAG(
        dag_id=DAG_ID,
        description="Keep the lake fast and small, and find what was missed",
        schedule=PartitionedAssetTimetable(assets=assets.maintenance_due()),
        catchup=False,
        params=FORM,
        max_active_runs=1,
        tags=["maintain", "perennial"],
        default_args={"owner": "perennial", **retries.arguments(2)},
        render_template_as_native_obj=True,
        doc_md=DOC,
    ) as dag:
        here = {"name": "perennial", "pool": "perennial_light"}
        landed = [assets.landed(name) for name in sorted(specs.feeds)]
        plan = op.PlanMaintenanceOperator(task_id="plan", **here)
        expire = op.ExpireOperator(task_id="expire", **here)
        tidy = op.TidyOperator(task_id="tidy", name="perennial", pool="perennial_heavy")
        vacuum = op.VacuumOperator(task_id="vacuum", **here)
        reconcile = op.ReconcileOperator(task_id="reconcile", outlets=landed, **here)
        report = op.MaintenanceReportOperator(task_id="report", **here)

        plan >> expire >> tidy >> vacuum >> report
        plan >> reconcile >> report
    return dag


for dag in build_shared(DAG_ID, maintain):
    globals()[dag.dag_id] = dag
