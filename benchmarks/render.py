"""Renders the kept figures into ``docs/benchmarks.md`` and the README; nothing in those tables is typed in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.harness import PROJECT, RESULTS

PAGE, README, STORY = PROJECT / "docs" / "benchmarks.md", PROJECT / "README.md", RESULTS / "demo_story.json"
BEGIN, END = "<!-- figures: made by make bench -->", "<!-- end of figures -->"


def write(names: Sequence[str]) -> None:
    """Put the tables between the marks of their pages."""
    for path, made in ((PAGE, table(names)), (README, story())):
        path.write_text(between(path.read_text(encoding="utf-8"), made), encoding="utf-8")


def between(text: str, made: str) -> str:
    """A page with ``made`` between its marks."""
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    return f"{before}{BEGIN}\n{made}{END}{after}"


def story() -> str:
    """The decisions of the last demo that was measured, and what it took."""
    found = json.loads(STORY.read_text(encoding="utf-8"))
    seconds, airflow = found["seconds"], found["airflow"]
    heavy = airflow["heavy_tasks"]
    rows = [f"| {_asked(d)} | {_came(d)} | {_verdict(d)} |" for d in found["decisions"]]
    refused = "; ".join(f"{q['feed']} {q['partition']}: {q['reason']}" for q in found["quarantined"])
    return (
        f"One run of `make demo` on two cores: {seconds['start']:.0f} s starting, {seconds['replay']:.0f} s replaying, "
        f"{airflow['dag_runs']} DAG runs, {airflow['task_instances']} tasks, {airflow['failed']} failed. Tasks that "
        "use MLflow, Great Expectations or Evidently start "
        f"{heavy['queued_to_start_median_s']:.2f} s after they were queued "
        f"(median of {heavy['n']}; 95 %: {heavy['queued_to_start_p95_s']:.2f} s).\n\n"
        "| decision | gain on the holdout, 95 % interval | verdict |\n|---|---|---|\n"
        + "\n".join(rows)
        + f"\n\nQuarantined: {refused}. Monitoring: "
        + "; ".join(f"{m['model']} as of {m['as_of'][:10]}: {m['outcome']}" for m in found["monitoring"])
        + ".\n"
    )


def _asked(decision: dict[str, Any]) -> str:
    window = f"{decision['window_days']} days only" if decision["window_days"] else "all history"
    return f"`{decision['model']}` as of {decision['as_of'][:10]}, {window}"


def _came(decision: dict[str, Any]) -> str:
    low, high, bound = (decision[k] for k in ("low", "high", "bound"))
    interval = "" if low is None else f" [{low:+.3f}, {high:+.3f}]"
    least = "" if bound is None else f", lower bound {bound:+.3f}"
    return (
        f"{decision['metric']} {decision['candidate']:.3f}, {decision['gain']:+.3f}{interval}{least} "
        f"against {decision['against']}"
    )


def _verdict(decision: dict[str, Any]) -> str:
    return f"**pass**: version {decision['version']}" if decision["version"] else f"**{decision['verdict']}**"


def table(names: Sequence[str]) -> str:
    """Every kept result as a Markdown table, and notes under it."""
    rows, notes, machines, dates = [], [], set(), set()
    for name in names:
        path = RESULTS / f"{name}.json"
        for found in json.loads(path.read_text()) if path.exists() else []:
            mark = ""
            if found["note"]:
                notes.append(f"{len(notes) + 1}. {found['note']}")
                mark = f" ({len(notes)})"
            rows.append(_row(name, found, mark))
            machines.add(found["machine"])
            dates.add(found["date"])
    head = "| | measure | value | against | goal | | n | least to most |\n|---|---|---|---|---|---|---|---|\n"
    said = (
        f"Machine: {'; '.join(sorted(machines))}. Taken {' to '.join(sorted({min(dates), max(dates)}))}.\n"
        if rows
        else ""
    )
    return head + "".join(rows) + "\n" + said + ("\n" + "\n".join(notes) + "\n" if notes else "")


def _row(name: str, found: dict[str, Any], mark: str) -> str:
    met = {True: "met", False: "**missed**", None: ""}[found["met"]]
    spread = "{:g} to {:g}".format(*found["spread"]) if found["spread"] else ""
    return (
        f"| `{name}` | {found['measure']}{mark} | {found['value']:g} {found['unit']} | {found['against']} | "
        f"{found['goal']} | {met} | {found['n']} | {spread} |\n"
    )
