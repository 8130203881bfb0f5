"""What all tests share. Every test says what it needs by a marker; one without is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from perennial.settings import TELEMETRY_OFF

PROJECT = Path(__file__).resolve().parent.parent
TIERS = {"fast", "integration", "e2e"}

os.environ.update(TELEMETRY_OFF)
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse tests that do not say which tier they belong to: they would never run in CI."""
    for item in items:
        marked = TIERS & {m.name for m in item.iter_markers()}
        if len(marked) != 1:
            raise pytest.UsageError(f"{item.nodeid} needs exactly one of the markers {', '.join(sorted(TIERS))}")


@pytest.fixture(scope="session")
def signing_keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A pair of keys that signs and is trusted, as environment variables."""
    from perennial.trust.keys import PRIVATE, TRUSTED, new_pair

    folder = tmp_path_factory.mktemp("keys")
    new_pair(folder)
    return {"PERENNIAL_SIGNING_KEY": str(folder / PRIVATE), "PERENNIAL_TRUSTED_KEYS": str(folder / TRUSTED)}


@pytest.fixture
def home(tmp_path: Path, signing_keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ``PERENNIAL_HOME`` with the shipped specs, and keys to sign with."""
    for name in list(os.environ):
        if name.startswith("PERENNIAL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PERENNIAL_SPECS", str(PROJECT / "include"))
    for name, value in signing_keys.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "home"


@pytest.fixture(scope="session")
def _empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables and nothing in it (making one takes seconds, copying it does not)."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def registry(home: Path, _empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real MLflow of its own, over SQLite and files, that ``perennial`` uses."""
    from perennial.registry import tracking

    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(_empty_mlflow, home / "mlflow.db")
    uri = f"sqlite:///{home / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(home)  # artifacts go to ./mlruns
    tracking.client.cache_clear()
    yield uri
    tracking.client.cache_clear()
