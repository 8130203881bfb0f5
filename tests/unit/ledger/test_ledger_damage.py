"""``perennial ledger verify``: every kind of damage is found and named; a chain that is whole is not accused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.cli import main
from perennial.ledger import Entry, Head, Ledger
from perennial.ledger.index import GENESIS
from perennial.ledger.verify import strays, verify

pytestmark = pytest.mark.fast

N = 8


def entry(name: str, subject: str = "m") -> Entry:
    return Entry(name, "gate", subject, "pass", f"because {name}", figures={"auc": 0.7, "gate": "floor"})


def chain(root: Path, length: int = N) -> Ledger:
    """What so many appends leave (test_ledger_chain.py), without waiting for the disk."""
    (root / "m").mkdir(parents=True)
    prev = GENESIS
    for i in range(length):
        stamped = dataclasses.replace(entry(f"e{i}"), seq=i, prev=prev, at="2026-01-01T00:00:00.000+00:00")
        place(root, i).write_bytes(stamped.to_bytes())
        prev = hashlib.sha256(stamped.to_bytes()).hexdigest()
    return Ledger(root.as_uri())


def place(root: Path, seq: int) -> Path:
    return root / "m" / f"{seq:010d}.json"


def edit(path: Path, **change: object) -> None:
    """Edit an entry as somebody would who knows the format."""
    value = json.loads(path.read_bytes()) | change
    path.write_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def swap(root: Path, a: int, b: int) -> None:
    one, other = place(root, a).read_bytes(), place(root, b).read_bytes()
    place(root, a).write_bytes(other)
    place(root, b).write_bytes(one)


def insert(root: Path, at: int) -> None:
    """A forged entry; those after it move up by one, untouched."""
    for seq in range(N - 1, at - 1, -1):
        place(root, seq).rename(place(root, seq + 1))
    forged = dataclasses.replace(
        entry("forged"), seq=at, prev=hashlib.sha256(place(root, at - 1).read_bytes()).hexdigest(),
        at="2026-01-01T00:00:00.000+00:00",
    )  # fmt: skip
    place(root, at).write_bytes(forged.to_bytes())


def rewrite(root: Path, at: int) -> None:
    """An edit with every hash after it made right: within the chain nothing shows."""
    edit(place(root, at), verdict="fail")
    for seq in range(at + 1, N):
        edit(place(root, seq), prev=hashlib.sha256(place(root, seq - 1).read_bytes()).hexdigest())


def no_reading(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


#: what somebody does -> kind and number that must be named, and words of the sentence.
DAMAGE: dict[str, tuple[Callable[[Path], object], str, int | None, str]] = {
    "edited": (lambda r: edit(place(r, 3), reason="no"), "edited", 3, "entry 3 was edited after it was written"),
    "its figures edited": (lambda r: edit(place(r, 0), figures={"auc": 0.9}), "edited", 0, "entry 0 was edited"),
    "its link edited": (lambda r: edit(place(r, 4), prev="1" * 64), "edited", 4, "entry 4 was edited or replaced"),
    "the first edited": (lambda r: edit(place(r, 0), prev="1" * 64), "edited", 0, "entry 0 names an entry before it"),
    "a space added to the last": (
        lambda r: place(r, N - 1).write_bytes(place(r, N - 1).read_bytes() + b" "), "rewritten", N - 1, "it was edited",
    ),
    "deleted": (lambda r: place(r, 3).unlink(), "missing", 3, "entry 3 is missing, and entry 4 is there"),
    "two deleted": (lambda r: [place(r, s).unlink() for s in (2, 3)], "missing", 2, "entries 2 to 3 are missing"),
    "the first deleted": (lambda r: place(r, 0).unlink(), "missing", 0, "entry 0 is missing"),
    "reordered": (lambda r: swap(r, 2, 5), "misplaced", 2, "the file of entry 2 holds entry 5"),
    "neighbours reordered": (lambda r: swap(r, 2, 3), "misplaced", 3, "the file of entry 3 holds entry 2"),
    "inserted": (lambda r: insert(r, 4), "misplaced", 5, "the file of entry 5 holds entry 4"),
    "duplicated": (
        lambda r: shutil.copy(place(r, 2), place(r, N)), "misplaced", N, f"the file of entry {N} holds entry 2",
    ),
    "recorded twice": (
        lambda r: place(r, N).write_bytes(dataclasses.replace(
            entry("e2"), seq=N, prev=hashlib.sha256(place(r, N - 1).read_bytes()).hexdigest(),
            at="2026-01-01T00:00:00.000+00:00").to_bytes()),
        "duplicate", N, f"entry {N} records the act of entry 2 once more (e2)",
    ),
    "cut in the middle of a file": (
        lambda r: place(r, 3).write_bytes(place(r, 3).read_bytes()[:40]), "unreadable", 3, "entry 3 is no entry",
    ),
    "emptied": (lambda r: place(r, 3).write_bytes(b""), "unreadable", 3, "it is no JSON"),
    "not text": (lambda r: place(r, 3).write_bytes(b"\xff\xfe\x00"), "unreadable", 3, "it is no JSON"),
    "a list": (lambda r: place(r, 3).write_bytes(b"[]"), "unreadable", 3, "it is no JSON object"),
    "a field lost": (
        lambda r: place(r, 3).write_bytes(b'{"schema":1,"seq":3}'), "unreadable", 3, "it lacks actor, as_of",
    ),
    "a field too many": (lambda r: edit(place(r, 3), note="x"), "unreadable", 3, "it has the unknown note"),
    "a field of another type": (lambda r: edit(place(r, 3), version=7), "unreadable", 3, "its version is '7'"),
    "of another schema": (lambda r: edit(place(r, 3), schema=2), "unreadable", 3, "its schema is 2"),
    "of another chain": (lambda r: edit(place(r, 3), subject="x"), "misplaced", 3, "holds entry 3 of x"),
    "a link that leads nowhere": (lambda r: no_reading(place(r, 3)), "unreadable", 3, "entry 3 cannot be read"),
    "a foreign file": (lambda r: (r / "m" / "notes.txt").write_text("x"), "foreign", None, "notes.txt is no entry"),
    "a foreign number": (lambda r: (r / "m" / "9.json").write_text("{}"), "foreign", None, "9.json is no entry"),
    "the tail cut": (lambda r: [place(r, s).unlink() for s in (6, 7)], "cut", 6, "the chain ends with entry 5, and"),
    "the chain gone": (lambda r: shutil.rmtree(r / "m"), "cut", 0, "the chain is gone, and"),
    "written anew": (lambda r: rewrite(r, 2), "rewritten", N - 1, "or the chain was written anew"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found_and_named(what: str, tmp_path: Path) -> None:
    ledger = chain(tmp_path)
    head = ledger.head("m")
    assert head == Head(N - 1, hashlib.sha256(place(tmp_path, N - 1).read_bytes()).hexdigest())
    kept = {"MLflow": head}
    assert verify(ledger, "m", kept).whole
    act, kind, seq, words = DAMAGE[what]
    act(tmp_path)
    found = verify(Ledger(tmp_path.as_uri()), "m", kept)
    assert not found.whole
    named = [f for f in found.findings if (f.kind, f.seq) == (kind, seq)]
    assert named, found.findings
    assert any(words in f.text and f.text.startswith("m: ") for f in named), [f.text for f in named]


def test_an_edit_accuses_nobody_else(tmp_path: Path) -> None:
    ledger = chain(tmp_path)
    edit(place(tmp_path, 3), reason="no")
    (only,) = verify(ledger, "m").findings
    assert only.seq == 3
    edit(place(tmp_path, 3), prev="2" * 64)
    (only,) = verify(ledger, "m").findings
    assert only.seq == 3


def test_without_a_head_a_cut_tail_cannot_show(tmp_path: Path) -> None:
    """Why heads are kept elsewhere."""
    ledger = chain(tmp_path)
    place(tmp_path, N - 1).unlink()
    assert verify(ledger, "m").whole


def test_a_head_that_lags_is_no_damage(tmp_path: Path) -> None:
    ledger = chain(tmp_path)
    kept = {"MLflow": ledger.head("m")}
    ledger.append(entry("later"))
    assert verify(ledger, "m", kept).whole  # type: ignore[arg-type]


def test_what_is_derived_and_what_was_left_by_a_killed_writer_is_no_damage(tmp_path: Path) -> None:
    ledger = chain(tmp_path, 40)
    ledger.append(entry("e40"))
    assert (tmp_path / "_index" / "m.idx").is_file()
    (tmp_path / "m" / ".0000000041.json.part").write_bytes(b"half")
    assert verify(ledger, "m").whole
    assert ledger.subjects() == ["m"]
    assert strays(ledger) == []
    (tmp_path / "stray.json").write_text("{}")
    (stray,) = strays(ledger)
    assert "stray.json lies in the ledger's own folder" in stray.text


MUTATIONS = st.sampled_from(["edit", "byte", "delete", "swap", "copy", "cut", "truncate"])


@settings(max_examples=60, deadline=None)
@given(length=st.integers(2, 12), mutation=MUTATIONS, data=st.data())
def test_any_single_change_of_any_chain_is_found(length: int, mutation: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        ledger = chain(root, length)
        kept = {"MLflow": ledger.head("m")}
        at = data.draw(st.integers(0, length - 1))
        path, whole = place(root, at), place(root, at).read_bytes()
        if mutation == "edit":
            name = data.draw(st.sampled_from(["reason", "verdict", "as_of", "id"]))
            edit(path, **{name: data.draw(st.text("xyz", min_size=3))})
        elif mutation == "byte":
            where = data.draw(st.integers(0, len(whole) - 1))
            other = bytes([whole[where] ^ data.draw(st.integers(1, 255))])
            path.write_bytes(whole[:where] + other + whole[where + 1 :])
        elif mutation == "delete":
            path.unlink()
        elif mutation == "swap":
            swap(root, at, (at + data.draw(st.integers(1, length - 1))) % length)
        elif mutation == "copy":
            place(root, (at + data.draw(st.integers(1, length - 1))) % length).write_bytes(whole)
        elif mutation == "cut":
            for seq in range(at, length):
                place(root, seq).unlink()
        else:
            path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        found = verify(Ledger(root.as_uri()), "m", kept)  # type: ignore[arg-type]
        assert not found.whole
        assert mutation in ("swap", "copy") or any(f.seq is not None and abs(f.seq - at) <= 1 for f in found.findings)


# ----------------------------------------------------------------------------------------------------- the command line


def test_the_command_says_it_in_words_and_by_its_exit_code(
    home: Path, registry: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", "verify"]) == 0
    assert "the ledger is empty" in capsys.readouterr().out
    chain(home / "ledger")
    assert main(["ledger", "verify"]) == 0
    assert "m: 8 entries: whole" in capsys.readouterr().out
    assert main(["ledger", "verify", "m"]) == 0
    assert "MLflow keeps the head of entry 7" in capsys.readouterr().out, "the look before has kept it"
    place(home / "ledger", 7).unlink()
    assert main(["ledger", "verify", "m"]) == 1
    said = capsys.readouterr().out
    assert "m: the chain ends with entry 6, and MLflow's experiment perennial.ledger knows of entry 7" in said
    assert main(["ledger", "verify", "m", "--offline"]) == 0
    capsys.readouterr()
    assert main(["ledger", "verify", "--json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert (value["whole"], [f["kind"] for f in value["findings"]]) == (False, ["cut"])
    assert main(["ledger", "verify", "n"]) == 2
    assert "has no entry of n" in capsys.readouterr().err


def test_without_mlflow_a_cut_tail_cannot_be_ruled_out(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from perennial.registry import tracking

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracking.client.cache_clear()
    chain(home / "ledger")
    assert main(["ledger", "verify", "--json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert value["whole"] is False and "so that a cut tail would not show" in value["heads"]
    assert main(["ledger", "verify", "--offline", "--json"]) == 0
    tracking.client.cache_clear()
