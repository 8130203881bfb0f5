"""What is derived from the chain saves reading and decides nothing: it may lag, lie or be gone."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from perennial.errors import UsageError
from perennial.ledger import Entry, Ledger
from perennial.ledger.index import LAG, Index
from perennial.ledger.verify import verify
from perennial.storage import FileStore

pytestmark = pytest.mark.fast


def entry(name: str, event: str = "gate", **more: object) -> Entry:
    return Entry(**{"id": name, "event": event, "subject": "m", "verdict": "pass", "reason": "", **more})  # type: ignore[arg-type]


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A chain of three times the lag, half of it alias moves; writes do not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    ledger = Ledger((tmp_path / "ledger").as_uri())
    for i in range(3 * LAG):
        ledger.append(entry(f"e{i}", ("gate", "alias")[i % 2], version=str(i % 4)))
    return ledger.store.uri


class Counting(FileStore):
    """A folder that counts what is read."""

    def get(self, key: str) -> bytes:
        self.read = [*getattr(self, "read", []), key]
        return super().get(key)


def counting(uri: str) -> tuple[Ledger, Counting]:
    ledger = Ledger(uri)
    assert isinstance(ledger.store, FileStore)
    ledger.store = Counting(ledger.store.root)
    return ledger, ledger.store


def test_an_append_reads_the_index_and_the_end_alone(uri: str) -> None:
    ledger, store = counting(uri)
    ledger.append(entry("new"))
    assert len(store.read) <= 3 + LAG
    store.read.clear()
    ledger.append(entry("newer"))
    assert len(store.read) <= 2, "what was read once is known"


def test_an_act_of_long_ago_is_known_whatever_the_index_says(uri: str) -> None:
    path = Path(uri.removeprefix("file://")) / "_index" / "m.idx"
    stale = path.read_bytes()
    for i in range(5):
        Ledger(uri).append(entry(f"late{i}"))
    whole = path.read_bytes()
    for derived in (None, stale, whole, whole[:100], whole[:-3] + b"abc", b"", b"\xff", b"{}\n", b'{"format":1}\nx'):
        if derived is None:
            shutil.rmtree(path.parent)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(derived)
        for name in ("e0", "e17", f"e{3 * LAG - 1}", "late0", "late4"):
            assert Ledger(uri).append(entry(name, reason="again")).reason == ""
        assert [e.id for e in Ledger(uri).find("m", event="alias", version="3")] == [f"e{i}" for i in range(3, 48, 4)]
    assert len(list(Ledger(uri).entries("m"))) == 3 * LAG + 5
    assert verify(Ledger(uri), "m").whole


def test_the_index_of_another_chain_is_not_believed(uri: str, tmp_path: Path) -> None:
    """Somebody put the ledger back from a copy: what the index knows beyond it never was."""
    root = tmp_path / "ledger"
    for seq in range(40, 48):
        (root / "m" / f"{seq:010d}.json").unlink()
    assert Ledger(uri).append(entry("e45")).seq == 40
    assert verify(Ledger(uri), "m").whole


def test_one_instance_notices_that_the_chain_was_replaced(uri: str, tmp_path: Path) -> None:
    ledger = Ledger(uri)
    ledger.append(entry("x"))
    shutil.rmtree(tmp_path / "ledger")
    assert ledger.append(entry("x")).seq == 0


def test_an_index_that_cannot_be_written_breaks_no_append(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(uri)

    def full(key: str, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ledger.store, "put", full)
    for i in range(2 * LAG):
        ledger.append(entry(f"more{i}"))
    assert verify(ledger, "m").entries == 5 * LAG


def test_a_hole_in_the_chain_is_not_filled(uri: str, tmp_path: Path) -> None:
    """Appending over damage would hide it."""
    (tmp_path / "ledger" / "m" / "0000000007.json").unlink()
    shutil.rmtree(tmp_path / "ledger" / "_index")
    assert Ledger(uri).append(entry("next")).seq == 3 * LAG
    assert [f.kind for f in verify(Ledger(uri), "m").findings] == ["missing"]


def test_find_reads_what_it_looks_for(uri: str) -> None:
    ledger, store = counting(uri)
    found = ledger.find("m", event="alias", version="1")
    assert [e.id for e in found] == [f"e{i}" for i in range(1, 48, 4)]
    assert len(store.read) <= len(found) + 3 + LAG
    last = ledger.last("m", event="alias")
    assert last is not None and last.id == "e47"
    assert [e.id for e in ledger.find("m", events=("gate", "alias"), verdict="pass")] == [f"e{i}" for i in range(48)]
    assert ledger.find("m", event="gate", events=("alias",)) == []
    assert ledger.last("nobody", event="alias") is None


def test_the_stored_index_says_the_same_as_the_one_in_memory() -> None:
    index = Index()
    for i in range(300):
        index.add(i, json.dumps({"id": f"e{i}", "event": f"v{i % 7}", "version": None if i % 3 else str(i)}).encode())
    again = Index.from_bytes(index.to_bytes())
    assert (again.count, again.last, again.stored) == (300, index.last, 300)
    for events, version in ((None, None), (["v1", "v2"], None), (["v3"], "3"), (["no"], None), (None, "no")):
        assert again.select(events, version) == index.select(events, version)
    assert [again.with_id(f"e{i}") for i in (0, 150, 299, 300)] == [[0], [150], [299], []]


@pytest.mark.parametrize(
    "what",
    [{"event": "gossip"}, {"id": ""}, {"subject": ""}, {"subject": "a/b"}, {"subject": "_index"}, {"verdict": ""},
     {"version": 3}, {"digests": {"spec": 1}}, {"partition": 20130101}],
)  # fmt: skip
def test_what_is_no_entry_of_the_schema_is_refused(what: dict[str, object], tmp_path: Path) -> None:
    ledger = Ledger((tmp_path / "ledger").as_uri())
    with pytest.raises(UsageError, match=r"cannot go into the ledger of .*; see docs/trust\.md"):
        ledger.append(dataclasses.replace(entry("a"), **what))  # type: ignore[arg-type]
    assert not (tmp_path / "ledger").exists()


# ---------------------------------------------------------------------------------------------------- many writers


def check(uri: str, ids: set[str]) -> None:
    ledger = Ledger(uri)
    assert verify(ledger, "m").findings == ()
    found = [e.id for e in ledger.entries("m")]
    assert len(found) == len(set(found))
    assert set(found) == ids
    shutil.rmtree(Path(uri.removeprefix("file://")) / "_index", ignore_errors=True)
    assert [e.id for e in Ledger(uri).find("m", event="gate")] == found


def test_a_hundred_writers_at_once_make_one_chain(tmp_path: Path) -> None:
    """A hundred threads with a ledger each, all at the gate before the first may write; every entry once."""
    uri, gate = (tmp_path / "ledger").as_uri(), threading.Barrier(100)

    def write(me: int) -> list[int]:
        ledger = Ledger(uri)
        gate.wait()
        return [ledger.append(entry(f"w{me}/{i}")).seq for i in range(2)]

    with ThreadPoolExecutor(100) as pool:
        got = list(pool.map(write, range(100)))
    assert sorted(seq for part in got for seq in part) == list(range(200))
    check(uri, {f"w{me}/{i}" for me in range(100) for i in range(2)})


def test_the_same_act_by_many_is_recorded_once(tmp_path: Path) -> None:
    uri, gate = (tmp_path / "ledger").as_uri(), threading.Barrier(20)

    def write(me: int) -> int:
        gate.wait()
        return Ledger(uri).append(entry("act", reason=str(me))).seq

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(write, range(20))) == {0}
    check(uri, {"act"})


def test_one_instance_may_be_used_by_many_threads(tmp_path: Path) -> None:
    ledger = Ledger((tmp_path / "ledger").as_uri())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: ledger.append(entry(f"e{i}")), range(40)))
    check(ledger.store.uri, {f"e{i}" for i in range(40)})


KILLED = """
import sys, itertools
from perennial.ledger import Entry, Ledger
ledger = Ledger(sys.argv[1])
for i in itertools.count():
    ledger.append(Entry(f"{sys.argv[2]}/{i}", "gate", "m", "pass", "x" * 20000))
    print(i, flush=True)
"""


def test_writers_that_are_killed_leave_a_good_chain(tmp_path: Path) -> None:
    """kill -9 at moments of chance: what they said they wrote is there, once, and the next writer goes on."""
    uri = (tmp_path / "ledger").as_uri()
    said: set[str] = set()
    for turn in range(4):
        writers = [
            subprocess.Popen([sys.executable, "-c", KILLED, uri, f"{turn}.{n}"], stdout=subprocess.PIPE, text=True)
            for n in range(2)
        ]
        for w in writers:
            assert w.stdout is not None and w.stdout.readline() == "0\n"
        time.sleep(0.01 * turn)
        for n, w in enumerate(writers):
            w.send_signal(signal.SIGKILL)
            rest, _ = w.communicate()
            said |= {f"{turn}.{n}/{i}" for i in range(1 + rest.count("\n"))}
    ledger = Ledger(uri)
    for name in said:
        assert ledger.append(entry(name, reason="its retry")).reason != "its retry"
    found = {e.id for e in ledger.entries("m")}
    assert said <= found and len(found - said) <= 8, "at most the one that each was writing"
    check(uri, found)


def test_clocks_that_disagree_do_not_change_the_order(tmp_path: Path) -> None:
    import datetime as dt

    uri = (tmp_path / "ledger").as_uri()
    for i, year in enumerate((2030, 2001, 2026)):
        Ledger(uri, now=lambda year=year: dt.datetime(year, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-5)))).append(  # type: ignore[misc]
            entry(f"e{i}")
        )
    stood = list(Ledger(uri).entries("m"))
    assert [(e.id, e.at[:16]) for e in stood] == [
        ("e0", "2030-01-01T05:00"), ("e1", "2001-01-01T05:00"), ("e2", "2026-01-01T05:00"),
    ]  # fmt: skip
    assert verify(Ledger(uri), "m").whole
