"""Loads a version in a process of its own and scores: ``python -m perennial.training.probe FOLDER RESULT``.

Nothing of the process that asks is inherited but its environment. The figures go to the file ``RESULT`` as JSON, or the
one sentence that says why there are none.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

#: Rows of a timed batch; how many batches are timed at least and at most, and when there is an end to it.
BATCH, FEWEST, MOST, SECONDS = 1000, 3, 9, 5.0


def main(folder: Path, result: Path) -> int:
    """Probe the bundle in ``folder``."""
    step = "loaded"
    try:
        from perennial.training import golden
        from perennial.training.bundle import Bundle

        bundle = Bundle(folder)
        rows, known = golden.read(bundle)
        task, columns, scorer = bundle.spec.task.type, bundle.facts["columns"], bundle.scorer
        step = "used to score its golden sample"
        found = golden.score(scorer, rows, columns, task)
        same = found.view("int64") == known.view("int64") if found.shape == known.shape else None
        answer: dict[str, Any] = {
            "rows": len(known),
            "differing": len(known) if same is None else int((~same).any(axis=1).sum()),
            "latency": _latency(lambda many: golden.score(scorer, many, columns, task), rows),
            "memory": _peak(),
        }
    except Exception as e:  # whatever a model's code raises
        said = (str(e).strip().splitlines() or [""])[0][:300]
        answer = {"error": f"it cannot be {step} in a fresh process: {type(e).__name__}: {said}"}
    result.write_text(json.dumps(answer), encoding="utf-8")
    return 0


def _latency(score: Any, rows: Any) -> float:
    """Seconds for 1,000 rows: the median of some batches, after one that warms up."""
    import numpy as np

    many = rows.take(np.arange(BATCH) % len(rows))
    score(many)
    taken: list[float] = []
    while len(taken) < FEWEST or (len(taken) < MOST and sum(taken) < SECONDS):
        began = time.perf_counter()
        score(many)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _peak() -> int:
    """The most memory that this process held, in bytes. (On Linux ``getrusage`` would count its parent's, too.)"""
    try:
        for line in Path("/proc/self/status").read_text("utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
