"""Write the skeleton of a feed or a model: every line explained, every blank marked.

`perennial check` points at each blank until it is filled in.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from perennial.verbs.output import say

EXAMPLES = """examples:
  perennial new feed arrivals
  perennial new model flight_delay
  perennial new model flight_delay --into specs/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("kind", choices=("feed", "model"), help="what to write")
    parser.add_argument("name", metavar="NAME", help="its name: lower-case letters, digits and _")
    parser.add_argument("--into", metavar="DIR", type=Path, help="folder of specs; default: the first one configured")


def run(args: argparse.Namespace) -> int:
    from perennial.scaffold import create
    from perennial.settings import settings
    from perennial.specs.source import shown

    files = create(args.kind, args.name, args.into or settings().specs[0])
    for path in files:
        say(shown(path))
    say(f"Fill in the blanks, then: perennial check {shown(files[0].parent)}")
    return 0
