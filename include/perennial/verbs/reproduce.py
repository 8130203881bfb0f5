"""Retrain a version from its logged snapshot, spec, features, seed and code, and say whether the same model comes out.

It runs in a process of its own with the version's thread count, and writes nothing: no MLflow run, no rows, no ledger
entry. Compared are the predictions over the holdout and the fitted state. Exit code 0: identical, 1: something differs
(what, and the first suspect), or the rows are gone; 2: no such version.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import TYPE_CHECKING

from perennial.verbs.output import paint, say, say_json

if TYPE_CHECKING:
    from perennial.training.reproduce import Reproduction

EXAMPLES = """examples:
  perennial reproduce flight_delay 1
  perennial reproduce flight_delay champion
  perennial reproduce flight_delay 1 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("model", metavar="MODEL", help="the model's name")
    parser.add_argument("version", metavar="VERSION", help="a version's number, or an alias")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    from perennial.training.reproduce import reproduce

    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # somebody is waiting
    found = reproduce(args.model, args.version, lambda text: print(text, file=sys.stderr, flush=True))  # noqa: T201
    if args.json:
        say_json(found.to_dict())
    else:
        _table(found)
    return 0 if found.identical else 1


def _table(found: Reproduction) -> None:
    rows = [(i.item, _short(i.recorded), "same" if i.same else _short(i.now)) for i in found.inputs]
    widths = [max(len(r[c]) for r in [("", "recorded", ""), *rows]) for c in (0, 1)]
    say(f"{'':{widths[0]}}  {'recorded':{widths[1]}}  now")
    for item, recorded, now in rows:
        say(f"{item:{widths[0]}}  {recorded:{widths[1]}}  {now if now == 'same' else paint(now, 'yellow')}")
    say()
    if found.identical:
        state = str(found.state[0])[:12]
        what = f"all {found.rows:,} predictions over the holdout, and the fitted state {state}"
        say(f"{paint('identical', 'green')}: {found.model} version {found.version}: {what}")
        return
    say(f"{paint('differs', 'red')}: {found.model} version {found.version}: {'; '.join(found.differences)}")
    if found.suspect:
        say(f"first suspect: {_short(found.suspect)}")


def _short(text: str) -> str:
    """Digests cut to what people compare."""
    return re.sub(r"\b[0-9a-f]{40,64}\b", lambda m: m[0][:12], text)
