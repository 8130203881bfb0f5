"""A version's checklist and model card: from its bundle to the pages in MLflow."""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import Any

from benchmarks import flights
from benchmarks.harness import Result, fresh, result, watch

LAST = "2013-03-01"


def run(folder: Path, *, quick: bool) -> list[Result]:
    """One version of flight_delay, and its card made anew in a process of its own each time."""
    home = str(folder / "home")
    fresh("flights:land", home=home, last=LAST)
    fresh("card:train", home=home)
    made = [fresh("card:make", home=home) for _ in range(1 if quick else 5)]
    note = f"{made[0].value['rows']:,} rows of the holdout, {made[0].value['features']} features, "
    note += f"{made[0].value['repeats']} shuffles of each; {made[0].value['bytes'] / 1000:.0f} kB of HTML"
    return [
        result("a model card, s", [c.value["card"] for c in made], unit="s", at_most=10, note=note),
        result("the checklist before promotion, s", [c.value["checklist"] for c in made], unit="s",
               note=f"reads {made[0].value['read']:,} rows again, and computes their sha256"),
        result("card and checklist", [c.cpu for c in made], unit="CPU s"),
    ]  # fmt: skip


def _enter(home: str) -> Any:
    specs = flights.enter(home)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path(home) / 'mlflow.db'}"
    os.environ["PERENNIAL_WAIVE"] = "code_committed: a benchmark"
    os.chdir(home)  # artifacts go to ./mlruns
    return specs


def train(home: str) -> None:
    """A registered, signed and checked version."""
    specs = _enter(home)
    from perennial.ledger import Ledger
    from perennial.registry import versions
    from perennial.runs import Actor, RunState
    from perennial.training import attest, stage
    from perennial.training.bundle import Bundle
    from perennial.training.data import snapshot_rows
    from perennial.training.evaluate import evaluate, record
    from perennial.training.fit import fit
    from perennial.training.plan import make_plan
    from perennial.trust.keys import new_pair

    new_pair(Path(home) / "keys")
    name, ledger, actor = flights.MODEL, Ledger(), Actor(f"{flights.MODEL}.train", "bench", "fit")
    as_of = dt.datetime(2013, 3, 1, 5, tzinfo=dt.UTC)
    plan = make_plan(specs.model(name), specs.feeds, specs.folder_of("model", name), as_of=as_of)
    plan.builder().ensure([*plan.train_keys, *plan.holdout_keys])
    parts = [snapshot_rows(plan.spec, plan.feeds, plan.definition, k) for k in (plan.train_keys, plan.holdout_keys)]
    done = fit(plan, parts[0], parts[1], actor)
    found = evaluate(plan, parts[1], done, ledger)
    record(plan, found, done, ledger, actor)
    bundle = Bundle.open(name, done)
    version = versions.register(name, done.run_id, done.model_id, attest.trust_tags(bundle))
    attest.record_signature(version, bundle, as_of, ledger, actor)
    stage.record(version, stage.stage_check(version, actor), as_of, ledger, actor)
    RunState(actor).write("evaluation", found.to_dict())


def make(home: str) -> dict[str, Any]:
    """The checklist, then the card, as the task ``checklist`` makes them."""
    specs = _enter(home)
    import mlflow.sklearn  # noqa: F401

    from perennial.ledger import Ledger
    from perennial.registry import tracking, versions
    from perennial.runs import Actor, RunState
    from perennial.training.card.publish import publish
    from perennial.training.checklist import check
    from perennial.training.evaluate import Evaluation

    actor, ledger, name = Actor(f"{flights.MODEL}.train", "bench", "checklist"), Ledger(), flights.MODEL
    state, version = RunState(actor), versions.get(flights.MODEL, "1")
    evaluation = Evaluation.from_dict(state.read("evaluation"))
    as_of = dt.datetime(2013, 3, 1, 5, tzinfo=dt.UTC)
    with watch.running():
        began = time.monotonic()
        found = check(specs.model(name), version, as_of=as_of, actor=actor, ledger=ledger)
        between = time.monotonic()
        publish(version, evaluation, found, state=state, ledger=ledger, actor=actor)
        ended = time.monotonic()
    if found.unmet:
        raise RuntimeError(found.reason)
    page = Path(tracking.client().download_artifacts(version.run_id, "card.html")).read_text()
    said = page.partition("are shuffled over ")[2]
    rows, _, times = said.partition(" judged rows of the holdout, ")
    data = next(i.reason for i in found.items if i.item == "data_versioned")
    return {
        "checklist": between - began,
        "card": ended - between,
        "bytes": len(page),
        "rows": int(rows.split(" of ")[1].replace(",", "")),
        "repeats": times.split()[0],
        "features": int(page.partition("Features (")[2].partition(")")[0]),
        "read": int(data.split(" snapshots, ")[1].split(" ")[0].replace(",", "")),
    }
