"""Reads a story's figures back from where they are kept: the ledger, MLflow, the lake and Airflow. None is typed in."""

from __future__ import annotations

import datetime as dt
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perennial.lake.homes import prediction_table, quarantine_table
from perennial.ledger import Entry, Ledger
from perennial.local.rest import AirflowClient
from perennial.registry import versions
from perennial.registry.tracking import client as mlflow_client
from perennial.specs.loader import load_specs

#: Tasks that use MLflow, Great Expectations or Evidently.
HEAVY_TASKS = {"validate", "fit", "evaluate", "register", "rollout", "inputs", "score", "drift",
               "performance", "promote", "roll_back"}  # fmt: skip
STARTED_BY = {"manual": "form", "scheduled": "cron", "asset_triggered": "asset", "backfill": "backfill"}


def collect(
    airflow: AirflowClient, models: Sequence[str], feeds: Sequence[str], seconds: dict[str, float]
) -> dict[str, Any]:
    """Every figure of the story."""
    ledger = Ledger()
    runs = {(r["dag_id"], r["dag_run_id"]): r for r in airflow.runs()}
    return {
        "seconds": seconds,
        "decisions": [d for m in models for d in _decisions(ledger, m, runs)],
        "aliases": [a for m in models for a in _aliases(ledger, m)],
        "champions": {m: versions.aliases(m) for m in models},
        "scored": [s for m in models for s in _scored(m)],
        "quarantined": _quarantined(ledger, feeds),
        "monitoring": [
            {"model": m, "as_of": e.as_of, "version": e.version, "outcome": e.verdict, "reason": e.reason}
            for m in models
            for e in ledger.find(m, event="monitoring")
        ],
        "airflow": _airflow(airflow, runs),
    }


def _decisions(ledger: Ledger, model: str, runs: dict[tuple[str, str], Any]) -> list[dict[str, Any]]:
    gates: dict[tuple[str, str], dict[str, Entry]] = {}
    for e in ledger.find(model, event="gate"):
        gates.setdefault(_run(e), {})[str(e.figures["gate"])] = e
    found = []
    for e in ledger.find(model, event="decision"):
        run = _run(e)
        gate = gates[run]
        shown = gate["champion"] if gate["champion"].verdict != "not_applicable" else gate["baseline"]
        figures = shown.figures
        registered = [
            v.version
            for v in mlflow_client().search_model_versions(f"name = '{model}'")
            if v.run_id == e.figures["mlflow_run"]
        ]
        found.append(
            {
                "model": model,
                "as_of": e.as_of,
                "version": str(registered[0]) if registered else None,
                "against": f"version {e.figures['champion']}" if e.figures["champion"] else "baseline",
                "metric": figures.get("metric"),
                "candidate": figures.get("candidate"),
                "gain": figures.get("gain"),
                "low": figures.get("low"),
                "high": figures.get("high"),
                "bound": figures.get("bound"),
                "confidence": figures.get("confidence"),
                "k": figures.get("j"),
                "verdict": e.verdict,
                "warnings": e.figures.get("warnings", []),
                "reason": e.reason,
                "started_by": STARTED_BY.get(runs[run]["run_type"], runs[run]["run_type"]),
                "window_days": e.figures.get("window_days"),
                "holdout": e.figures.get("holdout"),
                "mlflow_run": e.figures["mlflow_run"],
                "dag_run": "/".join(run),
            }
        )
    return found


def _run(e: Entry) -> tuple[str, str]:
    return str(e.actor["dag_id"]), str(e.actor["run_id"])


def _aliases(ledger: Ledger, model: str) -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "alias": e.figures["alias"],
            "version": e.version,
            "from": e.figures.get("from"),
            "at": e.at,
            "as_of": e.as_of,
            "how": e.verdict,
            "dag_run": "/".join(_run(e)),
        }
        for e in ledger.find(model, event="alias")
    ]


def _scored(model: str) -> list[dict[str, Any]]:
    specs = load_specs(only=model)
    spec = specs.model(model)
    table = prediction_table(spec, specs.feed(spec.entity))
    keys = list(table.partitions())
    rows = table.read(keys, columns=["partition", "model_version"])
    if rows is None:
        return []
    counted = rows.group_by(["partition", "model_version"]).aggregate([([], "count_all")]).to_pylist()
    return [
        {"model": model, "partition": r["partition"], "rows": r["count_all"], "version": r["model_version"]}
        for r in sorted(counted, key=lambda r: r["partition"])
    ]


def _quarantined(ledger: Ledger, feeds: Sequence[str]) -> list[dict[str, Any]]:
    known = quarantine_table().partitions()
    found = []
    for feed in feeds:
        for e in ledger.find(feed, event="ingestion"):
            if e.verdict.startswith("quarantine") and f"{feed}T{e.partition}" in known:
                whole = e.verdict == "quarantine_batch"
                # a file that cannot be read as declared has no count of rows
                rows = (e.figures.get("rows") or None) if whole else e.figures.get("bad_rows")
                found.append(
                    {"feed": feed, "partition": e.partition, "rows": rows, "what": e.verdict, "reason": e.reason}
                )
    return found


def _airflow(airflow: AirflowClient, runs: dict[tuple[str, str], Any]) -> dict[str, Any]:
    tasks = list(airflow.pages("dags/~/dagRuns/~/taskInstances", "task_instances"))
    ran = [t for t in tasks if t["start_date"] and t["state"] in ("success", "failed")]
    waits = sorted(
        (_instant(t["start_date"]) - _instant(t["queued_when"])).total_seconds()
        for t in ran
        if t["task_id"].rpartition(".")[2] in HEAVY_TASKS and t.get("queued_when")
    )
    return {
        "dag_runs": len(runs),
        "task_instances": len(ran),
        "failed": sum(t["state"] == "failed" for t in tasks),
        "heavy_tasks": {
            "n": len(waits),
            "queued_to_start_median_s": round(statistics.median(waits), 3) if waits else None,
            "queued_to_start_p95_s": round(waits[min(len(waits) - 1, int(0.95 * len(waits)))], 3) if waits else None,
        },
    }


def _instant(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def save(summary: dict[str, Any], folder: Path) -> str:
    """Write ``summary.json`` and ``table.txt`` to a folder; returns the tables' text."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    text = tables(summary)
    (folder / "table.txt").write_text(text, encoding="utf-8")
    return text


def tables(summary: dict[str, Any]) -> str:
    """The summary as text tables."""
    import io

    from rich.console import Console
    from rich.table import Table

    console = Console(file=io.StringIO(), width=150, record=True, color_system=None)

    def add(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        table = Table(title=title, title_justify="left", show_lines=False)
        for name in header:
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*("" if v is None else str(v) for v in row))
        console.print(table)

    def number(value: Any, spec: str = "+.3f") -> str:
        return "" if value is None else format(value, spec)

    add(
        "Decisions (gain on the holdout, two-sided 95 % interval; bound one-sided at the confidence shown)",
        (
            "model",
            "as of",
            "version",
            "against",
            "candidate",
            "gain",
            "95 %",
            "bound",
            "conf.",
            "k",
            "verdict",
            "started by",
        ),
        [
            (
                d["model"],
                d["as_of"][:10],
                d["version"] or "-",
                d["against"],
                f"{d['metric']} {number(d['candidate'], '.3f')}",
                number(d["gain"]),
                f"[{number(d['low'])}, {number(d['high'])}]" if d["low"] is not None else "",
                number(d["bound"]),
                number(d["confidence"], ".3f"),
                d["k"],
                d["verdict"] + (" (warnings)" if d["warnings"] else ""),
                d["started_by"] + (f", {d['window_days']} days" if d["window_days"] else ""),
            )
            for d in summary["decisions"]
        ],
    )
    add(
        "Champions over time",
        ("model", "as of", "version", "instead of", "how", "at", "run"),
        [
            (a["model"], a["as_of"][:10], a["version"], a["from"], a["how"], a["at"][:19], a["dag_run"])
            for a in summary["aliases"]
        ],
    )
    per: dict[tuple[str, str], list[Any]] = {}
    for s in summary["scored"]:
        per.setdefault((s["model"], s["version"]), []).append(s)
    add(
        "Scored",
        ("model", "version", "partitions", "from", "to", "rows"),
        [
            (m, v, len(rows), rows[0]["partition"], rows[-1]["partition"], f"{sum(r['rows'] for r in rows):,}")
            for (m, v), rows in per.items()
        ],
    )
    add(
        "Quarantined",
        ("feed", "partition", "what", "rows", "reason"),
        [
            (q["feed"], q["partition"], q["what"].replace("_", " "), q["rows"], q["reason"])
            for q in summary["quarantined"]
        ],
    )
    a = summary["airflow"]
    heavy = a["heavy_tasks"]
    console.print(
        f"Airflow: {a['dag_runs']} runs, {a['task_instances']} tasks, {a['failed']} failed. {heavy['n']} heavy tasks: "
        f"queued to start {heavy['queued_to_start_median_s']} s median, {heavy['queued_to_start_p95_s']} s at 95 %."
    )
    return console.export_text()
