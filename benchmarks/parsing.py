"""The real dag-processor with 2, 100 and 1,000 models: seconds per file, what an idle stack costs, how tasks start."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import psutil
from benchmarks.harness import PROJECT, Result, result
from benchmarks.live import ended, instant, stack

from perennial.local.stack import Stack

#: What docs/deploy.md says for so many models, in seconds: min_file_process_interval, dag_file_processor_timeout,
#: refresh_interval.
ADVICE = {2: (60, 50, 10), 100: (300, 50, 30), 1000: (3600, 300, 120)}
#: A line of the dag-processor's table: file, its last duration.
LINE = re.compile(r"(\w+\.py)\s+.*?(\d+\.\d+)s\s+\d{4}-")


def run(folder: Path, *, quick: bool) -> list[Result]:
    """One stack per number of models, each with the settings that the docs give for it."""
    found = []
    starts: dict[int, list[float]] = {}
    for models in (2, 20) if quick else ADVICE:
        interval, timeout, refresh = ADVICE.get(models, (60, 50, 10))
        env = {
            "PERENNIAL_SPECS": str(_specs(folder / f"specs-{models}", models)),
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": str(interval),
            "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": str(timeout),
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": str(refresh),
            "AIRFLOW__DAG_PROCESSOR__PRINT_STATS_INTERVAL": "5",
        }
        with stack(folder / f"home-{models}", env) as live:
            time.sleep(8)
            slowest, whole, cpu = _pass(live)
            idle = _idle(live, 10 if quick else max(40, refresh))
            starts[models] = _starts(live, 3 if quick else 15)
        cost = 100 * cpu / interval
        found += [
            result(f"slowest DAG file, {models:,} models", [slowest], unit="s", at_most=timeout / 2,
                   note=f"dag_file_processor_timeout {timeout} s; all files of a pass together {whole:.1f} s."),
            result(f"idle CPU of the dag-processor, {models:,} models", [idle + cost], unit="% of a core", at_most=10,
                   note=f"{idle:.1f} % between passes, and {cpu:.1f} CPU s of a pass every {interval} s "
                        "(min_file_process_interval)."),
            result(f"a small task, queued to done, {models:,} models", starts[models], unit="s"),
        ]  # fmt: skip
    few, *_, many = starts
    found.append(
        result(
            f"the same, {many:,} models / {few}",
            [_median(starts[many]) / _median(starts[few])],
            unit="x",
            at_most=1.1,
            note="No increase is the goal; a tenth is what the clock of two cores cannot tell apart.",
        )
    )
    return found


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _specs(root: Path, models: int) -> Path:
    """The shipped feeds, and so many copies of a shipped model."""
    shutil.copytree(PROJECT / "include" / "feeds", root / "feeds")
    source = PROJECT / "include" / "models" / "flight_delay"
    for i in range(models):
        name = f"model_{i:04d}"
        shutil.copytree(source, root / "models" / name)
        spec = root / "models" / name / "model.yaml"
        spec.write_text(spec.read_text().replace("name: flight_delay", f"name: {name}"))
    return root


def _pass(live: Stack) -> tuple[float, float, float]:
    """Of the last pass: the slowest file, all files together, and CPU seconds of a whole pass in a process."""
    text = (live.home / "logs" / "dag-processor.log").read_text(errors="replace")
    last = {name: float(seconds) for name, seconds in LINE.findall(text)}
    if not last:
        raise RuntimeError("the dag-processor printed no durations")
    return max(last.values()), sum(last.values()), _cpu_of_children(live)


def _cpu_of_children(live: Stack) -> float:
    """CPU seconds of the dag-processor's children that have ended: one pass over all files so far."""
    record = next(r for r in live.records if r.name == "dag-processor")
    times = psutil.Process(record.pid).cpu_times()
    return float(times.children_user + times.children_system)


def _idle(live: Stack, seconds: float) -> float:
    """Percent of a core that the dag-processor itself takes between passes."""
    record = next(r for r in live.records if r.name == "dag-processor")
    process = psutil.Process(record.pid)
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    return 100 * (after.user + after.system - before.user - before.system) / seconds


def _starts(live: Stack, n: int) -> list[float]:
    """Seconds from queued to the end of a task that looks into MLflow and keeps a request."""
    found = []
    for i in range(n + 2):
        action = "resume" if i % 2 else "pause"
        made = live.client.trigger("model_0001.operate", conf={"action": action, "reason": "benchmark"})
        tasks = ended(live.client, "model_0001.operate", made["dag_run_id"])
        (task,) = [t for t in tasks if t["task_id"] == "request" and t["state"] == "success"]
        if i >= 2:
            found.append(instant(task["end_date"]) - instant(task["queued_when"]))
    return found
