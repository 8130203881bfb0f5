"""Entries of the ledger and how they are appended.

Each subject (a model or a feed) has its own chain: ``<subject>/<seq:010d>.json``. An entry is written with *put if
absent* under the next number, so two writers cannot both write it: the loser reads the winner's entry and tries the
number after it. ``prev`` is the sha256 of the entry before, ``id`` names run, task and event, so that a retry of the
same task adds nothing. A derived index (:mod:`perennial.ledger.index`) keeps appends and searches cheap however long a
chain is; entries alone are the truth.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import random
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any

from perennial.errors import ConflictError, UsageError
from perennial.ledger.index import FOLDER, GENESIS, LAG, Index, key_of
from perennial.ledger.schema import SCHEMA, problem
from perennial.settings import settings
from perennial.storage import FileStore, Store, open_store, plain, to_json
from perennial.trust.lineage import code_identity

log = logging.getLogger(__name__)

_NAME = re.compile(r"\d{10}\.json")
#: Requests that an object store is asked at a time; a folder is read one by one, which is faster.
_AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision. ``seq``, ``prev`` and ``at`` are given by :meth:`Ledger.append`, and the code's identity is added
    to ``digests``.

    :param id: ``dag_id/run_id/task_id/event``: the same act has the same id, however often it is retried.
    :param event: one of :data:`perennial.ledger.schema.EVENTS`.
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


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry of a chain: its number and its sha256."""

    seq: int
    sha256: str


class Ledger:
    """Append-only chains under one URI."""

    def __init__(self, uri: str | None = None, now: Callable[[], dt.datetime] | None = None) -> None:
        self.store: Store = open_store(uri or settings().ledger)
        self._now = now or (lambda: dt.datetime.now(dt.UTC))
        self._known: dict[str, Index] = {}

    # --------------------------------------------------------------------------------------------------------- reading

    def subjects(self) -> list[str]:
        """Names of models and feeds that have entries."""
        return [name for name in self.store.folders() if name != FOLDER and any(self.store.list(name))]

    def entries(self, subject: str) -> Iterator[Entry]:
        """All entries of a subject, oldest first."""
        for _, raw in self._read(k for k in self.store.list(subject) if k.endswith(".json")):
            if raw is not None:
                yield Entry.from_bytes(raw)

    def raw(self, subject: str) -> Iterator[tuple[str, bytes | None]]:
        """Name and bytes of every file of a subject, in order; ``None`` for one that cannot be read."""
        for key, raw in self._read(self.store.list(subject), self._get_if_readable):
            yield key[len(subject) + 1 :], raw

    def at(self, subject: str, seq: int) -> bytes | None:
        """The bytes of one entry; ``None`` when there is none."""
        return self._get(_key(subject, seq))

    def find(self, subject: str, *, events: Collection[str] | None = None, **wanted: Any) -> list[Entry]:
        """Entries whose fields equal ``wanted``, oldest first. Cheap when it names ``id``, ``event`` or ``version``.

        :param events: any of these events.
        """
        return list(self._matching(subject, events, wanted))

    def last(self, subject: str, *, events: Collection[str] | None = None, **wanted: Any) -> Entry | None:
        """The newest of the entries that :meth:`find` gives; reads no more than it needs."""
        return next(self._matching(subject, events, wanted, newest_first=True), None)

    def head(self, subject: str) -> Head | None:
        """The newest entry of a chain; ``None`` when it has none."""
        index = self._catch_up(subject)
        return Head(index.count - 1, index.last) if index.count else None

    def _matching(
        self, subject: str, events: Collection[str] | None, wanted: Mapping[str, Any], *, newest_first: bool = False
    ) -> Iterator[Entry]:
        index = self._catch_up(subject)
        if "id" in wanted:
            numbers = index.with_id(wanted["id"])
        else:
            named = {wanted["event"]} if "event" in wanted else None
            if events is not None:
                named = set(events) if named is None else named & set(events)
            numbers = index.select(named, wanted.get("version"))
        if newest_first:
            numbers.reverse()
        keys = (_key(subject, seq) for seq in numbers)
        read = ((key, self._get(key)) for key in keys) if newest_first else self._read(keys)
        for _, raw in read:
            if raw is None:  # taken away from the chain: `perennial ledger verify` names it
                continue
            entry = Entry.from_bytes(raw)
            if (events is None or entry.event in events) and all(getattr(entry, k) == v for k, v in wanted.items()):
                yield entry

    def _get(self, key: str) -> bytes | None:
        try:
            return self.store.get(key)
        except KeyError:
            return None

    def _get_if_readable(self, key: str) -> bytes | None:
        try:
            return self._get(key)
        except OSError:
            return None

    def _read(
        self, keys: Iterable[str], get: Callable[[str], bytes | None] | None = None
    ) -> Iterator[tuple[str, bytes | None]]:
        """Objects in the order of their keys, several requests at a time where each has to travel."""
        get = get or self._get
        if isinstance(self.store, FileStore):
            for key in keys:
                yield key, get(key)
            return
        keys = iter(keys)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while some := list(islice(keys, 20 * _AT_ONCE)):
                yield from zip(some, pool.map(get, some), strict=True)

    # -------------------------------------------------------------------------------------------------------- appending

    def append(self, entry: Entry, *, fence: Callable[[], None] = lambda: None, attempts: int = 1000) -> Entry:
        """Add an entry at the end of its subject's chain, unless its id is already there.

        :returns: the entry as it stands in the ledger (an earlier one with the same id, if there is one).
        :raises UsageError: when it is no entry of the schema.
        :raises ConflictError: when other writers take ``attempts`` numbers in a row.
        """
        entry = replace(entry, digests={**self._code, **entry.digests})
        wrong = problem(json.loads(replace(entry, seq=0, prev=GENESIS, at=self._stamp()).to_bytes()))
        if wrong or not _is_name(entry.subject):
            raise UsageError(
                f"an entry {entry.id!r} cannot go into the ledger of {entry.subject!r}: "
                f"{wrong or 'that is no name of a model or feed'}; see docs/trust.md"
            )
        for attempt in range(attempts):
            index = self._catch_up(entry.subject)
            there = self._with_id(index, entry)
            if there is not None:
                return there
            seq = index.count
            stamped = replace(entry, seq=seq, prev=index.last, at=self._stamp()).to_bytes()
            fence()
            if self.store.put_if_absent(_key(entry.subject, seq), stamped):
                index.add(seq, stamped)
                self._keep(entry.subject, index)
                return Entry.from_bytes(stamped)
            time.sleep(random.uniform(0, min(0.001 * attempt, 0.05)))  # noqa: S311 - many losers must not march in step
        # the last of the winners may have been this entry's twin
        there = self._with_id(self._catch_up(entry.subject), entry)
        if there is not None:
            return there
        raise ConflictError(f"the ledger of {entry.subject} was written by others {attempts} times in a row")

    def _with_id(self, index: Index, entry: Entry) -> Entry | None:
        for seq in index.with_id(entry.id):
            raw = self.at(entry.subject, seq)
            if raw is not None and (there := Entry.from_bytes(raw)).id == entry.id:
                return there
        return None

    @cached_property
    def _code(self) -> dict[str, str]:
        """What acts: commit, whether it is clean, lock."""
        return code_identity(settings().specs[0]).to_dict()

    def _stamp(self) -> str:
        return self._now().astimezone(dt.UTC).isoformat(timespec="milliseconds")

    # ------------------------------------------------------------------------------------------------------------ index

    def _catch_up(self, subject: str) -> Index:
        """The index up to the end of the chain."""
        index = self._known.get(subject)
        if index is None or not self._fits(subject, index):
            index = self._stored(subject)
        if index.count == 0:  # no index that can be used: read all there is
            for key, raw in self._read(k for k in self.store.list(subject) if _NAME.fullmatch(k.rpartition("/")[2])):
                seq = int(key[-15:-5])
                index.skip_to(seq)
                if raw is not None:
                    index.add(seq, raw)
        while (raw := self._get(_key(subject, seq := index.count))) is not None:
            index.add(seq, raw)
        self._known[subject] = index
        return index

    def _stored(self, subject: str) -> Index:
        raw = self._get(key_of(subject))
        index = Index() if raw is None else Index.from_bytes(raw)
        return index if self._fits(subject, index) else Index()

    def _fits(self, subject: str, index: Index) -> bool:
        """Whether the entry that the index ends with is still what it was: each entry names all before it."""
        if index.count == 0:
            return True
        raw = self.at(subject, index.count - 1)
        return raw is not None and hashlib.sha256(raw).hexdigest() == index.last

    def _keep(self, subject: str, index: Index) -> None:
        if index.count - index.stored < LAG:
            return
        try:
            self.store.put(key_of(subject), index.to_bytes())
        except Exception:  # it only saves time, and the entry is written
            log.warning("the index of %s in %s was not renewed", subject, self.store.uri, exc_info=True)
        index.stored = index.count


def champion_at(ledger: Ledger, model: str, as_of: dt.datetime) -> str | None:
    """Which version the ledger says was champion at ``as_of`` (alias moves count from their own ``as_of``)."""
    move = champion_move(ledger, model, as_of)
    return move.version if move else None


def champion_move(ledger: Ledger, model: str, as_of: dt.datetime) -> Entry | None:
    """The alias move that made the champion of ``as_of``: of those that count by then, the last in the chain."""
    for e in reversed(ledger.find(model, event="alias")):
        if e.figures.get("alias") == "champion" and e.as_of and dt.datetime.fromisoformat(e.as_of) <= as_of:
            return e
    return None


def _key(subject: str, seq: int) -> str:
    return f"{subject}/{seq:010d}.json"


def _is_name(subject: str) -> bool:
    return bool(subject) and "/" not in subject and subject[0] not in "._"
