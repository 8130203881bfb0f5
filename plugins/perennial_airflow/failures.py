"""Ends the log of a task that failed on purpose with the one sentence that says why."""

from __future__ import annotations

import logging
from typing import Any

from airflow.listeners import hookimpl

from perennial.errors import PerennialError

log = logging.getLogger("airflow.task.perennial")


class FailureListener:
    """Airflow calls it last, in the task's own process, whether or not the task will be retried."""

    @hookimpl
    def on_task_instance_failed(self, error: Any) -> None:
        """Airflow's hook: a try has failed."""
        if isinstance(error, PerennialError):
            log.error("%s", error)
