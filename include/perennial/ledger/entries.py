"""Entries of the ledger and how they are appended.

Each subject (a model or a feed) has its own chain: ``<subject>/<seq:010d>.json``. An entry is written with *put if
absent* under the next number, so two writers cannot both write it: the loser reads the winner's entry and tries the
number after it. ``prev`` is the sha256 of the entry before, ``id`` names run, task and event, so that a retry of the
same task adds nothing.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from perennial.errors import ConflictError
from perennial.settings import settings
from perennial.storage import Store, open_store, plain, to_json

SCHEMA = 1
GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision. ``seq``, ``prev`` and ``at`` are given by :meth:`Ledger.append`.

    :param id: ``dag_id/run_id/task_id/event``: the same act has the same id, however often it is retried.
    :param event: ``gate``, ``decision``, ``alias``, ``ingestion``, ``retraining_requested``, ``guard``, ``monitoring``.
    :param as_of: the instant up to which the act knew things, ISO 8601 UTC.
    :param at: wall clock, ISO 8601 UTC.
    """

    id: str
    event: str
    subject: str
    verdict: str
    reason: str
    as_of: str | None = None
    version: str | None = None
    partition: str | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    actor: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA
    seq: int = -1
    prev: str = ""
    at: str = ""

    def to_bytes(self) -> bytes:
        """Canonical JSON; the chain hashes this. A figure that is no number (NaN) is written as null."""
        return to_json(plain(asdict(self)))

    @classmethod
    def from_bytes(cls, raw: bytes) -> Entry:
        """Read an entry as it stands in the ledger."""
        return cls(**json.loads(raw))


class Ledger:
    """Append-only chains under one URI."""

    def __init__(self, uri: str | None = None, now: Callable[[], dt.datetime] | None = None) -> None:
        self.store: Store = open_store(uri or settings().ledger)
        self._now = now or (lambda: dt.datetime.now(dt.UTC))

    def entries(self, subject: str) -> Iterator[Entry]:
        """All entries of a subject, oldest first."""
        for raw in self._raw(subject):
            yield Entry.from_bytes(raw)

    def _raw(self, subject: str) -> Iterator[bytes]:
        for key in self.store.list(subject):
            if key.endswith(".json"):
                yield self.store.get(key)

    def subjects(self) -> list[str]:
        """Names of models and feeds that have entries."""
        return sorted({key.split("/", 1)[0] for key in self.store.list()})

    def append(self, entry: Entry, *, fence: Callable[[], None] = lambda: None, attempts: int = 50) -> Entry:
        """Add an entry at the end of its subject's chain, unless its id is already there.

        :returns: the entry as it stands in the ledger (an earlier one with the same id, if there is one).
        :raises ConflictError: when other writers take ``attempts`` numbers in a row.
        """
        known = list(self._raw(entry.subject))
        for raw in known:
            if (there := Entry.from_bytes(raw)).id == entry.id:
                return there
        last = known[-1] if known else None
        seq = len(known)
        for _ in range(attempts):
            prev = GENESIS if last is None else hashlib.sha256(last).hexdigest()
            at = self._now().isoformat(timespec="milliseconds")
            stamped = replace(entry, seq=seq, prev=prev, at=at).to_bytes()
            fence()
            key = f"{entry.subject}/{seq:010d}.json"
            if self.store.put_if_absent(key, stamped):
                return Entry.from_bytes(stamped)
            last = self.store.get(key)  # somebody was faster: follow it
            if (there := Entry.from_bytes(last)).id == entry.id:
                return there
            seq += 1
        raise ConflictError(f"the ledger of {entry.subject} was written by others {attempts} times in a row")

    def find(self, subject: str, **wanted: Any) -> list[Entry]:
        """Entries whose fields equal ``wanted``, oldest first."""
        return [e for e in self.entries(subject) if all(getattr(e, k) == v for k, v in wanted.items())]


def champion_at(ledger: Ledger, model: str, as_of: dt.datetime) -> str | None:
    """Which version the ledger says was champion at ``as_of`` (alias moves count from their own ``as_of``)."""
    version: str | None = None
    for e in ledger.entries(model):
        if e.event == "alias" and e.figures.get("alias") == "champion" and e.as_of is not None:
            if dt.datetime.fromisoformat(e.as_of) > as_of:
                continue
            version = e.version
    return version
