"""Validation of five million rows by thirty rules, against a check written by hand in pandas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.harness import Cost, Result, alternately, fresh, result, watch

FLOATS, INTEGERS, TEXTS = ([f"{kind}{i}" for i in range(n)] for kind, n in (("x", 8), ("k", 4), ("c", 4)))
WORDS = ["aa", "bb", "cc", "dd", "ee"]
COLUMNS = {"id": "string", **dict.fromkeys(FLOATS, "float"), **dict.fromkeys(INTEGERS, "integer"),
           **dict.fromkeys(TEXTS, "string")}  # fmt: skip


def run(folder: Path, *, quick: bool) -> list[Result]:
    """Both checks on the same rows, alternately; they must name the same bad rows."""
    rows = 200_000 if quick else 5_000_000
    data = str(folder / "rows.parquet")
    _make(data, rows)
    ours, by_hand = alternately(
        1 if quick else 3, lambda: fresh("validation:ours", data=data), lambda: fresh("validation:by_hand", data=data)
    )
    _same(ours[0], by_hand[0])
    return [
        result(
            f"validation, 30 rules x {rows // 10**6}M rows, CPU s / a hand-written check",
            [a.cpu / b.cpu for a, b in zip(ours, by_hand, strict=True)],
            unit="x",
            against="the same 30 checks in vectorised pandas, with the rows that fail",
            at_most=2,
            note="Great Expectations judges; it is shown each distinct value once, and of a column of distinct values "
            "that column alone.",
        ),
        result(f"validation, 30 rules x {rows // 10**6}M rows", [a.cpu for a in ours], unit="CPU s"),
        result("peak memory of that validation", [a.peak for a in ours], unit="MB"),
    ]


def _same(ours: Cost, by_hand: Cost) -> None:
    if ours.value != by_hand.value or ours.value["bad"] < 100:
        raise RuntimeError(f"the checks disagree, so their times say nothing: {ours.value} and {by_hand.value}")


def _make(path: str, rows: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(7)
    columns: dict[str, Any] = {"id": pa.array(np.char.add("r", np.arange(rows).astype(str)))}
    columns |= {c: pa.array(rng.normal(size=rows), mask=rng.random(rows) < 1e-4) for c in FLOATS}
    columns |= {c: pa.array(rng.integers(0, 1000, rows)) for c in INTEGERS}
    columns |= {c: pa.array(np.array(WORDS)[rng.integers(0, 5, rows)]).cast(pa.string()) for c in TEXTS}
    pq.write_table(pa.table(columns), path)


def _rules() -> list[dict[str, Any]]:
    """One on the table, 21 on numbers, 8 on texts."""

    def rule(kind: str, **kwargs: Any) -> dict[str, Any]:
        return {"type": f"expect_{kind}", "kwargs": kwargs}

    return [
        rule("table_row_count_to_be_between", min_value=1000),
        rule("column_values_to_not_be_null", column="id"),
        *(rule("column_values_to_not_be_null", column=c) for c in FLOATS),
        *(rule("column_values_to_be_between", column=c, min_value=-4, max_value=4) for c in FLOATS),
        *(rule("column_values_to_be_between", column=c, min_value=0, max_value=999) for c in INTEGERS),
        *(rule("column_values_to_be_in_set", column=c, value_set=WORDS) for c in TEXTS),
        *(rule("column_values_to_match_regex", column=c, regex="^[a-z]{2}$") for c in TEXTS),
    ]


def _read(data: str) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(data).to_pandas()


def ours(data: str) -> dict[str, int]:
    """``perennial.contracts.judge``, as ingestion calls it."""
    from perennial.contracts.expectations import judge
    from perennial.specs import FeedSpec

    spec = {"version": 1, "name": "wide", "owner": "bench", "start": "2013-01-01", "columns": COLUMNS, "key": ["id"],
            "source": {"path": "wide/{partition}.parquet"}}  # fmt: skip
    feed, frame = FeedSpec.model_validate(spec), _read(data)
    judge(feed, _rules(), {"2013-01-01": frame.head(10)})  # its imports are not what is compared
    with watch.running():
        found = judge(feed, _rules(), {"2013-01-01": frame})[0]
    return {"bad": len(found.bad_rows), "sum": int(sum(found.bad_rows)), "rules": len(_rules())}


def by_hand(data: str) -> dict[str, int]:
    """What somebody would write who wants the bad rows and no library."""
    frame = _read(data)
    with watch.running():
        if len(frame) < 1000:
            raise ValueError("too few rows")
        bad = frame["id"].isna() | frame["id"].duplicated()
        for c in FLOATS:
            bad |= frame[c].isna()
            bad |= ~frame[c].between(-4, 4) & frame[c].notna()
        for c in INTEGERS:
            bad |= ~frame[c].between(0, 999)
        for c in TEXTS:
            bad |= ~frame[c].isin(WORDS)
            bad |= ~frame[c].str.match("^[a-z]{2}$")
        rows = np.flatnonzero(bad.to_numpy())
    return {"bad": len(rows), "sum": int(rows.sum()), "rules": len(_rules())}
