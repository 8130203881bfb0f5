"""Is a chain whole? Looks at the entries alone, never at what is derived from them, and names what is wrong.

An entry holds the sha256 of the one before, so a change of one entry shows in the next. What nothing inside a chain can
show, a tail that was cut or a chain that was written anew from some point on, shows against a *head* that is kept
outside of the ledger (:mod:`perennial.registry.heads`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from perennial.ledger.entries import Head, Ledger
from perennial.ledger.index import FOLDER, GENESIS
from perennial.ledger.schema import problem
from perennial.storage import to_json

_NAME = re.compile(r"(\d{10})\.json")


@dataclass(frozen=True)
class Finding:
    """One damage.

    :param kind: ``missing``, ``edited``, ``misplaced``, ``duplicate``, ``unreadable``, ``foreign``, ``cut`` or
        ``rewritten``.
    :param seq: number of the entry; ``None`` where there is none.
    :param text: one sentence: where, what is wrong, what it means.
    """

    kind: str
    subject: str
    seq: int | None
    text: str


@dataclass(frozen=True)
class Verified:
    """What a look at one chain came to.

    :param head: its newest entry; ``kept``: the heads that are kept outside of the ledger, by where.
    """

    subject: str
    entries: int
    head: Head | None
    kept: Mapping[str, Head]
    findings: tuple[Finding, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def verify(ledger: Ledger, subject: str, kept: Mapping[str, Head] | None = None) -> Verified:
    """Read every entry of a chain and check it.

    :param kept: heads of this chain that are kept elsewhere, by where; read them before you call this, because the
        chain grows.
    """
    look = _Look(subject, kept or {})
    for name, raw in ledger.raw(subject):
        look.take(name, raw)
    return look.end()


def strays(ledger: Ledger) -> list[Finding]:
    """What lies in the ledger and belongs to no chain."""
    known = {*ledger.store.folders(), FOLDER}
    return [
        Finding(
            "foreign", "", None, f"{name} lies in the ledger's own folder and is no entry: somebody else put it there"
        )
        for name in _top_files(ledger)
        if name not in known
    ]


def _top_files(ledger: Ledger) -> Sequence[str]:
    if ledger.store.uri.startswith("s3://"):
        return ()  # an object beside the chains' prefixes cannot be told apart without reading the whole listing
    from pathlib import Path
    from urllib.parse import unquote, urlparse

    root = Path(unquote(urlparse(ledger.store.uri).path))
    return sorted(p.name for p in root.iterdir() if p.is_file() and not p.name.startswith(".")) if root.is_dir() else ()


class _Look:
    """One pass over a chain, oldest first."""

    def __init__(self, subject: str, kept: Mapping[str, Head]) -> None:
        self.subject, self.kept = subject, kept
        self.findings: list[Finding] = []
        self.count = 0
        self.next = 0
        self.before: tuple[int, str] | None = None  # number and sha256 of an entry that the next one must name
        self.broken: dict[int, tuple[str, str]] = {}  # entry that does not name the one before: that one's sha256, prev
        self.tail = b""
        self.ids: dict[str, int] = {}
        self.heads: dict[int, list[tuple[str, Head]]] = {}
        self.last: Head | None = None
        for where, head in kept.items():
            self.heads.setdefault(head.seq, []).append((where, head))

    def found(self, kind: str, seq: int | None, text: str) -> None:
        self.findings.append(Finding(kind, self.subject, seq, f"{self.subject}: {text}"))

    def take(self, name: str, raw: bytes | None) -> None:
        """Check the next file."""
        match = _NAME.fullmatch(name)
        if match is None:
            self.found("foreign", None, f"{name} is no entry of the chain: somebody else put it there")
            return
        seq = int(match[1])
        if seq > self.next:
            span = f"entry {self.next} is" if seq == self.next + 1 else f"entries {self.next} to {seq - 1} are"
            self.found("missing", self.next, f"{span} missing, and entry {seq} is there: somebody took them away")
            self.before = None
        self.next = seq + 1
        self.count += 1
        if raw is None:
            self.found("unreadable", seq, f"entry {seq} cannot be read: its file is damaged, or not ours to read")
            self.before = None
            return
        sha256 = hashlib.sha256(raw).hexdigest()
        self.last, self.tail = Head(seq, sha256), raw
        value, wrong = _parse(raw)
        if value is None or wrong:
            self.found("unreadable", seq, f"entry {seq} is no entry of the ledger: {wrong}; it was cut or edited")
            self.before = None
            return
        if value["seq"] != seq or value["subject"] != self.subject:
            whose = "" if value["subject"] == self.subject else f" of {value['subject']}"
            self.found(
                "misplaced",
                seq,
                f"the file of entry {seq} holds entry {value['seq']}{whose}: entries were reordered or inserted",
            )
            self.before = None
            return
        self._link(seq, value["prev"])
        first = self.ids.setdefault(value["id"], seq)
        if first != seq:
            self.found(
                "duplicate",
                seq,
                f"entry {seq} records the act of entry {first} once more ({value['id']}): it was inserted, because an "
                "act is recorded once",
            )
        self._against_heads(seq, sha256)
        self.before = seq, sha256

    def _link(self, seq: int, prev: str) -> None:
        if seq == 0 and prev != GENESIS:
            self.found("edited", 0, "entry 0 names an entry before it: it was edited, or the chain's begin was cut")
        elif self.before is not None and prev != self.before[1]:
            self.broken[seq] = self.before[1], prev

    def _blame(self) -> None:
        """Say of every broken link which entry was changed: the one whose both links are broken, else the earlier."""
        done: set[int] = set()
        for seq, (sha256, prev) in self.broken.items():
            if seq in done:
                continue
            if seq + 1 in self.broken:
                done.add(seq + 1)
                self.found(
                    "edited",
                    seq,
                    f"entry {seq} was edited or replaced after it was written: neither does it name entry {seq - 1} by "
                    f"its sha256, nor entry {seq + 1} this one (entry {seq - 1} may have been edited, too)",
                )
            else:
                self.found(
                    "edited",
                    seq - 1,
                    f"entry {seq - 1} was edited after it was written: its sha256 is {sha256[:12]}, and entry {seq} "
                    f"was written after one with {prev[:12]}",
                )

    def _against_heads(self, seq: int, sha256: str) -> None:
        for where, head in self.heads.pop(seq, ()):
            if head.sha256 != sha256:
                self.found(
                    "rewritten",
                    seq,
                    f"entry {seq} has sha256 {sha256[:12]}, and {where} keeps {head.sha256[:12]} for it: it was "
                    "edited, or the chain was written anew from there or before",
                )

    def end(self) -> Verified:
        """Check the links, the last entry, and what should have come."""
        self._blame()
        if self.tail and self.before is not None and to_json(json.loads(self.tail)) != self.tail:
            seq = self.before[0]
            self.found("edited", seq, f"entry {seq} is not written as the ledger writes: it was edited")
        for seq, kept in sorted(self.heads.items()):
            where = " and ".join(w for w, _ in kept)
            if self.next <= seq:
                ends = f"the chain ends with entry {self.next - 1}" if self.next else "the chain is gone"
                self.found(
                    "cut",
                    self.next,
                    f"{ends}, and {where} knows of entry {seq}: entry {self.next} and later were cut off",
                )
        self.findings.sort(key=lambda f: -1 if f.seq is None else f.seq)
        return Verified(self.subject, self.count, self.last, self.kept, tuple(self.findings))


def _parse(raw: bytes) -> tuple[dict[str, Any] | None, str | None]:
    try:
        value = json.loads(raw)
    except ValueError:
        return None, "it is no JSON"
    return (value if isinstance(value, dict) else None), problem(value)
