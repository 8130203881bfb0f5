"""Monitoring: look at the last complete windows, and ask for retraining when the rule says so."""

from __future__ import annotations

import datetime as dt
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from perennial.specs.partitions import last_of_block
from perennial_airflow import assets
from perennial_airflow.links import ReportLink
from perennial_airflow.operators.base import BranchStepOperator, StepOperator
from perennial_airflow.sensors.inputs import stored_model
from perennial_airflow.step import Step, live_specs


class PlanMonitoringOperator(StepOperator):
    """Settle as_of and the version to look at; keep the run's copy of the spec. Skips what a backfill published.

    Of an hourly model, events start a look once a day: windows are made of whole days.
    """

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.monitoring.watch import watched
        from perennial.registry import versions

        specs = live_specs(self.name)
        spec = specs.model(self.name)
        entity = specs.feed(spec.entity)
        key = step.require_key(entity)
        step.skip_if_paused(self.name)
        if step.started_by_backfill:
            raise AirflowSkipException(
                f"{key} was scored by a backfill, which asks nobody: run monitor by hand for a look"
            )
        if step.events and last_of_block(entity, key) != key:
            raise AirflowSkipException(
                f"windows are whole days: the run for the last hour of {key[:10]} will look, or one started by hand"
            )
        if versions.by_alias(self.name, versions.CHAMPION) is None:
            raise AirflowSkipException(f"{self.name} has no champion yet: nothing to monitor")
        as_of = step.as_of(entity, {spec.labels.feed: specs.feed(spec.labels.feed)})
        version = watched(self.name, as_of, step.ledger)
        step.state.write(
            "request",
            {
                "spec": spec.model_dump(mode="json"),
                "feeds": {n: f.model_dump(mode="json") for n, f in specs.feeds.items()},
                "key": key,
                "as_of": as_of.isoformat(),
                "version": version.version,
            },
        )
        return {"key": key, "as_of": as_of.isoformat(), "version": version.version}


class EvidentlyDriftOperator(StepOperator):
    """Drift of the inputs against the training window, with pinned methods and calibrated thresholds.

    Presence and nulls are checked first: a failure of the data is not drift. Writes Evidently's page on the newest
    window.
    """

    operator_extra_links = (ReportLink(),)

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.monitoring.watch import drift_look
        from perennial.registry import versions

        spec, feeds, asked = stored_model(step)
        if spec.monitoring.drift.mode == "disabled":
            raise AirflowSkipException("drift is switched off in the spec")
        as_of = dt.datetime.fromisoformat(asked["as_of"])
        version = versions.get(self.name, asked["version"])
        with step.state.scratch("drift") as folder:
            page = folder / "drift.html"
            look = drift_look(spec, feeds, version, as_of, report=page, actor=step.actor, fence=step.fence)
            if page.exists():
                self.report_url = step.state.report("drift.html", page.read_bytes())
        for w in look.windows:
            self.log.info("%s: %s: %s", w["window"], w["state"], w["reason"])
        step.state.write("drift", look.to_dict())
        return {"outcome": look.outcome, "reason": look.reason}


class PerformanceOperator(StepOperator):
    """Realized performance of the published scores, once labels have arrived."""

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.monitoring.watch import performance_look
        from perennial.registry import versions

        spec, feeds, asked = stored_model(step)
        if spec.monitoring.performance.mode == "disabled":
            raise AirflowSkipException("performance is switched off in the spec")
        as_of = dt.datetime.fromisoformat(asked["as_of"])
        version = versions.get(self.name, asked["version"])
        look = performance_look(spec, feeds, version, as_of, step.actor, step.fence)
        for w in look.windows:
            self.log.info("%s: %s: %s", w["window"], w["state"], w["reason"])
        step.state.write("performance", look.to_dict())
        return {"outcome": look.outcome, "reason": look.reason}


class MonitoringRuleOperator(BranchStepOperator):
    """The k-of-n rule over both looks. Branches to ``quiet``, ``alert`` or ``ask``; a version asks once."""

    operator_extra_links = (ReportLink(),)

    def step(self, step: Step) -> str:
        from perennial.monitoring.conclude import conclude

        spec, _, asked = stored_model(step)
        modes = {"drift": spec.monitoring.drift.mode, "performance": spec.monitoring.performance.mode}
        looks = [step.state.read(kind) for kind, mode in modes.items() if mode != "disabled"]
        found = conclude(spec, looks, asked, step.ledger, step.actor, step.fence)
        self.report_url = step.state.report("monitoring.html", found.page)
        self.log.info("%s %s: %s: %s", self.name, asked["key"], found.outcome, found.reason)
        return found.outcome


class AskOperator(StepOperator):
    """Ask for retraining: once per reference, on record; announces ``<model>.retraining_requested``."""

    ui_color = "#f6dfdc"

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.monitoring.conclude import record_request

        _, _, asked = stored_model(step)
        conclusion = step.state.read("conclusion")
        if not record_request(self.name, asked, conclusion, step.ledger, step.actor, step.fence):
            raise AirflowSkipException(f"another run has asked for version {asked['version']} in the meantime")
        event = step.context["outlet_events"][assets.retraining_requested(self.name)]  # type: ignore[typeddict-item]
        event.extra = {"as_of": asked["as_of"], "reason": conclusion["reason"][:500]}
        event.add_partitions(asked["key"])
        return conclusion


class NoteOperator(StepOperator):
    """An end that only says what was found (``quiet``, ``alert``). An alert goes to the log as a warning."""

    def __init__(self, *, level: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.level = level

    def step(self, step: Step) -> dict[str, Any]:
        conclusion = step.state.read("conclusion")
        say = self.log.warning if self.level == "alert" else self.log.info
        say("%s: %s", self.name, conclusion["reason"])
        return dict(conclusion)
