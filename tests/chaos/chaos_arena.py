"""A real stack that is mended when parts of it are killed, and the kills that were asked for."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chaos_world as world
from chaos_life import Life

from perennial.errors import PerennialError
from perennial.local.rest import AirflowClient
from perennial.local.stack import Stack
from perennial.registry import tracking

PROJECT = Path(__file__).resolve().parents[2]
FOLDERS = ("armed", "claimed", "struck", "ended", "begun")

#: Airflow notices a dead worker or scheduler after minutes. The mechanism is the same when it looks more often.
FAST = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "12",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "45",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "12",
    "AIRFLOW__CORE__PARALLELISM": "8",
}


@dataclass
class Arena:
    """The running stack of one life.

    :param mended: components that were started again, with the moments at which they had ended and were ready again.
    """

    stack: Stack
    life: Life
    chaos: Path
    mended: list[dict[str, Any]] = field(default_factory=list)

    def arm(self, strike: Mapping[str, Any]) -> None:
        """Ask for a kill at a named place."""
        whole = {"match": "", "dag": "", "task": "", "nth": 1, "delay": 0.0, "hold": 0.0, **strike}
        _whole(self.chaos / "armed" / f"{strike['id']}.json", whole)

    def struck(self) -> dict[str, dict[str, Any]]:
        """The kills that happened, by id."""
        return {p.stem: json.loads(p.read_text()) for p in sorted((self.chaos / "struck").glob("*.json"))}

    def ended(self, strike_id: str) -> str | None:
        """How a call ended whose process was not killed in it."""
        path = self.chaos / "ended" / f"{strike_id}.json"
        return str(json.loads(path.read_text())["how"]) if path.exists() else None


def _whole(path: Path, value: Any) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(value))
    temporary.rename(path)


@contextmanager
def arena(root: Path, port: int, say: Callable[[str], None] = lambda text: None) -> Iterator[Arena]:
    """Start a stack in an empty folder, keep it alive, and stop it."""
    chaos, home = root / "chaos", root / "home"
    for name in FOLDERS:
        (chaos / name).mkdir(parents=True)
    specs = world.write_specs(root / "specs")
    env = {**FAST, "PERENNIAL_SPECS": str(specs), "PERENNIAL_CHAOS": str(chaos)}
    stack = Stack(home, port, project=PROJECT, env=env)
    strikes = str(Path(__file__).parent / "strikes")
    stack.environment["PYTHONPATH"] = os.pathsep.join((strikes, stack.environment["PYTHONPATH"]))
    before = dict(os.environ)
    stop = threading.Event()
    stack.start(say)
    keeper: threading.Thread | None = None
    try:
        os.environ.update({k: v for k, v in stack.environment.items() if k.startswith(("PERENNIAL_", "MLFLOW_"))})
        tracking.client.cache_clear()
        client = AirflowClient(stack.urls["airflow"], stack.username, stack.password, retry_for=120)
        made = Arena(stack, Life(client, home / "landing", say=say), chaos)
        made.life.hurt = lambda: bool(made.mended or made.struck())
        keeper = threading.Thread(target=_keep, args=(made, stop, say), daemon=True)
        keeper.start()
        yield made
    finally:
        stop.set()
        if keeper is not None:
            keeper.join()
        stack.stop()
        os.environ.clear()
        os.environ.update(before)
        tracking.client.cache_clear()


def _keep(arena: Arena, stop: threading.Event, say: Callable[[str], None]) -> None:
    """What systemd or Kubernetes would do: start again what died."""
    while not stop.wait(0.2):
        for name in arena.stack.mend():
            say(f"the {name} had died and is started again")
            arena.mended.append({"component": name, "at": time.time()})


def free_port(first: int, last: int) -> int:
    """The first of five neighbouring ports that are all free, between two numbers."""
    import socket

    for port in range(first, last - 5, 6):
        try:
            for offset in range(5):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port + offset))
        except OSError:
            continue
        return port
    raise PerennialError(f"no free ports between {first} and {last}")
