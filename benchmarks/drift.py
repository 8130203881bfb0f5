"""A drift check of twenty columns, against Evidently's own preset on the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.harness import Cost, Result, alternately, fresh, result, watch

REFERENCE = 20_000


def run(folder: Path, *, quick: bool) -> list[Result]:
    """The check without and with its page, and the preset, alternately."""
    rows, data = 30_000 if quick else 300_000, str(folder)
    _make(folder, rows)
    check, page, preset = alternately(
        1 if quick else 3,
        lambda: fresh("drift:ours", data=data, page=False),
        lambda: fresh("drift:ours", data=data, page=True),
        lambda: fresh("drift:preset", data=data),
    )
    worst = max(abs(check[0].value[c] - v) / v for c, v in preset[0].value.items())
    if worst > 1e-9:
        raise RuntimeError(f"our distances are not Evidently's: they differ by {worst:.1e}, so the times say nothing")
    size = f"20 columns x {rows // 1000}k rows"
    return [
        result(
            f"drift check, {size}, CPU s / Evidently's preset",
            _ratios(check, preset),
            unit="x",
            against="DataDriftPreset with the same methods, without a page",
            at_most=0.1,
            note=f"Presence, distances and verdict; numpy decides. Largest relative difference to Evidently's "
            f"distances in this run: {worst:.0e}.",
        ),
        result(
            f"drift check with Evidently's page, {size}, CPU s / Evidently's preset",
            _ratios(page, preset),
            unit="x",
            against="the same preset, without a page",
            at_most=0.4,
        ),
        result(f"drift check, {size}", [c.cpu for c in check], unit="CPU s"),
        result("that check with Evidently's page", [c.cpu for c in page], unit="CPU s"),
        result("Evidently's preset on the same rows", [c.cpu for c in preset], unit="CPU s"),
    ]


def _ratios(ours: list[Cost], theirs: list[Cost]) -> list[float]:
    return [a.cpu / b.cpu for a, b in zip(ours, theirs, strict=True)]


def _make(folder: Path, rows: int) -> None:
    """15 columns of numbers, 4 of texts, one flag; the current rows have moved a little."""
    import pandas as pd

    for name, n, seed, shift in (("reference", REFERENCE, 1, 0.0), ("current", rows, 2, 0.1)):
        rng = np.random.default_rng(seed)
        columns: dict[str, Any] = {f"x{i}": rng.normal(shift * i, 1 + shift, n) for i in range(10)}
        columns |= {f"k{i}": rng.poisson(5 + i + shift, n).astype(float) for i in range(5)}
        columns["x0"][rng.random(n) < 0.05] = np.nan
        words = np.array([f"w{i}" for i in range(30)], dtype=object)
        columns |= {f"c{i}": words[np.minimum(29, rng.geometric(0.2 + shift / 2, n))] for i in range(4)}
        columns["flag"] = (rng.random(n) < 0.3 + shift).astype(float)
        pd.DataFrame(columns).to_parquet(folder / f"{name}.parquet")


def _read(data: str) -> tuple[Any, Any]:
    import pandas as pd

    frames = [pd.read_parquet(Path(data) / f"{name}.parquet") for name in ("reference", "current")]
    for frame in frames:  # as the lake gives them: texts are objects
        for name in frame.columns[frame.dtypes == "str"]:
            frame[name] = frame[name].astype(object)
    return frames[0], frames[1]


def ours(data: str, page: bool) -> dict[str, float]:
    """What monitoring does with one window, thresholds given."""
    reference, current = _read(data)
    import evidently.metrics  # noqa: F401
    import scipy.spatial.distance  # noqa: F401

    from perennial.monitoring.calibration import Calibration
    from perennial.monitoring.drift import ColumnPlan, check_presence, distances, judge_window, report

    plan = ColumnPlan.choose(reference)
    thresholds = dict.fromkeys(plan.columns, 0.1)
    calibration = Calibration(
        columns=plan.columns, mean=(0.0,) * 20, sd=(1.0,) * 20, z=2.0, thresholds=thresholds, needed=7, share=0.3, k=2,
        n=3, a=0.02, window_days=7, reference_days=45, blocks=39,
    )  # fmt: skip
    with watch.running():
        if check_presence(reference, current, columns=list(plan.columns)):
            raise RuntimeError("the rows of the benchmark are broken")
        found = judge_window(distances(reference, current, plan), calibration)
        if page:
            report(reference, current, plan, thresholds, Path(data) / "drift.html")
    return found.distances


def preset(data: str) -> dict[str, float]:
    """Evidently's preset with the methods that we pin."""
    reference, current = _read(data)
    import warnings

    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    texts = [c for c in reference.columns if c.startswith(("c", "f"))]
    numbers = [c for c in reference.columns if c not in texts]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=texts)
    with warnings.catch_warnings(), watch.running():
        warnings.simplefilter("ignore")
        made = Report([DataDriftPreset(num_method="wasserstein", cat_method="jensenshannon")]).run(
            Dataset.from_pandas(current, data_definition=definition),
            Dataset.from_pandas(reference, data_definition=definition),
        )
        said = made.dict()
    return {
        m["config"]["column"]: float(m["value"]) for m in said["metrics"] if m["config"]["type"].endswith("ValueDrift")
    }
