"""A multiclass model publishes one row per key and class, and nothing that is not whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from perennial.lake.rows import ParquetRows
from perennial.scoring.predict import _by_class
from perennial.scoring.staging import check_classes

pytestmark = pytest.mark.fast

NAMES = ["early", "late", "on time"]


def staged(folder: Path, change: dict[str, list[object]] | None = None, drop: int | None = None) -> ParquetRows:
    """Two rows with three classes each."""
    columns: dict[str, list[object]] = {
        "id": ["a", "a", "a", "b", "b", "b"],
        "output": [*NAMES, *NAMES],
        "score": [0.2, 0.3, 0.5, 0.1, 0.8, 0.1],
        "decision": [False, False, True, False, True, False],
        "model_version": ["1"] * 6,
    }
    rows = pa.table(columns | (change or {}))
    if drop is not None:
        rows = pa.concat_tables([rows.slice(0, drop), rows.slice(drop + 1)])
    pyarrow.parquet.write_table(rows, folder / "rows.parquet")
    return ParquetRows(folder / "rows.parquet")


@pytest.mark.parametrize(
    ("change", "drop", "says"),
    [
        ({}, None, []),
        ({"score": [0.2, 0.3, 0.5, 0.1, 0.8, 0.1 + 5e-7]}, None, []),
        ({"score": [0.2, 0.3, 0.5, 0.1, 0.8, 0.2]}, None, ["the probabilities of 1 rows do not sum to 1"]),
        ({"decision": [False] * 6}, None, ["2 rows are not decided for exactly one class"]),
        ({"score": [0.2, 0.3, 0.5, 0.2, 0.8, 0.0]}, 5, ["1 rows do not have every class exactly once"]),
        (
            {"output": ["early", "late", "lost", "early", "late", "lost"]},
            None,
            ["no row has a probability of on time", "lost is no class of version 1"],
        ),
    ],
)
def test_every_row_has_every_class_once(
    tmp_path: Path, change: dict[str, list[object]], drop: int | None, says: list[str]
) -> None:
    assert check_classes(staged(tmp_path, change, drop), ["id"], {"1": NAMES}) == says


def test_scores_become_a_row_per_class_decided_for_the_likeliest() -> None:
    batch = pa.RecordBatch.from_pydict({"id": ["b", "a"]})
    scores = np.array([[0.2, 0.4, 0.4], [0.6, 0.3, 0.1]])
    rows, score, output, decision = _by_class(batch, scores, NAMES)
    assert rows.column("id").to_pylist() == ["b"] * 3 + ["a"] * 3
    assert output.to_pylist() == NAMES * 2 and score.tolist() == [0.2, 0.4, 0.4, 0.6, 0.3, 0.1]
    assert decision.to_pylist() == [False, True, False, True, False, False], "of equal ones the first"
