"""Say whether specs work, and what to write where they do not.

Reads the YAML, imports the estimator, binds the feature query to the feeds' declared columns and builds the
expectations. Needs no data, no Airflow and no server. Exit code 0: all pass, 1: some fail, 2: nothing to check.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from perennial.verbs.output import paint, say, say_json

EXAMPLES = """examples:
  perennial check                                      every spec in the folders of specs
  perennial check include/models/flight_delay          one model
  perennial check --resolved include/feeds/flights     with all defaults, as YAML
  perennial check --json                               for a program
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("paths", metavar="PATH", nargs="*", type=Path, help="files or folders; default: all specs")
    parser.add_argument("--resolved", action="store_true", help="print the specs with all their defaults, as YAML")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(args: argparse.Namespace) -> int:
    from perennial.check import CheckResult, check_paths
    from perennial.specs.source import shown

    results: list[CheckResult] = check_paths(args.paths or None)
    failed = [r for r in results if not r.ok]
    resolved = _resolved(args.paths or None) if args.resolved else {}
    if args.json:
        say_json(
            [
                {"path": shown(r.path), "ok": r.ok, "messages": list(r.messages), "notes": list(r.notes)}
                | ({"resolved": resolved[r.path]} if r.path in resolved else {})
                for r in results
            ]
        )
        return 1 if failed else 0
    for r in results:
        say(f"{paint('PASS', 'green') if r.ok else paint('FAIL', 'red')} {shown(r.path)}")
        for message in r.messages:
            say("  " + message.replace("\n", "\n  "))
        for note in r.notes:
            say("  note: " + note.replace("\n", "\n  "))
        if r.path in resolved:
            say("  " + _yaml(resolved[r.path]).rstrip().replace("\n", "\n  "))
    say(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def _resolved(paths: list[Path] | None) -> dict[Path, dict[str, Any]]:
    """What each good spec says with all its defaults, the computed ones too."""
    from perennial.check import find
    from perennial.specs.feeds import FeedSpec
    from perennial.specs.grains import GRAINS

    specs, wanted = find(paths)
    found: dict[Path, dict[str, Any]] = {}
    for loaded in specs.sources.values():
        if loaded.path not in wanted:
            continue
        spec = loaded.spec
        said = spec.model_dump(mode="json")
        if not isinstance(spec, FeedSpec):
            labels, grain = specs.feeds[spec.labels.feed], GRAINS[specs.feeds[spec.entity].every]
            training, gates = said["training"], said["gates"]
            training["start"] = training["start"] or specs.feeds[spec.entity].start.isoformat()
            training["gap"] = grain.duration(spec.gap_partitions(labels))
            training["holdout"] = training["holdout"] or grain.block.duration(spec.holdout_blocks(0, grain.every))
            for gate in ("champion", "baseline"):
                gates[gate]["min_gain"] = spec.min_gain("champion" if gate == "champion" else "baseline")
        found[loaded.path] = said
    return found


def _yaml(value: dict[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110))
