"""Start processes in groups of their own, and end those and no others.

Every component leads its own session, so that one signal reaches all of its children and Ctrl-C in the terminal none of
them. Airflow's idle task workers ignore SIGTERM: after a grace period the whole group is killed. What was started is
written down, so that the leftovers of a launcher that was itself killed can be found, recognised and ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from perennial.errors import PerennialError

#: Set in the environment of every component; tells our processes from others.
MARKER = "PERENNIAL_STACK"

#: How long components may take to end by themselves before their groups are killed.
GRACE_SECONDS = 20.0

#: How long children that were asked first may take before their parent is asked too.
CHILDREN_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Record:
    """What is known about a started component when its launcher is gone."""

    name: str
    pid: int
    started: float
    marker: str
    log: str


@dataclass(slots=True)
class Component:
    """A running server and the group of processes below it.

    ``children_first``: whether it ends faster when its children are asked first, and it itself a little later.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    marker: str
    children_first: bool = False
    started: float = field(default_factory=time.time)

    @property
    def pid(self) -> int:
        """The process, and by construction also its group and its session."""
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self.process.poll()

    @property
    def record(self) -> Record:
        """The component as it is written down."""
        return Record(self.name, self.pid, self.started, self.marker, str(self.log))

    def last_lines(self, count: int = 15) -> str:
        """The end of its log."""
        return last_lines(self.log, count)


def spawn(
    name: str,
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    marker: str,
    children_first: bool = False,
    append: bool = False,
) -> Component:
    """Start a command as the leader of a new session, with its output in ``log``.

    :param append: keep what an earlier process of that name wrote.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab" if append else "wb") as output:
        process = subprocess.Popen(
            list(command),
            env={**env, MARKER: marker},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    component = Component(name, process, log, marker, children_first)
    try:
        component.started = psutil.Process(process.pid).create_time()
    except psutil.NoSuchProcess:
        component.started = time.time()
    return component


def last_lines(path: Path, count: int = 15) -> str:
    """The last lines of a text file, without reading all of it."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 400 * count))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-count:])


def stop(components: Iterable[Component], grace: float = GRACE_SECONDS) -> dict[str, float]:
    """End every component and whatever it started; return how long each took, in seconds."""
    todo = list(components)
    began = time.monotonic()
    family = {c.name: _members(c.record) for c in todo}
    later = {c.name for c in todo if c.children_first and _terminate_children(c)}
    for component in todo:
        if component.name not in later:
            component.process.send_signal(signal.SIGTERM)
    took: dict[str, float] = {}
    while len(took) < len(todo) and (passed := time.monotonic() - began) < grace:
        for component in todo:
            if component.name in took:
                continue
            if component.exit_code is not None:
                took[component.name] = passed
            elif component.name in later and passed > CHILDREN_SECONDS:
                later.discard(component.name)
                component.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    for component in todo:
        relatives = [*family[component.name], *_members(component.record)]
        if component.exit_code is None:
            component.process.kill()
        component.process.wait()  # before the others: psutil would take its exit code away
        _kill(p for p in relatives if p.pid != component.pid)
        took.setdefault(component.name, time.monotonic() - began)
    return took


def survivors(records: Iterable[Record]) -> list[psutil.Process]:
    """Processes that still run and belong to one of the records."""
    return [p for record in records for p in _members(record) if _alive(p)]


def reap(records: Iterable[Record]) -> int:
    """Kill what a launcher that is gone has left behind; return how many processes that were."""
    found = survivors(records)
    _kill(found)
    return len(found)


def write_records(path: Path, components: Iterable[Component]) -> None:
    """Write down what runs, in one step."""
    temporary = path.with_suffix(".tmp")
    content = {"boot": psutil.boot_time(), "components": [asdict(c.record) for c in components]}
    temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    temporary.replace(path)


def read_records(path: Path) -> list[Record]:
    """What was written down; nothing when the machine was restarted since, for its process numbers mean nothing now."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if abs(content["boot"] - psutil.boot_time()) > 60:
            return []
        return [Record(**r) for r in content["components"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise PerennialError(f"{path} cannot be read ({error}); delete it once no stack of this folder runs") from error


def _members(record: Record) -> list[psutil.Process]:
    """The processes of a component: its session and group, and children that left both."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            if record.pid not in (os.getpgid(process.pid), os.getsid(process.pid)):
                continue
            if _is_ours(process, record):
                found[process.pid] = process
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    for process in list(found.values()):
        try:
            found.update({child.pid: child for child in process.children(recursive=True)})
        except psutil.Error:
            continue
    return list(found.values())


def _is_ours(process: psutil.Process, record: Record) -> bool:
    """Whether a process of the right number is the one that was started, and not a later one that got its number."""
    born: float = process.create_time()
    if born < record.started - 1:
        return False
    if process.pid == record.pid:
        return abs(born - record.started) < 1
    try:
        leader = psutil.Process(record.pid)
        if abs(leader.create_time() - record.started) < 1:
            return True
    except psutil.NoSuchProcess:
        pass  # the leader is gone; its number stays taken while its group lives, so only look closer
    return _carries(process, record)


def _carries(process: psutil.Process, record: Record) -> bool:
    """Whether a process has our mark in its environment or our log as its output.

    Airflow's workers rename themselves, which overwrites the environment that the system shows; the log remains.
    """
    try:
        if process.environ().get(MARKER) == record.marker:
            return True
    except psutil.Error:
        pass
    for descriptor in (1, 2):
        try:
            if str(Path(f"/proc/{process.pid}/fd/{descriptor}").readlink()).removesuffix(" (deleted)") == record.log:
                return True
        except OSError:
            continue
    try:
        return any(str(f.path) == record.log for f in process.open_files())
    except psutil.Error:
        return False


def _terminate_children(component: Component) -> bool:
    """Ask the children of a component to end; False when there were none to ask."""
    try:
        children = psutil.Process(component.pid).children()
        for child in children:
            child.terminate()
    except psutil.Error:
        return False
    return bool(children)


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL, and wait until they are gone. ``psutil`` checks the start time first, so no stranger is hit."""
    todo = [p for p in processes if _alive(p)]
    for process in todo:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(todo, timeout=5)
