"""Operating by hand: one DAG per model, with a form. Every move is in the ledger."""

from __future__ import annotations

from airflow.sdk import DAG, Label, Param

from perennial.specs import ModelSpec
from perennial.specs.loader import SpecSet
from perennial_airflow import assets, schedules
from perennial_airflow.factory import build_models, common
from perennial_airflow.operators import operate as op

DOC = """
### {name}: operate
**Trigger** opens the form. *roll_back* makes the previous version champion again; *promote* makes the version that you
name champion; *rearm* lets monitoring ask again for the champion. *pause* lets every run of the model skip with your
reason; *resume* names the partitions that were skipped, and scores them if you tick the box. Say why: it goes into the
ledger, with your name.
"""

FORM = {
    "action": Param("roll_back", enum=["roll_back", "promote", "rearm", "pause", "resume"], title="Action"),
    "version": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        title="Version",
        description="Empty with roll_back: the previous one.",
    ),
    "score_skipped": Param(
        False, type="boolean", title="Score what was skipped", description="With resume: run score for each of them."
    ),
    "reason": Param("", type="string", title="Reason", description="Goes into the ledger.", maxLength=1000),
    "as_of": Param(
        None, type=["null", "string"], title="As of", description="Empty: the end of the newest scored partition."
    ),
}


def operate(spec: ModelSpec, specs: SpecSet) -> DAG:
    with DAG(
        **common(spec, "operate", f"Promote, roll back, pause or resume {spec.name} by hand"),
        schedule=None,
        **schedules.bounds(specs.feeds[spec.entity]),
        params=FORM,
        max_active_runs=1,
        doc_md=DOC.format(name=spec.name),
    ) as dag:
        light = {"name": spec.name, "pool": "perennial_light"}
        move = {"name": spec.name, "pool": "perennial_promote"}
        request = op.OperateRequestOperator(task_id="request", **light)
        request >> Label("promote") >> op.MoveChampionOperator(task_id="promote", event="promote", **move)
        request >> Label("roll back") >> op.MoveChampionOperator(task_id="roll_back", event="roll_back", **move)
        request >> Label("re-arm") >> op.RearmOperator(task_id="rearm", **light)
        request >> Label("pause") >> op.PauseOperator(task_id="pause", **light)
        request >> Label("resume") >> op.ResumeOperator(task_id="resume", **light, outlets=[assets.resumed(spec.name)])
    return dag


for dag in build_models("operate", operate):
    globals()[dag.dag_id] = dag
