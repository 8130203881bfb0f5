"""One maintenance, step by step: plan, expire, tidy, vacuum, report. Each step reads the plan and can be repeated."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from perennial.housekeeping import tables
from perennial.housekeeping.expiry import Expired, find_expired, remove, size_of
from perennial.housekeeping.landed import Missed
from perennial.housekeeping.pins import Pins, find_pins
from perennial.housekeeping.places import places
from perennial.housekeeping.tables import KEEP_HOURS, Tidied
from perennial.lake.table import Fence, no_fence
from perennial.ledger import Entry, Ledger
from perennial.pages import page, section, table
from perennial.runs import Actor
from perennial.specs.loader import SpecSet
from perennial.specs.partitions import period
from perennial.storage import to_json

Say = Callable[[str], None]

#: Removals that change what the newest version of a table says; these go into the ledger.
_ON_RECORD = ("rows", "predictions", "candidates")


@dataclass(frozen=True)
class Work:
    """What a maintenance run will do, decided once.

    :param tables: patterns of table names, such as ``feeds/*``; empty: all.
    :param as_of: end of the newest partition in the lake (ISO 8601), which ages are counted back from.
    """

    pins: Pins
    expired: tuple[Expired, ...]
    tables: tuple[str, ...] = ()
    keep_hours: int = KEEP_HOURS
    dry_run: bool = False
    as_of: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "pins": self.pins.to_dict(),
            "expired": [e.to_dict() for e in self.expired],
            "tables": list(self.tables),
            "keep_hours": self.keep_hours,
            "dry_run": self.dry_run,
            "as_of": self.as_of,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Work:
        return cls(
            Pins.from_dict(value["pins"]),
            tuple(Expired.from_dict(e) for e in value["expired"]),
            tuple(value["tables"]),
            value["keep_hours"],
            value["dry_run"],
            value["as_of"],
        )


@dataclass
class Outcome:
    """What was done, for the report."""

    expired: list[dict[str, Any]] = field(default_factory=list)
    tidied: list[dict[str, Any]] = field(default_factory=list)
    vacuumed: dict[str, int] = field(default_factory=dict)
    missed: list[dict[str, Any]] = field(default_factory=list)


def plan(
    specs: SpecSet,
    *,
    only: Sequence[str] = (),
    keep_hours: int = KEEP_HOURS,
    dry_run: bool = False,
    now: dt.datetime | None = None,
) -> Work:
    """Find out what must stay and what has expired. Removes nothing.

    :raises RegistryError: when MLflow does not say what its versions need; then nothing may be removed.
    """
    pins = find_pins()
    expired = find_expired(specs, pins, now=now) if not only else []
    ends = [
        period(feed, newest)[1]
        for place in places(["feeds/*"])
        if (feed := specs.feeds.get(place.subject)) and (newest := max(place.table.partitions(), default=None))
    ]
    as_of = max(ends).isoformat() if ends else None
    return Work(pins, tuple(expired), tuple(only), keep_hours, dry_run, as_of)


def expire(work: Work, ledger: Ledger, actor: Actor, say: Say, fence: Fence = no_fence) -> list[dict[str, Any]]:
    """Remove what has expired, and say of each what it was."""
    done = []
    for e in work.expired:
        size = size_of(e)
        there = len(e.items) if work.dry_run else remove(e, metadata={"perennial.run": actor.run_id}, fence=fence)
        if not work.dry_run and e.what in _ON_RECORD:
            _record(e, work, ledger, actor, fence)
        verb = "would remove" if work.dry_run else "removed"
        say(f"{verb} {there} {e.what} of {e.subject} from {e.where} ({e.why}): {', '.join(e.items)}")
        done.append({**e.to_dict(), "items": len(e.items), "first": e.items[0], "last": e.items[-1], "bytes": size})
    return done


def _record(e: Expired, work: Work, ledger: Ledger, actor: Actor, fence: Fence) -> None:
    digest = hashlib.sha256(to_json(list(e.items))).hexdigest()
    ledger.append(
        Entry(
            id=actor.entry_id("expired", e.where, digest[:12]),
            event="retention",
            subject=e.subject,
            verdict="expired",
            reason=f"{e.what}: {e.why}",
            as_of=work.as_of,
            figures={"what": e.what, "where": e.where, "items": len(e.items), "span": [e.items[0], e.items[-1]]},
            actor=actor.to_dict(),
            digests={"items": digest},
        ),
        fence=fence,
    )


def tidy(work: Work, say: Say, fence: Fence = no_fence) -> list[Tidied]:
    """Merge small files, checkpoint and thin the log of every table."""
    found = []
    for place in places(work.tables):
        done = tables.tidy(place, work.pins.of(place.name), dry_run=work.dry_run, fence=fence)
        if done is None:
            continue
        found.append(done)
        if done.note:
            say(f"{done.name}: {done.note}")
        acts = [
            (done.merged, "small files merged"),
            (int(done.checkpoint), "checkpoint"),
            (done.log_files, "old ones removed"),
        ]
        said = ", ".join(f"{n} {what}" for n, what in acts if n)
        say(f"{done.name}: {done.partitions} partitions in {done.files} files{', ' + said if said else ''}")
    return found


def vacuum(work: Work, say: Say, fence: Fence = no_fence) -> dict[str, int]:
    """Remove files that nothing names any more; each is in the log."""
    removed: dict[str, int] = {}
    for place in places(work.tables):
        pinned = work.pins.of(place.name)
        gone = tables.vacuum(place, pinned, keep_hours=work.keep_hours, dry_run=work.dry_run, fence=fence)
        removed[place.name] = len(gone)
        kept = f", versions {', '.join(map(str, pinned))} kept" if pinned else ""
        say(f"{place.name}: {len(gone)} files {'would be' if work.dry_run else 'were'} removed{kept}")
        for file in gone:
            say(f"  {file}")
    return removed


def report(work: Work, outcome: Outcome) -> bytes:
    """The page that shows what a maintenance did."""
    verb = "would go" if work.dry_run else "gone"
    rows = [(e["subject"], e["what"], e["items"], e["first"], e["last"], e["bytes"], e["why"]) for e in outcome.expired]
    parts = [
        section(
            f"Expired: {verb}",
            table(("of", "what", "how many", "first", "last", "bytes", "why"), rows) if rows else "<p>Nothing.</p>",
        ),
        section(
            "Tables",
            table(
                ("table", "partitions", "files", "bytes", "merged", "checkpoint", "old ones", "vacuumed", "versions"),
                [
                    (
                        t["name"], t["partitions"], t["files"], t["bytes"], t["merged"],
                        "written" if t["checkpoint"] else "", t["log_files"], outcome.vacuumed.get(t["name"], 0),
                        ", ".join(map(str, work.pins.of(t["name"]))),
                    )
                    for t in outcome.tidied
                ],
            ),
        ),
    ]  # fmt: skip
    said = [s for m in outcome.missed if (s := Missed.from_dict(m).sentence)]
    if said:
        parts.append(section("Landing and lake", table(("what was missed",), [(s,) for s in said])))
    lead = f"{'A look only: nothing was removed. ' if work.dry_run else ''}Ages count back from the newest data" + (
        f", {work.as_of[:16]} UTC." if work.as_of else "."
    )
    return page("Maintenance", lead, *parts)
