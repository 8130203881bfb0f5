"""Where a life ended: everything that Perennial keeps, in a form in which two lives can be compared."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import chaos_world as world
import psutil

from perennial.lake.homes import prediction_table
from perennial.lake.table import PartitionedTable
from perennial.ledger import Entry, Ledger
from perennial.ledger.entries import GENESIS
from perennial.registry import tracking, versions
from perennial.settings import settings
from perennial.specs.loader import load_specs

#: Figures of ledger entries that name a run, and so differ between lives.
_OF_THE_RUN = {"mlflow_run"}


def collect() -> dict[str, Any]:
    """The end state of this process's settings."""
    return {
        "tables": dict(_tables()),
        "versions": _versions(),
        "aliases": versions.aliases(world.MODEL),
        "mlflow": _mlflow_runs(),
        "ledger": {subject: _ledger(subject) for subject in (world.MODEL, *world.FEEDS)},
        "monitoring": _monitoring(),
    }


def predictions(keys: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The published rows of some days."""
    specs = load_specs(only=world.MODEL)
    rows = prediction_table(specs.model(world.MODEL), specs.feed("visits")).read(keys)
    found: dict[str, list[dict[str, Any]]] = {k: [] for k in keys}
    for row in [] if rows is None else rows.to_pylist():
        found[row["partition"]].append(row)
    return found


def differences(expected: Mapping[str, Any], found: Mapping[str, Any], at: str = "") -> list[str]:
    """What is otherwise in ``found``, in sentences."""
    out: list[str] = []
    for key in sorted({*expected, *found}, key=str):
        here = f"{at}/{key}" if at else str(key)
        if key not in found:
            out.append(f"{here} is missing (expected {_brief(expected[key])})")
        elif key not in expected:
            out.append(f"{here} is there and should not be: {_brief(found[key])}")
        elif isinstance(expected[key], Mapping) and isinstance(found[key], Mapping):
            out += differences(expected[key], found[key], here)
        elif expected[key] != found[key]:
            out.append(f"{here} is {_brief(found[key])} instead of {_brief(expected[key])}")
    return out


def _brief(value: Any) -> str:
    return json.dumps(value, default=str)[:300]


def _tables() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every Delta table: rows, digest and labels per partition; the rows are read and hashed again."""
    specs = load_specs()
    lake = Path(settings().lake.removeprefix("file://"))
    keys = {f"feeds/{n}": tuple(f.key) for n, f in specs.feeds.items()}
    for log in sorted(lake.rglob("_delta_log")):
        name = log.parent.relative_to(lake).as_posix()
        key = keys.get(name, ("feed", "row") if name == "quarantine" else ("id",))
        labels = ("inputs",) if name.startswith("features/") else ()
        volatile = ("run", "scored_at") if name.startswith("predictions/") else ()
        if name.startswith("predictions/"):
            key = ("id", "output", "model_version")
        table = PartitionedTable(log.parent.as_uri(), key, labels, volatile)
        partitions = table.partitions()
        table.read_snapshot(table.snapshot(list(partitions)))  # raises when rows are not what was written
        yield name, {k: {"rows": p.rows, "digest": p.digest, **p.labels} for k, p in partitions.items()}


def _versions() -> dict[str, Any]:
    found = tracking.client().search_model_versions(f"name = '{world.MODEL}'")
    same = ("features", "spec", "train_end", "as_of", "verdict")
    return {
        str(v.version): {
            **{t: v.tags.get(t) for t in same},
            **{t: x for t, x in v.tags.items() if t.startswith("snapshot.")},
            "metrics": _metrics(v.run_id),
            "status": v.status,
        }
        for v in found
    }


def _metrics(run_id: str) -> dict[str, float]:
    return {k: round(v, 9) for k, v in tracking.client().get_run(run_id).data.metrics.items()}


def _mlflow_runs() -> dict[str, Any]:
    """MLflow's runs by what they are, and how many of each there are, with their logged models."""
    client = tracking.client()
    found: Counter[str] = Counter()
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            tags = run.data.tags
            models = client.search_logged_models(
                [experiment.experiment_id], filter_string=f"source_run_id = '{run.info.run_id}'"
            )
            what = {
                "run": tags.get(tracking.RUN_TAG, "").split("/")[0],
                "status": run.info.status,
                "decision": tags.get("decision"),
                "version": tags.get("version"),
                "metrics": _metrics(run.info.run_id),
                "params": dict(run.data.params),
                "datasets": sorted(i.dataset.name for i in run.inputs.dataset_inputs),
                "logged models": [str(m.status) for m in models],
                "bundle": tags.get(tracking.MODEL_TAG) in {m.model_id for m in models},
            }
            found[json.dumps(what, sort_keys=True)] += 1
    return dict(found)


def _ledger(subject: str) -> dict[str, int]:
    """Entries by what they say, and how often; :raises AssertionError: when the chain is broken."""
    ledger = Ledger()
    last, found = GENESIS, Counter[str]()
    for n, entry in enumerate(ledger.entries(subject)):
        raw = ledger.store.get(f"{subject}/{n:010d}.json")
        assert entry.seq == n, f"entry {n} of {subject} says it is number {entry.seq}"
        assert entry.prev == last, f"the chain of {subject} breaks at entry {n}"
        last = hashlib.sha256(raw).hexdigest()
        says = [entry.event, entry.verdict, entry.partition, entry.version, entry.as_of, *_said(entry)]
        found[json.dumps(says, sort_keys=True)] += 1
    return dict(found)


def _said(entry: Entry) -> tuple[str, dict[str, Any]]:
    """Reason and figures of an entry, without what differs from life to life: runs, seconds, bytes of a pickle."""
    if entry.event == "signature":  # names a key and the digest of a skops file
        return "", {}
    if entry.event == "stage":
        return "", {k: entry.figures.get(k) for k in ("rows", "differing")}
    if entry.event == "checklist":
        return "", {name: item["state"] for name, item in entry.figures.items()}
    return entry.reason, {k: v for k, v in entry.figures.items() if k not in _OF_THE_RUN}


def _monitoring() -> dict[str, str]:
    root = Path(settings().lake.removeprefix("file://")) / "monitoring"
    return {p.relative_to(root).as_posix(): _digest(p) for p in sorted(root.rglob("*.json"))}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def leftovers(home: Path) -> list[str]:
    """Temporary files below a home: names that begin with a dot, or end as temporary files do."""
    kept = {"airflow", "logs", "upstream"}  # Airflow's own database and logs
    found = []
    for folder, names, files in os.walk(home):
        if Path(folder) == home:
            names[:] = [n for n in names if n not in kept]
        for name in [*names, *files]:
            if name.startswith(".") or name.endswith((".tmp", ".part", ".partial")):
                found.append((Path(folder) / name).relative_to(home).as_posix())
    return sorted(found)


def processes_of(home: Path) -> list[psutil.Process]:
    """Processes that have anything to do with a home, found without the stack's own bookkeeping."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            texts = [*process.cmdline(), process.environ().get("PERENNIAL_HOME", "")]
            texts += [str(Path(f"/proc/{process.pid}/fd/{n}").readlink()) for n in (1, 2)]
        except (psutil.Error, OSError):
            continue
        if any(str(home) in text for text in texts):
            found.append(process)
    return found
