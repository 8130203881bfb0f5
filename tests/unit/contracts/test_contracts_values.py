"""Showing Great Expectations less gives the same answer as showing it everything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from perennial.contracts import values
from perennial.contracts.expectations import judge
from perennial.specs import FeedSpec

pytestmark = pytest.mark.fast

COLUMNS = {"id": "string", "kind": "string", "code": "string", "n": "integer", "big": "integer", "x": "float",
           "gone": "float", "flag": "boolean", "at": "timestamp"}  # fmt: skip


def feed(max_quarantined: float = 0.9) -> FeedSpec:
    return FeedSpec.model_validate(
        {
            "version": 1,
            "name": "wide",
            "owner": "tests",
            "start": "2013-01-01",
            "source": {"path": "wide/{partition}.parquet"},
            "columns": COLUMNS,
            "key": ["id"],
            "contract": {"expectations": "e.yaml", "max_quarantined": max_quarantined},
        }
    )


def frame(seed: int, rows: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(seed)

    def holes(values: Any) -> pd.Series[Any]:
        series = pd.Series(values).astype(object)
        series[rng.random(rows) < 0.1] = None
        return series

    found = pd.DataFrame(
        {
            "id": [f"r{i}" for i in range(rows)],
            "kind": holes(rng.choice(["a", "b", "c", "zz"], rows)).astype("str"),
            "code": holes([f"x{i}" for i in rng.permutation(rows)]).astype("str"),
            "n": holes(rng.integers(0, 12, rows)).astype("Int64"),
            "big": rng.permutation(rows) + 2**53,
            "x": holes(rng.normal(size=rows)).astype("float64"),
            "gone": np.full(rows, np.nan),
            "flag": holes(rng.random(rows) < 0.5).astype("boolean"),
            "at": pd.Timestamp("2013-01-01", tz="UTC") + pd.to_timedelta(rng.integers(0, 5, rows), unit="h"),
        }
    )
    found.loc[0, "id"] = found.loc[1, "id"]
    return found


def rule(kind: str, column: str | None = None, severity: str = "critical", **kwargs: Any) -> dict[str, Any]:
    return {"type": kind, "kwargs": ({"column": column} if column else {}) | kwargs, "severity": severity}


BETWEEN, IN, REGEX = (
    f"expect_column_values_to_{x}" for x in ("be_between", "be_in_set", "match_regex")
)  # fmt: skip
RULES = [
    rule("expect_table_row_count_to_be_between", min_value=1),
    rule("expect_table_columns_to_match_set", column_set=list(COLUMNS), exact_match=True),
    rule(IN, "kind", value_set=["a", "b", "c"]),
    rule(IN, "kind", value_set=["a", "b"], mostly=0.4),
    rule(REGEX, "kind", regex="^[a-z]$"),
    rule(REGEX, "code", regex="^x[0-8]+$"),
    rule("expect_column_value_lengths_to_be_between", "code", max_value=3),
    rule(BETWEEN, "n", min_value=1, max_value=10),
    rule(BETWEEN, "n", "warning", min_value=5),
    rule(BETWEEN, "big", min_value=2**53 + 1),
    rule(BETWEEN, "x", min_value=-1.5, max_value=1.5),
    rule(BETWEEN, "x", "warning", min_value=-2.5, strict_min=True),
    rule(BETWEEN, "x", max_value=9),
    rule(BETWEEN, "at", min_value="2013-01-01T01:00:00Z"),
    rule(IN, "flag", value_set=[True]),
    rule("expect_column_values_to_not_be_null", "n"),
    rule("expect_column_values_to_not_be_null", "x", mostly=0.5),
    rule("expect_column_values_to_be_null", "kind"),
    rule("expect_column_values_to_be_null", "gone"),
    rule("expect_column_values_to_not_be_null", "gone"),
    rule(BETWEEN, "gone", min_value=0),
    rule("expect_column_values_to_be_unique", "code"),
    rule("expect_column_unique_value_count_to_be_between", "n", "warning", max_value=3),
    rule("expect_column_mean_to_be_between", "x", min_value=-1, max_value=1),
    rule("expect_column_pair_values_a_to_be_greater_than_b", column_A="big", column_B="n"),
    rule(BETWEEN, "lost", min_value=0),
    rule("expect_column_values_to_not_be_null", "lost"),
]


def both(monkeypatch: pytest.MonkeyPatch, rules: list[dict[str, Any]], frames: dict[str, pd.DataFrame]) -> list[Any]:
    found = []
    for large in (10**9, 1):
        monkeypatch.setattr(values, "LARGE", large)
        found.append(judge(feed(), rules, {k: f.copy() for k, f in frames.items()}))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_every_rule_says_the_same_of_the_same_rows(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(values, "CHUNK", 150)  # several chunks, too
    monkeypatch.setattr(values, "BLOCK", 1 + 16 * seed)  # and blocks of which some have no bad row
    everything, sparing = both(monkeypatch, RULES, {"2013-01-01": frame(seed)})
    for old, new in zip(everything[0].checks, sparing[0].checks, strict=True):
        assert new.rule == old.rule
        assert (new.passed, new.error, new.bad_rows, new.detail) == (old.passed, old.error, old.bad_rows, old.detail)
    assert (sparing[0].verdict, sparing[0].reasons) == (everything[0].verdict, everything[0].reasons)
    assert sum(not c.passed for c in everything[0].checks) > 10, "rules that all pass would compare nothing"


@pytest.mark.parametrize("which", range(len(RULES)))
def test_each_rule_alone_leads_to_the_same_verdict(monkeypatch: pytest.MonkeyPatch, which: int) -> None:
    frames = {"2013-01-01": frame(7), "2013-01-02": frame(8, 90), "2013-01-03": frame(9, 300).drop(columns="x")}
    everything, sparing = both(monkeypatch, [RULES[which]], frames)
    assert sparing == everything


def test_rules_on_single_values_see_each_value_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes it fast: the frame that GX is given for a column with five values has five rows."""
    from perennial.contracts import expectations

    seen: list[int] = []
    run = expectations._run

    def counting(rules: Any, shown: pd.DataFrame) -> Any:
        seen.append(len(shown))
        return run(rules, shown)

    monkeypatch.setattr(values, "LARGE", 1)
    monkeypatch.setattr(expectations, "_run", counting)
    rules = [rule(IN, "kind", value_set=["a"]), rule("expect_column_values_to_not_be_null", "x")]
    assert judge(feed(), rules, {"2013-01-01": frame(1)})[0].bad_rows
    assert sorted(seen) == [2, 4]


def test_a_range_is_asked_of_extremes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    from perennial.contracts import expectations

    seen: list[int] = []
    run = expectations._run

    def counting(rules: Any, shown: pd.DataFrame) -> Any:
        seen.append(len(shown))
        return run(rules, shown)

    monkeypatch.setattr(values, "LARGE", 1)
    monkeypatch.setattr(values, "BLOCK", 10)
    monkeypatch.setattr(expectations, "_run", counting)
    rows = pd.DataFrame({"id": [f"r{i}" for i in range(200)], "x": np.linspace(0, 1, 200)})
    rows.loc[[57, 123], "x"] = [7.0, -7.0]
    found = judge(feed(), [rule(BETWEEN, "x", min_value=0, max_value=1)], {"2013-01-01": rows})[0]
    assert list(found.bad_rows) == [57, 123]
    assert seen == [40, 20], "two numbers for each of twenty blocks, then the rows of two of them"


def test_values_that_cannot_be_hashed_are_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = frame(1).assign(kind=[[1]] * 400)
    everything, sparing = both(monkeypatch, [rule("expect_column_values_to_not_be_null", "kind")], {"2013-01-01": odd})
    assert sparing == everything
