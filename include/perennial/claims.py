"""Temporary files and folders that do not pile up when their writers are killed."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def claimed(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """A new, empty file (or folder) at ``path``, ours alone for as long as the block lasts.

    The name is fixed, and the claim is a lock that goes with its process. So whoever writes the same thing next, such
    as the retry of a task that was killed, waits for a writer that lives, and removes what a dead one left. What is not
    renamed by then is removed at the end of the block.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        fresh = _make(path, folder)
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue  # its owner is done with it
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if not _same(handle, path):
                continue
            if not fresh:
                _remove(path)
                continue
            try:
                yield path
            finally:
                if _same(handle, path):
                    _remove(path)
            return
        finally:
            os.close(handle)


def _make(path: Path, folder: bool) -> bool:
    """Whether this call made it."""
    try:
        if folder:
            path.mkdir()
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        return False
    return True


def _same(handle: int, path: Path) -> bool:
    """Whether the name still means what was locked."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
