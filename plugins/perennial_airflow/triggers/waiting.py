"""Waits in the triggerer, without holding a worker's slot."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from perennial_airflow import aws


class PartitionTrigger(BaseTrigger):
    """Fires when every awaited thing is there, or when it is too late.

    :param files: keys of files below the landing area. ``partitions``: ``[table uri, key]`` pairs of lake tables.
    :param deadline: ISO instant at which to give up.
    :param every: seconds between looks.
    """

    def __init__(self, *, files: list[str], partitions: list[list[str]], deadline: str, every: float = 5.0) -> None:
        super().__init__()
        self.files, self.partitions, self.deadline, self.every = files, partitions, deadline, every

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """For the metadata database."""
        return (
            f"{type(self).__module__}.{type(self).__name__}",
            {"files": self.files, "partitions": self.partitions, "deadline": self.deadline, "every": self.every},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is there or too late."""
        end = dt.datetime.fromisoformat(self.deadline)
        while True:
            late = dt.datetime.now(dt.UTC) >= end
            try:
                lacking = await asyncio.to_thread(self.lacking)
            except Exception:
                if late:
                    raise
                self.log.warning("could not look; trying again", exc_info=True)
            else:
                if not lacking or late:
                    yield TriggerEvent({"lacking": lacking})
                    return
            await asyncio.sleep(self.every)

    def lacking(self) -> list[str]:
        """What is not there yet."""
        from perennial.lake.table import PartitionedTable
        from perennial.settings import settings
        from perennial.storage import open_store

        aws.use_connection()
        landing = open_store(settings().landing)
        found = [f for f in self.files if not landing.exists(f)]
        for uri, key in self.partitions:
            if key not in PartitionedTable(uri, ()).partitions():
                found.append(f"{uri.rsplit('/', 1)[-1]} {key}")
        return found
