"""The running stack as the end-to-end tests use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perennial.local.rest import AirflowClient
from perennial.local.stack import Stack
from perennial.local.story import Story


@dataclass(frozen=True)
class Live:
    """The running stack, and hands to use it."""

    stack: Stack
    story: Story
    specs: Path
    landing: Path

    @property
    def client(self) -> AirflowClient:
        return self.stack.client

    def ended(self, run: dict[str, Any], need: str = "success") -> dict[str, Any]:
        """Wait for a run to end as it should."""
        return self.story.follow([run], need)[0]

    def states(self, run: dict[str, Any]) -> dict[str, str]:
        """State of each task."""
        found = self.client.task_instances(run["dag_id"], run["dag_run_id"])
        return {t["task_id"]: t["state"] for t in found}

    def log(self, run: dict[str, Any], task: str, attempt: int = 1) -> str:
        """A task's log."""
        return self.client.log(run["dag_id"], run["dag_run_id"], task, attempt)
