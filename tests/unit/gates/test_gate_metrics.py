"""Metrics know their direction, and equal scikit-learn."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from sklearn.metrics import get_scorer

from perennial.errors import SpecError
from perennial.gates.metrics import gain, gains, get_metric, log_loss, roc_auc

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("name", "task", "plain", "greater", "relative", "needs"),
    [
        ("roc_auc", "binary", "roc_auc", True, False, "score"),
        ("average_precision", "binary", "average_precision", True, False, "score"),
        ("neg_log_loss", "binary", "log_loss", False, False, "score"),
        ("log_loss", "binary", "log_loss", False, False, "score"),
        ("accuracy", "binary", "accuracy", True, False, "label"),
        ("f1", "binary", "f1", True, False, "label"),
        ("neg_mean_absolute_error", "regression", "mean_absolute_error", False, True, "score"),
        ("mean_absolute_error", "regression", "mean_absolute_error", False, True, "score"),
        ("r2", "regression", "r2", True, False, "score"),
    ],
)
def test_direction_and_needs(name, task, plain, greater, relative, needs):
    m = get_metric(name, task)
    assert (m.name, m.greater_is_better, m.relative, m.needs) == (plain, greater, relative, needs)


@pytest.mark.parametrize("name", ["roc_auc", "neg_log_loss", "neg_brier_score", "average_precision", "accuracy", "f1"])
def test_binary_values_equal_scikit_learn(name):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 500)
    s = np.round(np.clip(0.2 * y + 0.8 * rng.random(500), 0, 1), 2)
    scorer = get_scorer(name)
    read = (s >= 0.5).astype(int) if scorer._response_method == "predict" else s
    expected = scorer._score_func(y, read, **scorer._kwargs)
    assert get_metric(name, "binary")(y, s, threshold=0.5) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "name", ["neg_mean_absolute_error", "neg_mean_squared_error", "neg_root_mean_squared_error", "r2"]
)
def test_regression_values_equal_scikit_learn(name):
    rng = np.random.default_rng(1)
    y, s = rng.normal(size=300), rng.normal(size=300)
    scorer = get_scorer(name)
    assert get_metric(name, "regression")(y, s) == pytest.approx(scorer._score_func(y, s), abs=1e-12)


def test_gain_is_positive_when_better():
    mae, r2 = get_metric("neg_mean_absolute_error", "regression"), get_metric("r2", "regression")
    loss, auc = get_metric("neg_log_loss", "binary"), get_metric("roc_auc", "binary")
    assert gain(mae, 9.0, 10.0) == pytest.approx(0.1)
    assert gain(r2, 0.5, -0.2) == pytest.approx(0.7)
    assert gain(loss, 0.4, 0.5) == pytest.approx(0.1)
    assert gain(auc, 0.7, 0.6) == pytest.approx(0.1)
    assert gain(mae, 0.0, 0.0) == 0
    assert gain(mae, 1.0, 0.0) == -np.inf
    np.testing.assert_allclose(gains(mae, np.array([9.0, 0.0]), np.array([10.0, 0.0])), [0.1, 0.0])


def test_unknown_metric_says_what_was_meant():
    with pytest.raises(SpecError, match="did you mean roc_auc"):
        get_metric("roc_acu", "binary")


def test_own_function(monkeypatch):
    module = types.ModuleType("our_metrics")

    def cost(y, s):
        return float(np.mean(np.abs(y - s)))

    cost.greater_is_better = False
    module.cost = cost
    monkeypatch.setitem(sys.modules, "our_metrics", module)
    m = get_metric("our_metrics:cost", "regression")
    assert (m.name, m.greater_is_better, m.relative) == ("cost", False, True)
    assert m([1, 2], [1, 3]) == 0.5
    with pytest.raises(SpecError, match="cannot be imported"):
        get_metric("our_metrics:nothing", "binary")
    with pytest.raises(SpecError, match="cannot be imported"):
        get_metric("no_such_module:f", "binary")


def test_undefined_values():
    assert np.isnan(roc_auc([1, 1], [0.1, 0.2]))
    assert np.isnan(log_loss([1, 0], [1.5, 0.2]))
    with pytest.raises(ValueError, match="between 0 and 1"):
        get_metric("neg_log_loss", "binary")([1, 0], [1.5, 0.2])
    with pytest.raises(ValueError, match="decision threshold"):
        get_metric("f1", "binary")([1, 0], [0.5, 0.2])


def test_multiclass_decisions_are_the_largest_score():
    s = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    assert get_metric("accuracy", "multiclass")([0, 2], s) == 1.0
