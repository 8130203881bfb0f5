"""Guards: may a retraining start at all? They look at the ledger and at as_of time, never at the clock."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from perennial.lake.homes import feed_table
from perennial.ledger import Entry, Ledger
from perennial.registry import versions
from perennial.runs import Actor
from perennial.specs import FeedSpec, ModelSpec
from perennial.specs.durations import format_duration
from perennial.specs.loader import digest
from perennial.specs.partitions import known_at_instant
from perennial.training.bundle import Bundle
from perennial.training.plan import last_labelled

MONTH = dt.timedelta(days=30)


@dataclass(frozen=True)
class Guard:
    """One rule about whether to start."""

    name: str
    passed: bool
    reason: str
    figures: Mapping[str, float | None] = field(default_factory=dict)


def check_guards(
    spec: ModelSpec, feeds: Mapping[str, FeedSpec], as_of: dt.datetime, ledger: Ledger, actor: Actor
) -> list[Guard]:
    """Cooldown since the last retraining, budget per 30 days, and enough labels that the champion has not seen."""
    rules = spec.retraining
    earlier = sorted(
        dt.datetime.fromisoformat(e.as_of)
        for e in ledger.find(spec.name, event="guard", verdict="started")
        if e.as_of
        and e.figures.get("guard") == "cooldown"
        and (e.actor.get("dag_id"), e.actor.get("run_id")) != (actor.dag_id, actor.run_id)
    )
    before = [t for t in earlier if t <= as_of]
    since = as_of - before[-1] if before else None
    cooldown = Guard(
        "cooldown",
        since is None or since >= rules.cooldown,
        "no retraining before"
        if since is None
        else f"the last retraining was {since.days} days before, the cooldown is {format_duration(rules.cooldown)}",
        {"days_since": since.days if since else None, "cooldown_days": rules.cooldown.total_seconds() / 86400},
    )
    recent = sum(as_of - t < MONTH for t in before)
    budget = Guard(
        "budget",
        recent < rules.max_per_month,
        f"{recent} retrainings in the last 30 days, at most {rules.max_per_month}",
        {"in_30_days": recent, "at_most": rules.max_per_month},
    )
    new = _new_labels(spec, feeds, as_of, actor)
    labels = Guard(
        "new_labels",
        new >= rules.min_new_labels,
        f"{new:,} labels since the champion's, at least {rules.min_new_labels:,}",
        {"new_labels": new, "at_least": rules.min_new_labels},
    )
    return [cooldown, budget, labels]


def _new_labels(spec: ModelSpec, feeds: Mapping[str, FeedSpec], as_of: dt.datetime, actor: Actor) -> int:
    """Label rows known at ``as_of`` that were not known when the champion was trained."""
    label_feed = feeds[spec.labels.feed]
    last = last_labelled(spec, label_feed, as_of)
    champion = versions.by_alias(spec.name, versions.CHAMPION)
    known: dt.datetime | None = None
    if champion is not None:
        bundle = Bundle.open(spec.name, champion, actor=actor)
        known = dt.datetime.fromisoformat(bundle.facts["as_of"])
    total = 0
    for key, info in feed_table(label_feed).partitions().items():
        if last is not None and key <= last and (known is None or known_at_instant(label_feed, key) > known):
            total += info.rows
    return total


def record_guards(
    spec: ModelSpec,
    guards: Sequence[Guard],
    as_of: dt.datetime,
    ledger: Ledger,
    actor: Actor,
    fence: Callable[[], None] = lambda: None,
) -> None:
    """Write each guard to the ledger: ``started`` when all pass, else ``declined`` for those that do not."""
    started = all(g.passed for g in guards)
    for g in guards:
        verdict = "started" if started else ("passed" if g.passed else "declined")
        ledger.append(
            Entry(
                id=actor.entry_id("guard", g.name, verdict),
                event="guard",
                subject=spec.name,
                verdict=verdict,
                reason=g.reason,
                as_of=as_of.isoformat(),
                figures={"guard": g.name, **g.figures},
                actor=actor.to_dict(),
                digests={"spec": digest(spec)},
            ),
            fence=fence,
        )
