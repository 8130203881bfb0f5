"""The process of one job: ``python -m benchmarks.worker module:function ARGUMENTS ANSWER``. See ``harness.fresh``."""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path

from benchmarks import harness


def main() -> None:
    """Run the job and write what it cost."""
    job, arguments, answer = sys.argv[1:]
    module, function = job.split(":")
    run = getattr(importlib.import_module(f"benchmarks.{module}"), function)
    cpu, wall = time.process_time(), time.perf_counter()
    value = run(**json.loads(arguments))
    watch = harness.watch
    timed = watch.wall > 0
    cost = {
        "cpu": watch.cpu if timed else time.process_time() - cpu,
        "whole": time.process_time(),
        "wall": watch.wall if timed else time.perf_counter() - wall,
        "peak": harness.peak_memory(),
        "value": value,
    }
    Path(answer).write_text(json.dumps(cost))


if __name__ == "__main__":
    main()
