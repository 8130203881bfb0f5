"""Groups of processes: started, ended completely, recognised after their launcher is gone, never mistaken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from perennial.errors import PerennialError
from perennial.local import processes
from perennial.local.processes import Component, Record

pytestmark = pytest.mark.fast

# a server with a child that ignores SIGTERM, as idle task workers do, and a grandchild in a session of its own
STUBBORN = """
import subprocess, sys, time
stubborn = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
subprocess.Popen([sys.executable, "-c", stubborn])
subprocess.Popen([sys.executable, "-c", stubborn], process_group=0)
print("up", flush=True)
time.sleep(600)
"""
POLITE = "import time; print('up', flush=True); time.sleep(600)"

Start = Callable[..., Component]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    made: list[Component] = []

    def spawn(code: str, ups: int = 1, name: str = "server", **options: bool) -> Component:
        component = processes.spawn(
            name,
            [sys.executable, "-c", code],
            env=dict(os.environ),
            cwd=tmp_path,
            log=tmp_path / "logs" / f"{name}.log",
            marker=f"test#{name}",
            **options,
        )
        made.append(component)
        deadline = time.monotonic() + 20
        while component.log.read_text().count("up") < ups and time.monotonic() < deadline:
            time.sleep(0.02)
        return component

    yield spawn
    processes.stop(made, grace=0.1)


def test_a_component_leads_its_own_session(start: Start) -> None:
    component = start(POLITE)
    assert os.getsid(component.pid) == os.getpgid(component.pid) == component.pid != os.getsid(0)
    assert component.exit_code is None


def test_stop_ends_the_whole_family_and_nobody_else(start: Start, tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", POLITE], stdout=subprocess.DEVNULL)
    try:
        component = start(STUBBORN, ups=3)
        assert len(processes.survivors([component.record])) == 3
        took = processes.stop([component], grace=5)
        assert took["server"] < 5
        assert processes.survivors([component.record]) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_stop_does_not_wait_longer_than_its_grace(start: Start) -> None:
    component = start("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + POLITE)
    began = time.monotonic()
    processes.stop([component], grace=0.5)
    assert 0.4 < time.monotonic() - began < 4
    assert component.exit_code == -signal.SIGKILL


def test_children_can_be_asked_first(start: Start) -> None:
    parent = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"])
child.wait()
print("the child went first", flush=True)
"""
    component = start(parent, children_first=True)
    processes.stop([component], grace=10)
    assert "the child went first" in component.last_lines()
    assert component.exit_code == 0


def test_stopping_what_has_ended_is_no_error(start: Start) -> None:
    component = start("print('up')")
    component.process.wait()
    assert processes.stop([component]) == {"server": pytest.approx(0, abs=1)}


def test_leftovers_of_a_killed_launcher_are_found_and_ended(tmp_path: Path) -> None:
    launcher = f"""
import os, sys
from pathlib import Path
from perennial.local import processes
home = Path({str(tmp_path)!r})
c = processes.spawn("server", [sys.executable, "-c", {STUBBORN!r}], env=dict(os.environ), cwd=home,
                    log=home / "server.log", marker="gone")
processes.write_records(home / "stack.json", [c])
while (home / "server.log").read_text().count("up") < 3: pass
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", launcher], check=False)
    assert done.returncode == -signal.SIGKILL
    records = processes.read_records(tmp_path / "stack.json")
    assert len(processes.survivors(records)) == 3
    os.kill(records[0].pid, signal.SIGKILL)  # the leader dies too; its family is still recognised by its log and mark
    deadline = time.monotonic() + 5
    while len(processes.survivors(records)) > 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes.reap(records) >= 1
    deadline = time.monotonic() + 5
    while processes.survivors(records) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes.survivors(records) == []


def test_a_stranger_with_the_same_number_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", POLITE], stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        born = psutil.Process(stranger.pid).create_time()
        earlier = Record("server", stranger.pid, born - 3600, "mark", str(tmp_path / "server.log"))
        later = replace(earlier, started=born + 3600)
        assert processes.reap([earlier, later]) == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_records_of_an_earlier_boot_mean_nothing(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "stack.json"
    component = start(POLITE)
    processes.write_records(path, [component])
    assert processes.read_records(path) == [component.record]
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"boot": content["boot"] - 86_400}))
    assert processes.read_records(path) == []


def test_no_records_and_broken_records(tmp_path: Path) -> None:
    assert processes.read_records(tmp_path / "nothing.json") == []
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(PerennialError, match=r"broken\.json cannot be read .* delete it"):
        processes.read_records(tmp_path / "broken.json")


def test_last_lines_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("".join(f"line {i}\n" for i in range(10_000)))
    assert processes.last_lines(log, 3) == "line 9997\nline 9998\nline 9999"
    assert processes.last_lines(tmp_path / "none.log") == ""
