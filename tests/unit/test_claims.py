"""Temporary files: whole, ours alone, and gone after a writer that was killed."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from perennial.claims import claimed
from perennial.storage import FileStore

pytestmark = pytest.mark.fast

#: Writes an object and is killed when its bytes are on disk, before they have their name.
KILLED = """
import os, signal, sys
from pathlib import Path
from perennial.storage import FileStore

os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
getattr(FileStore(Path(sys.argv[1])), sys.argv[2])("a/b.json", b"the first try")
"""


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("how", ["put", "put_if_absent"])
def test_the_retry_of_a_killed_write_leaves_the_object_and_nothing_else(tmp_path: Path, how: str) -> None:
    died = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), how], check=False)
    assert died.returncode == -signal.SIGKILL
    assert names(tmp_path) == ["a/.b.json.part"]
    store = FileStore(tmp_path)
    assert list(store.list()) == []
    getattr(store, how)("a/b.json", b"the second try")
    assert store.get("a/b.json") == b"the second try"
    assert names(tmp_path) == ["a/b.json"]


def test_a_folder_of_a_dead_owner_is_empty_for_the_next(tmp_path: Path) -> None:
    left = tmp_path / ".bundle.partial"
    left.mkdir()
    (left / "half").write_text("x")
    with claimed(left, folder=True) as folder:
        assert list(folder.iterdir()) == []
        (folder / "whole").write_text("y")
        folder.rename(tmp_path / "bundle")
    assert names(tmp_path) == ["bundle/whole"]


def test_what_is_not_renamed_goes_with_the_block(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), claimed(tmp_path / "x" / ".t") as file:
        file.write_text("half")
        raise ValueError("no")
    assert names(tmp_path) == []


def _write(root: Path, mine: int) -> None:
    store = FileStore(root)
    for n in range(60):
        store.put("k", str(mine).encode() * 5000)
        store.put_if_absent(f"seq/{n}", str(mine).encode())


def test_writers_of_the_same_object_never_mix(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_write, args=(tmp_path, n)) for n in range(4)]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
        assert w.exitcode == 0
    assert FileStore(tmp_path).get("k") in {str(n).encode() * 5000 for n in range(4)}
    assert names(tmp_path) == sorted(["k", *(f"seq/{n}" for n in range(60))])
