"""Slices: harm against the champion, floors, and slices that are too small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score

from perennial.gates.blocks import compare
from perennial.gates.metrics import get_metric
from perennial.gates.slices import Rival, Rows, Sliced, slice_gates
from perennial.specs.gates import SliceGate

pytestmark = pytest.mark.fast

AUC, MAE = get_metric("roc_auc", "binary"), get_metric("neg_mean_absolute_error", "regression")
DAYS = 14


def flights(harm: float = 0.0, n: int = 4200, seed: int = 1) -> tuple[dict[str, Any], Rows]:
    """Rows from three airports; at EWR the candidate loses quality, elsewhere it wins."""
    rng = np.random.default_rng(seed)
    origin = np.array(["EWR", "JFK", "LGA"], dtype=object)[rng.integers(0, 3, n)]
    x = rng.standard_normal(n)
    y = (rng.random(n) < 1 / (1 + np.exp(1 - x))).astype(float)
    noise = rng.standard_normal(n)
    new = np.where(origin == "EWR", 1.0 - harm, 1.2) * x + noise
    return {"origin": origin}, Rows(y, new, np.arange(n) * DAYS // n, AUC, "pooled", None, rival(x + noise))


def rival(scores: Any) -> Rival:
    return Rival(scores, np.ones(len(scores), dtype=bool))


def by_origin(columns: Any, rows: Rows, **given: Any) -> Sliced:
    return slice_gates([SliceGate(by="origin", **given)], columns, rows)[0]


def replaced(rows: Rows, **given: Any) -> Rows:
    from dataclasses import replace

    return replace(rows, **given)


def test_a_slice_is_judged_like_a_holdout_of_its_own() -> None:
    columns, rows = flights(0.8)
    found = by_origin(columns, rows)
    line = found.table[0]
    at = columns["origin"] == "EWR"
    e = compare(AUC, rows.y[at], rows.scores[at], rows.rival.scores[at], rows.blocks[at])
    assert line["candidate"] == pytest.approx(roc_auc_score(rows.y[at], rows.scores[at]))
    assert line["champion"] == pytest.approx(roc_auc_score(rows.y[at], rows.rival.scores[at]))
    upper = e.gain.value + student.ppf(1 - 0.05 / 3, DAYS - 1) * e.gain.se * np.sqrt(e.gain.v)
    assert line["harm"] == pytest.approx(-e.gain.value) and line["bound"] == pytest.approx(-upper)
    assert found.result.verdict == "fail" and found.result.reason.startswith("origin EWR: loss 0."), found.result
    assert [r["verdict"] for r in found.table] == ["fail", "pass", "pass"]


def test_no_harm_is_a_pass_with_its_figures() -> None:
    found = by_origin(*flights())
    assert found.result.verdict == "pass" and found.result.figures["judged"] == found.result.figures["family"] == 3
    assert "3 slices by origin that can be judged is not harmed" in found.result.reason


def test_harm_that_does_not_matter_passes() -> None:
    columns, rows = flights(0.8)
    loss = float(by_origin(columns, rows).table[0]["harm"])
    assert by_origin(columns, rows, max_harm=loss + 0.001).result.verdict == "pass"
    assert by_origin(columns, rows, max_harm=loss - 0.001).result.verdict == "fail"


def test_a_slice_with_three_rows_is_held_shown_and_blocks_nothing() -> None:
    columns, rows = flights()
    columns["origin"][:3] = "TEB"
    found = by_origin(columns, rows, minimum={"roc_auc": 0.5})
    line = found.table[-1]
    assert (line["slice"], line["rows"], line["verdict"]) == ("TEB", 3, "hold") and "fewer than 50" in line["why"]
    assert found.result.verdict == "pass" and found.result.figures["held"] == 1
    assert found.result.warnings[0].startswith("not judged by origin: TEB (")


def test_when_no_slice_can_be_judged_the_gate_holds() -> None:
    columns, rows = flights(n=150)
    found = by_origin(columns, rows).result
    assert found.verdict == "hold" and found.reason.startswith("no slice by origin can be judged: EWR has"), found
    few = replaced(flights()[1], blocks=np.arange(4200) * 5 // 4200)
    assert "5 blocks, fewer than 10" in by_origin(columns=flights()[0], rows=few).result.reason


def test_floors_hold_in_each_slice() -> None:
    columns, rows = flights(3.0)
    alone = replaced(rows, rival=None)
    found = by_origin(columns, alone, minimum={"roc_auc": 0.6}).result
    assert found.verdict == "fail" and "origin EWR: roc_auc 0." in found.reason and "JFK" not in found.reason
    good = by_origin(flights()[0], replaced(flights()[1], rival=None), minimum={"roc_auc": 0.6}).result
    assert good.verdict == "pass" and good.reason.endswith("is above its floor")


def test_a_first_version_harms_nobody() -> None:
    columns, rows = flights()
    found = by_origin(columns, replaced(rows, rival=None))
    assert found.result.verdict == "not_applicable" and "no champion yet" in found.result.reason
    assert {r["verdict"] for r in found.table} == {"not_applicable"} and found.table[0]["candidate"] > 0.5


def test_a_regression_s_harm_is_relative() -> None:
    rng = np.random.default_rng(3)
    n = 2800
    y = rng.standard_normal(n)
    part = np.where(np.arange(n) % 2, "a", "b")
    error = rng.standard_normal(n)
    new = y + error * np.where(part == "a", 1.2, 0.8)
    rows = Rows(y, new, np.arange(n) * DAYS // n, MAE, "pooled", None, rival(y + error))
    found = by_origin({"origin": part}, rows, minimum={"neg_mean_absolute_error": 1.5})
    assert found.table[0]["harm"] == pytest.approx(0.2) and found.table[1]["harm"] == pytest.approx(-0.2)
    assert found.result.verdict == "fail" and "relative loss 0.200" in found.result.reason


def test_days_that_the_champion_trained_on_are_not_compared() -> None:
    columns, rows = flights(0.8)
    usable = rows.blocks >= 2
    theirs = np.where(usable, rows.rival.scores, np.nan)
    found = by_origin(columns, replaced(rows, rival=Rival(theirs, usable)))
    assert found.table[0]["blocks"] == 12 and found.result.verdict == "fail"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda c, r: r.scores.__setitem__(5, np.nan), "1 scores of 4200 rows are missing or not finite"),
        (lambda c, r: r.rival.scores.__setitem__(5, np.inf), "1 champion scores of 4200 rows"),
        (lambda c, r: r.y.__setitem__(5, np.nan), "1 labels of 4200 rows"),
        (lambda c, r: c.clear(), "there is no column origin among the features or in the entity feed"),
        (lambda c, r: c.update(origin=c["origin"][:7]), "7 values of origin for 4200 labels"),
        (lambda c, r: c.update(origin=np.arange(4200.0)), "4,200 different values, more than 200"),
    ],
)
def test_faults_fail_with_a_sentence(spoil: Any, says: str) -> None:
    columns, rows = flights()
    spoil(columns, rows)
    found = by_origin(columns, rows).result
    assert found.verdict == "fail" and says in found.reason, found


def test_a_column_without_values_is_no_pass() -> None:
    columns, rows = flights()
    columns["origin"][:] = None
    found = by_origin(columns, rows)
    assert [r["slice"] for r in found.table] == ["missing"]
    assert found.result.verdict == "hold" and "has no value in any of 4,200 rows" in found.result.reason


def test_all_gates_share_the_correction_and_stand_alone() -> None:
    columns, rows = flights(0.8)
    columns["half"] = np.arange(4200) % 2
    specs = [SliceGate(by="origin"), SliceGate(by="half"), SliceGate(by="gone"), SliceGate(by="off", mode="disabled")]
    found = slice_gates(specs, columns, rows)
    assert [s.result.gate for s in found] == ["slices.origin", "slices.half", "slices.gone", "slices.off"]
    assert [s.result.verdict for s in found][2:] == ["fail", "not_applicable"]
    assert found[0].result.figures["family"] == found[1].result.figures["family"] == 5
    assert found[3].result.mode == "disabled"


def test_blocks_left_out_are_no_pass() -> None:
    columns, rows = flights()
    assert by_origin(columns, replaced(rows, left_out=3)).result.verdict == "pass"
    found = by_origin(columns, replaced(rows, left_out=4)).result
    assert found.verdict == "hold" and found.reason.startswith("4 of 18 blocks are left out"), found


def test_of_several_classes_each_needs_its_rows() -> None:
    rng = np.random.default_rng(4)
    y = rng.integers(0, 3, 1400).astype(float)
    part = np.where(np.arange(1400) % 2, "a", "b").astype(object)
    part[(y == 2) & (part == "b")] = "a"
    part[:3] = "b"
    accuracy = get_metric("accuracy", "multiclass")
    guess = np.where(rng.random(1400) < 0.3, y, rng.integers(0, 3, 1400))
    rows = Rows(y, guess, np.arange(1400) * DAYS // 1400, accuracy, "pooled", None, rival(y))
    found = by_origin({"origin": part}, rows)
    assert [(r["slice"], r["verdict"]) for r in found.table] == [("a", "fail"), ("b", "hold")]
    assert "rows of one class, fewer than 50" in found.table[1]["why"]
