"""Code is clean when everything that decides an outcome is committed, and dependencies are those of a lock."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from perennial.trust import lineage

pytestmark = pytest.mark.fast


@pytest.fixture
def repository() -> Callable[[Path], None]:
    """Makes a folder a git repository with all of it committed."""

    def make(folder: Path) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "x"]):
            subprocess.run(["git", "-C", str(folder), *command], check=True)

    return make


@pytest.mark.parametrize("change", ["edit", "untracked", "ignored"])
def test_code_is_clean_only_when_what_decides_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, repository: Callable[[Path], None]
) -> None:
    monkeypatch.delenv("PERENNIAL_GIT_COMMIT", raising=False)
    monkeypatch.setattr(lineage, "_PACKAGE", tmp_path / "nowhere")
    root = tmp_path / "include"
    monkeypatch.setenv("PERENNIAL_SPECS", str(root))
    for name in ("models/m", "feeds/f"):
        (root / name).mkdir(parents=True)
        (root / name / "x.yaml").write_text("a: 1\n")
    (tmp_path / "notes.txt").write_text("first\n")
    repository(tmp_path)
    folder = root / "models" / "m"
    lineage._identity.cache_clear()
    assert lineage.code_identity(folder).dirty is False
    (tmp_path / "notes.txt").write_text("second\n")
    (tmp_path / "new.ipynb").write_text("{}")
    lineage._identity.cache_clear()
    assert lineage.code_identity(folder).dirty is False, "a note beside it decides nothing"
    if change == "edit":
        (root / "feeds" / "f" / "x.yaml").write_text("a: 2\n")
    elif change == "untracked":
        (folder / "pipeline.py").write_text("x = 1\n")
    else:
        folder = root / "models" / "hidden"
        folder.mkdir()
        (folder / "x.yaml").write_text("a: 1\n")
        (tmp_path / ".gitignore").write_text("hidden\n")
    lineage._identity.cache_clear()
    assert lineage.code_identity(folder).dirty is True


def test_a_lock_is_found_by_its_digest_and_read(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("numpy==2.4.0 \\\n    --hash=sha256:00\nscikit-learn==1.9.1\n# via x==1\n")
    folder = tmp_path / "include" / "models" / "m"
    folder.mkdir(parents=True)
    sha = lineage._lock(folder)
    assert lineage.locked(folder, sha) == {"numpy": "2.4.0", "scikit-learn": "1.9.1"}
    assert lineage.locked(folder, "0" * 64) is None
