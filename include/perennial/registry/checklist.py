"""The checklist before promotion, as it stands in the ledger: what held, what did not, and what was waived by name.

``training.checklist`` finds the facts. Here is what they come to, and the one place that lets a promotion through or
not: :func:`require` looks at the newest checklist of the version, so that no way to promote goes around it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from perennial.errors import UnmetError, UsageError
from perennial.ledger import Entry, Ledger
from perennial.runs import Actor
from perennial.settings import settings
from perennial.specs.models import ChecklistItem, ModelSpec
from perennial.storage import to_json

State = Literal["met", "not_met", "waived", "not_applicable"]
EVENT = "checklist"
ITEMS: tuple[ChecklistItem, ...] = get_args(ChecklistItem)
TITLES: dict[ChecklistItem, str] = {
    "code_committed": "Code committed and clean",
    "data_versioned": "Training data versioned and found again",
    "dependencies_locked": "Dependencies locked",
    "environment_captured": "Environment captured",
    "unseen_data": "Evaluated on data that no contender trained on",
    "bias_tested": "Bias tested",
    "registered_and_signed": "Registered and signed",
    "stage_checked": "Stage check passed",
    "rollback_ready": "A version to roll back to",
}


@dataclass(frozen=True)
class Item:
    """One line of a checklist.

    :param reason: the fact behind the state, in a sentence.
    :param waiver: who waived an unmet item, and why.
    """

    item: ChecklistItem
    state: State
    reason: str
    waiver: str = ""

    @property
    def title(self) -> str:
        return TITLES[self.item]

    @property
    def words(self) -> str:
        """Reason and waiver."""
        return f"{self.reason} ({self.waiver})" if self.waiver else self.reason

    def to_dict(self) -> dict[str, str]:
        return {"item": self.item, "state": self.state, "reason": self.reason, "waiver": self.waiver}


@dataclass(frozen=True)
class Checklist:
    """The checklist of one version."""

    model: str
    version: str
    items: tuple[Item, ...]

    @property
    def unmet(self) -> tuple[Item, ...]:
        return tuple(i for i in self.items if i.state == "not_met")

    @property
    def waived(self) -> tuple[Item, ...]:
        return tuple(i for i in self.items if i.state == "waived")

    @property
    def verdict(self) -> Literal["met", "not_met", "waived"]:
        """Whether the version may be promoted; ``waived``: it may, without the items that were waived."""
        return "not_met" if self.unmet else "waived" if self.waived else "met"

    @property
    def reason(self) -> str:
        """One sentence for ledger and log."""
        if self.unmet:
            return "; ".join(f"{i.title.lower()}: {i.reason}" for i in self.unmet)
        if self.waived:
            return "all met but " + "; ".join(f"{i.title.lower()}: {i.words}" for i in self.waived)
        return f"all {len(self.items)} items are met or do not apply"

    def to_dict(self) -> dict[str, Any]:
        return {"model": self.model, "version": self.version, "items": [i.to_dict() for i in self.items]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Checklist:
        return cls(value["model"], value["version"], tuple(Item(**i) for i in value["items"]))

    def lines(self) -> list[str]:
        """What an approver reads, a line for each item."""
        return [f"{i.state.replace('_', ' '):>14}  {i.title}: {i.words}" for i in self.items]


def waivers(spec: ModelSpec) -> dict[ChecklistItem, str]:
    """What is waived by name: in the spec (or its folder's ``defaults.yaml``), or for a whole environment.

    :raises UsageError: when ``PERENNIAL_WAIVE`` names no item of the checklist.
    """
    found: dict[ChecklistItem, str] = {}
    for part in filter(str.strip, settings().waive.split(";")):
        name, _, reason = (p.strip() for p in part.partition(":"))
        item = next((i for i in ITEMS if i == name), None)
        if item is None or not reason:
            raise UsageError(
                f"PERENNIAL_WAIVE says {part.strip()!r}: write item: reason, with an item of {', '.join(ITEMS)}"
            )
        found[item] = f"waived by PERENNIAL_WAIVE: {reason}"
    return found | {w.item: f"waived by the spec: {w.reason}" for w in spec.waive}


def settle(items: Iterable[Item], given: Mapping[ChecklistItem, str]) -> tuple[Item, ...]:
    """Turn unmet items that somebody waived into waived ones. A waiver of an item that is met says nothing."""
    return tuple(
        replace(i, state="waived", waiver=given[i.item]) if i.state == "not_met" and i.item in given else i
        for i in items
    )


def record(
    found: Checklist, ledger: Ledger, actor: Actor, as_of: str | None, fence: Callable[[], None] = lambda: None
) -> Entry:
    """Write a checklist to the ledger; the same act with the same facts once."""
    what = hashlib.sha256(to_json(found.to_dict())).hexdigest()[:12]
    return ledger.append(
        Entry(
            id=actor.entry_id(EVENT, found.version, what),
            event=EVENT,
            subject=found.model,
            version=found.version,
            verdict=found.verdict,
            reason=found.reason,
            as_of=as_of,
            figures={i.item: {"state": i.state, "reason": i.reason, "waiver": i.waiver} for i in found.items},
            actor=actor.to_dict(),
        ),
        fence=fence,
    )


def on_record(ledger: Ledger, model: str, version: str) -> Checklist | None:
    """The newest checklist of a version; what an approver is shown."""
    entries = ledger.find(model, event=EVENT, version=version)
    if not entries:
        return None
    items = tuple(Item(name, **entries[-1].figures[name]) for name in ITEMS if name in entries[-1].figures)
    return Checklist(model, version, items)


def exempt(ledger: Ledger, model: str, version: str, event: str) -> bool:
    """Whether a move needs no checklist: a roll back to a version that was promoted before.

    It passed when it was promoted, and an on-call engineer who leaves a broken version must not be stopped by a
    commit that is missing. A version that somebody set by hand in MLflow was never promoted.
    """
    moves = ledger.find(model, event="alias", version=version) if event == "roll_back" else []
    return any(e.figures.get("alias") == "champion" and e.verdict != "found" for e in moves)


def require(ledger: Ledger, model: str, version: str, event: str) -> None:
    """Let a promotion through, or not.

    :raises UnmetError: when the version's newest checklist has an unmet item, or there is no checklist of it.
    """
    if exempt(ledger, model, version, event):
        return
    found = on_record(ledger, model, version)
    if found is None:
        raise UnmetError(f"{model} version {version} has no checklist on record, so it is not promoted")
    if found.unmet:
        raise UnmetError(
            f"{model} version {version} is not promoted, because its checklist is not met: {found.reason}. Put it "
            "right, or waive it by name in the spec: waive: [{item: " + found.unmet[0].item + ", reason: ...}]"
        )
