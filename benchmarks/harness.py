"""How a figure is taken, kept and compared.

A job is a function in a module of this folder. It runs in a fresh process, which reports the CPU seconds it used (all
threads, user and system) and the most memory it held. Two jobs that are compared run alternately, so that a busy
machine hits both; the ratio of each round is one sample.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
RESULTS = PROJECT / "benchmarks" / "results"
#: Whose versions a figure depends on.
PACKAGES = ("perennial", "apache-airflow", "mlflow", "scikit-learn", "pandas", "pyarrow", "deltalake", "duckdb",
            "great-expectations", "evidently")  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What a job cost.

    :param cpu: CPU seconds of the part that the job timed (all threads).
    :param whole: CPU seconds of the whole process, with its start and its imports.
    :param wall: seconds of the timed part. ``peak``: most resident memory of the process, in MB.
    :param value: what the job returned.
    """

    cpu: float
    whole: float
    wall: float
    peak: float
    value: Any


@dataclass
class Result:
    """One row of the table.

    :param value: the median of ``n`` samples; ``spread``: the smallest and the largest of them.
    :param goal: what it should be, in words; ``met``: whether it is, ``None`` where there is no goal.
    """

    measure: str
    value: float | None
    unit: str
    against: str
    n: int
    spread: tuple[float, float] | None
    goal: str
    met: bool | None
    note: str = ""
    machine: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    date: str = ""


def result(
    measure: str,
    samples: Sequence[float],
    *,
    unit: str,
    against: str = "",
    at_most: float | None = None,
    at_least: float | None = None,
    note: str = "",
) -> Result:
    """A row from samples, judged by its median."""
    value = statistics.median(samples)
    goal, met = "", None
    if at_most is not None:
        goal, met = f"<= {at_most:g}", value <= at_most
    elif at_least is not None:
        goal, met = f">= {at_least:g}", value >= at_least
    spread = (_short(min(samples)), _short(max(samples)))
    return Result(measure, _short(value), unit, against, len(samples), spread, goal, met, note)


def _short(value: float) -> float:
    """Four significant digits: no figure here is better than that."""
    return float(f"{value:.4g}")


# ------------------------------------------------------------------------------------------------- fresh processes


def fresh(job: str, *, env: dict[str, str] | None = None, timeout: float = 3600, **arguments: Any) -> Cost:
    """Run ``module:function`` of this folder in a process of its own.

    :param arguments: keyword arguments of the function, as JSON can say them.
    :raises RuntimeError: with the end of what it wrote, when it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.worker", job, json.dumps(arguments), str(answer)],
            cwd=PROJECT,
            env=environment(env),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{job} ended with {done.returncode}:\n{done.stderr[-4000:]}")
        return Cost(**json.loads(answer.read_text()))


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment with one OpenMP thread, and with compiled modules kept, as every target has it."""
    own = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**own, "OMP_NUM_THREADS": "1", **(more or {})}


def alternately(rounds: int, *jobs: Callable[[], Cost]) -> list[list[Cost]]:
    """Run the jobs one after the other, ``rounds`` times; one list of costs per job."""
    costs: list[list[Cost]] = [[] for _ in jobs]
    for _ in range(rounds):
        for kept, job in zip(costs, jobs, strict=True):
            kept.append(job())
    return costs


class Stopwatch:
    """CPU and wall seconds of a block, for jobs that prepare something first."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time a block; several blocks add up."""
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu += time.process_time() - cpu
        self.wall += time.perf_counter() - wall


#: The stopwatch of this process's job; a job that does not use it is timed as a whole.
watch = Stopwatch()


def peak_memory() -> float:
    """Most resident memory of this process so far, in MB. (``getrusage`` would count its parent's, too.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this system does not say how much memory a process used: run the benchmarks on Linux")


# ---------------------------------------------------------------------------------------------------------- results


def machine() -> str:
    """Processor, cores and memory."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GB"


def keep(name: str, results: Sequence[Result], folder: Path = RESULTS) -> Path:
    """Merge results into ``<name>.json`` by measure: those taken now replace their older selves."""
    path = folder / f"{name}.json"
    known = {r["measure"]: r for r in json.loads(path.read_text())} if path.exists() else {}
    here, versions = machine(), {p: importlib.metadata.version(p) for p in PACKAGES}
    today = dt.datetime.now(dt.UTC).date().isoformat()
    for found in results:
        found.machine, found.versions, found.date = here, versions, today
        known[found.measure] = asdict(found)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(known.values()), indent=1) + "\n")
    return path
