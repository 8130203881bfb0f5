"""Figures in the README and in docs/benchmarks.md are those that benchmarks have kept."""

from __future__ import annotations

import pytest
from benchmarks import render
from benchmarks.__main__ import NAMES

pytestmark = pytest.mark.fast


def test_no_figure_is_typed_in() -> None:
    for path, made in ((render.PAGE, render.table(NAMES)), (render.README, render.story())):
        text = path.read_text(encoding="utf-8")
        assert render.between(text, made) == text, f"{path.name} says something else: run python -m benchmarks --render"
