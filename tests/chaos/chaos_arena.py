"""A real stack that is mended when parts of it are killed, and the kills that were asked for."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import chaos_world as world
import httpx
import psutil
from chaos_life import Life

from perennial.errors import PerennialError
from perennial.local.rest import AirflowClient
from perennial.local.stack import Stack
from perennial.registry import tracking

PROJECT = Path(__file__).resolve().parents[2]
FOLDERS = ("armed", "claimed", "struck", "ended", "begun", "seen", "names")

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

    :param mended: components that were started again: when, and after how many seconds they answered.
    :param outside: kills that came from outside, at any moment.
    :param down: seconds that a component stays down once it has died; default: it is started again at once.
    """

    stack: Stack
    life: Life
    chaos: Path
    mended: list[dict[str, Any]] = field(default_factory=list)
    outside: list[dict[str, Any]] = field(default_factory=list)
    down: dict[str, float] = field(default_factory=dict)

    def running(self) -> dict[int, dict[str, Any]]:
        """The tasks that run now, by process; those that have not come to their work yet have no name."""
        found = {}
        for pid, task_id in (t for c in self.stack.records if c.name == "scheduler" for t in _tasks(c.pid)):
            name = self.chaos / "names" / task_id
            found[pid] = json.loads(name.read_text()) if name.exists() else {"dag": "", "task": "(starting)"}
        return found

    def kill(self, strike: Mapping[str, Any]) -> None:
        """Kill from outside, whatever it is doing: a component, or with ``task`` any task that runs now."""
        busy = self.running()
        victim, pid = strike["victim"], None
        if victim == "task":
            deadline = time.monotonic() + 20
            while not busy and time.monotonic() < deadline:
                time.sleep(0.02)
                busy = self.running()
            if not busy:
                return
            pid = sorted(busy)[strike["choice"] % len(busy)]
        else:
            pid = next((c.pid for c in self.stack.records if c.name == victim), None)
        tasks = sorted(f"{t['dag']} {t['task']}".strip() for t in busy.values())
        self.outside.append({**strike, **busy.get(pid, {}), "at": time.time(), "running": tasks})
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL) if victim in ("task", "scheduler") else os.killpg(pid, signal.SIGKILL)

    def arm(self, strike: Mapping[str, Any]) -> None:
        """Ask for a kill at a named place."""
        whole = {"match": "", "dag": "", "task": "", "nth": 1, "skip": 0, "delay": 0.0, "hold": 0.0, **strike}
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
    died: dict[str, float] = {}
    while not stop.wait(0.2):
        now = time.monotonic()
        died = {c.name: died.get(c.name, now) for c in arena.stack.ended}
        if any(now - since < arena.down.get(name, 0) for name, since in died.items()):
            continue
        for name in arena.stack.mend():
            say(f"the {name} had died and is started again")
            arena.mended.append({"component": name, "at": time.time()})
        for one in arena.mended:
            if "seconds" not in one and _answers(arena.stack, one["component"], one["at"]):
                one["seconds"] = round(time.time() - one["at"], 1)


def _answers(stack: Stack, component: str, since: float) -> bool:
    """Whether a component that was started again works: it answers, or its heart beats."""
    try:
        if component == "mlflow":
            return httpx.get(stack.urls["mlflow"] + "/health", timeout=2, trust_env=False).is_success
        state = httpx.get(stack.urls["airflow"] + "/api/v2/monitor/health", timeout=2, trust_env=False).json()
        if component == "api-server":
            return True
        name = component.replace("-", "_")
        beat = state[name][f"latest_{name}_heartbeat"]
        return beat is not None and datetime.fromisoformat(beat).timestamp() > since
    except (httpx.HTTPError, ValueError, KeyError):
        return False


def _tasks(scheduler: int) -> Iterator[tuple[int, str]]:
    """Processes that run a task now, and the id of its try: the children of LocalExecutor's workers."""
    with contextlib.suppress(psutil.Error):
        for worker in psutil.Process(scheduler).children():
            with contextlib.suppress(psutil.Error):
                title = " ".join(worker.cmdline())
                for child in worker.children():
                    yield child.pid, title.rsplit("LocalExecutor:", 1)[-1].strip()


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
