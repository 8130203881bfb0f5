"""The ledger's chains: dense, linked, one entry per act, whoever writes."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import multiprocessing
from pathlib import Path

import pytest

from perennial.errors import ConflictError
from perennial.ledger import Entry, Ledger
from perennial.ledger.entries import GENESIS, champion_at
from perennial.storage import Store

pytestmark = pytest.mark.fast

NOON = dt.datetime(2013, 4, 1, 12, tzinfo=dt.UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger((tmp_path / "ledger").as_uri(), now=lambda: NOON)


def entry(name: str, subject: str = "m", **more: object) -> Entry:
    return Entry(**{"id": name, "event": "gate", "subject": subject, "verdict": "pass", "reason": "", **more})  # type: ignore[arg-type]


def check_chain(store: Store, subject: str) -> list[dict[str, object]]:
    """Dense numbers, each entry naming the hash of the one before."""
    prev, found = GENESIS, []
    for i, key in enumerate(store.list(subject)):
        raw = store.get(key)
        value = json.loads(raw)
        assert key == f"{subject}/{i:010d}.json"
        assert (value["seq"], value["prev"]) == (i, prev)
        prev = hashlib.sha256(raw).hexdigest()
        found.append(value)
    return found


def test_entries_are_numbered_linked_and_read_back(ledger: Ledger) -> None:
    for i in range(12):
        stood = ledger.append(entry(f"e{i}", figures={"i": i}, as_of="2013-04-01T00:00:00+00:00"))
        assert (stood.seq, stood.at) == (i, "2013-04-01T12:00:00.000+00:00")
    ledger.append(entry("other", subject="flights"))
    assert len(check_chain(ledger.store, "m")) == 12
    assert [e.id for e in ledger.entries("m")] == [f"e{i}" for i in range(12)]
    assert ledger.subjects() == ["flights", "m"]
    assert [e.figures["i"] for e in ledger.find("m", id="e7", event="gate")] == [7]
    assert list(ledger.entries("nobody")) == []


def test_the_same_act_adds_nothing(ledger: Ledger) -> None:
    first = ledger.append(entry("a", reason="first"))
    ledger.append(entry("b"))
    assert ledger.append(entry("a", reason="again")) == first
    assert [e.id for e in ledger.entries("m")] == ["a", "b"]


def test_a_figure_that_is_no_number_is_written_as_null(ledger: Ledger) -> None:
    import numpy as np

    said = {"auc": float("nan"), "bounds": [np.float64("-inf"), np.float64(0.5)], "rows": np.int64(3)}
    stood = ledger.append(entry("a", figures=said))
    assert stood.figures == {"auc": None, "bounds": [None, 0.5], "rows": 3}
    assert next(ledger.entries("m")) == stood
    assert b"NaN" not in ledger.store.get("m/0000000000.json")
    assert dataclasses.replace(stood, seq=-1, prev="", at="").figures == stood.figures


def test_an_orphan_writes_nothing(ledger: Ledger) -> None:
    def dead() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        ledger.append(entry("a"), fence=dead)
    assert ledger.subjects() == []


def test_the_fence_is_asked_directly_before_every_try(ledger: Ledger) -> None:
    """Others take the number while the fence is asked: the entry goes to the next one, and the fence is asked again."""
    asked: list[int] = []

    def fence() -> None:
        if len(asked) < 3:
            ledger.append(entry(f"other{len(asked)}"))
        asked.append(1)

    assert ledger.append(entry("mine"), fence=fence).seq == 3
    assert len(asked) == 4
    assert [e["id"] for e in check_chain(ledger.store, "m")] == ["other0", "other1", "other2", "mine"]


def test_the_twin_of_a_writer_finds_its_entry(ledger: Ledger) -> None:
    """A retry beside its orphan: whoever is second returns what the first wrote."""
    twin = ledger.append(entry("a"), fence=lambda: ledger.append(entry("a", reason="twin")) and None)
    assert twin.reason == "twin"
    assert len(list(ledger.entries("m"))) == 1


def test_it_gives_up_with_a_sentence(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    n = iter(range(10))
    with pytest.raises(ConflictError, match="ledger of m was written by others 2 times in a row"):
        ledger.append(entry("a"), fence=lambda: ledger.append(entry(f"o{next(n)}")) and None, attempts=2)


def write(uri: str, me: int) -> list[int]:
    ledger = Ledger(uri)
    return [ledger.append(entry(f"writer{me}/{i}")).seq for i in range(3)]


def test_twenty_writers_make_one_dense_chain(ledger: Ledger) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        got = pool.starmap(write, [(ledger.store.uri, me) for me in range(20)], chunksize=1)
    chain = check_chain(ledger.store, "m")
    assert len(chain) == 60
    assert sorted(seq for part in got for seq in part) == list(range(60))
    assert all(chain[seq]["id"] == f"writer{me}/{i}" for me, part in enumerate(got) for i, seq in enumerate(part))


def test_who_was_champion(ledger: Ledger) -> None:
    def move(version: str | None, day: str, alias: str = "champion") -> None:
        what = {"event": "alias", "version": version, "as_of": f"{day}T00:00:00+00:00", "figures": {"alias": alias}}
        ledger.append(entry(f"{alias}{version}{day}", **what))

    def champion(day: str) -> str | None:
        return champion_at(ledger, "m", dt.datetime.fromisoformat(f"{day}T00:00:00+00:00"))

    assert champion("2013-04-01") is None
    move("1", "2013-02-15")
    move("2", "2013-04-01")
    move("3", "2013-04-02", alias="challenger")
    move("1", "2013-05-01")  # rolled back
    assert [champion(d) for d in ("2013-02-14", "2013-02-15", "2013-03-31", "2013-04-01", "2013-04-30")] == [
        None,
        "1",
        "1",
        "2",
        "2",
    ]
    assert champion("2013-06-01") == "1"
    move(None, "2013-07-01")  # retired
    assert champion("2013-07-02") is None
