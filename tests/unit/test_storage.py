"""Small objects under a URI, in a folder. ``tests/integration/test_s3.py`` asks the same of S3."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from perennial.errors import UsageError
from perennial.storage import FileStore, S3Store, join, open_store, plain, to_json

pytestmark = pytest.mark.fast

PROCESSES = multiprocessing.get_context("spawn")


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


def names(store: FileStore) -> list[str]:
    """Every file below the store, temporary ones too."""
    return sorted(p.name for p in store.root.rglob("*") if p.is_file())


def test_what_was_put_is_there_until_it_is_deleted(store: FileStore) -> None:
    assert list(store.list()) == []
    store.put("runs/1/plan.json", b"a")
    store.put("runs/1/plan.json", b"b")
    store.put("runs/10/plan.json", b"c")
    store.put("runs.json", b"d")
    assert store.get("runs/1/plan.json") == b"b"
    assert list(store.list()) == ["runs.json", "runs/1/plan.json", "runs/10/plan.json"]
    assert list(store.list("runs/1")) == list(store.list("runs/1/")) == ["runs/1/plan.json"]
    assert list(store.list("nothing")) == []
    assert store.exists("runs/1/plan.json")
    assert not store.exists("runs/1")
    store.delete("runs/1/plan.json")
    store.delete("runs/1/plan.json")
    assert not store.exists("runs/1/plan.json")


def test_what_is_not_an_object_is_a_key_error_or_nothing(store: FileStore) -> None:
    store.put("a/b", b"x")
    for key in ("a", "a/b/c", "z"):
        with pytest.raises(KeyError):
            store.get(key)
        store.delete(key)
    assert store.get("a/b") == b"x"


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "", "a//b", "a/", ".hidden", "a/.x", "a/./b"])
def test_keys_stay_below_the_root(store: FileStore, key: str) -> None:
    for act in (
        lambda: store.put(key, b""),
        lambda: store.put_if_absent(key, b""),
        lambda: store.get(key),
        lambda: store.exists(key),
        lambda: store.delete(key),
        lambda: S3Store("bucket", "prefix")._key(key),
        lambda: S3Store("bucket", "")._key(key),
    ):
        with pytest.raises(UsageError, match="is not a key"):
            act()


def test_put_if_absent_writes_once(store: FileStore) -> None:
    assert store.put_if_absent("a/0", b"first")
    assert not store.put_if_absent("a/0", b"second")
    assert store.get("a/0") == b"first"
    assert names(store) == ["0"]


def test_exactly_one_of_many_threads_wins(store: FileStore) -> None:
    start = threading.Barrier(16)
    won: list[int] = []

    def race(i: int) -> None:
        start.wait()
        if store.put_if_absent("ledger/0", str(i).encode()):
            won.append(i)

    threads = [threading.Thread(target=race, args=(i,)) for i in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [str(i).encode() for i in won] == [store.get("ledger/0")]
    assert names(store) == ["0"]


def win(uri: str, me: int) -> list[int]:
    return [i for i in range(50) if open_store(uri).put_if_absent(f"ledger/{i}", str(me).encode())]


def test_exactly_one_of_many_processes_wins_each(store: FileStore) -> None:
    with PROCESSES.Pool(3) as pool:
        won = pool.starmap(win, [(store.uri, me) for me in range(3)], chunksize=1)
    assert sorted(i for part in won for i in part) == list(range(50))
    assert all(store.get(f"ledger/{i}") == str(me).encode() for me, part in enumerate(won) for i in part)
    assert len(names(store)) == 50


def write_for_ever(uri: str) -> None:
    store = open_store(uri)
    for i in range(10**6):
        store.put("big", str(i % 10).encode() * 2_000_000)


def test_a_writer_killed_half_way_leaves_a_whole_object_and_lists_nothing_else(store: FileStore) -> None:
    for wait in (0.02, 0.05, 0.11):
        writer = PROCESSES.Process(target=write_for_ever, args=(store.uri,))
        writer.start()
        deadline = time.monotonic() + 30
        while not store.exists("big") and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(wait)
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
        data = store.get("big")
        assert len(data) == 2_000_000
        assert set(data) == {data[0]}
        assert list(store.list()) == ["big"]


def test_a_failed_write_leaves_nothing(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError("No space left on device")

    store.put("a", b"old")
    with monkeypatch.context() as m:
        m.setattr(os, "fsync", full)
        for act in (store.put, store.put_if_absent):
            with pytest.raises(OSError, match="No space"):
                act("a" if act == store.put else "b", b"new")
    store.put("folder/x", b"")
    with pytest.raises(IsADirectoryError):
        store.put("folder", b"new")
    assert store.get("a") == b"old"
    assert names(store) == ["a", "x"]


def test_uris(tmp_path: Path) -> None:
    folder = tmp_path / "with space and ü"
    store = open_store(folder.as_uri())
    store.put("a", b"1")
    assert (folder / "a").read_bytes() == b"1"
    assert store.uri == folder.as_uri()
    assert open_store("s3://bucket/some/prefix").uri == "s3://bucket/some/prefix"
    assert open_store("s3://bucket").uri == "s3://bucket"
    assert join("s3://b/x/", "/runs/", "1") == "s3://b/x/runs/1"
    with pytest.raises(UsageError, match="use file:// or s3://"):
        open_store("gs://bucket")


def test_json_is_canonical_and_has_no_nan() -> None:
    import numpy as np

    assert to_json({"b": 1, "a": "ü"}) == '{"a":"ü","b":1}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"a": float("nan")})
    figures = {"nan": float("nan"), "inf": [float("inf"), 1.5], 3: np.float64("nan"), "n": np.int64(4), "b": np.True_}
    assert to_json(plain(figures)) == b'{"3":null,"b":true,"inf":[null,1.5],"n":4,"nan":null}'
    assert plain((1, {"x": np.array([1.0, np.nan])})) == [1, {"x": [1.0, None]}]


def test_files_are_put_and_held(tmp_path: Path) -> None:
    """What a block holds stays as it is, and nothing temporary is ever listed."""
    store, source = FileStore(tmp_path / "store"), tmp_path / "source"
    source.write_bytes(b"one" * 10**6)
    store.put_file("runs/a/rows.parquet", source)
    source.write_bytes(b"two")
    with store.local("runs/a/rows.parquet") as held:
        store.put_file("runs/a/rows.parquet", source)
        assert held.read_bytes() == b"one" * 10**6 and store.get("runs/a/rows.parquet") == b"two"
        assert list(store.list()) == list(store.list("runs")) == ["runs/a/rows.parquet"]
    assert [p.name for p in (tmp_path / "store" / "runs" / "a").iterdir()] == ["rows.parquet"]
    with pytest.raises(KeyError), store.local("runs/a/nothing"):
        pass


def test_a_folder_without_hard_links_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("Operation not permitted")

    store = FileStore(tmp_path)
    store.put("a", b"x")
    monkeypatch.setattr("os.link", refuse)
    with store.local("a") as held:
        store.put("a", b"y")
        assert held.read_bytes() == b"x"
