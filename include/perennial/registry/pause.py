"""Pause and resume of a model: a state of ours, derived from the ledger.

While a model is paused its runs skip with a reason, and the partitions that were not scored are noted, so that resuming
can name them. Airflow's own pause would lose keyed events for good.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from perennial.ledger import Entry, Ledger
from perennial.runs import Actor

PAUSED, RESUMED = "paused", "resumed"


def paused(ledger: Ledger, model: str) -> Entry | None:
    """The entry by which the model is paused at present; ``None`` when it is not."""
    states = ledger.find(model, event="state")
    return states[-1] if states and states[-1].verdict == PAUSED else None


def set_state(
    ledger: Ledger,
    model: str,
    verdict: str,
    *,
    reason: str,
    as_of: dt.datetime,
    actor: Actor,
    fence: Callable[[], None] = lambda: None,
) -> Entry:
    """Pause or resume a model.

    :param verdict: ``paused`` or ``resumed``.
    """
    return ledger.append(
        Entry(
            id=actor.entry_id("state", verdict),
            event="state",
            subject=model,
            verdict=verdict,
            reason=reason,
            as_of=as_of.isoformat(),
            actor=actor.to_dict(),
        ),
        fence=fence,
    )


def record_skip(
    ledger: Ledger, model: str, key: str, since: Entry, actor: Actor, fence: Callable[[], None] = lambda: None
) -> None:
    """Note that ``key`` was not scored because the model is paused; once per pause, however many runs ask for it."""
    ledger.append(
        Entry(
            id=f"skipped/{since.seq}/{key}",
            event="skipped",
            subject=model,
            verdict=PAUSED,
            reason=f"{key} was not scored: the model was paused ({since.reason})",
            partition=key,
            figures={"paused_by": since.seq},
            actor=actor.to_dict(),
        ),
        fence=fence,
    )


def skipped(ledger: Ledger, model: str, since: Entry) -> list[str]:
    """The partitions that were not scored during one pause."""
    noted = ledger.find(model, event="skipped")
    return sorted({e.partition for e in noted if e.partition and e.figures.get("paused_by") == since.seq})
