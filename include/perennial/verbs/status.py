"""Say what is in the lake, what serves, what it takes on disk, and what stands still.

Reads the tables' logs, the ledger and, where they answer, MLflow and Airflow. Exit code 0: nothing to say, 1: something
was found, 2: asked in the wrong way.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perennial.verbs.output import paint, say, say_json

if TYPE_CHECKING:
    from perennial.housekeeping.overview import Overview, Size

EXAMPLES = """examples:
  perennial status           for people
  perennial status --json    for a program
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    from perennial.housekeeping.overview import ask
    from perennial.specs.loader import load_live_specs

    specs = load_live_specs()
    found, findings = ask(specs)
    airflow, more = _airflow(specs)
    findings += more
    if args.json:
        say_json({**found.to_dict(), "airflow": airflow, "findings": findings})
    else:
        _print(found, airflow, findings)
    return 1 if findings else 0


def _airflow(specs: Any) -> tuple[str, list[str]]:
    """Whether Airflow answers, and what stands still in it."""
    from perennial.local.checks import AirflowError, airflow_findings, reach
    from perennial.settings import settings

    where = settings().airflow
    client = reach(settings())
    if client is None:
        return f"not reachable at {where}", []
    with client:
        try:
            return f"answers at {where}", airflow_findings(client, specs)
        except AirflowError as e:
            return f"answers at {where}", [str(e)]


def _print(found: Overview, airflow: str, findings: Sequence[str]) -> None:
    header = ("feed", "newest", "partitions", "rows", "live", "stored", "refused")
    rows = [(f.name, *_of(f.size), str(f.refused or "")) for f in found.feeds]
    _table(header, rows)
    say()
    model_rows = []
    for m in found.models:
        named = "not reachable" if m.aliases is None else ", ".join(f"{a} {v}" for a, v in sorted(m.aliases.items()))
        model_rows.append(
            (m.name, named or "none yet", *_of(m.predictions), _bytes(m.features.live), _bytes(m.features.stored))
        )
    _table(("model", "versions", "scored", "partitions", "rows", "live", "stored", "features", "stored"), model_rows)
    for m in found.models:
        if m.decision:
            verdict, reason, as_of = (m.decision[k] for k in ("verdict", "reason", "as_of"))
            say(f"{m.name}: last decision {verdict}, as of {str(as_of)[:10]}: {reason}")
    say()
    say("also on disk: " + ", ".join(f"{name} {_bytes(n)}" for name, n in found.other.items()))
    say(f"Airflow {airflow}")
    for text in findings:
        say(f"{paint('!', 'red')} {text}")
    if not findings:
        say(paint("nothing stands still", "green"))


def _of(size: Size) -> tuple[str, ...]:
    return size.newest or "none yet", f"{size.partitions:,}", f"{size.rows:,}", _bytes(size.live), _bytes(size.stored)


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        say(f"no {header[0]}s")
        return
    widths = [max(len(str(r[i])) for r in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        cells = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        say("  ".join(cells).rstrip())
