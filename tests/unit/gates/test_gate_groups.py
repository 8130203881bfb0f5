"""Groups of rows, and their names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perennial.errors import DataError
from perennial.gates.groups import group_labels, ordered
from perennial.specs.gates import Cut

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 1], ["1", "2", "1"]),
        ([1.0, np.nan, 2.5], ["1", "missing", "2.5"]),
        (np.array(["f", None, "m"], dtype=object), ["f", "missing", "m"]),
        (np.array(["f", "<missing>", ""], dtype=object), ["f", "missing", "missing"]),
        (np.array([True, None, False], dtype=object), ["true", "missing", "false"]),
        (np.array([1, 2.0, None], dtype=object), ["1", "2", "missing"]),
        ([1234567.5, 1234567.25], ["1234567.5", "1234567.25"]),
        ([], []),
    ],
)
def test_values_as_they_are(values: Any, expected: list[str]) -> None:
    assert group_labels(np.asarray(values), Cut(), "c").tolist() == expected


def test_ranges_of_a_number() -> None:
    cut = Cut(bins=[25, 45.5])
    found = group_labels(np.array([3, 24.9, 25, 45.5, np.nan, 99]), cut, "age")
    assert found.tolist() == ["under 25", "under 25", "25 to under 45.5", "45.5 and over", "missing", "45.5 and over"]
    assert ordered(found, cut) == ["under 25", "25 to under 45.5", "45.5 and over", "missing"]
    with pytest.raises(DataError, match='age has the value "old", which is no number'):
        group_labels(np.array(["old"], dtype=object), cut, "age")


def test_names_for_values() -> None:
    cut = Cut(groups={"men": [1], "women": [2]})
    found = group_labels(np.array([2.0, 1.0, 7.0, np.nan]), cut, "sex")
    assert found.tolist() == ["women", "men", "other", "missing"]
    assert ordered(found, cut) == ["men", "women", "other", "missing"]
    assert ordered(found[:2], cut) == ["men", "women"]


def test_numbers_are_in_their_order() -> None:
    found = group_labels(np.array([10, 9, 2, np.nan]), Cut(), "c")
    assert ordered(found, Cut()) == ["2", "9", "10", "missing"]


def test_a_number_with_a_thousand_values_was_not_meant() -> None:
    with pytest.raises(DataError, match="wage has 1,000 different values, more than 200: write bins or groups"):
        group_labels(np.arange(1000.0), Cut(), "wage")
