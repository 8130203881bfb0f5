"""Judges partitions by a feed's Great Expectations rules.

What GX leaves open is settled here: an empty partition never passes, a rule that could not run is an error and not a
failure of the data, only ``critical`` rules refuse anything, and failing rows are known by their position.

Many partitions (a history) are judged in one GX run where that gives the same answer: rules on single values look at
all rows at once, and each partition's share is judged by its own rows. Everything else runs once per partition.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial.errors import SpecError
from perennial.specs import FeedSpec

if TYPE_CHECKING:
    import pandas as pd

#: Rules on single values whose result for a row does not depend on the other rows.
_NOT_BY_VALUE = {
    "expect_column_values_to_be_unique",
    "expect_column_values_to_be_decreasing",
    "expect_column_values_to_be_increasing",
}


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
                ).to_domain_obj()
            )
        except Exception as e:
            raise SpecError(f"{where}, rule {i} ({rule.get('type')}): {str(e).splitlines()[0]}") from e
    return built


def judge(feed: FeedSpec, rules: Sequence[Mapping[str, Any]], frames: Mapping[str, pd.DataFrame]) -> list[Judgement]:
    """Judge partitions by key.

    :param frames: one frame of the declared columns per partition key; any index.
    """
    import pandas as pd

    expectations = build_rules(rules, feed.contract.expectations)
    frames = {k: f.reset_index(drop=True) for k, f in frames.items()}
    checks: dict[str, list[Check]] = {k: [_key_check(feed, f)] for k, f in frames.items()}
    filled = {k: f for k, f in frames.items() if len(f)}
    by_value = [e for e in expectations if _by_value(e)]
    others = [e for e in expectations if not _by_value(e)]
    if filled and by_value:
        whole = pd.concat(filled.values(), ignore_index=True) if len(filled) > 1 else next(iter(filled.values()))
        starts, start = {}, 0
        for k, f in filled.items():
            starts[k] = start
            start += len(f)
        for expectation, result in zip(by_value, _run(by_value, whole), strict=True):
            bad = result["bad"]
            for k, f in filled.items():
                here = [i - starts[k] for i in bad if starts[k] <= i < starts[k] + len(f)] if bad else []
                checks[k].append(_value_check(expectation, result, here, f))
    for k, f in filled.items():
        if others:
            checks[k] += [_table_check(e, r) for e, r in zip(others, _run(others, f), strict=True)]
    return [_judgement(feed, k, len(f), checks[k]) for k, f in frames.items()]


def _judgement(feed: FeedSpec, key: str, rows: int, checks: Sequence[Check]) -> Judgement:
    def verdict(name: str, reasons: Sequence[str], bad: Mapping[int, str] | None = None) -> Judgement:
        return Judgement(key, rows, name, tuple(reasons), bad or {}, tuple(checks))

    if rows == 0:
        return verdict("quarantine_batch", [f"{feed.name} {key} has a header but no rows"])
    failed = [c for c in checks if not c.passed and c.severity == "critical"]
    whole = [c for c in failed if c.error or not c.by_row]
    if whole:
        return verdict("quarantine_batch", [c.detail for c in whole])
    if not failed:
        return verdict("commit", [])
    bad: dict[int, str] = {}
    for c in failed:
        for i in c.bad_rows:
            bad[i] = f"{bad[i]}; {c.rule}" if i in bad else c.rule
    share = len(bad) / rows
    reasons = [c.detail for c in failed]
    if share > feed.contract.max_quarantined:
        limit = feed.contract.max_quarantined
        return verdict("quarantine_batch", [f"{len(bad)} of {rows} rows are bad ({share:.1%} > {limit:.1%})", *reasons])
    return verdict("quarantine_rows", reasons, bad)


def _key_check(feed: FeedSpec, frame: pd.DataFrame) -> Check:
    """Every feed's own rule: its key is there and unique. Later rows of a doubled key are the bad ones."""
    key = feed.key
    null = frame[key].isna().any(axis=1)
    bad = null | (frame.duplicated(key, keep="first") & ~null)
    rows = tuple(int(i) for i in frame.index[bad])
    detail = (
        f"key {', '.join(key)}: {int(null.sum())} null, {len(rows) - int(null.sum())} doubled" if rows else "unique"
    )
    return Check(f"key {', '.join(key)} is there and unique", "critical", not rows, detail, rows, by_row=True)


def _by_value(expectation: Any) -> bool:
    from great_expectations.expectations.expectation import ColumnMapExpectation

    return (
        isinstance(expectation, ColumnMapExpectation)
        and expectation.expectation_type not in _NOT_BY_VALUE
        and not getattr(expectation, "row_condition", None)
    )


def _columns(expectation: Any) -> list[str]:
    """Columns that a rule reads; GX filters the whole frame per rule, so it is given no others."""
    kwargs = expectation.configuration.kwargs
    named = [kwargs.get(k) for k in ("column", "column_A", "column_B")]
    return [c for c in (*named, *(kwargs.get("column_list") or [])) if isinstance(c, str)]


def _run(expectations: Sequence[Any], frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One GX validation; per rule: success, bad row labels, error, and what GX reports."""
    _quiet()
    import great_expectations as gx

    names = [_columns(e) for e in expectations]
    table_wide = any(not n for n in names)
    used = list(frame.columns) if table_wide else sorted({c for n in names for c in n} & set(frame.columns))
    suite = gx.ExpectationSuite(name="contract", expectations=list(expectations))
    result = (
        _frames()
        .get_batch({"dataframe": frame[used]})
        .validate(suite, result_format={"result_format": "COMPLETE", "return_unexpected_index_query": False})
        .to_json_dict()
    )
    # GX groups results by kind; match them back to the rules by configuration
    left = list(result["results"])
    matched = []
    for e in expectations:
        wanted = (e.configuration.type, _comparable(e.configuration.kwargs))
        for i, r in enumerate(left):
            config = r["expectation_config"]
            if (config["type"], _comparable(config["kwargs"])) == wanted:
                matched.append(_read(left.pop(i)))
                break
        else:
            matched.append(
                {"success": False, "bad": [], "error": "Great Expectations returned no result", "result": {}}
            )
    return matched


@cache
def _frames() -> Any:
    """GX's way to a DataFrame: a context costs three times what judging a small partition does, so one per process."""
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    return (
        context.data_sources.add_pandas("frame").add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")
    )


def _comparable(kwargs: Mapping[str, Any]) -> str:
    import json

    return json.dumps({k: v for k, v in kwargs.items() if k != "batch_id"}, sort_keys=True, default=str)


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
    about_nulls = expectation.configuration.type.endswith(("_be_null", "_not_be_null"))
    judged = len(frame) if about_nulls else int(frame[column].notna().sum())
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
