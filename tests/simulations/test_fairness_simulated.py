"""How often the gates on slices and fairness err, on simulated fortnights whose days resemble their neighbours.

Every limit is one that a broken rule exceeds: without the variance inflation, without Bonferroni's correction, or with
the largest difference between groups instead of each against the rest. Seeds are fixed; limits leave three standard
errors of the simulation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perennial.gates import blocks, fairness, slices
from perennial.gates.metrics import get_metric
from perennial.specs.gates import FairnessGate, SliceGate

pytestmark = pytest.mark.fast

DAYS, GROUPS = 14, np.array(["a", "b", "c"])
AUC = get_metric("roc_auc", "binary")


def ar1(rng: np.random.Generator, n: int, phi: float) -> Any:
    """A stationary series, standard deviation 1."""
    out = rng.standard_normal(n)
    for d in range(1, n):
        out[d] = phi * out[d - 1] + np.sqrt(1 - phi**2) * out[d]
    return out


def fortnight(rng: np.random.Generator, gap: float = 0.0, phi: float = 0.2, rows: int = 500) -> Any:
    """Labels, decisions, groups, days. Decisions are made ``gap`` more often about group a, more or less from day to
    day; all three measures differ by ``gap`` from the rest."""
    day = np.repeat(np.arange(DAYS), rows)
    group = rng.integers(0, 3, day.size)
    y = (rng.random(day.size) < 0.4).astype(float)
    drift = 0.06 * ar1(rng, DAYS, phi)
    p = 0.25 + 0.2 * y + (group == 0) * (gap + drift[day])
    return y, (rng.random(day.size) < p).astype(float), GROUPS[group], day


def judged(y: Any, decision: Any, group: Any, day: Any, limit: float = 0.1) -> str:
    """The gate's rule, without the figures of fairlearn that stand beside it."""
    spec = FairnessGate(by=["group"], limit=limit)
    return fairness.judge(y, decision, {"group": (group, list(GROUPS))}, day, spec, [], {})[0]


def verdicts(reps: int, seed: int, gap: float = 0.0, **given: Any) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    found = [judged(*fortnight(rng, gap, **given)) for _ in range(reps)]
    return {v: found.count(v) / reps for v in ("pass", "fail", "hold")}


def broken(m: pytest.MonkeyPatch, *, inflated: bool = False, corrected: bool = False) -> None:
    if not inflated:
        m.setattr(blocks, "inflation", lambda r1, n: np.asarray(1.0))
        m.setattr(fairness, "newcombe", lambda a, n, b, k, z: (a / n - b / k, a / n - b / k))
    if not corrected:
        m.setattr(fairness, "_family", lambda found, least: 1)


def test_fair_permuted_labels_pass_or_hold() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(200):
        y, decision, group, day = fortnight(rng, gap=0.3)
        found.append(judged(y, decision, rng.permutation(group), day))
    assert found.count("fail") == 0
    assert found.count("pass") / 200 > 0.5, "seven thousand rows are enough to say so, mostly"


def test_the_largest_difference_between_groups_finds_unfairness_in_permuted_labels() -> None:
    """What the rule is instead of: the percentile interval of a maximum that cannot be negative."""
    rng = np.random.default_rng(2)
    unfair = 0
    for _ in range(20):
        _, decision, group, _ = fortnight(rng)
        group = rng.permutation(group)
        n = np.array([(group == g).sum() for g in GROUPS])
        rate = np.array([decision[group == g].mean() for g in GROUPS])
        drawn = rng.binomial(n, rate, size=(2000, 3)) / n  # a bootstrap of rows
        unfair += np.quantile(np.ptp(drawn, axis=1), 0.05) > 0
    assert unfair == 20


def test_a_difference_of_just_the_limit_neither_fails_nor_passes_more_often_than_stated() -> None:
    found = verdicts(300, 3, gap=0.1)
    assert found["fail"] < 0.05 and found["pass"] < 0.05


def test_without_inflation_and_correction_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    assert verdicts(200, 3, gap=0.1)["fail"] > 0.06


def test_without_the_correction_alone_it_does_too(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, inflated=True)
    assert verdicts(300, 3, gap=0.1)["fail"] > 0.05


def test_a_planted_gap_fails() -> None:
    assert verdicts(60, 5, gap=0.25)["fail"] > 0.9


def test_rows_as_blocks_keep_their_word_and_have_power() -> None:
    """One year of a census: no days, so Newcombe's interval."""
    rng = np.random.default_rng(6)

    def rate(gap: float, verdict: str, reps: int) -> float:
        found = []
        for _ in range(reps):
            y, decision, group, day = fortnight(rng, gap, phi=0.0)
            p = 0.25 + 0.2 * y + (group == "a") * gap
            decision = (rng.random(y.size) < p).astype(float)
            found.append(judged(y, decision, group, np.zeros_like(day)))
        return found.count(verdict) / reps

    assert rate(0.1, "fail", 300) < 0.05
    assert rate(0.0, "pass", 60) > 0.8
    assert rate(0.2, "fail", 60) > 0.9


def test_newcombe_covers_rare_events_where_wald_does_not() -> None:
    rng = np.random.default_rng(7)
    a, b = rng.binomial(60, 0.05, 4000), rng.binomial(400, 0.02, 4000)
    z = 1.96
    intervals = [fairness.newcombe(i, 60, j, 400, z) for i, j in zip(a, b, strict=True)]
    covered = [low <= 0.03 <= high for low, high in intervals]
    p, q = a / 60, b / 400
    wald = np.abs(p - q - 0.03) <= z * np.sqrt(p * (1 - p) / 60 + q * (1 - q) / 400)
    assert np.mean(covered) > 0.93 > np.mean(wald)


# -------------------------------------------------------------------------------------------------------------- slices


def sliced(rng: np.random.Generator, loss: float = 0.0, phi: float = 0.2, rows: int = 160) -> tuple[Any, slices.Rows]:
    """A fortnight in four slices; the candidate loses quality in slice 0 only, else both models are equal."""
    day = np.repeat(np.arange(DAYS), rows)
    part = rng.integers(0, 4, day.size)
    wobble = 0.35 * np.array([ar1(rng, DAYS, phi) for _ in range(4)])
    x = rng.standard_normal(day.size)
    y = (rng.random(day.size) < 1 / (1 + np.exp(1.0 - x))).astype(float)
    new = (0.7 - loss * (part == 0) + wobble[part, day]) * x + rng.standard_normal(day.size)
    old = (0.7 - wobble[part, day]) * x + rng.standard_normal(day.size)
    rival = slices.Rival(old, np.ones(day.size, dtype=bool))
    return part, slices.Rows(y, new, day, AUC, "pooled", None, rival)


def harmed(reps: int, seed: int, loss: float = 0.0) -> float:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(reps):
        part, rows = sliced(rng, loss)
        found.append(slices.slice_gates([SliceGate(by="part")], {"part": part}, rows)[0].result.verdict)
    return found.count("fail") / reps


def test_a_candidate_as_good_as_the_champion_harms_no_slice() -> None:
    assert harmed(300, 8) < 0.115


def test_without_inflation_and_correction_it_seems_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "inflation", lambda r1, n: np.asarray(1.0))
    monkeypatch.setattr(slices, "ALPHA", 0.2)  # .05 for each of four slices
    assert harmed(100, 8) > 0.115


def test_harm_in_one_slice_is_found() -> None:
    assert harmed(40, 9, loss=1.2) > 0.6
