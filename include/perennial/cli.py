"""The command line: ``perennial <verb>``.

A verb is a module in ``perennial.verbs`` with ``add_arguments(parser)`` and ``run(args) -> int``; only the one that is
asked for is imported. Exit codes: 0 fine, 1 something was found, 2 asked in the wrong way.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from perennial.errors import PerennialError, UsageError

#: Verb -> what it does, in one line. To add a verb, add a line here and a module of that name to perennial.verbs.
VERBS: dict[str, str] = {
    "check": "say whether specs work, and what to write where they do not",
    "schema": "write JSON Schemas of the specs, for editors",
    "new": "write the skeleton of a feed or a model",
    "status": "say what is in the lake, what serves, what it takes on disk, and what stands still",
    "explain": "say why one published score is what it is",
    "ledger": "say which version was champion when, who put it there and why; check that the record is whole",
    "keys": "make or list the keys that sign versions, and those that are trusted",
    "verify": "say whether a version is what a trusted key has signed",
    "reproduce": "retrain a version from its snapshot, and say whether the same model comes out",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parser(arguments).parse_args(arguments)
    except SystemExit as e:  # argparse has written the usage, or the help
        return int(e.code or 0)
    try:
        return int(args.run(args))
    except UsageError as e:
        sys.stderr.write(f"perennial: {e}\n")
        return 2
    except PerennialError as e:
        sys.stderr.write(f"perennial: {e}\n")
        return 1
    except BrokenPipeError:  # the reader of a pipe has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return 130


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="perennial",
        description="The whole life of machine-learning models, described in YAML and run by Airflow.",
        epilog="examples:\n  perennial check\n  perennial new model arrival_delay\n  perennial check --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    asked = next((a for a in arguments if not a.startswith("-")), None)
    for verb, line in VERBS.items():
        sub = verbs.add_parser(verb, help=line, formatter_class=argparse.RawDescriptionHelpFormatter)
        if verb == asked:
            module = importlib.import_module(f"perennial.verbs.{verb}")
            sub.description = module.__doc__
            sub.set_defaults(run=module.run)
            module.add_arguments(sub)
    return parser


if __name__ == "__main__":
    sys.exit(main())
