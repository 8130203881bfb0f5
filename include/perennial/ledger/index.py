"""A derived index of one chain: which entries carry an id, an event, a version. It saves reading; it proves nothing.

One object per subject, ``_index/<subject>.idx``, written now and then by whoever appends. It says how many entries it
covers and the sha256 of the last of them, and it is used only while that entry still has that hash; entries after it
are read. So it may lag, be lost, or be deleted at any time: that costs time, never an answer.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from array import array
from collections.abc import Collection
from threading import Lock
from typing import Any

FOLDER = "_index"
GENESIS = "0" * 64
#: The index is written anew when it lags by so many entries: that many are read at most by who starts afresh.
LAG = 16
_WIDTH = 8


def key_of(subject: str) -> str:
    """Where a subject's index lies in the ledger's store."""
    return f"{FOLDER}/{subject}.idx"


class Index:
    """What is known of the first ``count`` entries of a chain; ``last`` is the sha256 of the last of them."""

    def __init__(self) -> None:
        self.count = 0
        self.last = GENESIS
        self.stored = 0  # how many of them the stored copy covers
        self._lock = Lock()
        self._ids = bytearray()
        self._events: dict[str, int] = {}
        self._versions: dict[str | None, int] = {}
        self._event_of, self._version_of = array("H"), array("I")

    def add(self, seq: int, raw: bytes) -> None:
        """Take in entry ``seq``, if it is the next one; one that cannot be read only counts."""
        value, sha256 = _fields(raw), hashlib.sha256(raw).hexdigest()
        with self._lock:
            if seq == self.count:
                self._append(value)
                self.last = sha256

    def skip_to(self, seq: int) -> None:
        """Count entries that are not there (a damaged chain), so that numbers stay numbers."""
        with self._lock:
            while self.count < seq:
                self._append(None)

    def _append(self, value: dict[str, Any] | None) -> None:
        self._ids += _digest(str(value["id"])) if value else bytes(_WIDTH)
        event, version = (str(value.get("event")), value.get("version")) if value else ("", None)
        self._event_of.append(self._events.setdefault(event, len(self._events)))
        self._version_of.append(self._versions.setdefault(version, len(self._versions)))
        self.count += 1

    def with_id(self, wanted: str) -> list[int]:
        """Numbers of entries that may have this id; the entry itself says whether it has."""
        needle, found, at = _digest(wanted), [], -1
        while (at := self._ids.find(needle, at + 1)) >= 0:
            if at % _WIDTH == 0:
                found.append(at // _WIDTH)
        return found

    def select(self, events: Collection[str] | None, version: str | None) -> list[int]:
        """Numbers of the entries with one of these events (``None``: any) and this version (``None``: any)."""
        rows = range(self.count)
        found: list[int] = list(rows)
        if events is not None:
            codes = {self._events[e] for e in events if e in self._events}
            found = [i for i in rows if self._event_of[i] in codes]
        if version is not None:
            code = self._versions.get(version)
            found = [i for i in found if self._version_of[i] == code]
        return found

    def to_bytes(self) -> bytes:
        """The stored form: a line of JSON, then what it describes."""
        kinds = zlib.compress(self._event_of.tobytes() + self._version_of.tobytes(), 1)
        body = bytes(self._ids) + kinds
        head = {
            "format": 1,
            "count": self.count,
            "last": self.last,
            "events": list(self._events),
            "versions": list(self._versions),
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        return json.dumps(head).encode() + b"\n" + body

    @classmethod
    def from_bytes(cls, raw: bytes) -> Index:
        """Read a stored index; one that is cut, changed or of another format is as good as none."""
        found = cls()
        try:
            line, body = raw.split(b"\n", 1)
            head = json.loads(line)
            if head["format"] != 1 or hashlib.sha256(body).hexdigest() != head["sha256"]:
                return found
            count = int(head["count"])
            kinds = zlib.decompress(body[count * _WIDTH :])
            cut = count * found._event_of.itemsize
            found._event_of.frombytes(kinds[:cut])
            found._version_of.frombytes(kinds[cut:])
            events = {str(e): i for i, e in enumerate(head["events"])}
            versions = {v: i for i, v in enumerate(head["versions"])}
            last = str(head["last"])
        except (ValueError, KeyError, TypeError, zlib.error):
            return cls()
        found._ids = bytearray(body[: count * _WIDTH])
        found._events, found._versions = events, versions
        found.count = found.stored = count
        found.last = last
        return found


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:_WIDTH]


def _fields(raw: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(raw)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "id" in value else None
