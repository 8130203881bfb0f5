"""How often healthy fortnights are flagged, and how often a planted drop is."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from perennial.gates.blocks import estimate
from perennial.gates.metrics import get_metric
from perennial.monitoring.performance import performance_window
from perennial.specs.models import Performance

pytestmark = pytest.mark.fast

AUC = get_metric("roc_auc", "binary")
SPEC = Performance(max_drop=0.05)


def fortnight(rng, phi, strength=0.9, days=14, rows=100):
    e = rng.standard_normal(days)
    for d in range(1, days):
        e[d] = phi * e[d - 1] + np.sqrt(1 - phi**2) * e[d]
    day = np.repeat(np.arange(days), rows)
    x = rng.standard_normal(day.size)
    y = (rng.random(day.size) < 1 / (1 + np.exp(1.3 - x))).astype(int)
    return y, (strength + 0.75 * e[day]) * x + rng.standard_normal(day.size), day


@functools.cache
def windows(phi, strength=0.9, reps=800):
    rng = np.random.default_rng(21)
    out = []
    for _ in range(reps):
        e = estimate(AUC, *fortnight(rng, phi))
        out.append(performance_window((e.value, e.se), *fortnight(rng, phi, strength), AUC, SPEC))
    return out


def rate(phi, strength=0.9, reps=800):
    return float(np.mean([w.flagged for w in windows(phi, strength, reps)]))


@pytest.mark.parametrize("phi", [0.0, 0.3])
def test_healthy_windows_are_rarely_flagged(phi):
    assert rate(phi) < 0.05


@pytest.mark.parametrize("phi", [0.0, 0.3])
def test_a_bare_maximum_drop_would_flag_far_more(phi):
    bare = np.mean([w.drop > SPEC.max_drop for w in windows(phi)])
    assert bare > 0.07
    assert bare > 3 * rate(phi)


def test_windows_are_as_noisy_as_real_ones():
    assert np.mean([w.se for w in windows(0.3)]) == pytest.approx(0.028, abs=0.008)


def test_a_planted_drop_is_flagged():
    flagged = {s: rate(0.3, strength=s, reps=200) for s in (0.3, -0.2)}  # true drops of .08 and .17: 44 % and 81 %
    assert flagged[0.3] > 0.3
    assert flagged[-0.2] > 0.7
    assert not any(w.verdict == "hold" for w in windows(0.3))
