"""Make a key that signs versions, rotate it, or list what is there. Private keys are never printed.

`new` makes a pair in $PERENNIAL_HOME/keys: signing.pem, which only its owner can read, and its public half in
trusted/. `new --rotate` puts another key in its place; versions signed with the old one stay verifiable until its
public half is removed from trusted/.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from perennial.verbs.output import say, say_json

EXAMPLES = """examples:
  perennial keys new
  perennial keys new --rotate
  perennial keys list --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("action", choices=("new", "list"), help="what to do")
    parser.add_argument("--into", metavar="DIR", type=Path, help="folder of the pair; default: $PERENNIAL_HOME/keys")
    parser.add_argument("--rotate", action="store_true", help="replace the signing key that is there")
    parser.add_argument("--json", action="store_true", help="print the list as JSON")


def run(args: argparse.Namespace) -> int:
    from perennial.settings import settings
    from perennial.trust.keys import PRIVATE, new_pair, trusted_keys
    from perennial.trust.signing import signing

    if args.action == "new":
        folder = args.into or settings().home / "keys"
        made = new_pair(folder, replace=args.rotate)
        say(f"{folder / PRIVATE} signs from now on; its public half is {made.where}")
        say(f"fingerprint {made.fingerprint}")
        return 0
    own = signing().ready()
    rows = [
        {"fingerprint": k.fingerprint, "where": k.where, "signs": k.fingerprint == own} for k in trusted_keys().values()
    ]
    if args.json:
        say_json(rows)
    else:
        for row in rows:
            say(f"{row['fingerprint']}  {row['where']}{'  (signs)' if row['signs'] else ''}")
    return 0
