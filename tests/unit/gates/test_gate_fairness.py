"""Fairness: exact small cases, and what is never a pass."""

from __future__ import annotations

from typing import Any

import fairlearn.metrics
import numpy as np
import pytest
from scipy.stats import t as student

from perennial.gates.blocks import inflation
from perennial.gates.fairness import Audit, fairness_gate, newcombe
from perennial.specs.gates import FairnessGate

pytestmark = pytest.mark.fast

RATES = ("selection_rate", "false_positive_rate", "false_negative_rate")


def spec(*by: Any, **given: Any) -> FairnessGate:
    return FairnessGate.model_validate({"by": list(by) or ["sex"], **given})


def people(n: int = 4000, gap: float = 0.0, seed: int = 1) -> dict[str, Any]:
    """Labels, decisions, sex and a day; women are decided on ``gap`` more often."""
    rng = np.random.default_rng(seed)
    sex = np.where(rng.random(n) < 0.5, "f", "m").astype(object)
    y = (rng.random(n) < 0.5).astype(float)
    decision = (rng.random(n) < 0.3 + 0.2 * y + gap * (sex == "f")).astype(float)
    return {"y": y, "decision": decision, "columns": {"sex": sex}, "blocks": np.arange(n) * 20 // n}


def audit(e: dict[str, Any], **given: Any) -> Audit:
    given.setdefault("spec", spec())
    return fairness_gate(e["y"], e["decision"], e["columns"], e["blocks"], **given)


def test_newcombe_is_what_the_paper_says() -> None:
    # Newcombe (1998), Table II: 56/70 - 48/80, method 10: .0524 to .3339; 10/10 - 0/10: .6075 to 1
    assert newcombe(56, 70, 48, 80, 1.959964) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert newcombe(10, 10, 0, 10, 1.959964) == pytest.approx((0.6075, 1.0), abs=5e-5)


def test_rates_are_those_of_the_field() -> None:
    e = people()
    found = audit(e)
    women = e["columns"]["sex"] == "f"
    y, d = e["y"], e["decision"]
    expected = {
        "selection_rate": (d[women].mean(), d[~women].mean()),
        "false_positive_rate": (d[women & (y == 0)].mean(), d[~women & (y == 0)].mean()),
        "false_negative_rate": (1 - d[women & (y == 1)].mean(), 1 - d[~women & (y == 1)].mean()),
    }
    for row in found.table:
        if row["group"] == "f":
            assert (row["rate"], row["rate_rest"]) == pytest.approx(expected[str(row["measure"])])
    for measure, (a, b) in expected.items():
        assert found.shown["sex"][f"{measure}_difference"] == pytest.approx(abs(a - b)), "fairlearn agrees"
    own = {"y_true": y, "y_pred": d, "sensitive_features": e["columns"]["sex"]}
    shown = found.shown["sex"]
    assert shown["equalized_odds_difference"] == pytest.approx(fairlearn.metrics.equalized_odds_difference(**own))
    assert shown["demographic_parity_ratio"] == pytest.approx(fairlearn.metrics.demographic_parity_ratio(**own))


def test_bounds_by_blocks_are_a_jackknife_by_hand() -> None:
    e = people()
    found = audit(e, spec=spec(measures=["selection_rate"]))
    d, women, day = e["decision"], e["columns"]["sex"] == "f", e["blocks"]

    def gap(keep: Any) -> float:
        return float(d[keep & women].mean() - d[keep & ~women].mean())

    whole = gap(day >= 0)
    pseudo = np.array([20 * whole - 19 * gap(day != b) for b in range(20)])
    dev = pseudo - pseudo.mean()
    v = float(inflation((dev[1:] * dev[:-1]).sum() / (dev**2).sum(), 20))
    half = student.ppf(0.95, 19) * np.sqrt(pseudo.var(ddof=1) / 20 * v)
    row = found.table[0]
    assert found.result.figures["family"] == 1, "two groups are one comparison"
    rows = newcombe(d[women].sum(), women.sum(), d[~women].sum(), (~women).sum(), 1.6448536)
    assert row["low"] == pytest.approx(min(whole - half, rows[0])) and row["V"] == pytest.approx(v)
    assert row["high"] == pytest.approx(max(whole + half, rows[1]))


def test_pass_fail_and_hold() -> None:
    assert audit(people()).result.verdict == "pass"
    found = audit(people(gap=0.3)).result
    assert found.verdict == "fail" and "false positive rate of sex f" in found.reason, found.reason
    assert found.figures["failed"] == 6 and found.figures["worst_measure"] in RATES
    between = audit(people(gap=0.1)).result
    assert between.verdict == "hold" and "not enough evidence" in between.reason, between.reason
    assert audit(people(300)).result.verdict == "hold", "three hundred rows cannot show that a difference is small"


def test_few_blocks_are_judged_by_rows() -> None:
    e = people()
    for blocks in (np.zeros(4000), np.arange(4000), np.arange(4000) * 9 // 4000):
        found = audit({**e, "blocks": blocks})
        assert {r["by"] for r in found.table} == {"rows"} and found.result.figures["bounds_by"] == "rows"
        assert found.result.verdict == "pass"


def test_a_group_that_is_never_chosen_on_any_day_has_no_certain_rate() -> None:
    """Between blocks nothing varies; without the bound by rows, low, point and high would be one."""
    e = people(2000)
    e["decision"] = np.zeros(2000)
    found = audit(e)
    assert all(r["low"] < r["difference"] < r["high"] for r in found.table)


def test_a_group_of_three_rows_is_shown_and_decides_nothing() -> None:
    e = people()
    e["columns"]["sex"][:3] = "x"
    e["decision"][:3] = 1
    found = audit(e)
    three = [r for r in found.table if r["group"] == "x"]
    assert [r["verdict"] for r in three] == ["hold"] * 3 and three[0]["why"] == "3 rows in the group, fewer than 30"
    assert found.result.verdict == "pass" and "sex x" in found.result.warnings[0]


def test_each_denominator_counts_for_itself() -> None:
    e = people()
    women = e["columns"]["sex"] == "f"
    e["y"] = np.where(women & (np.cumsum(women) > 20), 0.0, e["y"])
    found = {(r["group"], r["measure"]): r for r in audit(e).table}
    assert found["f", "false_positive_rate"]["judged"] and not found["f", "false_negative_rate"]["judged"]
    assert not found["m", "false_negative_rate"]["judged"], "the rest is too small on the same side"


def test_rows_without_a_value_are_a_group() -> None:
    e = people()
    e["columns"]["sex"][::10] = None
    e["decision"][::10] = 1
    found = audit(e)
    assert found.result.verdict == "fail" and "sex missing" in found.result.reason, found.result.reason


@pytest.mark.parametrize(
    ("change", "verdict", "says"),
    [
        (lambda e: e["columns"].update(sex=np.full(4000, None)), "hold", "sex has no value in any of 4,000 rows"),
        (lambda e: e["columns"].update(sex=np.full(4000, np.nan)), "hold", "sex has no value in any of 4,000 rows"),
        (lambda e: e["columns"]["sex"].__setitem__(slice(0, 1000), None), "hold", "no value in 1,000 of 4,000 rows"),
        (lambda e: e["columns"].update(sex=np.full(4000, "f")), "hold", "sex is f in all 4,000 rows"),
        (lambda e: e["columns"].clear(), "fail", "there is no column sex among the features or in the entity feed"),
        (lambda e: e["columns"].update(sex=e["columns"]["sex"][:5]), "fail", "5 values of sex for 4000 labels"),
        (lambda e: e["decision"].__setitem__(7, np.nan), "fail", "1 decisions of 4000 rows are missing or not finite"),
        (lambda e: e["y"].__setitem__(7, np.nan), "fail", "1 labels of 4000 rows are missing or not finite"),
        (lambda e: e["decision"].__setitem__(7, 0.4), "fail", "decisions must be 0 or 1"),
    ],
)
def test_missing_evidence_is_no_pass(change: Any, verdict: str, says: str) -> None:
    e = people()
    change(e)
    found = audit(e).result
    assert (found.verdict, says in found.reason) == (verdict, True), found
    assert "\n" not in found.reason and "Error" not in found.reason


def test_one_healthy_column_does_not_cover_for_another() -> None:
    e = people()
    e["columns"]["race"] = np.full(4000, None)
    found = audit(e, spec=spec("sex", "race")).result
    assert found.verdict == "hold" and found.reason.startswith("race has no value"), found


def test_an_empty_holdout_and_days_left_out_are_no_pass() -> None:
    empty = {"y": np.array([]), "decision": np.array([]), "columns": {"sex": np.array([])}, "blocks": np.array([])}
    assert audit(empty).result.verdict == "hold"
    assert audit(people(), left_out=5).result.verdict == "pass"
    assert "6 of 26 blocks are left out" in audit(people(), left_out=6).result.reason


def test_blocks_that_are_too_alike_hold() -> None:
    e = people(20_000, gap=0.0)
    wave = 0.5 + 0.4 * np.sin(np.arange(20) / 3)
    women = e["columns"]["sex"] == "f"
    e["decision"] = (np.random.default_rng(2).random(20_000) < np.where(women, wave[e["blocks"]], 0.5)).astype(float)
    found = audit(e).result
    assert found.verdict == "hold" and "too alike" in found.reason, found


def test_what_a_spec_may_say_instead() -> None:
    e = people()
    declared = audit(e, spec=FairnessGate(not_applicable="flights are no people"))
    assert declared.result.reason == "declared not applicable in the spec: flights are no people"
    assert declared.result.figures == {"stance": "not_applicable"} and declared.table == []
    assert audit(e, spec=FairnessGate()).result.figures == {"stance": "undeclared"}
    assert audit(e, spec=spec(mode="disabled")).result.figures == {"stance": "off"}
    assert audit(people(gap=0.3), spec=spec(mode="dry_run")).result.mode == "dry_run"
