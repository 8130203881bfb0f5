"""Sections of a card that say what is on record: lineage, drift thresholds, checklist, approvals, signature."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from perennial.ledger import Entry
from perennial.registry.checklist import Checklist
from perennial.training.card.facts import CardFacts
from perennial.training.card.parts import Facts, Part, Table, Text, number, span, words


def lineage(f: CardFacts) -> Iterator[Part]:
    """Code, specs, environment: what the version follows from."""
    digests, runtime = f.plan.digests, f.bundle.get("runtime") or {}
    clean = {"false": "clean", "true": "with changes that were not committed"}.get(digests.get("git_dirty", ""), "")
    feeds = {k.removeprefix("feed:"): v for k, v in sorted(digests.items()) if k.startswith("feed:")}
    yield Facts((
        ("Code", f"commit {digests.get('git_commit') or 'unknown'}, {clean or 'not known whether clean'}"),
        ("Lock (sha256)", digests.get("lock_sha256")),
        ("Spec (sha256)", digests.get("spec")),
        ("Features (sha256)", digests.get("features")),
        ("Own pipeline.py (sha256)", digests.get("pipeline") or "none: the estimator is an importable class"),
        *((f"Feed {name} (sha256)", value) for name, value in feeds.items()),
        ("Fitted state (sha256)", f.bundle.get("state_sha256")),
        ("Seed", str(f.plan.seed)),
        ("Threads", f.bundle.get("threads")),
        ("Python", runtime.get("python")),
        ("Machine", runtime.get("machine")),
        ("BLAS", runtime.get("blas")),
        ("Needs", f.requirements),
        ("Trained again by", f"perennial reproduce {f.model} {f.version}"),
    ))  # fmt: skip
    libraries = tuple((runtime.get("libraries") or {}).items())
    yield Table(("library of the fit", "version"), libraries, None, "No library is on record.")


def snapshots(f: CardFacts, part: str) -> Table:
    """The data of one part, named for ever: table, version, rows, digest."""
    rows = tuple(
        (kind, s.get("uri"), s.get("version"), f"{len(s.get('partitions') or ())}: {span(s.get('partitions') or ())}",
         s.get("rows"), s.get("sha256"))
        for kind, s in (f.snapshots.get(part) or {}).items()
    )  # fmt: skip
    header = ("snapshot", "Delta table", "its version", "partitions", "rows", "sha256")
    return Table(header, rows, None, "The version names no snapshot.")


def drift(f: CardFacts) -> Iterator[Part]:
    """Thresholds that monitoring compares with, as they were calibrated on the training window."""
    spec, found = f.plan.spec.monitoring, f.drift.get("calibration")
    rule = f"{spec.rule.k} of the last {spec.rule.n} windows"
    yield Facts((
        ("Inputs are looked at", f"in windows of {words(spec.drift.window)}, {rule}; mode {spec.drift.mode}"),
        ("They ask when", f"more than {spec.drift.share:.0%} of the columns exceed their threshold"),
        ("Performance asks when", f"the metric drops by more than {spec.performance.max_drop:g} and more than chance "
                                  f"explains, {rule}; mode {spec.performance.mode}"),
        ("Reference", f"{words(f.drift.get('rows'))} rows of the training window"),
    ))  # fmt: skip
    if not found:
        yield Text(str(f.drift.get("why_not") or "No thresholds are on record."))
        return
    kinds = (f.drift.get("plan") or {}).get("kinds") or {}
    yield Text(
        f"Calibrated to {number(spec.drift.false_asks_per_year, 3)} false asks a year, if the coming weeks resemble "
        "the training window."
    )
    yield Table(
        ("column", "kind", "threshold of the distance"),
        tuple((c, kinds.get(c) or "number", number(v)) for c, v in found["thresholds"].items()),
        None,
        "No column is compared.",
    )


def checklist(found: Checklist) -> Table:
    """Every item with its fact; what was waived says by whom and why."""
    rows = tuple((i.title, i.state, i.words) for i in found.items)
    return Table(("item", "state", "fact"), rows, 1, "No checklist was made.")


def history(f: CardFacts) -> Iterator[Part]:
    """Who decided what about this version, as far as the ledger knew when the card was made."""
    approvals = [e for e in f.story.others if e.event == "approval"]
    yield Table(
        ("approval", "verdict", "by", "reason"),
        tuple((words(e.at), e.verdict, _who(e), e.reason) for e in approvals),
        1,
        "Nobody was asked: the spec asks for no approval, so the gates and the checklist decide.",
    )
    yield Facts((
        ("Version to roll back to", f.fallback or "none: this is the first version"),
        ("Its story since", f"perennial ledger show {f.model} (this card is as old as its registration)"),
    ))  # fmt: skip
    entries = [e for e in f.story.entries if e.event in ("decision", "alias", "signature", "stage", "rollout")]
    yield Table(
        ("at (UTC)", "event", "verdict", "by", "reason"),
        tuple((e.at[:19].replace("T", " "), e.event, e.verdict, _who(e), e.reason) for e in entries),
        2,
        "The ledger has no entry on it yet.",
    )


def _who(e: Entry) -> str:
    actor: Any = e.actor
    run = f"{actor.get('dag_id')} {actor.get('run_id')}" if actor.get("dag_id") else ""
    return " in ".join(filter(None, (actor.get("user"), run))) or "not on record"


def trust(f: CardFacts) -> Iterator[Part]:
    """Who signed it, and how it did when it was loaded as in production."""
    signer, digest, files = f.signed
    yield Facts((
        ("Signed with the key", signer),
        ("Digest of its files", digest),
        ("Files", files),
        ("Verified by", f"perennial verify {f.model} {f.version}"),
    ))  # fmt: skip
    stage = next((e for e in reversed(f.story.others) if e.event == "stage"), None)
    if stage is None:
        yield Text("No stage check of it is on record.")
        return
    yield Text(f"Stage check: {stage.verdict}. {stage.reason}")
    figures = tuple((k.replace("_", " "), words(v)) for k, v in stage.figures.items())
    yield Table(("figure of the stage check", "value"), figures, None, "It has no figures.")
