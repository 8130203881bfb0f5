"""Ledger and registry reconciled: what the ledger says of a model's aliases, and what MLflow says.

MLflow's aliases have no history, and anybody may move them by hand. A move that the ledger does not know is written
down as *found*, once per change: by whoever looks first, with the same id whoever looks.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from perennial.ledger import Entry, Ledger
from perennial.runs import Actor

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
FOUND = "found"
#: Between moving an alias and writing it down a promotion takes a moment; a difference that lasts longer is one.
SETTLE = 3.0


@dataclass(frozen=True)
class Said:
    """What the ledger says of an alias: the version (``None``: there is none) and the entry that said so last."""

    version: str | None
    seq: int


def said(ledger: Ledger, model: str) -> dict[str, Said]:
    """What the ledger says of every alias that it has ever spoken of."""
    found: dict[str, Said] = {}
    for e in ledger.find(model, event="alias"):
        alias = str(e.figures.get("alias"))
        found[alias] = Said(e.version, e.seq)
        previous = e.figures.get("previous")
        if alias == CHAMPION and e.verdict != FOUND and previous is not None:
            found[PREVIOUS] = Said(str(previous), e.seq)
    return found


def reconcile(
    model: str,
    look: Callable[[], Mapping[str, str]],
    *,
    as_of: dt.datetime,
    actor: Actor,
    ledger: Ledger,
    fence: Callable[[], None] = lambda: None,
    settle: float = SETTLE,
    only: Iterable[str] = (CHAMPION, CHALLENGER, PREVIOUS),
) -> list[Entry]:
    """Write down every alias that is not where the ledger says it is.

    :param look: gives the aliases as MLflow has them.
    :param as_of: when the one who looks does so. A move is never dated before the newest that the ledger knows, so that
        scoring an old partition does not change what is said of the past.
    :param settle: seconds after which a difference must still be there; 0 for the one who moves aliases itself.
    :returns: what was written, or had been written of the same change before.
    """
    found = _differences(model, look, ledger, only)
    if found and settle:
        time.sleep(settle)
        again = _differences(model, look, ledger, only)
        found = {alias: change for alias, change in found.items() if again.get(alias) == change}
    if not found:
        return []
    instant = max([as_of, *_known_instants(ledger, model)]).isoformat()
    return [
        ledger.append(
            Entry(
                id=f"{FOUND}/{alias}/{before.seq}/{before.version}/{now}",
                event="alias",
                subject=model,
                version=now,
                verdict=FOUND,
                reason=_sentence(alias, before.version, now),
                as_of=instant,
                figures={"alias": alias, "from": before.version, "to": now},
                actor=actor.to_dict(),
            ),
            fence=fence,
        )
        for alias, (before, now) in found.items()
    ]


def _differences(
    model: str, look: Callable[[], Mapping[str, str]], ledger: Ledger, only: Iterable[str]
) -> dict[str, tuple[Said, str | None]]:
    """Alias -> what the ledger says, and the version that MLflow names."""
    now = look()
    known = said(ledger, model)  # read after MLflow: what was moved before is written by now, or soon
    found = {}
    for alias in only:
        before, version = known.get(alias, Said(None, -1)), now.get(alias)
        if alias == PREVIOUS and version is not None and version == now.get(CHAMPION):
            continue  # a promotion that was cut off between its two moves; its retry completes it
        if before.version != version:
            found[alias] = (before, version)
    return found


def _known_instants(ledger: Ledger, model: str) -> list[dt.datetime]:
    last = [ledger.last(model, event=event) for event in ("alias", "decision", "monitoring")]
    return [dt.datetime.fromisoformat(e.as_of) for e in last if e is not None and e.as_of]


def _sentence(alias: str, before: str | None, now: str | None) -> str:
    ledger = "did not speak of" if before is None else f"said version {before}"
    how = "by hand in MLflow, or by a task that was killed before it could write it down"
    if now is None:
        return f"{alias} is gone, and the ledger said version {before}: deleted {how}"
    if before is None:
        return f"{alias} is version {now}, which the ledger {ledger}: set {how}"
    return f"{alias} is version {now}, and the ledger {ledger}: moved {how}"
