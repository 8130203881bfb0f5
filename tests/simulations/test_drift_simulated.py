"""How often the drift rule asks without a reason, on simulated days with shared and lasting effects.

Each day has a histogram per column, tilted by an effect that all columns share and one of its own, both lasting (AR 1)
or not. Half of the columns are measured by the Wasserstein distance, half by the Jensen-Shannon distance, in blocks
slid by a day as in production. The rule promises 1.9 % false asks per weekly look.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from perennial.monitoring.calibration import calibrate, logarithms
from perennial.monitoring.rule import judge

pytestmark = pytest.mark.fast

BINS = np.arange(10.0)
REFERENCE, WINDOWS = 45, 9


def histograms(rng, columns, phi, shift, shared=0.4, rows=300):
    days = REFERENCE + 7 * WINDOWS
    e = rng.standard_normal((days, columns + 1))
    for d in range(1, days):
        e[d] = phi * e[d - 1] + np.sqrt(1 - phi**2) * e[d]
    effect = 0.35 * (np.sqrt(shared) * e[:, :1] + np.sqrt(1 - shared) * e[:, 1:])
    effect[REFERENCE:, : columns * 2 // 3] += shift
    p = np.exp(-0.5 * ((BINS - 4.5) / 2) ** 2 + effect[:, :, None] * (BINS - 4.5) / 2)
    return rng.multinomial(rows, p / p.sum(-1, keepdims=True)).astype(float)


def distances(reference, current):
    p, q = reference / reference.sum(-1, keepdims=True), current / current.sum(-1, keepdims=True)
    deviation = np.sqrt(p @ BINS**2 - (p @ BINS) ** 2)
    wasserstein = np.abs(np.cumsum(p - q, axis=-1)).sum(-1) / deviation
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p / middle), 0) + np.where(q > 0, q * np.log(q / middle), 0)
    js = np.sqrt(np.maximum(terms.sum(-1) / 2, 0))
    half = js.shape[-1] // 2
    return np.concatenate([wasserstein[..., :half], js[..., half:]], axis=-1)


@functools.cache
def asks(columns, phi, shift=0.0, reps=300, rule="calibrated"):
    """The share of weekly looks that ask."""
    rng = np.random.default_rng(11)
    names = [str(i) for i in range(columns)]
    found = []
    for _ in range(reps):
        h = histograms(rng, columns, phi, shift)
        total = h[:REFERENCE].sum(axis=0)
        sums = np.concatenate([np.zeros((1, *total.shape)), np.cumsum(h[:REFERENCE], axis=0)])
        blocks = sums[7:] - sums[:-7]
        x = logarithms(distances(total - blocks, blocks))
        c = calibrate(
            x, names, share=0.3, k=2, n=3, false_asks_per_year=1, seed=1, draws=2000,
            reference_days=364 if rule == "overconfident" else REFERENCE,
        )  # fmt: skip
        limits = np.array([c.thresholds[name] for name in names])
        if rule == "per column":
            limits = np.exp(x.mean(axis=0) + 1.645 * x.std(axis=0, ddof=1))
        weeks = h[REFERENCE:].reshape(WINDOWS, 7, columns, -1).sum(axis=1)
        flagged = (distances(np.broadcast_to(total, weeks.shape), weeks) > limits).sum(axis=1) >= c.needed
        states = ["flagged" if f else "quiet" for f in flagged]
        found += [judge(states[:i], k=2, n=3).outcome == "ask" for i in range(3, WINDOWS + 1)]
    return float(np.mean(found))


@pytest.mark.parametrize(("columns", "limit"), [(3, 0.02), (6, 0.03), (18, 0.05)])
def test_false_asks_on_independent_days(columns, limit):
    assert asks(columns, 0.0) < limit


@pytest.mark.parametrize(("columns", "limit"), [(3, 0.02), (6, 0.035), (18, 0.06)])
def test_false_asks_on_dependent_days(columns, limit):
    assert asks(columns, 0.3) < limit


def test_thresholds_per_column_depend_on_the_number_of_columns():
    assert asks(3, 0.3, reps=150, rule="per column") > 0.08
    assert asks(3, 0.3, reps=150, rule="per column") > 4 * asks(18, 0.3, reps=150, rule="per column")


def test_ignoring_what_six_weeks_cannot_teach_exceeds_the_limit():
    assert asks(3, 0.3, reps=60, rule="overconfident") > 0.02
    assert asks(6, 0.3, reps=60, rule="overconfident") > 0.035


@pytest.mark.parametrize("columns", [6, 18])
def test_a_planted_shift_asks(columns):
    assert asks(columns, 0.3, shift=0.7, reps=50) > 0.8
