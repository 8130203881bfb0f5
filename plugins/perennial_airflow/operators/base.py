"""What all operators share: a spec's name, a step, and links to what they wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, BranchMixIn

from perennial.errors import PerennialError
from perennial_airflow.step import Step

if TYPE_CHECKING:
    from airflow.sdk import Context


class StepOperator(BaseOperator):
    """A task whose work is ``step(Step)``.

    :param name: name of the feed or model.
    """

    ui_color = "#e8f0ea"

    def __init__(self, *, name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.report_url: str | None = None
        self.mlflow_url: str | None = None
        self.card_url: str | None = None

    def execute(self, context: Context) -> Any:
        """Run the step; its result, under 8 kB, goes to XCom."""
        return self.run_step(Step(context))

    def run_step(self, step: Step) -> Any:
        """Run :meth:`step`. Its own errors are sentences: they end the log, without the frames that led to them."""
        try:
            return self.step(step)
        except PerennialError as e:
            self.log.debug("where it was raised", exc_info=True)
            e.__cause__, e.__suppress_context__ = None, True
            raise e.with_traceback(None)  # noqa: B904 - the chain is cut on purpose

    def step(self, step: Step) -> Any:
        """What the task does."""
        raise NotImplementedError


class BranchStepOperator(StepOperator, BranchMixIn):
    """A task that chooses what comes next: ``step`` returns task ids (without the group's prefix) to run."""

    ui_color = "#f3ecd8"
    inherits_from_skipmixin = True

    def execute(self, context: Context) -> Any:
        """Choose, and skip the rest."""
        chosen = self.run_step(Step(context))
        names = [chosen] if isinstance(chosen, str) else list(chosen)
        prefix = f"{self.task_group.group_id}." if self.task_group and self.task_group.group_id else ""
        return self.do_branch(context, [n if n.startswith(prefix) else f"{prefix}{n}" for n in names])
