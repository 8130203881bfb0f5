"""Airflow is imported here, and nothing of it is started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_home import airflow_environment


@pytest.fixture(autouse=True)
def airflow(home: Path) -> Iterator[Path]:
    """The process's Airflow home; specs and state as in ``home``."""
    with airflow_environment() as where:
        yield where
