"""Fixtures for the tests of everything that reads specs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from spec_folder import ARRIVALS, FLIGHTS, MODEL, Folder


@pytest.fixture
def specs(tmp_path: Path) -> Folder:
    """A folder with two good feeds and a good model."""
    folder = Folder(tmp_path / "specs")
    folder.feed(FLIGHTS)
    folder.feed(ARRIVALS)
    folder.model(MODEL)
    return folder


@pytest.fixture
def message(specs: Folder) -> Callable[..., str]:
    """The error of the model with some lines changed."""
    from perennial.specs import load_specs

    def of(**changes: str) -> str:
        specs.model(**changes)
        return "\n".join(e.message for e in load_specs([specs.root]).errors)

    return of
