"""Write JSON Schemas of feed.yaml and model.yaml, so that editors complete and explain them.

A spec names its schema in its first line: # yaml-language-server: $schema=../../schemas/model.schema.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from perennial.verbs.output import say

EXAMPLES = """examples:
  perennial schema                         print both
  perennial schema --out include/schemas   write feed.schema.json and model.schema.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder to write to; default: print")


def run(args: argparse.Namespace) -> int:
    from perennial.specs.schema import schemas, write_schemas

    if args.out is None:
        say(json.dumps(schemas(), indent=2, ensure_ascii=False))
        return 0
    for path in write_schemas(args.out):
        say(str(path))
    return 0
