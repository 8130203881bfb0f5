"""``python -m benchmarks [NAME ...]``: run benchmarks, keep their figures, and render ``docs/benchmarks.md``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import harness, render

#: In the order in which they run; those from ``warm`` on start the real stack.
NAMES = (
    "scoring",
    "memory",
    "features",
    "training",
    "drift",
    "validation",
    "lake_reads",
    "ledger",
    "signing",
    "card",
    "warm",
    "demo",
    "backfill",
    "parsing",
)


def main() -> int:
    """Exit code 0 when all ran, whatever they found; a goal that is missed is a figure, not a failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones (default: all): {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that they run; keeps no figures")
    parser.add_argument("--render", action="store_true", help="run none, only render what is kept")
    arguments = parser.parse_args()
    if arguments.render:
        render.write(NAMES)
        return 0
    unknown = sorted(set(arguments.names) - set(NAMES))
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    for name in arguments.names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        began = time.monotonic()
        print(f"{name}: {module.__doc__.splitlines()[0]}", flush=True)
        with tempfile.TemporaryDirectory(prefix=f"bench-{name}-", dir=os.environ.get("BENCH_TMP")) as folder:
            results = module.run(Path(folder), quick=arguments.quick)
        if not arguments.quick:
            harness.keep(name, results)
        for found in results:
            mark = {True: "met", False: "missed", None: ""}[found.met]
            goal = f" (goal {found.goal}: {mark})" if found.goal else ""
            print(f"  {found.measure}: {found.value:g} {found.unit}{goal}, n = {found.n}", flush=True)
        print(f"  took {time.monotonic() - began:.0f} s", flush=True)
    if not arguments.quick:
        render.write(NAMES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
