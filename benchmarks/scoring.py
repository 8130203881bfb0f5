"""Scoring one large partition, against the bare pipeline's ``predict_proba`` on the same rows."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from benchmarks import world
from benchmarks.harness import Result, alternately, fresh, result, watch

KEY = "2013-03-15"


def run(folder: Path, *, quick: bool) -> list[Result]:
    """Rows per CPU second of both, alternately."""
    rows, home, fast_home = 100_000 if quick else 1_000_000, str(folder / "home"), str(folder / "onnx")
    arm = fresh("world:make", home=home).value
    fast_arm = fresh("world:make", home=fast_home, runtime="onnx").value
    for each in (home, fast_home):
        fresh("world:give_features", home=each, key=KEY, rows=rows)
    ours, bare, fast = alternately(
        1 if quick else 5,
        lambda: fresh("scoring:ours", home=home, arm=arm),
        lambda: fresh("scoring:bare", home=home, arm=arm),
        lambda: fresh("scoring:ours", home=fast_home, arm=fast_arm),
    )
    means = [c.value["mean"] for c in (*ours, *bare, *fast)]
    if {c.value["rows"] for c in (*ours, *bare, *fast)} != {rows} or max(means) - min(means) > 1e-6:
        raise RuntimeError("they did not score the same rows alike")
    if {c.value["runtime"] for c in fast} != {"OnnxModel"}:
        raise RuntimeError("ONNX Runtime did not score")
    size = f"{rows // 10**6}M rows"
    return [
        result(
            f"scoring {size} (read, score, check, publish), rows per CPU second / bare",
            [b.cpu / a.cpu for a, b in zip(ours, bare, strict=True)],
            unit="x",
            against="predict_proba of the same pipeline on a frame in memory, in the same batches",
            at_least=0.85,
            note="200 trees of 31 leaves, 18 features, features given. Loading the version counts, imports do not.",
        ),
        result(
            "the same, whole processes with their imports",
            [b.whole / a.whole for a, b in zip(ours, bare, strict=True)],
            unit="x",
            against="the process that loads the model and the frame and calls predict_proba",
        ),
        result(
            f"scoring {size} with ONNX Runtime, rows per CPU second / bare",
            [b.cpu / a.cpu for a, b in zip(fast, bare, strict=True)],
            unit="x",
            against="the same predict_proba of scikit-learn",
            at_least=1.3,
            note="The version passed the parity gate on its holdout. Reading, checking and publishing cost the same.",
        ),
        result(f"scoring {size}", [rows / c.cpu for c in ours], unit="rows / CPU s"),
        result("imports and start of that process", [c.whole - c.cpu for c in ours], unit="CPU s"),
    ]


def _import() -> None:
    """What either side imports: not what is compared."""
    import deltalake  # noqa: F401
    import duckdb  # noqa: F401
    import pandas  # noqa: F401
    import sklearn.compose
    import sklearn.ensemble
    import sklearn.pipeline  # noqa: F401

    import perennial.scoring.predict  # noqa: F401


def ours(home: str, arm: dict[str, str]) -> dict[str, Any]:
    """The three tasks of a scoring run, in one process."""
    world.enter(home)
    _import()
    from perennial.registry import tracking
    from perennial.runs import Actor, RunState
    from perennial.scoring.predict import Arm, check_output, publish, score_partition
    from perennial.specs.loader import load_specs
    from perennial.training.bundle import Bundle

    specs = load_specs(only=world.MODEL)
    spec, now = specs.model(world.MODEL), dt.datetime.now(dt.UTC)
    state = RunState(Actor(f"{world.MODEL}.score", now.isoformat(), "score"))
    with watch.running():
        said = score_partition(spec, specs.feeds, KEY, [Arm(**arm)], state, now=now)
        problems = check_output(spec, specs.feeds, KEY, state)
        if problems:
            raise RuntimeError("; ".join(problems))
        publish(spec, specs.feed(spec.entity), KEY, state)
    _unpublish(home)
    runtime = type(Bundle(tracking.cache_folder().fetch(arm["model_id"])).scorer).__name__
    return {"rows": said["rows"], "mean": said["mean_score"], "runtime": runtime}


def _unpublish(home: str) -> None:
    """Publishing the same scores again would write nothing."""
    import shutil

    shutil.rmtree(Path(home) / "lake" / "predictions")


def bare(home: str, arm: dict[str, str], batch: int = 65_536) -> dict[str, Any]:
    """The same pipeline on a frame that is there already."""
    world.enter(home)
    _import()
    import numpy as np
    import pyarrow.parquet as pq

    from perennial.registry import tracking
    from perennial.training.bundle import Bundle
    from perennial.training.data import to_matrix

    model = Bundle(tracking.cache_folder().fetch(arm["model_id"])).model
    X = to_matrix(pq.read_table(Path(home) / "large.parquet"), world.NUMBERS + world.TEXTS)
    with watch.running():
        scores = [model.predict_proba(X.iloc[i : i + batch])[:, 1] for i in range(0, len(X), batch)]
    whole = np.concatenate(scores)
    return {"rows": len(whole), "mean": float(np.mean(whole))}
