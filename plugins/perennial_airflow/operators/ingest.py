"""Ingestion: which partitions, judge them with Great Expectations, commit or set aside, announce."""

from __future__ import annotations

from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from perennial.errors import UsageError
from perennial.specs import FeedSpec
from perennial.specs.partitions import keys_between
from perennial_airflow import assets
from perennial_airflow.links import ReportLink
from perennial_airflow.operators.base import BranchStepOperator, StepOperator
from perennial_airflow.step import Step, check_key, live_specs


def stored_feed(step: Step) -> FeedSpec:
    """The run's own copy of the feed's spec."""
    return FeedSpec.stored(step.state.read("request")["feed"])


def request(step: Step, name: str) -> dict[str, Any]:
    """What this run was asked to ingest, kept with the run's copy of the spec.

    :raises UsageError: neither key nor history, or both; or a partition that cannot be.
    """
    specs = live_specs(name)
    feed = specs.feed(name)
    first, last = step.params.get("from"), step.params.get("to")
    if first or last:
        if step.key:
            raise UsageError("this run has both a partition key and from/to: give one of them")
        if not (first and last):
            raise UsageError("a history needs both from and to")
        keys = keys_between(feed, check_key(feed, str(first)), check_key(feed, str(last)))
        if not keys:
            raise UsageError(f"from {first} lies after to {last}")
        announce = step.params.get("announce") or "none"
    else:
        keys, announce = [step.require_key(feed)], "all"
    value = {
        "feed": feed.model_dump(mode="json"),
        "folder": str(specs.folder_of("feed", name)),
        "keys": keys,
        "announce": announce,
        "history": bool(first),
    }
    step.state.write("request", value)
    return value


class ValidateOperator(BranchStepOperator):
    """Judge what landed with the feed's Great Expectations rules, and branch by what came out.

    Writes the report page. Branches to every task that has work: ``commit``, ``quarantine_rows``,
    ``quarantine_batch``.
    """

    operator_extra_links = (ReportLink(),)

    def step(self, step: Step) -> list[str]:
        from pathlib import Path

        from perennial.ingestion import judge_partitions

        asked = step.state.read("request")
        verdicts, self.report_url = judge_partitions(
            stored_feed(step),
            Path(asked["folder"]),
            asked["keys"],
            step.state,
            look_again=not asked["history"],
            progress=lambda done, total: self.log.info("judged %d of %d partitions", done, total),
        )
        for v in verdicts:
            if v.verdict != "commit":
                self.log.warning("%s %s: %s: %s", self.name, v.key, v.verdict, "; ".join(v.reasons))
        found = {v.verdict for v in verdicts}
        self.log.info(
            "%s: %s", self.name, ", ".join(f"{sum(v.verdict == f for v in verdicts)} {f}" for f in sorted(found))
        )
        names = {"commit": "commit", "quarantine_rows": "quarantine_rows"}
        return sorted({names.get(f, "quarantine_batch") for f in found})


class CommitOperator(StepOperator):
    """Publish the staged rows of partitions with one verdict, in one atomic commit.

    :param verdict: ``commit``, or ``quarantine_rows`` (bad rows go to the quarantine, the rest is committed).

    After so many commits it also announces that maintenance is due.
    """

    def __init__(self, *, verdict: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.verdict = verdict

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.ingestion import commit

        digests = commit(
            stored_feed(step), step.state, [self.verdict], step.ledger, as_of=_as_of(step), fence=step.fence
        )
        self._ask_for_maintenance(step)
        keys = sorted(digests)
        return {"partitions": len(keys), "first": keys[0] if keys else None, "last": keys[-1] if keys else None}

    def _ask_for_maintenance(self, step: Step) -> None:
        from perennial.housekeeping.due import claim

        turn = claim(stored_feed(step), f"{step.actor.dag_id}/{step.actor.run_id}")
        # Airflow announces every outlet that is still here when the task has ended
        self.outlets = [] if turn is None else [assets.maintenance_due()]
        if turn is not None:
            step.context["outlet_events"][assets.maintenance_due()].add_partitions(turn)  # type: ignore[typeddict-item]


class QuarantineOperator(StepOperator):
    """Refuse whole partitions, with reasons; nothing of them is committed, and the file is kept."""

    ui_color = "#f6dfdc"

    def step(self, step: Step) -> list[dict[str, Any]]:
        from perennial.ingestion import quarantine_partitions

        refused = quarantine_partitions(
            stored_feed(step), step.state, step.ledger, as_of=_as_of(step), fence=step.fence
        )
        return [{"partition": v.key, "verdict": v.verdict, "reason": "; ".join(v.reasons)[:300]} for v in refused[:20]]


class AnnounceOperator(StepOperator):
    """Tell the consumers which partitions are there: none, the last, or all of a history."""

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.ingestion.ingest import read_verdicts

        asked = step.state.read("request")
        keys = [v.key for v in read_verdicts(step.state) if v.verdict in ("commit", "quarantine_rows")]
        chosen = {"none": [], "last": keys[-1:], "all": keys}[asked["announce"]]
        if not chosen:
            raise AirflowSkipException(
                f"nothing to announce: {len(keys)} partitions committed, announce is {asked['announce']!r}"
            )
        event = step.context["outlet_events"][assets.feed(self.name)]  # type: ignore[typeddict-item]
        step.pass_on(event)
        event.add_partitions(chosen)
        return {"announced": len(chosen), "first": chosen[0], "last": chosen[-1]}


def _as_of(step: Step) -> str:
    """Ingestion knows things as of the end of its newest partition plus the feed's delay."""
    from perennial.specs.partitions import known_at_instant

    asked = step.state.read("request")
    return known_at_instant(stored_feed(step), max(asked["keys"])).isoformat()
