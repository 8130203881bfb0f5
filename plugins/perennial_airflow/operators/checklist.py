"""Before a promotion: the checklist from facts, and the model card that shows it."""

from __future__ import annotations

from typing import Any

from perennial_airflow.links import CardLink, MlflowLink
from perennial_airflow.operators.base import StepOperator
from perennial_airflow.step import Step


class ChecklistOperator(StepOperator):
    """Compute the checklist of the registered version and write its card; an unmet item that nobody waived ends the run
    here, and the champion stays."""

    operator_extra_links = (CardLink(), MlflowLink())

    def step(self, step: Step) -> dict[str, Any]:
        from perennial.registry import checklist, tracking, versions
        from perennial.training.card.publish import publish
        from perennial.training.checklist import check
        from perennial.training.evaluate import Evaluation
        from perennial.training.plan import TrainingPlan

        plan = TrainingPlan.from_dict(step.state.read("plan"))
        evaluation = Evaluation.from_dict(step.state.read("evaluation"))
        version = versions.get(self.name, step.state.read("version")["version"])
        self.mlflow_url = tracking.run_url(version.run_id)
        found = check(plan.spec, version, as_of=plan.as_of, actor=step.actor, ledger=step.ledger, fence=step.fence)
        for line in found.lines():
            self.log.info("%s", line)
        self.card_url = publish(
            version, evaluation, found, state=step.state, ledger=step.ledger, actor=step.actor, fence=step.fence
        )
        checklist.require(step.ledger, self.name, version.version, "promote")
        return {"checklist": found.verdict, "reason": found.reason[:500], "version": version.version}
