"""The demo's runs in Airflow, against one plain script that does the same machine learning."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.harness import PROJECT, RESULTS, Result, environment, result
from benchmarks.live import _free_port

#: What the README shows of the last demo.
STORY = RESULTS / "demo_story.json"


def run(folder: Path, *, quick: bool) -> list[Result]:
    """Both as a user starts them, one after the other."""
    airflow, plain = [], []
    for i in range(1 if quick else 2):
        home = folder / f"home-{i}"
        env = environment({"PERENNIAL_HOME": str(home), "PERENNIAL_PORT": str(_free_port())})
        done = subprocess.run([sys.executable, "-m", "perennial.local", "demo"], cwd=PROJECT, env=env, check=False,
                              capture_output=True, text=True)  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"the demo ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
        summary = json.loads((home / "demo" / "summary.json").read_text())
        airflow.append(summary["seconds"]["replay"])
        if not quick:
            kept = {k: summary[k] for k in ("seconds", "decisions", "quarantined", "monitoring", "airflow")}
            text = json.dumps(kept, indent=1).replace(home.as_uri(), "").replace(str(home), "")
            STORY.write_text(text + "\n", encoding="utf-8")
        work = folder / f"plain-{i}"
        work.mkdir()
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "benchmarks.plain_demo", str(home / "landing"), str(work)],
                       cwd=PROJECT, env=environment({"PWD": os.fspath(work)}), check=True)  # fmt: skip
        plain.append(time.monotonic() - began)
    return [
        result("the demo in Airflow / a plain script", [a / p for a, p in zip(airflow, plain, strict=True)], unit="x",
               against="benchmarks/plain_demo.py: pandas, Great Expectations, DuckDB, scikit-learn, MLflow, Evidently",
               at_most=1.3, note="Wall seconds of the replay, without starting and stopping Airflow."),
        result("the demo in Airflow", airflow, unit="s"),
        result("the plain script", plain, unit="s"),
    ]  # fmt: skip
