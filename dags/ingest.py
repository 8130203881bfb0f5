"""Ingestion: one DAG per feed. Wait for a partition, judge it, commit it or set it aside, announce it."""

from __future__ import annotations

from airflow.sdk import DAG, Label, Param

from perennial.specs import FeedSpec
from perennial.specs.grains import GRAINS
from perennial_airflow import assets, schedules
from perennial_airflow.factory import build_feeds, common
from perennial_airflow.operators.ingest import AnnounceOperator, CommitOperator, QuarantineOperator, ValidateOperator
from perennial_airflow.sensors.waiting import LandingSensor

DOC = """
### {name}: ingestion
{description}

Starts when the period of a partition has ended, when somebody announces `{name}.landed` with a key, by hand with a
**Partition Key** (Advanced Options), as a backfill, or for a whole **history** (`from`, `to`).

Bad rows are set aside with reasons (up to {limit:.0%} of a partition); beyond that, or when a rule on the whole
partition fails, the partition is refused and what was there stays. The *Report* button of `validate` shows every rule.
"""


def form(feed: FeedSpec) -> dict[str, Param]:
    """The form for a history. Days are picked from a calendar, other partitions are written as their keys."""
    kind = {"format": "date"} if feed.every == "day" else {}
    like = "" if feed.every == "day" else f", written like {GRAINS[feed.every].example}"
    return {
        "from": Param(
            None, type=["null", "string"], **kind, title="History from", description=f"First partition{like}."
        ),
        "to": Param(None, type=["null", "string"], **kind, title="History to", description=f"Last partition{like}."),
        "announce": Param(
            "none",
            enum=["none", "last", "all"],
            title="Announce a history",
            description="Which partitions of a history consumers hear of: each announced key starts their runs.",
        ),
    }


def ingest(feed: FeedSpec) -> DAG:
    with DAG(
        **common(feed, "ingest", f"Ingest {feed.name}: {feed.description}"),
        schedule=schedules.keyed(feed, assets.landed(feed.name), ticks=True),
        **schedules.bounds(feed),
        params=form(feed),
        max_active_runs=4,
        doc_md=DOC.format(name=feed.name, description=feed.description, limit=feed.contract.max_quarantined),
    ) as dag:
        here = {"name": feed.name, "pool": "perennial_light"}
        wait = LandingSensor(task_id="wait_for_landing", **here)
        validate = ValidateOperator(task_id="validate", name=feed.name, pool=feed.pool)
        due = [assets.maintenance_due()]
        commit = CommitOperator(task_id="commit", verdict="commit", outlets=due, **here)
        set_aside = CommitOperator(task_id="quarantine_rows", verdict="quarantine_rows", outlets=due, **here)
        refuse = QuarantineOperator(task_id="quarantine_batch", **here)
        announce = AnnounceOperator(
            task_id="announce", outlets=[assets.feed(feed.name)], trigger_rule="none_failed_min_one_success", **here
        )

        wait >> validate
        validate >> Label("all rows good") >> commit >> announce
        validate >> Label("some rows bad") >> set_aside >> announce
        validate >> Label("partition bad or missing") >> refuse
    return dag


for dag in build_feeds("ingest", ingest):
    globals()[dag.dag_id] = dag
