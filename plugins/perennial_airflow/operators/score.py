"""Scoring: features and scores of a partition, checked, then published atomically."""

from __future__ import annotations

import datetime as dt
from typing import Any

from perennial.errors import DataError
from perennial_airflow import assets
from perennial_airflow.operators.base import BranchStepOperator, StepOperator
from perennial_airflow.sensors.inputs import stored_model
from perennial_airflow.step import Step


class ScoreOperator(StepOperator):
    """Materialise the features of the key and score them with each arm's version."""

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.scoring.predict import Arm, score_partition

        spec, feeds, asked = stored_model(step)
        arms = [Arm(**a) for a in asked["arms"]]
        found = score_partition(
            spec,
            feeds,
            asked["key"],
            arms,
            step.state,
            now=dt.datetime.now(dt.UTC),
            degraded=bool(asked["missing"]),
            fence=step.fence,
        )
        step.state.write("scored", found)
        return found


class CheckOutputOperator(BranchStepOperator):
    """Is there exactly one finite score per row? Branches to ``publish`` or ``refuse``."""

    def step(self, step: Step) -> str:
        from perennial.scoring.predict import check_output

        spec, feeds, asked = stored_model(step)
        problems = check_output(spec, feeds, asked["key"], step.state)
        step.state.write("problems", problems)
        for problem in problems:
            self.log.error("%s %s: %s", self.name, asked["key"], problem)
        return "refuse" if problems else "publish"


class PublishOperator(StepOperator):
    """Replace the partition's predictions in one commit; announces ``<model>.predictions``."""

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.scoring.late import record_late_inputs, sentence
        from perennial.scoring.predict import publish
        from perennial.specs.loader import digest

        spec, feeds, asked = stored_model(step)
        step.pass_on(step.context["outlet_events"][assets.predictions(self.name)])  # type: ignore[typeddict-item]
        done = publish(spec, feeds[spec.entity], asked["key"], step.state, step.fence)
        missing = step.state.read("scored")["missing"]
        if missing or asked["was_degraded"]:
            self.log.warning("%s %s: %s", self.name, asked["key"], sentence(missing))
            record_late_inputs(
                self.name,
                asked["key"],
                missing,
                step.ledger,
                step.actor,
                version=asked["arms"][0]["version"],
                as_of=asked["as_of"],
                digest=done["digest"],
                spec=digest(spec),
                fence=step.fence,
            )
        return {**done, "missing": missing}


class RefuseOperator(StepOperator):
    """Publish nothing, keep what was there, and say why: the run fails."""

    ui_color = "#f6dfdc"

    def step(self, step: Step) -> None:
        from perennial.ledger import Entry
        from perennial.specs.loader import digest

        spec, _, asked = stored_model(step)
        reason = "; ".join(step.state.read("problems"))
        step.ledger.append(
            Entry(
                id=step.actor.entry_id("scoring", asked["key"]),
                event="scoring",
                subject=self.name,
                verdict="refused",
                reason=reason,
                as_of=asked["as_of"],
                partition=asked["key"],
                version=asked["arms"][0]["version"],
                actor=step.actor.to_dict(),
                digests={"spec": digest(spec)},
            ),
            fence=step.fence,
        )
        raise DataError(f"{self.name} {asked['key']}: nothing was published: {reason}")
