"""The jackknife over blocks: fast paths equal recomputation, ties included."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from perennial.gates import blocks
from perennial.gates.metrics import get_metric, roc_auc

pytestmark = pytest.mark.fast


def data(seed: int = 0, n_blocks: int = 14, rows: int = 60, ties: bool = True):
    rng = np.random.default_rng(seed)
    n = n_blocks * rows
    codes = np.sort(rng.integers(0, n_blocks, n))
    y = (rng.random(n) < 0.25).astype(int)
    s = np.clip(0.3 + 0.2 * y + 0.25 * rng.standard_normal(n), 0, 1)
    return y, np.round(s, 1) if ties else s, codes


def naive(metric, y, s, codes, threshold=None):
    return np.array([metric(y[codes != b], s[codes != b], threshold) for b in np.unique(codes)])


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("matrix", [True, False])
def test_auc_jackknife_equals_recomputation(ties, matrix, monkeypatch):
    monkeypatch.setattr(blocks, "_MATRIX_BLOCKS", 256 if matrix else 0)
    y, s, codes = data(1, ties=ties)
    value, without = blocks.auc_sums(y, s, codes, 14).pooled()
    metric = get_metric("roc_auc", "binary")
    assert value == pytest.approx(metric(y, s), abs=1e-12)
    np.testing.assert_allclose(without, naive(metric, y, s, codes), rtol=0, atol=1e-12)
    inside = [metric(y[codes == b], s[codes == b]) for b in range(14)]
    np.testing.assert_allclose(blocks.auc_sums(y, s, codes, 14).within(), inside, rtol=0, atol=1e-12)


def test_both_auc_paths_agree_on_unsorted_rows_and_blocks_without_a_class(monkeypatch):
    y, s, codes = data(2)
    rng = np.random.default_rng(3)
    y[codes == 4] = 0
    order = rng.permutation(y.size)
    y, s, codes = y[order], s[order], codes[order]
    matrix = blocks.auc_sums(y, s, codes, 14)
    monkeypatch.setattr(blocks, "_MATRIX_BLOCKS", 0)
    ranks = blocks.auc_sums(y, s, codes, 14)
    for name in ("rows", "columns", "diagonal", "positives", "negatives"):
        np.testing.assert_allclose(getattr(matrix, name), getattr(ranks, name), atol=1e-9)
    assert np.isnan(ranks.within()[4])


def test_reweighted_blocks_are_a_bootstrap():
    y, s, codes = data(4)
    u = blocks.concordance(y, s, codes, 14)
    n1, n0 = np.bincount(codes[y == 1], minlength=14), np.bincount(codes[y == 0], minlength=14)
    w = np.random.default_rng(5).multinomial(14, np.full(14, 1 / 14))
    rows = np.concatenate([np.flatnonzero(codes == b) for b in range(14) for _ in range(w[b])])
    assert w @ u @ w / ((w @ n1) * (w @ n0)) == pytest.approx(roc_auc(y[rows], s[rows]), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("neg_log_loss", "binary"),
        ("neg_brier_score", "binary"),
        ("accuracy", "binary"),
        ("neg_mean_absolute_error", "regression"),
        ("neg_mean_squared_error", "regression"),
        ("neg_root_mean_squared_error", "regression"),
        ("f1", "binary"),
        ("average_precision", "binary"),
        ("r2", "regression"),
    ],
)
def test_jackknife_equals_recomputation_for_other_metrics(name, task):
    y, s, codes = data(6)
    s = np.clip(s, 0.01, 0.99)
    metric = get_metric(name, task)
    threshold = 0.4 if metric.needs == "label" else None
    series = blocks.leave_one_out(metric, y, s, codes, 14, "pooled", threshold)
    np.testing.assert_allclose(series.without, naive(metric, y, s, codes, threshold), rtol=0, atol=1e-12)
    assert series.value == pytest.approx(metric(y, s, threshold), abs=1e-12)


def test_pseudo_values_of_a_mean_are_the_rows():
    y = np.random.default_rng(7).normal(10, 2, 30)
    metric = get_metric("neg_mean_absolute_error", "regression")
    e = blocks.estimate(metric, y, np.zeros(30), np.arange(30))
    np.testing.assert_allclose(e.pseudo, np.abs(y), atol=1e-9)
    assert e.se == pytest.approx(y.std(ddof=1) / np.sqrt(30))


def test_within_block_is_the_mean_of_days():
    y, s, codes = data(8)
    metric = get_metric("roc_auc", "binary")
    daily = np.array([roc_auc(y[codes == b], s[codes == b]) for b in range(14)])
    e = blocks.estimate(metric, y, s, codes, within="block")
    assert e.value == pytest.approx(daily.mean())
    assert e.se == pytest.approx(daily.std(ddof=1) / np.sqrt(14))
    np.testing.assert_allclose(e.pseudo, daily)


def test_undefined_blocks_are_counted():
    y, s, codes = data(9)
    y[codes == 3] = 0
    e = blocks.estimate(get_metric("roc_auc", "binary"), y, s, codes, within="block")
    assert (e.n_blocks, e.undefined) == (13, 1)


def test_variance_inflation_by_hand():
    # n = 14, r1 = .2: f1 = .2 + 1.8/14, f = (14 f1 + 2.8) / 28
    f = (14 * (0.2 + 1.8 / 14) + 2.8) / 28
    assert float(blocks.inflation(0.2, 14)) == pytest.approx((1 + f) / (1 - f))
    assert float(blocks.inflation(-1.0, 14)) == 1.0  # never deflates
    assert float(blocks.inflation(0.99, 10_000)) == pytest.approx(4.0)  # f is capped at .6


def test_autocorrelation_by_hand_and_of_a_constant():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert float(blocks.autocorrelation(x)) == pytest.approx((1.5 * 0.5 - 0.25 + 0.75) / 5)
    assert float(blocks.autocorrelation(np.full(9, 0.1))) == 0.0
    assert blocks.autocorrelation(np.stack([x, x])).shape == (2,)


def test_identical_models_have_no_gain_and_no_error():
    y, s, codes = data(10)
    result = blocks.compare(get_metric("roc_auc", "binary"), y, s, s, codes)
    assert (result.gain.value, result.gain.se, result.gain.v is not None) == (0.0, 0.0, True)


def test_blocks_are_ordered_by_key_and_must_be_there():
    codes, keys = blocks.block_codes(["2013-02-02", "2013-02-01", "2013-02-02"])
    assert codes.tolist() == [1, 0, 1]
    assert keys.tolist() == ["2013-02-01", "2013-02-02"]
    assert blocks.block_codes(np.array([10, 9], dtype=object))[0].tolist() == [1, 0]
    days = np.array([dt.date(2013, 2, 2), dt.date(2013, 2, 1)], dtype=object)
    assert blocks.block_codes(days)[0].tolist() == [1, 0]
    with pytest.raises(ValueError, match="1 rows have no block"):
        blocks.block_codes(np.array(["a", None], dtype=object))
    with pytest.raises(ValueError, match="1 rows have no block"):
        blocks.block_codes(np.array([1.0, np.nan]))


def test_rows_as_blocks_stay_cheap():
    rng = np.random.default_rng(11)
    y = rng.integers(0, 2, 3000)
    s = np.clip(y * 0.2 + rng.random(3000), 0, 1)
    e = blocks.estimate(get_metric("average_precision", "binary"), y, s, np.arange(3000))
    assert e.n_blocks == 500
    auc = blocks.estimate(get_metric("roc_auc", "binary"), y, s, np.arange(3000))
    assert auc.n_blocks == 3000
    assert auc.se == pytest.approx(0.01, abs=0.004)


def test_one_block_has_no_error():
    y, s, _ = data(12)
    e = blocks.estimate(get_metric("roc_auc", "binary"), y, s, np.zeros(y.size))
    assert (e.se, e.bound(0.9), e.interval()) == (None, None, (None, None))
