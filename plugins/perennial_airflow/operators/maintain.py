"""Maintenance: what must stay, what has expired, tables kept fast and small, landing compared with the lake."""

from __future__ import annotations

import datetime as dt
from typing import Any

from perennial_airflow import assets
from perennial_airflow.links import ReportLink
from perennial_airflow.operators.base import StepOperator
from perennial_airflow.step import Step


def _work(step: Step) -> Any:
    from perennial.housekeeping.work import Work

    return Work.from_dict(step.state.read("plan"))


def _specs() -> Any:
    from perennial.specs.loader import load_live_specs

    return load_live_specs()


class PlanMaintenanceOperator(StepOperator):
    """Ask MLflow and the open runs what they need, and find what has expired. Without an answer nothing is removed."""

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.housekeeping.work import plan

        said = step.params
        work = plan(
            _specs(),
            only=tuple(said.get("tables") or ()),
            keep_hours=int(said["keep_hours"]),
            dry_run=bool(said.get("dry_run")),
        )
        step.state.write("plan", work.to_dict())
        for table, kept in sorted(work.pins.versions.items()):
            self.log.info("%s: versions %s stay, a model or a run needs them", table, ", ".join(map(str, sorted(kept))))
        return {
            "versions_kept": sum(map(len, work.pins.versions.values())),
            "expired": {f"{e.subject}.{e.what}": len(e.items) for e in work.expired[:50]},
            "dry_run": work.dry_run,
        }


class ExpireOperator(StepOperator):
    """Remove what the specs' retention lets go, and name each of it in the log."""

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.housekeeping.work import expire

        done = expire(_work(step), step.ledger, step.actor, lambda text: self.log.info("%s", text), step.fence)
        step.state.write("expired", done)
        return {f"{e['subject']}.{e['what']}": e["items"] for e in done[:50]}


class TidyOperator(StepOperator):
    """Merge small files, checkpoint the log, remove old checkpoints: every table."""

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.housekeeping.work import tidy

        done = tidy(_work(step), lambda text: self.log.info("%s", text), step.fence)
        step.state.write("tidied", [t.to_dict() for t in done])
        return {
            "tables": len(done),
            "merged": sum(t.merged for t in done),
            "checkpoints": sum(t.checkpoint for t in done),
            "old_checkpoints": sum(t.log_files for t in done),
        }


class VacuumOperator(StepOperator):
    """Remove files that neither the newest version nor one that a model needs names; each is in the log."""

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.housekeeping.work import vacuum

        removed = vacuum(_work(step), lambda text: self.log.info("%s", text), step.fence)
        step.state.write("vacuumed", removed)
        return {"files": sum(removed.values()), "tables": sum(n > 0 for n in removed.values())}


class ReconcileOperator(StepOperator):
    """Compare landing with the lake, and ask ingestion for files that were missed.

    Compare MLflow's aliases with the ledger, too; write down what was moved by hand, and keep the newest heads there.
    Its outlets are the ``<feed>.landed`` assets of the feeds that it asks for.
    """

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.housekeeping.landed import find_missed

        work, specs = _work(step), _specs()
        missed = [find_missed(feed, step.ledger) for _, feed in sorted(specs.feeds.items())]
        step.state.write("missed", [m.to_dict() for m in missed])
        asked = {m.feed: list(m.ask) for m in missed if m.ask and not work.dry_run}
        self.outlets = [assets.landed(name) for name in asked]  # Airflow announces all that are here at the end
        for name, keys in asked.items():
            step.context["outlet_events"][assets.landed(name)].add_partitions(keys)  # type: ignore[typeddict-item]
        for m in missed:
            if m.sentence:
                self.log.warning("%s", m.sentence)
        if not work.dry_run:
            self._tend(step, sorted(specs.models), work.as_of)
        return {
            m.feed: {"landed": len(m.landed), "absent": len(m.absent), "asked": len(asked.get(m.feed, ()))}
            for m in missed
        }

    def _tend(self, step: Step, models: list[str], as_of: str | None) -> None:
        from perennial.housekeeping.record import tend

        instant = dt.datetime.fromisoformat(as_of) if as_of else step.run_after
        done = tend(models, step.ledger, step.actor, instant, step.fence)
        for sentence in done.moved:
            self.log.warning("%s", sentence)
        self.log.info("%d heads of the ledger moved forward in MLflow", done.heads)


class MaintenanceReportOperator(StepOperator):
    """Write the page that says what was done."""

    operator_extra_links = (ReportLink(),)

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.housekeeping.work import Outcome, report

        parts = {name: step.state.read(name) for name in ("expired", "tidied", "vacuumed", "missed")}
        self.report_url = step.state.report("maintenance.html", report(_work(step), Outcome(**parts)))
        return {"report": self.report_url}
