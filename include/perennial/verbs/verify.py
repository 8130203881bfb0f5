"""Say whether a version is exactly what a trusted key has signed, and whether it passed its stage check.

The version is downloaded afresh. Exit code 0: it is, 1: it is refused (a file was changed, added, renamed or is
missing, the key is not trusted, there is no signature), 2: no such version. A refusal is noted in the ledger.
"""

from __future__ import annotations

import argparse
import os

from perennial.verbs.output import paint, say, say_json

EXAMPLES = """examples:
  perennial verify flight_delay champion
  perennial verify flight_delay 3 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("model", metavar="MODEL", help="the model's name")
    parser.add_argument("version", metavar="VERSION", help="a version's number, or an alias")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    from perennial.registry.tracking import reached
    from perennial.training.attest import attest

    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # somebody is waiting
    with reached():
        found = attest(args.model, args.version)
    if args.json:
        say_json(found.to_dict())
    elif found.refused is not None:
        say(paint(found.refused, "red"))
    else:
        say(f"{paint('verified', 'green')}: {found.model} version {found.version}, {found.files} files")
        say(f"key     {found.signer}")
        say(f"digest  {found.digest}")
        say(f"stage   {found.stage_reason or 'no stage check on record'}")
    return 0 if found.signed else 1
