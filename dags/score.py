"""Scoring: one DAG per model and one run per partition: on data, by key, or as a backfill."""

from __future__ import annotations

from functools import reduce
from operator import or_

from airflow.sdk import DAG, Label, Param

from perennial.specs import ModelSpec
from perennial.specs.loader import SpecSet
from perennial_airflow import assets, schedules
from perennial_airflow.factory import build_models, common, scoring_feeds
from perennial_airflow.operators.score import CheckOutputOperator, PublishOperator, RefuseOperator, ScoreOperator
from perennial_airflow.sensors.inputs import InputsSensor

DOC = """
### {name}: scoring
{description}

One run per partition: when a feed that is read at the same key announces it ({feeds}), by hand with a **Partition
Key**, or as a **backfill** from this page. Waits by name for inputs that are not there. Scores with the champion of
that time and its own feature definition, checks, and replaces the partition's predictions in one commit: running it
again publishes the same rows. An input that does not come within {wait} is left out, and the rows are marked
*degraded*; when it comes, they are scored again. Skips while the model is paused.
"""

FORM = {
    "as_of": Param(None, type=["null", "string"], title="As of", description="Empty: the end of the partition."),
    "version": Param(
        None, type=["null", "integer"], minimum=1, title="Version", description="Empty: the champion of that time."
    ),
}


def score(spec: ModelSpec, specs: SpecSet) -> DAG:
    entity = specs.feeds[spec.entity]
    feeds = scoring_feeds(spec, specs)
    with DAG(
        **common(spec, "score", f"Score {spec.entity} with {spec.name}"),
        schedule=schedules.keyed(entity, reduce(or_, [*map(assets.feed, feeds), assets.resumed(spec.name)])),
        **schedules.bounds(entity),
        params=FORM,
        max_active_runs=8,
        doc_md=DOC.format(name=spec.name, description=spec.description, feeds=", ".join(feeds), wait=spec.scoring.wait),
    ) as dag:
        light = {"name": spec.name, "pool": "perennial_light"}
        inputs = InputsSensor(task_id="inputs", **light)
        scored = ScoreOperator(task_id="score", name=spec.name, pool=spec.pool)
        check = CheckOutputOperator(task_id="check", **light)
        publish = PublishOperator(task_id="publish", **light, outlets=[assets.predictions(spec.name)])
        refuse = RefuseOperator(task_id="refuse", **light)

        inputs >> scored >> check
        check >> Label("every row has one score") >> publish
        check >> Label("output is bad") >> refuse
    return dag


for dag in build_models("score", score):
    globals()[dag.dag_id] = dag
