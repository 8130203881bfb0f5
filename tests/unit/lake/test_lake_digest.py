"""The digest of a table's content: of what it says, not of how it is stored."""

from __future__ import annotations

import datetime as dt
import decimal
import random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.lake.content import combined_digest, content_digest

pytestmark = pytest.mark.fast

T0 = dt.datetime(2013, 1, 1, 5, tzinfo=dt.UTC)


def table(**changes: Any) -> pa.Table:
    columns: dict[str, Any] = {
        "id": pa.array([1, 2, 3], pa.int64()),
        "x": pa.array([1.5, None, -2.0], pa.float64()),
        "s": pa.array(["a", None, "ü"], pa.string()),
        "t": pa.array([T0, None, T0], pa.timestamp("us", "UTC")),
        "b": pa.array([True, None, False]),
        "d": pa.array([T0.date(), None, T0.date()]),
    }
    return pa.table({k: v for k, v in (columns | changes).items() if v is not None})


SAME = content_digest(table(), ["id"])


def test_it_is_stable_across_releases() -> None:
    """Another digest here means that every partition in every lake looks changed."""
    assert content_digest(pa.table({"id": [1], "s": ["x"]}), ["id"]).startswith("7ec97c689623")


@pytest.mark.parametrize(
    "same",
    [
        lambda t: t.take([2, 0, 1]),
        lambda t: t.select(sorted(t.column_names)),
        lambda t: pa.concat_tables([t.slice(0, 1), t.slice(1)]),
        lambda t: pa.concat_tables([t.slice(2), t, t.slice(0, 1)]).slice(1, 3),
        lambda t: table(s=t["s"].cast(pa.large_string())),
        lambda t: table(s=t["s"].cast(pa.string_view())),
        lambda t: table(s=t["s"].dictionary_encode()),
        lambda t: table(s=pa.chunked_array([pa.array(v).dictionary_encode() for v in (["a"], [None, "ü"])])),
        lambda t: table(t=t["t"].cast(pa.timestamp("ns", "UTC"))),
        lambda t: table(t=t["t"].cast(pa.timestamp("us", "America/New_York"))),
        lambda t: table(d=t["d"].cast(pa.date64())),
        lambda t: table(empty=pa.array([None, None, None], pa.float64())),
        lambda t: table(empty=pa.nulls(3)),
    ],
)  # fmt: skip
def test_rows_in_another_order_or_storage_are_the_same(same: Any) -> None:
    assert content_digest(same(table()), ["id"]) == SAME


@pytest.mark.parametrize(
    "other",
    [
        {"x": pa.array([1.5, 0.0, -2.0])},
        {"x": pa.array([1.5, float("nan"), -2.0])},
        {"x": pa.array([1.5, None, None])},
        {"x": pa.array([1.5, None, -2.0000000001])},
        {"s": pa.array(["a", "", "ü"])},
        {"s": pa.array(["aü", None, ""])},
        {"t": pa.array([T0, None, T0 + dt.timedelta(microseconds=1)], pa.timestamp("us", "UTC"))},
        {"b": pa.array([True, False, False])},
        {"d": pa.array([T0.date(), None, dt.date(2013, 1, 2)])},
        {"id": pa.array([1, 2, 4], pa.int64())},
        {"x": None},
        {"y": pa.array([1, None, None])},
        {"x": None, "y": pa.array([1.5, None, -2.0])},
    ],
)
def test_another_value_is_another_digest(other: dict[str, Any]) -> None:
    assert content_digest(table(**other), ["id"]) != SAME


def test_swapped_values_are_another_digest() -> None:
    assert content_digest(table(x=table()["x"].take([2, 1, 0])), ["id"]) != SAME


def test_numbers_have_one_nan_and_one_zero() -> None:
    def of(*values: float | None) -> str:
        return content_digest(pa.table({"id": range(len(values)), "x": pa.array(values, pa.float64())}), ["id"])

    assert of(float("nan"), 1.0) == of(-float("nan"), 1.0)
    assert of(0.0, 1.0) == of(-0.0, 1.0)
    assert of(None, 1.0) != of(float("nan"), 1.0)


def test_rows_that_share_a_key_have_one_digest_in_any_order() -> None:
    rows = pa.table({"id": [1, 1, 1, None], "x": [3.0, 1.0, None, 2.0], "s": ["a", "b", "c", "d"]})
    assert len({content_digest(rows.take(o), ["id"]) for o in ([0, 1, 2, 3], [2, 3, 0, 1], [3, 2, 1, 0])}) == 1


def test_values_that_are_neither_numbers_nor_text_are_hashed_by_value() -> None:
    def of(*values: str) -> str:
        return content_digest(pa.table({"id": [1, 2], "x": [decimal.Decimal(v) for v in values]}), ["id"])

    assert of("1.5", "2.5") == of("1.5", "2.5") != of("1.5", "2.6")


def test_digests_of_several_parts() -> None:
    assert combined_digest([("a", "1"), ("b", "2")]) == combined_digest([("b", "2"), ("a", "1")])
    assert combined_digest([("a", "1"), ("b", "2")]) != combined_digest([("a", "2"), ("b", "1")])


VALUES = st.none() | st.floats(allow_nan=False) | st.just(float("nan"))


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.tuples(VALUES, st.none() | st.text(max_size=3)), max_size=6),
    other=st.lists(st.tuples(VALUES, st.none() | st.text(max_size=3)), max_size=6),
    seed=st.integers(0, 99),
)
def test_equal_digests_mean_equal_rows(rows: list[Any], other: list[Any], seed: int) -> None:
    def of(values: list[Any], order: list[int]) -> str:
        t = pa.table(
            {
                "id": pa.array(range(len(values)), pa.int64()),
                "x": pa.array([v[0] for v in values], pa.float64()),
                "s": pa.array([v[1] for v in values], pa.string()),
            }
        )
        return content_digest(t.take(pa.array(order, pa.int64())), ["id"])

    def said(values: list[Any]) -> list[str]:
        return [repr((v[0] + 0.0 if v[0] is not None else None, v[1])) for v in values]

    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    assert of(rows, order) == of(rows, sorted(order))
    assert (of(rows, order) == of(other, list(range(len(other))))) == (said(rows) == said(other))
