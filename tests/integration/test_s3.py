"""The same stores, tables and ledgers on an S3 API (moto's server, in a process of its own)."""

from __future__ import annotations

import multiprocessing
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from perennial.errors import DataError
from perennial.lake.rows import ParquetRows
from perennial.lake.table import PartitionedTable
from perennial.ledger import Entry, Ledger
from perennial.ledger.verify import verify
from perennial.storage import S3Store, join, open_store

pytestmark = pytest.mark.integration

D1, D2 = "2013-01-01", "2013-01-02"
PROCESSES = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{url}/moto-api/", timeout=2).close()
                break
            except OSError:
                assert server.poll() is None, "moto's server ended"
                time.sleep(0.25)
        yield url
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def uri(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of one's own, and the environment to reach it."""
    monkeypatch.setenv("PERENNIAL_S3_ENDPOINT", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"perennial-{uuid.uuid4().hex[:12]}"
    S3Store(bucket, "").client.create_bucket(Bucket=bucket)
    return f"s3://{bucket}/some/prefix"


def rows(*values: float) -> pa.Table:
    return pa.table({"id": pa.array(range(len(values)), pa.int64()), "v": pa.array(values, pa.float64())})


def test_s3_answers_like_a_folder(uri: str, tmp_path: Path) -> None:
    for store in (open_store(uri), open_store((tmp_path / "store").as_uri())):
        assert list(store.list()) == []
        store.put("runs/1/plan.json", b"a")
        store.put("runs/1/plan.json", b"b")
        store.put("runs/10/plan.json", b"c")
        store.put("runs.json", b"")
        assert store.get("runs/1/plan.json") == b"b"
        assert store.get("runs.json") == b""
        assert list(store.list()) == ["runs.json", "runs/1/plan.json", "runs/10/plan.json"]
        assert list(store.list("runs/1")) == list(store.list("runs/1/")) == ["runs/1/plan.json"]
        assert list(store.list("nothing")) == []
        assert store.put_if_absent("a/0", b"first")
        assert not store.put_if_absent("a/0", b"second")
        assert store.get("a/0") == b"first"
        assert store.exists("runs/1/plan.json")
        for key in ("runs", "runs/1", "runs/1/plan.json/x", "z"):
            assert not store.exists(key)
            with pytest.raises(KeyError):
                store.get(key)
            store.delete(key)
        store.delete("runs/1/plan.json")
        assert not store.exists("runs/1/plan.json")
        assert list(store.list()) == ["a/0", "runs.json", "runs/10/plan.json"]


def test_files_go_to_s3_and_come_back(uri: str, tmp_path: Path) -> None:
    store, source = open_store(uri), tmp_path / "source"
    source.write_bytes(b"0123456789" * 1_000_000)  # more than one part
    store.put_file("runs/1/rows", source)
    with store.local("runs/1/rows") as held:
        store.put("runs/1/rows", b"another")
        assert held.read_bytes() == source.read_bytes()
    assert store.get("runs/1/rows") == b"another"
    with pytest.raises(KeyError), store.local("runs/1/nothing"):
        pass


def test_a_long_listing_is_whole(uri: str) -> None:
    store = open_store(uri)
    for i in range(1005):
        store.put(f"many/{i:04d}", b"")
    assert list(store.list("many")) == [f"many/{i:04d}" for i in range(1005)]


def win(uri: str, me: int) -> list[int]:
    store = open_store(uri)
    return [i for i in range(20) if store.put_if_absent(f"race/{i}", str(me).encode())]


def test_exactly_one_writer_wins_each(uri: str) -> None:
    with PROCESSES.Pool(3) as pool:
        won = pool.starmap(win, [(uri, me) for me in range(3)], chunksize=1)
    assert sorted(i for part in won for i in part) == list(range(20))
    assert all(open_store(uri).get(f"race/{i}") == str(me).encode() for me, part in enumerate(won) for i in part)


def test_an_undecided_race_is_asked_again(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 answers 409 while two conditional writes overlap; nobody has won then."""
    from botocore.exceptions import ClientError

    store = open_store(uri)
    assert isinstance(store, S3Store)
    put, answers = store.client.put_object, iter([409, 409])

    def undecided(**kwargs: object) -> object:
        if status := next(answers, None):
            raise ClientError({"ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")  # type: ignore[typeddict-item]
        return put(**kwargs)

    monkeypatch.setattr(store.client, "put_object", undecided)
    assert store.put_if_absent("a", b"x")
    assert store.get("a") == b"x"


def write_ledger(uri: str, me: int) -> list[int]:
    ledger = Ledger(uri)
    return [ledger.append(Entry(f"{me}/{i}", "gate", "m", "pass", "")).seq for i in range(3)]


def test_a_ledger_of_many_writers_is_one_chain(uri: str) -> None:
    import hashlib

    with PROCESSES.Pool(4) as pool:
        got = pool.starmap(write_ledger, [(uri, me) for me in range(6)], chunksize=1)
    assert sorted(seq for part in got for seq in part) == list(range(18))
    ledger, prev = Ledger(uri), "0" * 64
    for seq, entry in enumerate(ledger.entries("m")):
        assert (entry.seq, entry.prev) == (seq, prev)
        prev = hashlib.sha256(entry.to_bytes()).hexdigest()
    assert Ledger(uri).append(Entry("3/1", "gate", "m", "pass", "again")).reason == ""


def test_an_append_to_a_long_ledger_takes_few_requests(uri: str) -> None:
    writer = Ledger(uri)
    for i in range(40):
        writer.append(Entry(f"e{i}", "gate", "m", "pass", ""))
    ledger, asked = Ledger(uri), list[str]()
    assert isinstance(ledger.store, S3Store)
    ledger.store.client.meta.events.register("before-send.s3.*", lambda request, **_: asked.append(request.method))
    ledger.append(Entry("new", "gate", "m", "pass", ""))
    assert asked.count("PUT") == 1 and len(asked) <= 1 + 3 + 16, "index, its last entry, those after it, the end"
    asked.clear()
    assert ledger.append(Entry("e3", "gate", "m", "pass", "again")).reason == ""
    ledger.append(Entry("newer", "gate", "m", "pass", ""))
    assert len(asked) <= 6, asked
    asked.clear()
    Ledger(uri).store.delete("_index/m.idx")
    assert Ledger(uri).append(Entry("e7", "gate", "m", "pass", "again")).reason == "", "the index decides nothing"
    assert [e.id for e in Ledger(uri).find("m", id="newer")] == ["newer"]
    assert Ledger(uri).subjects() == ["m"]


def test_damage_of_a_ledger_on_s3_is_named(uri: str) -> None:
    ledger = Ledger(uri)
    for i in range(30):
        ledger.append(Entry(f"e{i}", "gate", "m", "pass", "well"))
    head = ledger.head("m")
    assert head is not None and verify(ledger, "m", {"MLflow": head}).whole
    key = "m/0000000007.json"
    ledger.store.put(key, ledger.store.get(key).replace(b"well", b"good"))
    ledger.store.delete("m/0000000012.json")
    ledger.store.delete("m/0000000029.json")
    ledger.store.put("m/notes", b"")
    found = verify(Ledger(uri), "m", {"MLflow": head}).findings
    assert [(f.kind, f.seq) for f in found] == [("foreign", None), ("edited", 7), ("missing", 12), ("cut", 29)]


def test_a_table_on_s3(uri: str, tmp_path: Path) -> None:
    lake = PartitionedTable(join(uri, "lake", "t"), ["id"])
    assert lake.version is None
    lake.replace({D1: rows(1, 2), D2: rows(3)})
    taken = lake.snapshot([D1, D2])
    assert lake.replace({D1: rows(1, 2)}).keys() == {D1}
    assert lake.version == taken.version
    lake.replace({D1: rows(9)})
    lake.replace({D2: rows()})
    assert lake.read([D1, D2])["v"].to_pylist() == [9]  # type: ignore[index]
    assert sorted(lake.read_snapshot(taken)["v"].to_pylist()) == [1, 2, 3]
    assert sum(b.num_rows for b in lake.batches([D1])) == 1

    def dead() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        lake.replace({D1: rows(7)}, fence=dead)
    with pytest.raises(DataError, match="has no version 99"):
        lake.partitions(99)
    assert lake.partitions()[D1].rows == 1
    import pyarrow.parquet as pq

    pq.write_table(rows(5, 4, 3), tmp_path / "rows.parquet")
    streamed = lake.replace({D2: ParquetRows(tmp_path / "rows.parquet")})
    version = lake.version
    assert streamed == lake.replace({D2: rows(5, 4, 3)}) and lake.version == version
    assert lake.read([D2])["v"].to_pylist() == [5, 4, 3]  # type: ignore[index]


def write_table(uri: str, me: int, key: str) -> None:
    for turn in range(2):
        PartitionedTable(uri, ["id"]).replace({key: rows(*[me * 10 + turn] * 5)}, attempts=50)


def test_writers_on_s3_double_nothing_and_lose_nothing(uri: str) -> None:
    table = join(uri, "t")
    with PROCESSES.Pool(4) as pool:
        pool.starmap(write_table, [(table, me, D1 if me < 3 else f"2013-02-{me:02d}") for me in range(6)], chunksize=1)
    lake = PartitionedTable(table, ["id"])
    keys = [D1, "2013-02-03", "2013-02-04", "2013-02-05"]
    assert {k: p.rows for k, p in lake.partitions().items()} == dict.fromkeys(keys, 5)
    for key in keys:
        found = lake.read([key])
        assert found is not None
        assert found.num_rows == 5
        assert len(set(found["v"].to_pylist())) == 1
