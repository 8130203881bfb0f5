"""From looks to an outcome: quiet, alert, or ask; on record, and with a latch so that a version asks once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perennial.ledger import Entry, Ledger
from perennial.monitoring.watch import latched
from perennial.pages import page, section, table
from perennial.runs import Actor, RunState
from perennial.specs import ModelSpec
from perennial.specs.loader import digest
from perennial.storage import to_json

Fence = Callable[[], None]


@dataclass(frozen=True)
class Conclusion:
    """What a monitoring run comes to, and its page."""

    outcome: str
    reason: str
    page: bytes


def conclude(
    spec: ModelSpec,
    looks: Sequence[Mapping[str, Any]],
    asked: Mapping[str, Any],
    ledger: Ledger,
    actor: Actor,
    fence: Fence = lambda: None,
) -> Conclusion:
    """Combine the looks by the spec: what asks, what only alerts (``dry_run``, not in ``retraining.on``, latched)."""
    modes = {"drift": spec.monitoring.drift.mode, "performance": spec.monitoring.performance.mode}
    outcomes, reasons = [], []
    for look in looks:
        kind, outcome = look["kind"], look["outcome"]
        reason = f"{kind}: {look['reason']}"
        but = ""
        if outcome == "ask":
            if kind not in spec.retraining.on:
                but = f"retraining.on does not name {kind}"
            elif modes[kind] == "dry_run":
                but = f"{kind} is in dry_run"
            elif latched(ledger, spec.name, asked["version"], actor):
                but = f"version {asked['version']} has asked before"
        outcomes.append("alert" if but else outcome)
        reasons.append(f"{reason} (does not ask: {but})" if but else reason)
    order = ("ask", "alert", "quiet")
    outcome = next((o for o in order if o in outcomes), "alert")
    reason = "; ".join(reasons) or "nothing was looked at"
    figures = {look["kind"]: [_short(w) for w in look["windows"]] for look in looks}
    act = hashlib.sha256(to_json([outcome, reason, figures])).hexdigest()[:12]
    RunState(actor).write("conclusion", {"outcome": outcome, "reason": reason})
    ledger.append(
        Entry(
            id=actor.entry_id("monitoring", act),
            event="monitoring",
            subject=spec.name,
            version=asked["version"],
            verdict=outcome,
            reason=reason,
            as_of=asked["as_of"],
            partition=asked["key"],
            figures=figures,
            actor=actor.to_dict(),
            digests={"spec": digest(spec)},
        ),
        fence=fence,
    )
    return Conclusion(outcome, reason, _page(spec, looks, asked, outcome, reason))


def _short(window: Mapping[str, Any]) -> dict[str, Any]:
    return {k: window[k] for k in ("window", "state", "reason", "share", "value", "drop", "threshold") if k in window}


def record_request(
    model: str,
    asked: Mapping[str, Any],
    conclusion: Mapping[str, Any],
    ledger: Ledger,
    actor: Actor,
    fence: Fence = lambda: None,
) -> bool:
    """Write the request to the ledger; from then on this version is latched.

    :returns: false when another run has asked in the meantime, and nothing was written.
    """
    if latched(ledger, model, asked["version"], actor):
        return False
    found = ledger.last(model, event="monitoring", version=asked["version"], partition=asked["key"])
    ledger.append(
        Entry(
            id=actor.entry_id("request"),
            event="retraining_requested",
            subject=model,
            version=asked["version"],
            verdict="requested",
            reason=conclusion["reason"],
            as_of=asked["as_of"],
            partition=asked["key"],
            figures=found.figures if found else {},
            actor=actor.to_dict(),
            digests=found.digests if found else {},
        ),
        fence=fence,
    )
    return True


def _predictions(window: Mapping[str, Any]) -> str:
    distance = window.get("predictions")
    if isinstance(distance, dict):
        *classes, (_, predicted) = distance.items()
        each = ", ".join(f"{name} {value:.2f}" for name, value in classes)
        return (
            f"; probabilities lie so many standard deviations from the holdout's: {each}; predicted classes "
            f"{predicted:.2f} (Jensen-Shannon)"
        )
    return "" if distance is None else f"; scores lie {distance:.2f} standard deviations from the holdout's"


def _page(
    spec: ModelSpec, looks: Sequence[Mapping[str, Any]], asked: Mapping[str, Any], outcome: str, reason: str
) -> bytes:
    parts = []
    for look in looks:
        rows = [(w["window"], w["state"], w["reason"] + _predictions(w)) for w in look["windows"]]
        heading = f"{look['kind'].capitalize()}: {look['reason']}"
        parts.append(section(heading, table(("window", "state", "why"), rows, state=1)))
        for w in look["windows"][-1:]:
            if w.get("distances"):
                columns = sorted(w["distances"], key=lambda c: -w["distances"][c] / w["thresholds"][c])
                drift = [
                    (c, w["distances"][c], w["thresholds"][c], "drifted" if c in w["drifted"] else "steady")
                    for c in columns
                ]
                shown = table(("column", "distance", "threshold", "state"), drift, state=3)
                parts.append(section(f"Columns in {w['window']}", shown))
    note = "Thresholds hold for the stated rate of false asks if the coming weeks resemble the reference."
    lead = f"{outcome}: version {asked['version']} as of {asked['as_of']}. {reason}. {note}"
    return page(f"Monitoring of {spec.name}", lead, *parts)
