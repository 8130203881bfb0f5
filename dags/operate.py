"""Operating by hand: one DAG per model, with a form. Every move is in the ledger."""

from __future__ import annotations

from airflow.sdk import DAG, Label, Param

from perennial.specs import ModelSpec
from perennial.specs.loader import SpecSet
from perennial_airflow import schedules
from perennial_airflow.factory import build_models, common
from perennial_airflow.operators.operate import MoveChampionOperator, OperateRequestOperator, RearmOperator

DOC = """
### {name}: operate
**Trigger** opens the form. *roll_back* makes the previous version champion again; *promote* makes the version that you
name champion; *rearm* lets monitoring ask again for the champion. Say why: it goes into the ledger, with your name.
"""

FORM = {
    "action": Param("roll_back", enum=["roll_back", "promote", "rearm"], title="Action"),
    "version": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        title="Version",
        description="Empty with roll_back: the previous one.",
    ),
    "reason": Param("", type="string", title="Reason", description="Goes into the ledger.", maxLength=1000),
    "as_of": Param(
        None, type=["null", "string"], title="As of", description="Empty: the end of the newest scored partition."
    ),
}


def operate(spec: ModelSpec, specs: SpecSet) -> DAG:
    with DAG(
        **common(spec, "operate", f"Promote or roll back {spec.name} by hand"),
        schedule=None,
        **schedules.bounds(specs.feeds[spec.entity]),
        params=FORM,
        max_active_runs=1,
        doc_md=DOC.format(name=spec.name),
    ) as dag:
        request = OperateRequestOperator(task_id="request", name=spec.name, pool="perennial_light")
        promote = MoveChampionOperator(task_id="promote", event="promote", name=spec.name, pool="perennial_promote")
        back = MoveChampionOperator(task_id="roll_back", event="roll_back", name=spec.name, pool="perennial_promote")
        rearm = RearmOperator(task_id="rearm", name=spec.name, pool="perennial_light")
        request >> Label("promote") >> promote
        request >> Label("roll back") >> back
        request >> Label("re-arm") >> rearm
    return dag


for dag in build_models("operate", operate):
    globals()[dag.dag_id] = dag
