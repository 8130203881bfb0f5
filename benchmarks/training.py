"""A second training on the same window, against the first: features are shared, and not built again."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

from benchmarks import flights
from benchmarks.harness import Result, alternately, fresh, result, watch

LAST = "2013-02-28"


def run(folder: Path, *, quick: bool) -> list[Result]:
    """Prepare the same training twice, in two processes; only the first finds no features."""
    home = str(folder / "home")
    fresh("flights:land", home=home, last=LAST)
    first, second = alternately(
        1 if quick else 5,
        lambda: fresh("training:prepare", home=home, forget=True),
        lambda: fresh("training:prepare", home=home, forget=False),
    )
    if any(c.value["built"] != c.value["partitions"] for c in first) or any(c.value["built"] for c in second):
        raise RuntimeError("the second training built features, or the first did not")
    if len({c.value["sha256"] for c in (*first, *second)}) != 1:
        raise RuntimeError("the two trainings did not see the same rows")
    return [
        result(
            "preparing a second training on the same window / the first, CPU s",
            [b.cpu / a.cpu for a, b in zip(first, second, strict=True)],
            unit="x",
            against="the first training's plan, features, snapshots and rows",
            at_most=0.6,
            note=f"{first[0].value['partitions']} days of flights, {first[0].value['rows']:,} rows. What the second "
            "pays for is the plan, and reading and verifying every row.",
        ),
        result("preparing the first training", [c.cpu for c in first], unit="CPU s"),
        result("preparing the second", [c.cpu for c in second], unit="CPU s"),
    ]


def prepare(home: str, forget: bool) -> dict[str, object]:
    """Plan, features, snapshots and rows, as the tasks of a training run make them."""
    specs = flights.enter(home)
    import deltalake  # noqa: F401
    import duckdb  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.dataset  # noqa: F401

    from perennial.training.data import load_rows, snapshot_rows
    from perennial.training.plan import make_plan

    if forget:
        shutil.rmtree(Path(home) / "lake" / "features", ignore_errors=True)
    spec, folder = specs.model(flights.MODEL), specs.folder_of("model", flights.MODEL)
    with watch.running():
        plan = make_plan(spec, specs.feeds, folder, as_of=dt.datetime(2013, 3, 1, 5, tzinfo=dt.UTC))
        built = plan.builder().ensure([*plan.train_keys, *plan.holdout_keys])
        parts = [snapshot_rows(plan.spec, plan.feeds, plan.definition, k) for k in (plan.train_keys, plan.holdout_keys)]
        rows = [load_rows(plan.spec, plan.feeds, plan.definition, part) for part in parts]
    return {
        "built": len(built.built),
        "partitions": len(plan.train_keys) + len(plan.holdout_keys),
        "rows": sum(len(r.y) for r in rows),
        "sha256": parts[0]["features"].sha256 + parts[1]["features"].sha256,
    }
