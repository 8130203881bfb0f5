"""Renders the kept figures as ``docs/benchmarks.md``; nothing in that table is typed in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.harness import PROJECT, RESULTS

PAGE = PROJECT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- figures: made by make bench -->", "<!-- end of figures -->"


def write(names: Sequence[str]) -> None:
    """Put the table between the marks of the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    PAGE.write_text(f"{before}{BEGIN}\n{table(names)}{END}{after}", encoding="utf-8")


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
