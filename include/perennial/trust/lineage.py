"""What the code and its dependencies are: the commit, whether it is clean, and the digest of the lock."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class Code:
    """Identity of the code that acts. Where there is no git, ``commit`` is ``unknown`` and ``dirty`` true."""

    commit: str
    dirty: bool
    lock: str

    def to_dict(self) -> dict[str, str]:
        return {"git_commit": self.commit, "git_dirty": str(self.dirty).lower(), "lock_sha256": self.lock}


@lru_cache(maxsize=8)
def code_identity(folder: Path) -> Code:
    """The identity of the project around ``folder``. An image without git says it in ``PERENNIAL_GIT_COMMIT``."""
    commit, dirty = os.environ.get("PERENNIAL_GIT_COMMIT", ""), False
    if not commit:
        commit = _git(folder, "rev-parse", "HEAD") or "unknown"
        dirty = commit == "unknown" or bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    return Code(commit, dirty, _lock(folder))


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _lock(folder: Path) -> str:
    for parent in (folder, *folder.parents):
        lock = parent / "requirements.lock"
        if lock.is_file():
            return hashlib.sha256(lock.read_bytes()).hexdigest()
    return "none"
