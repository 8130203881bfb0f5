"""Say why one published score is what it is: version, arm, the feature values as they were scored, where they come
from, and what contributed most.

Contributions are Shapley values of the score against rows of the training window. They say what the model did, not what
causes the outcome. Exit code 0: the score was made again from the values that are shown; 1: it was not (the features
have changed since), or something is gone; 2: nothing is published for that key.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from perennial.verbs.output import paint, say, say_json

if TYPE_CHECKING:
    from perennial.scoring.explain import Explanation

EXAMPLES = """examples:
  perennial explain flight_delay 2013-03-25-UA1077-EWR-0600 --partition 2013-03-25
  perennial explain flight_delay 2013-03-25-UA1077-EWR-0600 --partition 2013-03-25 --top 20 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("model", metavar="MODEL", help="the model's name")
    parser.add_argument("key", metavar="KEY", help="the entity's key; of several columns: a=1,b=2")
    parser.add_argument("--partition", required=True, metavar="P", help="the partition that it was scored in")
    parser.add_argument("--top", type=int, default=8, metavar="N", help="show so many contributions (default: 8)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    from perennial.scoring.explain import explain
    from perennial.specs.loader import load_specs

    specs = load_specs(only=args.model)
    found = explain(specs.model(args.model), specs.feeds, args.key, args.partition)
    if args.json:
        say_json(found.to_dict())
    else:
        _show(found, args.top)
    return 0 if found.as_it_was else 1


def _show(found: Explanation, top: int) -> None:
    from perennial.scoring.explain import when

    row, lineage = found.published, found.lineage
    decision = {True: ", decided: yes", False: ", decided: no"}.get(row["decision"], "")
    say(f"{paint(', '.join(found.key.values()), 'bold')} of {found.partition}: {found.model} gave {row['output']} "
        f"a score of {row['score']:.4f}{decision}")  # fmt: skip
    marks = [word for word in ("in_sample", "degraded") if row.get(word)]
    facts = [
        ("published by", f"version {lineage['version']} as {row['arm']}, {when(row['scored_at'])}, run {row['run']}"),
        *([("marked", ", ".join(marks))] if marks else []),
        ("trained on", f"{lineage['train_rows']:,} rows until {lineage['trained_until'][:10]}, "
                       f"MLflow run {lineage['mlflow_run']}"),
        ("features", f"{lineage['features_sha256'][:12]} at version {lineage['features_version']} of "
                     f"{lineage['features']}"),
        ("digests", ", ".join(f"{k} {str(v)[:12]}" for k, v in lineage["digests"].items())),
        ("outcome", "not known yet" if found.outcome is None else str(found.outcome)),
    ]  # fmt: skip
    for name, text in facts:
        say(f"  {name:13} {text}")
    say()
    shown = found.features[: max(0, top)]
    rows = [(f.name, _text(f.value), _text(f.typical), _rank(f), f"{f.contribution:+.4f}") for f in shown]
    head = ("feature", "value", "typical", "in training", "adds")
    widths = [max(len(r[c]) for r in [head, *rows]) for c in range(5)]
    largest = max((abs(f.contribution) for f in shown), default=0.0) or 1.0
    say("  ".join(f"{h:{w}}" for h, w in zip(head, widths, strict=True)))
    for cells, f in zip(rows, shown, strict=True):
        bar = ("+" if f.contribution > 0 else "-") * round(20 * abs(f.contribution) / largest)
        line = "  ".join(f"{c:{w}}" for c, w in zip(cells, widths, strict=True))
        say(f"{line}  {paint(bar, 'red' if f.contribution > 0 else 'green')}")
    rest = found.features[len(shown) :]
    if rest:
        say(f"{len(rest)} more add {sum(f.contribution for f in rest):+.4f}")
    error = max(f.error for f in found.features)
    say(f"from {found.base:.4f}, the mean of training rows, to {found.again:.4f} (each +- {error:.4f} at most)")
    if not found.as_it_was:
        say()
        say(paint(f"the score was {row['score']:.4f}, but these values give {found.again:.4f}: the features were built "
                  "anew since, and those that were scored are gone", "red"))  # fmt: skip


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _rank(f: Any) -> str:
    if f.rank is None:
        return ""
    return f"{f.rank:.0%} below" if isinstance(f.value, int | float) else f"{f.rank:.0%} the same"
