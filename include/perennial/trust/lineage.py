"""What the code and its dependencies are: the commit, whether it is clean, the digest of the lock, and what runs it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from perennial.settings import settings


@dataclass(frozen=True)
class Code:
    """Identity of the code that acts. Where there is no git, ``commit`` is ``unknown`` and ``dirty`` true."""

    commit: str
    dirty: bool
    lock: str

    def to_dict(self) -> dict[str, str]:
        return {"git_commit": self.commit, "git_dirty": str(self.dirty).lower(), "lock_sha256": self.lock}


def code_identity(folder: Path) -> Code:
    """The identity of the code that acts for the model in ``folder``. An image without git says its commit in
    ``PERENNIAL_GIT_COMMIT``.

    Clean means that what decides an outcome is committed: the model's folder, the feeds, the defaults of the specs, the
    lock and Perennial itself. A note or a notebook beside them makes nothing dirty.
    """
    commit = os.environ.get("PERENNIAL_GIT_COMMIT", "")
    if commit:
        return Code(commit, False, _lock(folder))
    roots = dict.fromkeys((*settings().specs, folder.parent.parent))
    parts = [part for root in roots for part in (root / "feeds", root / "defaults.yaml")]
    return _identity(folder, (*parts, _PACKAGE))


@lru_cache(maxsize=8)
def _identity(folder: Path, others: tuple[Path, ...]) -> Code:
    commit = _git(folder, "rev-parse", "HEAD") or "unknown"
    lock = _lock_file(folder)
    parts = [folder, *(p for p in others if p.exists()), *([lock] if lock else [])]
    untracked = any(not _git(p, "ls-files", "--", ".") for p in parts if p.is_dir() and p != _PACKAGE)
    return Code(commit, commit == "unknown" or untracked or any(_changed(p) for p in parts), _lock(folder))


#: Where Perennial's own code lies; installed from a package it is in no work tree, and its version says what it is.
_PACKAGE = Path(__file__).parents[1]


def _changed(path: Path) -> bool:
    """Whether something in a file or folder of a work tree is not committed."""
    place, name = (path, ".") if path.is_dir() else (path.parent, path.name)
    return bool(_git(place, "status", "--porcelain", "--untracked-files=normal", "--", name))


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
    lock = _lock_file(folder)
    return "none" if lock is None else hashlib.sha256(lock.read_bytes()).hexdigest()


def _lock_file(folder: Path) -> Path | None:
    """The lock beside or above a folder, that of the project that it is part of; else the one above Perennial."""
    places = (folder, *folder.parents, *_PACKAGE.parents)
    return next((p for place in places if (p := place / "requirements.lock").is_file()), None)


def locked(folder: Path, sha256: str) -> dict[str, str] | None:
    """Versions by distribution, as the lock with that digest pins them; ``None`` when it lies here no longer."""
    lock = _lock_file(folder)
    if lock is None or hashlib.sha256(lock.read_bytes()).hexdigest() != sha256:
        return None
    return dict(re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE))
