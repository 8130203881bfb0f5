"""Data contracts: what Great Expectations says of a partition, and what we make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perennial.contracts.expectations import Judgement, build_rules, judge, load_rules
from perennial.errors import SpecError
from perennial.specs import FeedSpec, load_specs

pytestmark = pytest.mark.fast

Rule = dict[str, Any]


def feed(**changes: object) -> FeedSpec:
    said: dict[str, object] = {
        "version": 1,
        "name": "parts",
        "owner": "x",
        "start": "2013-01-01",
        "source": {"path": "p/{partition}.csv"},
        "columns": {"id": "integer", "kind": "string", "size": "float", "n": "integer", "ok": "boolean"},
        "key": ["id"],
        "contract": {"max_quarantined": 0.5},
    }
    return FeedSpec.model_validate(said | changes)


def rule(kind: str, severity: str = "critical", **kwargs: object) -> Rule:
    return {"type": f"expect_{kind}", "kwargs": kwargs, "severity": severity}


def frame(rows: int = 10, **changes: Any) -> pd.DataFrame:
    columns = {
        "id": range(rows),
        "kind": ["a", "b"] * (rows // 2) + ["a"] * (rows % 2),
        "size": [float(i) for i in range(rows)],
        "n": range(rows),
        "ok": [True] * rows,
    }
    return pd.DataFrame(columns | changes)


def one(rules: list[Rule], rows: pd.DataFrame, **changes: object) -> Judgement:
    return judge(feed(**changes), rules, {"2013-01-01": rows})[0]


SIZE = rule("column_values_to_be_between", column="size", min_value=0, max_value=100)


@pytest.mark.parametrize("name", ["flights", "weather", "arrivals"])
def test_shipped_rules_build(home: Path, name: str) -> None:
    specs = load_specs()
    rules = load_rules(specs.feed(name), specs.folder_of("feed", name))
    assert len(build_rules(rules, name)) == len(rules) >= 5


def test_good_rows_are_committed() -> None:
    assert one([SIZE], frame()).verdict == "commit"
    assert one([], frame()).verdict == "commit"
    assert judge(feed(), [SIZE], {}) == []


def test_bad_rows_are_set_aside_with_reasons() -> None:
    kinds = rule("column_values_to_be_in_set", column="kind", value_set=["a"])
    rows = frame(size=[0.0, -1.0, 2, 3, 400, 5, 6, 7, 8, 9], kind=["a", "b", "a", "a", "a", "a", "a", "a", "a", "z"])
    found = one([SIZE, kinds], rows.set_index(pd.Index(range(50, 60))))
    assert found.verdict == "quarantine_rows"
    between = "size: column values to be between (min_value=0.0, max_value=100.0)"
    in_set = "kind: column values to be in set"
    assert found.bad_rows[4] == between
    assert found.bad_rows[1].startswith(f"{between}; {in_set}")
    assert found.bad_rows[9].startswith(in_set)
    assert sorted(found.bad_rows) == [1, 4, 9]
    assert found.reasons[0] == f"{between}: 2 of 10 values"


def test_too_many_bad_rows_refuse_the_partition() -> None:
    rows = frame(size=[-1.0, -1.0, *range(8)])
    assert one([SIZE], rows, contract={"max_quarantined": 0.2}).verdict == "quarantine_rows"
    found = one([SIZE], rows, contract={"max_quarantined": 0.19})
    assert (found.verdict, found.reasons[0]) == ("quarantine_batch", "2 of 10 rows are bad (20.0% > 19.0%)")
    found = one([SIZE], frame(size=[-1.0] * 10), contract={"max_quarantined": 1.0})
    assert (found.verdict, found.reasons[0]) == ("quarantine_batch", "all 10 rows are bad")


def test_an_empty_frame_never_passes() -> None:
    found = one([SIZE], frame().head(0))
    assert (found.verdict, found.reasons) == ("quarantine_batch", ("parts 2013-01-01 has a header but no rows",))


@pytest.mark.parametrize("severity", ["warning", "info"])
def test_a_warning_refuses_nothing(severity: str) -> None:
    rules = [
        rule("column_values_to_be_between", severity, column="size", min_value=5),
        rule("table_row_count_to_be_between", severity, min_value=100),
        rule("column_values_to_be_unique", severity, column="kind"),
        rule("column_values_to_not_be_null", severity, column="nowhere"),
    ]
    found = one(rules, frame())
    assert (found.verdict, found.bad_rows, found.reasons) == ("commit", {}, ())
    assert sum(not c.passed for c in found.checks) == 4


@pytest.mark.parametrize(
    "absent",
    [
        rule("column_values_to_be_between", column="nowhere", min_value=0),
        rule("column_values_to_be_unique", column="nowhere"),
        rule("column_mean_to_be_between", column="nowhere", min_value=0),
    ],
)
def test_a_missing_column_is_an_error_and_no_failure_of_the_data(absent: Rule) -> None:
    found = one([SIZE, absent], frame())
    assert found.verdict == "quarantine_batch"
    assert len(found.reasons) == 1
    assert "could not be checked" in found.reasons[0]
    assert "nowhere" in found.reasons[0]
    assert [c.error for c in found.checks if not c.passed] == [True]


def test_a_partition_that_lacks_a_column_does_not_touch_the_others() -> None:
    frames = {"2013-01-01": frame(), "2013-01-02": frame().drop(columns="size"), "2013-01-03": frame()}
    assert [j.verdict for j in judge(feed(), [SIZE], frames)] == ["commit", "quarantine_batch", "commit"]
    lacks_key = one([SIZE], frame().drop(columns="id"))
    assert lacks_key.verdict == "quarantine_batch"
    assert "could not be checked: no column 'id'" in lacks_key.reasons[0]


@pytest.mark.parametrize(
    ("rules", "bad"),
    [
        (rule("column_values_to_be_between", column="size", min_value=0, mostly=0.8), 2),
        (rule("column_values_to_not_be_null", column="size", mostly=0.8), 2),
        (rule("column_values_to_be_unique", column="size", mostly=0.8), 2),
    ],
)
def test_mostly_is_a_share_of_the_values(rules: Rule, bad: int) -> None:
    """The same answers as Great Expectations itself gives."""
    import great_expectations as gx

    spoil: Any = {"expect_column_values_to_not_be_null": None, "expect_column_values_to_be_unique": 5.0}
    value = spoil.get(rules["type"], -1.0)
    for n in (bad, bad + 1):
        rows = frame(size=[*[value] * n, *range(10, 20 - n)])
        found = one([rules], rows)
        theirs = (
            gx.get_context(mode="ephemeral")
            .data_sources.add_pandas(f"p{n}")
            .add_dataframe_asset("a")
            .add_batch_definition_whole_dataframe("b")
            .get_batch({"dataframe": rows})
            .validate(build_rules([rules], "here")[0])
        )
        assert theirs.success == (n == bad)
        assert (found.verdict == "commit") == theirs.success
        assert len(found.bad_rows) == (0 if n == bad else n)


def test_keys_are_there_and_unique() -> None:
    rows = frame(id=[0, 1, 1, None, 4, 5, 1, 7, 8, 9])
    found = one([], rows)
    assert found.verdict == "quarantine_rows"
    assert sorted(found.bad_rows) == [2, 3, 6]  # the first of a doubled key stays
    assert found.reasons == ("key id: 1 null, 2 doubled",)


def test_long_keys_keep_their_digits_where_one_is_null() -> None:
    rows = frame(3, id=pd.array([2**60, 2**60 + 1, None], dtype="Int64"))
    assert sorted(one([], rows).bad_rows) == [2]


def test_uniqueness_is_a_matter_of_each_partition() -> None:
    unique = rule("column_values_to_be_unique", column="n")
    twice = frame(n=[0, 0, *range(2, 10)])
    frames = {"2013-01-01": frame(), "2013-01-02": frame(), "2013-01-03": twice}
    found = judge(feed(), [unique], frames)
    assert [j.verdict for j in found] == ["commit", "commit", "quarantine_rows"]
    assert sorted(found[2].bad_rows) == [0, 1]


@pytest.mark.parametrize(
    "kind", ["column_value_z_scores_to_be_less_than", "column_values_to_be_of_type", "column_values_to_be_in_type_list"]
)
def test_rules_that_look_like_rules_by_value_and_are_none(kind: str) -> None:
    more: dict[str, dict[str, Any]] = {
        "column_value_z_scores_to_be_less_than": {"threshold": 3, "double_sided": True},
        "column_values_to_be_of_type": {"type_": "str"},
        "column_values_to_be_in_type_list": {"type_list": ["str"]},
    }
    outlier = [*[float(i % 2) for i in range(29)], 50.0]
    tight, wide = frame(30, size=outlier), frame(30, size=[float(i * 1000) for i in range(30)])
    rules = [rule(kind, column="size", **more[kind])]
    together = judge(feed(), rules, {"2013-01-01": tight, "2013-01-02": wide})
    assert together[0].verdict != "commit"
    alone = [judge(feed(), rules, {j.key: f})[0] for j, f in zip(together, (tight, wide), strict=True)]
    assert together == alone


def test_the_same_rule_with_two_severities() -> None:
    narrow = rule("column_values_to_be_between", "warning", column="size", min_value=5)
    assert one([SIZE, narrow, SIZE], frame()).verdict == "commit"
    assert one([narrow, narrow | {"severity": "critical"}], frame()).verdict == "quarantine_rows"


MANY_KINDS = [
    rule("column_values_to_match_regex", column="kind", regex="^[a-z]$"),
    rule("column_value_lengths_to_equal", column="kind", value=1),
    rule("column_pair_values_a_to_be_greater_than_b", column_A="size", column_B="n", or_equal=True),
    rule("compound_columns_to_be_unique", column_list=["id", "kind"]),
    rule("column_distinct_values_to_be_in_set", column="kind", value_set=["a", "b"]),
    rule("table_columns_to_match_set", column_set=["id", "kind", "size", "n", "ok"]),
    rule("column_proportion_of_unique_values_to_be_between", column="id", min_value=0.9),
    rule("column_values_to_be_in_set", column="ok", value_set=[True]),
    rule("column_max_to_be_between", column="n", max_value=50),
    rule("column_values_to_be_between", column="n", min_value=0, strict_max=True, max_value=1000),
]


def test_many_kinds_of_rules_are_understood() -> None:
    found = one(MANY_KINDS, frame())
    assert [c.detail for c in found.checks if not c.passed] == []


# A value per row and column, good or bad; partitions of different length; one may have no nulls where another has many.
ROWS = st.lists(
    st.tuples(
        st.sampled_from([None, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        st.sampled_from([None, "a", "b", "ZZ"]),
        st.sampled_from([None, float("nan"), -1.0, 0.0, 1.0, 101.0]),
        st.sampled_from([None, 1, 2, 2**60]),
        st.sampled_from([None, True, False]),
    ),
    max_size=8,
)
PROPERTY_RULES = [
    SIZE,
    rule("column_values_to_be_between", column="n", min_value=1, max_value=10, mostly=0.7),
    rule("column_values_to_not_be_null", column="size", mostly=0.5),
    rule("column_values_to_match_regex", "warning", column="kind", regex="^[a-z]$"),
    rule("column_values_to_be_in_set", column="kind", value_set=["a", "b"]),
    rule("column_values_to_be_in_set", column="ok", value_set=[True], mostly=0.4),
    rule("column_values_to_be_unique", column="n", mostly=0.6),
    rule("table_row_count_to_be_between", min_value=2),
    rule("column_unique_value_count_to_be_between", "warning", column="kind", min_value=2),
]


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(parts=st.lists(ROWS, min_size=2, max_size=4))
def test_many_partitions_at_once_are_judged_like_one_by_one(parts: list[Any]) -> None:
    import pyarrow as pa

    schema = pa.schema(
        [("id", pa.int64()), ("kind", pa.string()), ("size", pa.float64()), ("n", pa.int64()), ("ok", pa.bool_())]
    )
    frames = {
        f"2013-01-{i + 1:02d}": pa.Table.from_pylist(
            [dict(zip(schema.names, row, strict=True)) for row in rows], schema
        ).to_pandas()
        for i, rows in enumerate(parts)
    }
    together = judge(feed(), PROPERTY_RULES, frames)
    alone = [judge(feed(), PROPERTY_RULES, {k: f})[0] for k, f in frames.items()]
    assert together == alone
    assert [j.checks for j in together] == [j.checks for j in alone]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "cannot be read (No such file or directory); every feed needs rules"),
        ("{}", "must be a list of rules"),
        ("- {kwargs: {}}", "must be a list of rules"),
        ("- {type: [", "expectations.yaml: while parsing"),
        ("- {type: expect_x, severty: warning}", "rule 1 (expect_x): unknown key 'severty': did you mean severity?"),
    ],
)
def test_a_rules_file_that_is_none(tmp_path: Path, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / "expectations.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        load_rules(feed(), tmp_path)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "broken",
    [
        {"type": "expect_the_best"},
        rule("column_values_to_be_between", column="size", minimum=0),
        rule("column_values_to_be_between", column="size", min_value=0, severity="fatal") | {"severity": "fatal"},
        {"type": "expect_column_values_to_not_be_null"},
    ],
)
def test_a_rule_that_gx_does_not_know_is_a_spec_error(broken: Rule) -> None:
    with pytest.raises(SpecError, match=r"parts/expectations\.yaml, rule 2 \(expect_"):
        one([SIZE, broken], frame())
