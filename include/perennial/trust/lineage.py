"""What the code and its dependencies are: the commit, whether it is clean, the digest of the lock, and what runs it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any


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


#: Libraries that take part in every fit, or in reading its rows; those first that are likeliest to change a fit.
_LIBRARIES = ("scikit-learn", "numpy", "scipy", "joblib", "optuna", "threadpoolctl", "pandas", "pyarrow", "deltalake")


def runtime(packages: Iterable[str] = ()) -> dict[str, Any]:
    """What runs here: ``python``, ``machine``, ``blas`` and ``libraries`` by distribution.

    BLAS picks its kernels by the processor, and other kernels round otherwise.

    :param packages: top-level packages of the estimator's own classes; whoever distributes them comes first.
    """
    from threadpoolctl import threadpool_info

    blas = {f"{b['internal_api']} {b['version']} {b.get('architecture') or ''}".strip()
            for b in threadpool_info() if b["user_api"] == "blas"}  # fmt: skip
    return {
        "blas": ", ".join(sorted(blas)) or "none",
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "libraries": versions([*distributions(packages), *_LIBRARIES, "perennial"]),
    }


def distributions(packages: Iterable[str]) -> list[str]:
    """Who distributes these top-level packages."""
    owners = importlib.metadata.packages_distributions()
    return list(dict.fromkeys(name for package in packages for name in owners.get(package, ())))


def versions(names: Iterable[str]) -> dict[str, str]:
    """Installed versions of distributions; one that is not installed is left out."""
    found = {}
    for name in dict.fromkeys(names):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


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
