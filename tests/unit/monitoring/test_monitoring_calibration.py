"""Calibration of the drift rule: what it pins, what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest

from perennial.errors import DataError
from perennial.monitoring.calibration import EPSILON, Calibration, calibrate, logarithms, needed_columns, simulate

pytestmark = pytest.mark.fast


def fit(x, columns=None, **changes):
    kwargs = {"share": 0.3, "k": 2, "n": 3, "false_asks_per_year": 1, "reference_days": 45, "seed": 7, "draws": 4000}
    columns = columns or [f"c{i}" for i in range(x.shape[1])]
    return calibrate(x, columns, **{**kwargs, **changes})


def blocks(columns=6, n=39, seed=0):
    return np.random.default_rng(seed).normal(-3, 0.4, (n, columns))


def test_thresholds_are_exp_of_mean_plus_z_sd_and_round_trip():
    x = blocks()
    c = fit(x)
    assert c.thresholds["c2"] == pytest.approx(np.exp(x[:, 2].mean() + c.z * x[:, 2].std(ddof=1)))
    assert (c.needed, c.a, c.blocks) == (2, pytest.approx(1 / 52), 39)
    assert Calibration.from_dict(json.loads(json.dumps(c.to_dict()))) == c


def test_same_seed_same_thresholds():
    assert fit(blocks()) == fit(blocks())
    assert fit(blocks(), seed=8).z != fit(blocks()).z


@pytest.mark.parametrize(
    ("share", "columns", "needed"), [(0.3, 18, 6), (0.3, 10, 4), (0.3, 3, 1), (0.99, 4, 4), (0.5, 1, 1)]
)
def test_needed_is_more_than_the_share(share, columns, needed):
    assert needed_columns(share, columns) == needed


def test_more_false_asks_mean_lower_thresholds_and_more_agreement_too():
    assert fit(blocks(), false_asks_per_year=4).z < fit(blocks()).z
    assert fit(blocks(), k=3).z < fit(blocks(), k=2).z < fit(blocks(), k=1).z
    assert fit(blocks(), share=0.6).z < fit(blocks()).z


def test_a_longer_reference_knows_more():
    assert fit(blocks(), reference_days=364).z < fit(blocks(), reference_days=28).z


def test_columns_that_move_together_need_more():
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(39, 1))
    together = -3 + 0.4 * (0.95 * shared + 0.3 * rng.normal(size=(39, 6)))
    assert fit(together).z > fit(blocks()).z + 0.2


def test_simulation_of_one_column_is_student_t():
    # one column, k = n = 1: (x - mean of m) / sd of m is t(m - 1) times sqrt(1 + 1/m)
    from scipy import stats

    a = simulate(np.eye(1), m=6, k=1, n=1, needed=1, seed=1, draws=60_000)
    assert np.quantile(a, 0.9) == pytest.approx(stats.t.ppf(0.9, 5) * np.sqrt(7 / 6), rel=0.03)


def test_constant_columns_are_excluded_and_named():
    x = np.column_stack([blocks(2), np.full(39, np.log(EPSILON))])
    c = fit(x, ["a", "b", "never"])
    assert (c.columns, c.excluded, set(c.thresholds)) == (("a", "b"), ("never",), {"a", "b"})
    with pytest.raises(DataError, match="no column varies"):
        fit(np.full((39, 2), -3.0))


def test_zero_distances_have_a_floor():
    assert logarithms(np.array([0.0, 1.0])).tolist() == [np.log(EPSILON), 0.0]


def test_what_cannot_be_calibrated_says_so():
    with pytest.raises(DataError, match="need at least 28 days"):
        fit(blocks(n=20), reference_days=27)
    with pytest.raises(DataError, match="not finite"):
        fit(np.full((39, 2), np.nan))
    with pytest.raises(ValueError, match="for 3 columns"):
        fit(blocks(2), ["a", "b", "c"])
