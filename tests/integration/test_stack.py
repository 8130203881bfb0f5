"""The real embedded stack with the project's own DAGs: it starts, answers, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from perennial.errors import ConflictError
from perennial.local import processes
from perennial.local.keeper import Keeper
from perennial.local.rest import AirflowClient, AirflowError
from perennial.local.stack import Stack, StackError

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PROJECT = Path(__file__).parents[2]


def free_port() -> int:
    """The first of two neighbours that are both free."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def everything_below(home: Path) -> list[psutil.Process]:
    """Processes that have anything to do with this home, found without the stack's own bookkeeping."""
    found = []
    for process in psutil.process_iter():
        try:
            texts = [*process.cmdline(), process.environ().get("PERENNIAL_HOME", "")]
            outputs = [str(Path(f"/proc/{process.pid}/fd/{n}").readlink()) for n in (1, 2)]
        except (psutil.Error, OSError):
            continue
        if process.pid != os.getpid() and any(str(home) in text for text in (*texts, *outputs)):
            found.append(process)
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stack") / "home"


@pytest.fixture(scope="module")
def stack(home: Path) -> Iterator[Stack]:
    made = Stack(home, free_port(), project=PROJECT)
    said: list[str] = []
    made.start(said.append)
    assert said[-1].startswith("ready after")
    yield made
    made.stop()
    made.stop()  # a second time is no error
    assert everything_below(home) == []


def test_everything_is_healthy(stack: Stack) -> None:
    assert set(stack.client.health().values()) == {"healthy"}
    assert stack.client.execution_ready()
    assert httpx.get(stack.urls["mlflow"] + "/health").text == "OK"
    stack.check()


def test_the_project_s_dags_are_there_without_errors(stack: Stack) -> None:
    assert stack.client.import_errors() == []
    if any((PROJECT / "dags").glob("*.py")):
        dags = stack.client.dags()
        assert dags
        assert not any(d["is_paused"] for d in dags), "a paused DAG loses its events"


def test_nobody_asked_for_a_run_and_there_is_none(stack: Stack) -> None:
    assert stack.client.runs() == []


def test_the_pools_are_there(stack: Stack) -> None:
    pools = stack.client.pools()
    assert pools["perennial_heavy"]["slots"] == 2
    assert pools["perennial_promote"]["slots"] == 1


def test_it_asks_for_a_login_and_listens_on_loopback_only(stack: Stack) -> None:
    assert httpx.get(stack.urls["airflow"] + "/api/v2/dags").status_code == 401
    wrong = AirflowClient(stack.urls["airflow"], "admin", "wrong")
    with pytest.raises(AirflowError, match="refused the login of 'admin'"):
        wrong.dags()
    ours = {p.pid for p in processes.survivors(stack.records)}
    listening = {
        connection.laddr.ip
        for pid in ours
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_a_second_start_on_the_same_home_is_refused(stack: Stack, home: Path) -> None:
    with pytest.raises(ConflictError, match=f"already runs in {home} "):
        Stack(home, free_port(), project=PROJECT).start()
    stack.check()
    assert set(stack.client.health().values()) == {"healthy"}


def test_the_same_port_for_another_home_is_refused(stack: Stack, tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match=f"Port {stack.port} for Airflow is taken; set PERENNIAL_PORT"):
        Stack(tmp_path / "other", stack.port, project=PROJECT).start()


def _kill(stack: Stack, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not stack.ended:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_component_is_started_again_until_it_dies_too_often(stack: Stack) -> None:
    said: list[str] = []
    keeper = Keeper(stack, said.append, most=1)
    (before,) = [r for r in stack.records if r.name == "triggerer"]
    children = psutil.Process(before.pid).children()
    assert children
    _kill(stack, before.pid)
    keeper.look()
    (after,) = [r for r in stack.records if r.name == "triggerer"]
    assert after.pid != before.pid
    assert said == [f"the triggerer ended by itself with code -9 and is started again; see {after.log}"]
    assert not any(c.is_running() for c in children), "what it left running is ended first"
    stack.check()
    _kill(stack, after.pid)
    with pytest.raises(StackError, match="The triggerer ended with code -9; the end of"):
        keeper.look()
    assert stack.mend() == ["triggerer"]


def test_up_survives_a_killed_launcher_and_stops_on_sigterm(tmp_path: Path) -> None:
    """Kill -9 the first launcher in mid-start, start again, and stop that one politely: exit 0, nothing left."""
    env = os.environ | {
        "PERENNIAL_HOME": str(tmp_path / "home"),
        "PERENNIAL_PORT": str(free_port()),
        "PYTHONPATH": str(PROJECT / "include"),
    }
    command = [sys.executable, "-m", "perennial.local", "--project", str(PROJECT), "up"]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, cwd=tmp_path) as first:
        deadline = time.monotonic() + 60
        while len(everything_below(tmp_path / "home")) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        first.kill()
    left = everything_below(tmp_path / "home")
    assert left

    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as second:
        said = []
        assert second.stdout is not None
        for line in second.stdout:
            said.append(line)
            if "Ctrl-C stops everything" in line:
                break
        second.send_signal(signal.SIGTERM)
        second.stdout.read()
        assert second.wait(60) == 0, "".join(said)
    text = "".join(said)
    assert "processes that an earlier stack left behind" in text
    assert "user admin, password" in text
    assert not any(p.is_running() for p in left)
    assert everything_below(tmp_path / "home") == []
