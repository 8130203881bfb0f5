"""A real stack for benchmarks: started on free ports in a folder of its own, and always stopped."""

from __future__ import annotations

import datetime as dt
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.harness import PROJECT

from perennial.local.rest import AirflowClient
from perennial.local.stack import Stack


@contextmanager
def stack(home: Path, env: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """Start it; the core, called from here, looks where the stack does."""
    found = Stack(home, _free_port(), project=PROJECT, env=dict(env or {}))
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PERENNIAL_")}
    with mock.patch.dict(os.environ, {**kept, **found.environment}, clear=True):
        try:
            found.start()
            yield found
        finally:
            found.stop()


def _free_port() -> int:
    for port in range(23000, 40000, 20):
        try:
            for n in range(5):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", port + n))
        except OSError:
            continue
        return port
    raise RuntimeError("no free ports")


def ended(client: AirflowClient, dag_id: str, run_id: str, patience: float = 300) -> list[dict[str, Any]]:
    """Wait for a run to end, and return its tasks."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if client.run(dag_id, run_id)["state"] in ("success", "failed"):
            return client.task_instances(dag_id, run_id)
        time.sleep(0.2)
    raise RuntimeError(f"{dag_id} {run_id} has not ended after {patience:.0f} s")


def instant(text: str) -> float:
    """Airflow's time as seconds since the epoch."""
    return dt.datetime.fromisoformat(text).timestamp()


def p95(values: list[float]) -> float:
    """The value that 95 % do not exceed."""
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]
