"""Judges partitions by a feed's Great Expectations rules.

What GX leaves open is settled here: an empty partition never passes, a rule that could not run is an error and not a
failure of the data, only ``critical`` rules refuse anything, and failing rows are known by their position.

Many partitions (a history) are judged in one GX run where that gives the same answer: rules on single values look at
all rows at once, and each partition's share is judged by its own rows. Everything else runs once per partition.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial.contracts.values import about_nulls, columns_of, run_alone, run_by_value
from perennial.errors import SpecError
from perennial.specs import FeedSpec

if TYPE_CHECKING:
    import pandas as pd

#: Rules whose answer for a value depends on that value alone. A rule that is not here (uniqueness, order, outliers,
#: types, a custom one) is judged once per partition.
_BY_VALUE = {
    "expect_column_value_lengths_to_be_between",
    "expect_column_value_lengths_to_equal",
    "expect_column_values_to_be_between",
    "expect_column_values_to_be_dateutil_parseable",
    "expect_column_values_to_be_in_set",
    "expect_column_values_to_be_json_parseable",
    "expect_column_values_to_be_null",
    "expect_column_values_to_match_json_schema",
    "expect_column_values_to_match_regex",
    "expect_column_values_to_match_regex_list",
    "expect_column_values_to_match_strftime_format",
    "expect_column_values_to_not_be_in_set",
    "expect_column_values_to_not_be_null",
    "expect_column_values_to_not_match_regex",
    "expect_column_values_to_not_match_regex_list",
}
_SAID = {"type", "kwargs", "severity", "meta", "notes", "description"}
#: Where a rule's number travels through Great Expectations.
_NUMBER = "perennial_rule"


@dataclass(frozen=True)
class Check:
    """The outcome of one rule on one partition."""

    rule: str
    severity: str
    passed: bool
    detail: str
    bad_rows: tuple[int, ...] = ()
    by_row: bool = False
    error: bool = False


@dataclass(frozen=True)
class Judgement:
    """What the rules say of one partition.

    :param verdict: ``commit``, ``quarantine_rows`` or ``quarantine_batch``.
    :param bad_rows: row position -> why, for the rows to set aside.
    """

    key: str
    rows: int
    verdict: str
    reasons: tuple[str, ...]
    bad_rows: Mapping[int, str]
    checks: tuple[Check, ...] = field(default=(), repr=False)


def load_rules(feed: FeedSpec, folder: Path) -> list[dict[str, Any]]:
    """Read the rules file beside the feed's spec: a list of ``{type, kwargs, severity}``.

    :raises SpecError: when it is missing or not such a list.
    """
    import yaml

    path = folder / feed.contract.expectations
    try:
        rules = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise SpecError(f"{path} cannot be read ({e.strerror}); every feed needs rules to be validated by") from e
    except yaml.YAMLError as e:
        raise SpecError(f"{path}: {e}") from e
    if not isinstance(rules, list) or not all(isinstance(r, dict) and "type" in r for r in rules):
        raise SpecError(f"{path} must be a list of rules, each with type, kwargs and perhaps severity")
    for i, rule in enumerate(rules, 1):
        unknown = sorted(set(map(str, rule)) - _SAID)
        if unknown:
            near = difflib.get_close_matches(unknown[0], sorted(_SAID), n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise SpecError(f"{path}, rule {i} ({rule['type']}): unknown key {unknown[0]!r}{hint}")
    return rules


def build_rules(rules: Sequence[Mapping[str, Any]], where: str) -> list[Any]:
    """Turn rules into Great Expectations objects.

    :raises SpecError: when GX does not know a rule or its arguments.
    """
    _quiet()
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    built = []
    for i, rule in enumerate(rules, 1):
        try:
            built.append(
                ExpectationConfiguration(
                    type=rule["type"],
                    kwargs=dict(rule.get("kwargs") or {}),
                    severity=rule.get("severity", "critical"),
                    meta={_NUMBER: i},
                ).to_domain_obj()
            )
        except Exception as e:
            detail = " ".join(line.strip() for line in str(e).splitlines()[:4]) or type(e).__name__
            raise SpecError(f"{where}, rule {i} ({rule.get('type')}): {detail}") from e
    return built


def judge(feed: FeedSpec, rules: Sequence[Mapping[str, Any]], frames: Mapping[str, pd.DataFrame]) -> list[Judgement]:
    """Judge partitions by key.

    :param frames: one frame of the declared columns per partition key; any index.
    """
    import numpy as np
    import pandas as pd

    expectations = build_rules(rules, f"{feed.name}/{feed.contract.expectations}")
    frames = {k: _uniform(feed, f) for k, f in frames.items()}
    checks: dict[str, list[Check]] = {k: [_key_check(feed, f)] for k, f in frames.items()}
    filled = {k: f for k, f in frames.items() if len(f)}
    by_value = [e for e in expectations if _by_value(e)]
    others = [e for e in expectations if not _by_value(e)]
    alike: dict[tuple[str, ...], list[str]] = {}  # partitions that lack a column are judged apart from the others
    for k, f in filled.items():
        alike.setdefault(tuple(sorted(f.columns)), []).append(k)
    for keys in alike.values() if by_value else ():
        whole = pd.concat([filled[k] for k in keys], ignore_index=True) if len(keys) > 1 else filled[keys[0]]
        ends = np.cumsum([len(filled[k]) for k in keys])
        for expectation, result in zip(by_value, run_by_value(by_value, whole, _run), strict=True):
            bad = result["bad"]
            for k, end in zip(keys, ends, strict=True):
                first = int(end) - len(filled[k])
                here = bad[np.searchsorted(bad, first) : np.searchsorted(bad, end)] - first
                checks[k].append(_value_check(expectation, result, here.tolist(), filled[k]))
    for k, f in filled.items():
        if others:
            checks[k] += [_table_check(e, r) for e, r in zip(others, run_alone(others, f, _run), strict=True)]
    return [_judgement(feed, k, len(f), checks[k]) for k, f in frames.items()]


def _judgement(feed: FeedSpec, key: str, rows: int, checks: Sequence[Check]) -> Judgement:
    def verdict(name: str, reasons: Sequence[str], bad: Mapping[int, str] | None = None) -> Judgement:
        return Judgement(key, rows, name, tuple(reasons), bad or {}, tuple(checks))

    if rows == 0:
        return verdict("quarantine_batch", [f"{feed.name} {key} has a header but no rows"])
    failed = [c for c in checks if not c.passed and c.severity == "critical"]
    whole = [c for c in failed if c.error or not c.by_row]
    if whole:
        return verdict("quarantine_batch", [c.detail for c in (*whole, *(c for c in failed if c not in whole))])
    if not failed:
        return verdict("commit", [])
    bad: dict[int, str] = {}
    for c in failed:
        for i in c.bad_rows:
            bad[i] = f"{bad[i]}; {c.rule}" if i in bad else c.rule
    share = len(bad) / rows
    reasons = [c.detail for c in failed]
    if len(bad) == rows:
        return verdict("quarantine_batch", [f"all {rows} rows are bad", *reasons])
    if share > feed.contract.max_quarantined:
        limit = feed.contract.max_quarantined
        return verdict("quarantine_batch", [f"{len(bad)} of {rows} rows are bad ({share:.1%} > {limit:.1%})", *reasons])
    return verdict("quarantine_rows", reasons, bad)


def _uniform(feed: FeedSpec, frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with rows numbered, and with types that do not depend on whether a value is missing.

    pandas makes floats of integers as soon as one is missing; then long keys lose their last digits, and a rule could
    answer one way for a partition alone and another way for the same partition in a history.
    """
    kinds = {"integer": "Int64", "boolean": "boolean"}
    wanted = {c: kinds[t] for c, t in feed.columns.items() if t in kinds and c in frame.columns}
    with contextlib.suppress(TypeError, ValueError):  # a caller's frame that is not as declared is judged as it is
        frame = frame.astype(wanted)
    return frame.reset_index(drop=True)


def _key_check(feed: FeedSpec, frame: pd.DataFrame) -> Check:
    """Every feed's own rule: its key is there and unique. Later rows of a doubled key are the bad ones."""
    key = feed.key
    name = f"key {', '.join(key)} is there and unique"
    absent = [c for c in key if c not in frame.columns]
    if absent:
        return Check(name, "critical", False, f"{name}: could not be checked: no column {absent[0]!r}", error=True)
    null = frame[key].isna().any(axis=1)
    bad = null | (frame.duplicated(key, keep="first") & ~null)
    rows = tuple(int(i) for i in frame.index[bad])
    detail = (
        f"key {', '.join(key)}: {int(null.sum())} null, {len(rows) - int(null.sum())} doubled" if rows else "unique"
    )
    return Check(name, "critical", not rows, detail, rows, by_row=True)


def _by_value(expectation: Any) -> bool:
    return expectation.expectation_type in _BY_VALUE and not getattr(expectation, "row_condition", None)


def _run(expectations: Sequence[Any], frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One GX validation; per rule: success, bad row labels, error, and what GX reports."""
    _quiet()
    import great_expectations as gx

    names = [columns_of(e) for e in expectations]
    table_wide = any(not n for n in names)  # GX copies the whole frame for each rule: it is given no other columns
    used = list(frame.columns) if table_wide else sorted({c for n in names for c in n} & set(frame.columns))
    suite = gx.ExpectationSuite(name="contract", expectations=list(expectations))
    result = (
        _frames()
        .get_batch({"dataframe": frame[used]})
        .validate(suite, result_format={"result_format": "COMPLETE", "return_unexpected_index_query": False})
        .to_json_dict()
    )
    # GX returns results in an order of its own
    found = {r["expectation_config"]["meta"][_NUMBER]: _read(r) for r in result["results"]}
    nothing = {"success": False, "bad": [], "error": "Great Expectations returned no result", "result": {}}
    return [found.get(e.meta[_NUMBER], nothing) for e in expectations]


@cache
def _frames() -> Any:
    """GX's way to a DataFrame: a context costs three times what judging a small partition does, so one per process."""
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    return (
        context.data_sources.add_pandas("frame").add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")
    )


def _read(result: Mapping[str, Any]) -> dict[str, Any]:
    info = result.get("exception_info") or {}
    error = None
    if "raised_exception" in info:
        error = info.get("exception_message") if info["raised_exception"] else None
    elif info:  # one entry per metric that could not be computed: a missing column, for example
        error = next((v.get("exception_message") for v in info.values() if isinstance(v, dict)), "could not run")
    body = result.get("result") or {}
    return {
        "success": bool(result["success"]),
        "bad": body.get("unexpected_index_list") or [],
        "error": error,
        "result": body,
    }


def _name(expectation: Any) -> str:
    kwargs = {k: v for k, v in expectation.configuration.kwargs.items() if k not in ("batch_id", "column", "mostly")}
    column = expectation.configuration.kwargs.get("column")
    text = expectation.configuration.type.removeprefix("expect_").replace("_", " ")
    arguments = ", ".join(f"{k}={v}" for k, v in kwargs.items() if v is not None)
    return f"{column + ': ' if column else ''}{text}{f' ({arguments})' if arguments else ''}"


def _severity(expectation: Any) -> str:
    value = getattr(expectation, "severity", "critical")
    return str(getattr(value, "value", value))


def _value_check(expectation: Any, result: Mapping[str, Any], here: Sequence[int], frame: pd.DataFrame) -> Check:
    name, severity = _name(expectation), _severity(expectation)
    if result["error"]:
        return Check(name, severity, False, f"{name}: could not be checked: {result['error']}", error=True)
    column = expectation.configuration.kwargs["column"]
    judged = len(frame) if about_nulls(expectation) else int(frame[column].notna().sum())
    mostly = float(expectation.configuration.kwargs.get("mostly") or 1.0)
    passed = not here or (judged - len(here)) / judged >= mostly
    detail = f"{name}: {len(here)} of {judged} values"
    return Check(name, severity, passed, detail, () if passed else tuple(here), by_row=True)


def _table_check(expectation: Any, result: Mapping[str, Any]) -> Check:
    name, severity = _name(expectation), _severity(expectation)
    if result["error"]:
        return Check(name, severity, False, f"{name}: could not be checked: {result['error']}", error=True)
    observed = result["result"].get("observed_value")
    bad = tuple(int(i) for i in result["bad"])
    detail = f"{name}: " + (f"{len(bad)} rows" if bad else f"observed {observed}")
    return Check(name, severity, result["success"], detail, bad, by_row=bool(bad))


def _quiet() -> None:
    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # 214 INFO lines at import otherwise
