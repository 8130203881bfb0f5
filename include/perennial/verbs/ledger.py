"""Read the record of decisions, and check that nobody changed it.

`show` says which version was champion, since when, who put it there, by what act and on what evidence. `verify` reads
every entry, names each that was edited, deleted, reordered, inserted or cut off, and compares with the heads that
MLflow keeps. Exit code 0: fine, 1: damage was found, or could not be ruled out, 2: asked in the wrong way.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from perennial.errors import RegistryError, UsageError
from perennial.verbs.output import paint, say, say_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perennial.ledger import Entry, Ledger
    from perennial.ledger.story import Story

EXAMPLES = """examples:
  perennial ledger show flight_delay                     every move of the champion
  perennial ledger show flight_delay --at 2013-06-30     who was champion on that day, and why
  perennial ledger verify                                every chain
  perennial ledger verify flight_delay --json            one chain, for a program
  perennial ledger schema                                the JSON Schema of an entry
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    acts = parser.add_subparsers(dest="act", metavar="ACT", required=True)
    show = acts.add_parser("show", help="which version was champion when, who put it there, on what evidence")
    show.add_argument("model", metavar="MODEL", help="the model's name")
    show.add_argument("--at", metavar="DATE", help="a day of the model's zone, or an instant (ISO 8601)")
    show.add_argument("--json", action="store_true", help="print as JSON")
    check = acts.add_parser("verify", help="read every entry and say what is damaged")
    check.add_argument("subject", metavar="SUBJECT", nargs="?", help="a model or feed; default: all")
    check.add_argument("--json", action="store_true", help="print as JSON")
    check.add_argument("--offline", action="store_true", help="look at the chains alone, without the heads in MLflow")
    schema = acts.add_parser("schema", help="write the JSON Schema of an entry")
    schema.add_argument("--out", metavar="FILE", type=Path, help="file to write; default: print")


def run(args: argparse.Namespace) -> int:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # somebody is waiting
    return {"show": _show, "verify": _verify, "schema": _schema}[args.act](args)


# --------------------------------------------------------------------------------------------------------------- verify


def _verify(args: argparse.Namespace) -> int:
    from perennial.ledger import Ledger
    from perennial.ledger.verify import strays, verify
    from perennial.registry import heads

    ledger, findings = Ledger(), []
    kept, unknown = {}, None
    if not args.offline:
        try:
            kept = heads.kept()  # before the chains are read: they grow
        except RegistryError as e:
            unknown = str(e)
    subjects = sorted({*ledger.subjects(), *kept})
    if args.subject:
        if args.subject not in subjects:
            raise UsageError(_nobody(args.subject, subjects, ledger))
        subjects = [args.subject]
    else:
        findings += strays(ledger)
    looks = [verify(ledger, subject, kept.get(subject)) for subject in subjects]
    findings += [f for look in looks for f in look.findings]
    for look in looks:
        if look.whole and not args.offline and unknown is None:
            heads.advance(look.subject, ledger)
    if args.json:
        say_json(
            {
                "ledger": ledger.store.uri,
                "whole": not findings and unknown is None,
                "subjects": [look.to_dict() for look in looks],
                "findings": [{"kind": f.kind, "subject": f.subject, "seq": f.seq, "text": f.text} for f in findings],
                "heads": "not asked" if args.offline else unknown or "read",
            }
        )
        return 1 if findings or unknown else 0
    for look in looks:
        mark = paint("whole", "green") if look.whole else paint(f"{len(look.findings)} damages", "red")
        newest = max((h.seq for h in look.kept.values()), default=None)
        against = "" if newest is None else f", MLflow keeps the head of entry {newest}"
        say(f"{look.subject}: {look.entries:,} entries: {mark}{against}")
    for f in findings:
        say(f"{paint('!', 'red')} {f.text}")
    if unknown:
        say(f"{paint('!', 'red')} {unknown}")
    elif not findings:
        say(paint("the ledger is whole" if looks else "the ledger is empty", "green"))
    return 1 if findings or unknown else 0


def _nobody(name: str, known: Sequence[str], ledger: Ledger) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]}?" if near else f": there are {', '.join(known)}" if known else ": it is empty"
    return f"the ledger at {ledger.store.uri} has no entry of {name}{hint}"


# ----------------------------------------------------------------------------------------------------------------- show


def _show(args: argparse.Namespace) -> int:
    from perennial.ledger import Ledger
    from perennial.ledger.entries import champion_move
    from perennial.ledger.story import version_story

    ledger = Ledger()
    if ledger.head(args.model) is None:
        raise UsageError(_nobody(args.model, ledger.subjects(), ledger))
    moves = [e for e in ledger.find(args.model, event="alias") if e.figures.get("alias") == "champion"]
    if args.at is None:
        _print_moves(args, [(e, version_story(ledger, args.model, e.version) if e.version else None) for e in moves])
        return 0
    at, until = _instant(args.at, args.model)
    move = champion_move(ledger, args.model, at)
    version = move.version if move else None
    story = version_story(ledger, args.model, version) if version else None
    day = [e for e in moves if e.as_of and until and until <= dt.datetime.fromisoformat(e.as_of) <= at]
    url = _mlflow_url(story.mlflow_run) if story and story.mlflow_run else None
    if args.json:
        say_json(
            {
                "model": args.model,
                "at": at.isoformat(),
                "champion": version,
                "move": _plain(move),
                "moved_that_day": [_plain(e) for e in day],
                "decision": _plain(story.decision) if story else None,
                "gates": [_plain(e) for e in story.gates] if story else [],
                "others": [_plain(e) for e in story.others] if story else [],
                "mlflow_run": story.mlflow_run if story else None,
                "mlflow_url": url,
            }
        )
        return 0
    _print_champion(args, move, story, day, url)
    return 0


def _instant(text: str, model: str) -> tuple[dt.datetime, dt.datetime | None]:
    """The end of a day in the model's zone and its begin; or an instant, and nothing."""
    try:
        if len(text) > 10:
            said = dt.datetime.fromisoformat(text)
            return (said if said.tzinfo else said.replace(tzinfo=dt.UTC)), None
        day = dt.date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no date: write 2013-06-30, or 2013-06-30T12:00:00+00:00") from None
    zone = _zone(model)
    begin, end = (dt.datetime.combine(d, dt.time(), zone) for d in (day, day + dt.timedelta(days=1)))
    return end.astimezone(dt.UTC) - dt.timedelta(microseconds=1), begin.astimezone(dt.UTC)


def _zone(model: str) -> ZoneInfo:
    """The zone of the model's days; UTC when its spec has gone."""
    from perennial.errors import PerennialError
    from perennial.specs.loader import load_specs

    try:
        specs = load_specs(only=model)
        return ZoneInfo(specs.feed(specs.model(model).entity).timezone)
    except PerennialError:
        return ZoneInfo("UTC")


def _print_moves(args: argparse.Namespace, moves: Sequence[tuple[Entry, Story | None]]) -> None:
    if args.json:
        say_json({"model": args.model, "moves": [{"move": _plain(e), "decision": _decision(s)} for e, s in moves]})
        return
    if not moves:
        say(f"{args.model} has never had a champion")
        return
    rows = [("as of", "champion", "before", "act", "who", "decision", "why")]
    for e, story in moves:
        decided = story.decision if story else None
        rows.append(
            (
                _short(e.as_of),
                _version(e.version),
                _version(e.figures.get("from")),
                e.verdict.replace("_", " "),
                _who(e),
                f"{decided.verdict}, entry {decided.seq}" if decided else "none",
                _cut(e.reason, 90),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for n, row in enumerate(rows):
        line = "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]])
        say(paint(line, "bold") if n == 0 else line)


def _print_champion(
    args: argparse.Namespace, move: Entry | None, story: Story | None, day: Sequence[Entry], url: str | None
) -> None:
    if move is None or story is None:
        since = f" (since {_short(move.as_of)}: {move.reason})" if move else ""
        say(f"{args.model} had no champion at {args.at}{since}")
        return
    say(paint(f"{args.model} at {args.at}: version {story.version} was champion", "bold"))
    before = move.figures.get("from")
    pairs = [
        (
            "since",
            f"{_short(move.as_of)} UTC (as of); written {_short(move.at)} UTC",
        ),
        ("before", _version(before)),
        ("act", f"{move.verdict.replace('_', ' ')} (entry {move.seq}): {move.reason}"),
        ("who", _who(move)),
    ]
    decision = story.decision
    if decision is not None:
        holdout = " to ".join(map(str, decision.figures.get("holdout") or ())) or "unknown"
        pairs += [
            ("decision", f"{decision.verdict} (entry {decision.seq}): {decision.reason}"),
            ("judged", f"as of {_short(decision.as_of)} UTC on {holdout}, by {_who(decision)}"),
        ]
    else:
        pairs.append(("decision", "none on record: the version was registered, or made champion, by hand"))
    if story.mlflow_run:
        pairs.append(("MLflow run", url or story.mlflow_run))
    digests = {**(decision.digests if decision else {}), **move.digests}
    pairs += [
        (name, str(digests[name])) for name in ("spec", "features", "git_commit", "lock_sha256") if name in digests
    ]
    for name, text in pairs:
        say(f"  {name:<12}{text}")
    for e in story.gates:
        say(f"  {'gate':<12}{e.figures.get('gate')}: {_coloured(e.verdict)}: {e.reason}")
        figures = {k: v for k, v in e.figures.items() if k not in ("gate", "mode", "warnings", "mlflow_run")}
        said = ", ".join(f"{k} {_number(v)}" for k, v in figures.items() if isinstance(v, int | float | str))
        if said:
            say(f"  {'':<12}{said}")
    for e in story.others:
        say(f"  {e.event.replace('_', ' '):<12}{_coloured(e.verdict)}: {e.reason} ({_who(e)})")
    if len(day) > 1:
        say(f"  that day    the champion moved {len(day)} times: {', '.join(_version(e.version) for e in day)}")


def _who(entry: Entry) -> str:
    """The person, and the run through which they acted."""
    actor = entry.actor
    run = " ".join(str(actor[k]) for k in ("dag_id", "run_id") if actor.get(k)) or "unknown"
    if entry.verdict == "found":
        return f"by hand in MLflow, found by {run}"
    return f"{actor['user']}, {run}" if actor.get("user") else run


def _short(instant: str | None) -> str:
    return str(instant)[:16].replace("T", " ")


def _version(version: Any) -> str:
    return "none" if version is None else f"version {version}"


def _coloured(verdict: str) -> str:
    return paint(verdict, {"pass": "green", "fail": "red", "hold": "yellow"}.get(verdict, "bold"))


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _plain(entry: Entry | None) -> dict[str, Any] | None:
    found: dict[str, Any] | None = json.loads(entry.to_bytes()) if entry else None
    return found


def _decision(story: Story | None) -> dict[str, Any] | None:
    return _plain(story.decision) if story else None


def _mlflow_url(run_id: str) -> str | None:
    """Where the run can be looked at; ``None`` while MLflow does not answer."""
    from mlflow.exceptions import MlflowException

    from perennial.registry.tracking import run_url

    try:
        return run_url(run_id)
    except MlflowException:
        return None


# --------------------------------------------------------------------------------------------------------------- schema


def _schema(args: argparse.Namespace) -> int:
    from perennial.ledger.schema import json_schema

    text = json.dumps(json_schema(), indent=2, ensure_ascii=False)
    if args.out is None:
        say(text)
    else:
        args.out.write_text(text + "\n", encoding="utf-8")
        say(str(args.out))
    return 0
