"""Copies of specs that runs and versions keep: they outlive the spec language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from perennial.specs import FeedSpec, ModelSpec
from perennial.specs.loader import load_specs

pytestmark = pytest.mark.fast


@pytest.fixture
def said(home: Path) -> dict[str, Any]:
    return load_specs().model("flight_delay").model_dump(mode="json")


def test_keys_that_no_longer_exist_are_left_out_at_every_depth(said: dict[str, Any]) -> None:
    good = ModelSpec.stored(said)
    said["gone"] = 1
    said["training"]["was"] = {"here": True}
    said["gates"]["champion"]["old"] = [2]
    assert ModelSpec.stored(said) == good
    with pytest.raises(ValidationError):
        ModelSpec.model_validate(said)


def test_what_was_added_since_has_its_default(said: dict[str, Any]) -> None:
    del said["scoring"]["wait"], said["monitoring"]
    assert ModelSpec.stored(said) == load_specs().model("flight_delay")


def test_what_is_needed_is_needed(home: Path) -> None:
    said = load_specs().feed("flights").model_dump(mode="json")
    assert FeedSpec.stored(said | {"gone": 1}) == load_specs().feed("flights")
    del said["key"]
    with pytest.raises(ValidationError):
        FeedSpec.stored(said)
