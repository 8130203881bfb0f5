"""The ledger at 100,000 entries of one chain: an append, a search, and reading all of it to verify it.

The chain is what appends leave, written without waiting for the disk each time, because that takes an hour. Every
append and every search is one by a process that knows nothing yet, as an Airflow task is: it reads the derived index
and the end of the chain. Seconds are wall clock, on this machine's disk.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Result, fresh, result, watch

from perennial.ledger import Entry, Ledger
from perennial.ledger.index import GENESIS
from perennial.ledger.verify import verify

ENTRIES = 100_000
ROUNDS = 5
APPENDS = 40
EVENTS = ("gate", "gate", "decision", "monitoring", "scoring", "scoring", "guard", "alias")


def build(root: Path, entries: int) -> str:
    """A chain of so many entries, such as a model leaves, and its index; returns the ledger's URI."""
    folder = root / "ledger" / "m"
    folder.mkdir(parents=True)
    prev = GENESIS
    for i in range(entries):
        day = f"20{10 + i // 10_000:02d}-01-01T00:00:00+00:00"
        entry = Entry(
            f"m.retrain/scheduled__{day}_{i}/train.metric_gate/gate/floor/{i:012x}",
            EVENTS[i % len(EVENTS)],
            "m",
            "pass",
            "roc_auc 0.711 is over the floor 0.62 on 14 blocks",
            as_of=day,
            version=str(i // 1000) if i % 3 else None,
            figures={"gate": "floor", "roc_auc": 0.7 + i / 1e6, "limit": 0.62, "blocks": 14, "warnings": []},
            actor={"dag_id": "m.retrain", "run_id": f"scheduled__{day}_{i}", "task_id": "train.gate", "user": None},
            digests={"spec": "5" * 64, "features": "f" * 64, "git_commit": "c" * 40, "lock_sha256": "1" * 64},
        )
        raw = dataclasses.replace(entry, seq=i, prev=prev, at="2026-01-01T00:00:00.000+00:00").to_bytes()
        (folder / f"{i:010d}.json").write_bytes(raw)
        prev = hashlib.sha256(raw).hexdigest()
    uri = (root / "ledger").as_uri()
    Ledger(uri).append(Entry("first", "gate", "m", "pass", ""))  # writes the index
    return uri


def run(work: Path, *, quick: bool = False) -> list[Result]:
    """All rows of this benchmark."""
    entries, rounds = (2_000, 1) if quick else (ENTRIES, ROUNDS)
    uri = build(work, entries)
    size = f"{entries:,} entries"
    appends = [s * 1000 for n in range(rounds) for s in fresh("ledger:append", uri=uri, turn=n).value]
    again = [s * 1000 for n in range(rounds) for s in fresh("ledger:append", uri=uri, turn=n).value]
    finds = [s * 1000 for _ in range(rounds) for s in fresh("ledger:find", uri=uri).value]
    verified = [fresh("ledger:whole", uri=uri, entries=entries) for _ in range(rounds)]
    rebuilt = [fresh("ledger:rebuild", uri=uri).wall for _ in range(min(rounds, 3))]
    index = (work / "ledger" / "_index" / "m.idx").stat().st_size / 1e6
    return [
        result(
            f"append to {size}", appends, unit="ms", at_most=100,
            note="Each by a ledger that has read nothing yet; the disk is waited for.",
        ),
        result(f"append what is there already, {size}", again, unit="ms", at_most=100),
        result(f"the champion's moves of one version among {size}", finds, unit="ms"),
        result(
            f"verify {size}", [c.wall for c in verified], unit="s", at_most=10,
            note="One process, the file cache warm; without the heads in MLflow, which are one request.",
        ),
        result(f"verify {size}, CPU", [c.cpu for c in verified], unit="CPU s"),
        result(f"peak memory of verify, {size}", [c.peak for c in verified], unit="MB"),
        result(f"append to {size} when the index is gone", rebuilt, unit="s"),
        result(f"index of {size}", [index], unit="MB"),
    ]  # fmt: skip


def append(uri: str, turn: int) -> list[float]:
    """Seconds of each append."""
    Ledger(uri)._code  # noqa: B018 - asked of git once per process
    taken = []
    for i in range(APPENDS):
        ledger = Ledger(uri)
        began = time.perf_counter()
        ledger.append(Entry(f"turn{turn}/{i}", "gate", "m", "pass", ""))
        taken.append(time.perf_counter() - began)
    return taken


def find(uri: str) -> list[float]:
    """Seconds of each search."""
    taken = []
    for _ in range(10):
        began = time.perf_counter()
        Ledger(uri).find("m", event="alias", version="31")
        taken.append(time.perf_counter() - began)
    return taken


def whole(uri: str, entries: int) -> int:
    """Verify all of it."""
    with watch.running():
        found = verify(Ledger(uri), "m")
    if found.findings or found.entries < entries:
        raise RuntimeError(f"{found.entries} entries, {found.findings[:3]}")
    return found.entries


def rebuild(uri: str) -> Any:
    """The first append after somebody deleted what is derived."""
    ledger = Ledger(uri)
    ledger.store.delete("_index/m.idx")
    with watch.running():
        ledger.append(Entry(f"rebuilt at {time.time()}", "gate", "m", "pass", ""))
    return None
