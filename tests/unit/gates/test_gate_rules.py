"""Floor, baseline and champion: verdicts, sentences and figures."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from perennial.errors import DataError
from perennial.gates.baseline import Baseline, baseline_gate, fit_baseline
from perennial.gates.champion import champion_gate, no_champion, spent_confidence
from perennial.gates.floor import floor_gate
from perennial.gates.metrics import get_metric
from perennial.specs.gates import BaselineGate, ChampionGate, FloorGate

pytestmark = pytest.mark.fast

AUC = get_metric("roc_auc", "binary")
MAE = get_metric("neg_mean_absolute_error", "regression")


def holdout(seed=0, days=14, rows=150, new=1.0, old=1.0):
    rng = np.random.default_rng(seed)
    n = days * rows
    x = rng.standard_normal(n)
    y = (rng.random(n) < 1 / (1 + np.exp(1.2 - x))).astype(int)
    blocks = np.repeat([f"2013-02-{d + 1:02d}" for d in range(days)], rows)

    def score(strength):
        return 1 / (1 + np.exp(1.2 - strength * x - 0.8 * rng.standard_normal(n)))

    return y, score(new), score(old), blocks


def champion(y, new, old, blocks, **changes):
    kwargs = {
        "spec": ChampionGate(),
        "metric": AUC,
        "within": "pooled",
        "min_gain": 0.0,
        "judged_before": 0,
        "left_out": 0,
        "threshold_new": 0.3,
        "threshold_old": 0.3,
    }
    return champion_gate(y, new, old, blocks, **{**kwargs, **changes})


FIGURES = {
    "metric", "estimand", "candidate", "champion", "gain", "low", "high", "bound", "confidence", "j", "n_blocks",
    "rows", "V", "r1", "se", "min_gain", "log_loss_new", "log_loss_old", "share_positive_new", "share_positive_old",
    "left_out",
}  # fmt: skip


class TestChampion:
    def test_a_clear_gain_passes_with_all_figures(self):
        r = champion(*holdout(new=1.5, old=0.2))
        assert r.verdict == "pass"
        assert set(r.figures) >= FIGURES
        f = r.figures
        assert f["low"] < f["bound"] < f["gain"] < f["high"]
        assert f["gain"] == pytest.approx(f["candidate"] - f["champion"])
        assert (f["n_blocks"], f["rows"], f["confidence"], f["j"]) == (14, 2100, 0.9, 1)
        assert "exceeds 0.000 (14 blocks, V 1." in r.reason
        json.dumps(r.to_dict(), allow_nan=False)

    def test_equal_models_fail_in_one_sentence(self):
        r = champion(*holdout(seed=1))
        assert r.verdict == "fail"
        assert r.reason.startswith("gain ")
        assert "at 90 % does not exceed 0.000" in r.reason

    def test_the_same_scores_fail(self):
        y, new, _, blocks = holdout()
        assert champion(y, new, new, blocks).verdict == "fail"

    def test_lower_is_better_and_gains_are_relative(self):
        rng = np.random.default_rng(2)
        y = rng.gamma(2, 20, 2800)
        blocks = np.repeat(np.arange(28), 100)
        old, new = y + rng.normal(0, 10, 2800), y + rng.normal(0, 8, 2800)
        r = champion(y, new, old, blocks, metric=MAE, min_gain=0.01, threshold_new=None, threshold_old=None)
        assert r.verdict == "pass"
        assert r.figures["gain"] == pytest.approx(1 - r.figures["candidate"] / r.figures["champion"])
        assert r.reason.startswith("relative gain +0.")
        assert r.figures["log_loss_new"] is None
        assert champion(y, old, new, blocks, metric=MAE, min_gain=0.01).verdict == "fail"

    def test_min_gain_must_be_exceeded_by_the_bound(self):
        data = holdout(new=1.5, old=0.2)
        bound = champion(*data).figures["bound"]
        assert champion(*data, min_gain=bound - 1e-9).verdict == "pass"
        assert champion(*data, min_gain=bound).verdict == "fail"

    def test_nine_blocks_hold_ten_decide(self):
        assert champion(*holdout(new=3, old=0.1, days=9)).verdict == "hold"
        assert champion(*holdout(new=3, old=0.1, days=10)).verdict == "pass"

    def test_one_block_holds_without_an_interval(self):
        r = champion(*holdout(new=3, old=0.1, days=1))
        assert r.verdict == "hold"
        assert "with 1 block there is too little" in r.reason
        assert (r.figures["low"], r.figures["bound"]) == (None, None)

    def test_more_than_a_fifth_left_out_holds(self):
        data = holdout(new=1.5, old=0.2, days=12)
        assert champion(*data, left_out=3).verdict == "pass"  # 3 of 15
        r = champion(*data, left_out=4)
        assert r.verdict == "hold"
        assert "4 of 16 blocks are left out" in r.reason

    def test_alike_neighbours_hold(self):
        rng = np.random.default_rng(3)
        days = np.repeat(np.arange(28), 50)
        drift = np.linspace(-2, 2, 28)[days]
        y = rng.normal(0, 1, days.size)
        r = champion(y, y + 1, y + 1.5 + drift * 0.4, days, metric=MAE)
        assert r.figures["r1"] > 0.6
        assert r.verdict == "hold"
        assert "too alike" in r.reason

    @pytest.mark.parametrize("label", [0, 1])
    def test_one_class_holds(self, label):
        y, new, old, blocks = holdout()
        assert champion(np.full_like(y, label), new, old, blocks).verdict == "hold"

    def test_all_positives_in_one_block_hold(self):
        _, new, old, blocks = holdout()
        assert champion((blocks == blocks[0]).astype(int), new, old, blocks).verdict == "hold"

    def test_missing_scores_fail_and_are_counted(self):
        y, new, old, blocks = holdout(new=1.5, old=0.2)
        new[:3] = np.nan
        r = champion(y, new, old, blocks)
        assert r.verdict == "fail"
        assert "3 candidate scores of 2100 rows are missing" in r.reason
        new[:3] = 0.5
        labels = y.astype(float)
        labels[0] = np.nan
        assert champion(labels, new, old, blocks).verdict == "fail"
        nullable = pd.array(y, dtype="Int64")
        nullable[4] = pd.NA
        assert "1 labels" in champion(nullable, new, old, blocks).reason

    def test_nullable_columns_are_numbers(self):
        y, new, old, blocks = holdout(new=1.5, old=0.2)
        plain = champion(y, new, old, blocks)
        nullable = champion(pd.array(y, dtype="Int64"), pd.array(new, dtype="Float64"), old, pd.Series(blocks))
        assert nullable == plain

    def test_wrong_lengths_fail(self):
        y, new, old, blocks = holdout()
        assert "2100 labels" in champion(y, new[1:], old, blocks).reason
        assert champion(y, new[1:], old, blocks).verdict == "fail"

    def test_no_rows_hold(self):
        empty = np.array([])
        assert champion(empty, empty, empty, empty).verdict == "hold"

    def test_a_metric_that_raises_fails(self):
        y, new, old, blocks = holdout()
        r = champion(y, new * 3, old, blocks, metric=get_metric("neg_log_loss", "binary"))
        assert r.verdict == "fail"
        assert "could not be computed" in r.reason

    def test_sharing_a_holdout_raises_the_confidence(self):
        assert [round(spent_confidence(0.9, j), 3) for j in range(4)] == [0.9, 0.95, 0.983, 0.992]
        data = holdout(new=1.5, old=0.2)
        first, third = champion(*data), champion(*data, judged_before=2)
        assert (third.figures["j"], third.figures["confidence"]) == (3, pytest.approx(1 - 0.1 / 6))
        assert third.figures["bound"] < first.figures["bound"]
        assert "98.3 %" in third.reason
        assert "candidate 3 on this holdout" in third.reason
        assert champion(*data, judged_before=-1).verdict == "fail"

    def test_warnings_for_log_loss_and_share(self):
        y, new, old, blocks = holdout(new=1.5, old=0.2)
        r = champion(y, new**3, old, blocks)
        assert r.verdict == "pass"
        assert len(r.warnings) == 2
        assert champion(y, new, old, blocks).figures["share_positive_new"] == pytest.approx(np.mean(new >= 0.3))

    def test_share_from_zero_warns(self):
        y, new, old, blocks = holdout(new=1.5, old=0.2)
        assert any("share" in w for w in champion(y, new, old, blocks, threshold_old=2.0).warnings)

    def test_modes(self):
        data = holdout()
        assert champion(*data, spec=ChampionGate(mode="dry_run")).mode == "dry_run"
        assert champion(*data, spec=ChampionGate(mode="disabled")).mode == "disabled"
        assert no_champion().verdict == "not_applicable"
        assert no_champion("disabled").mode == "disabled"

    def test_within_blocks_counts_undefined_ones_as_left_out(self):
        y, new, old, blocks = holdout(new=1.5, old=0.2)
        keys = np.unique(blocks)
        y[np.isin(blocks, keys[:2])] = 0
        r = champion(y, new, old, blocks, within="block")
        assert (r.verdict, r.figures["estimand"], r.figures["undefined_blocks"]) == ("pass", "block", 2)
        y[blocks == keys[2]] = 0
        assert champion(y, new, old, blocks, within="block").verdict == "hold"


class TestFloor:
    def test_pass_fail_and_error_shown(self):
        y, new, _, blocks = holdout()
        r = floor_gate(y, new, blocks, spec=FloorGate(minimum={"roc_auc": 0.6}), task_type="binary")
        assert r.verdict == "pass"
        assert r.figures["roc_auc_minimum"] == 0.6
        assert r.figures["roc_auc_se"] > 0
        assert "standard error" in r.reason
        assert (
            floor_gate(y, new, blocks, spec=FloorGate(minimum={"roc_auc": 0.9}), task_type="binary").verdict == "fail"
        )

    def test_several_metrics_all_must_hold(self):
        y, new, _, blocks = holdout()
        spec = FloorGate(minimum={"roc_auc": 0.6, "neg_log_loss": 0.1})
        r = floor_gate(y, new, blocks, spec=spec, task_type="binary")
        assert r.verdict == "fail"
        assert "log_loss" in r.reason
        assert "is above the maximum 0.100" in r.reason

    @pytest.mark.parametrize("limits", [{"neg_mean_absolute_error": -2.0}, {"mean_absolute_error": 2.0}])
    def test_maximum_when_lower_is_better(self, limits):
        y, s = np.arange(20.0), np.arange(20.0) + 1
        r = floor_gate(y, s, np.arange(20), spec=FloorGate(minimum=limits), task_type="regression")
        assert r.verdict == "pass"
        assert r.figures["mean_absolute_error_maximum"] == 2.0
        assert r.figures["mean_absolute_error"] == 1.0

    def test_unknown_metric_fails_with_a_sentence(self):
        y, new, _, blocks = holdout()
        r = floor_gate(y, new, blocks, spec=FloorGate(minimum={"rocauc": 0.6}), task_type="binary")
        assert r.verdict == "fail"
        assert "did you mean roc_auc" in r.reason

    def test_nothing_asked_is_not_applicable(self):
        y, new, _, blocks = holdout()
        r = floor_gate(y, new, blocks, spec=FloorGate(), task_type="binary")
        assert (r.verdict, r.reason) == ("not_applicable", "no floor in the spec")

    def test_threshold_metrics_need_a_threshold(self):
        y, new, _, blocks = holdout()
        spec = FloorGate(minimum={"f1": 0.1})
        assert floor_gate(y, new, blocks, spec=spec, task_type="binary", threshold=0.3).verdict == "pass"
        assert floor_gate(y, new, blocks, spec=spec, task_type="binary").verdict == "fail"

    def test_missing_scores_and_classes(self):
        y, new, _, blocks = holdout()
        spec = FloorGate(minimum={"roc_auc": 0.6})
        assert floor_gate(y * 0, new, blocks, spec=spec, task_type="binary").verdict == "hold"
        assert floor_gate([], [], [], spec=spec, task_type="binary").verdict == "hold"
        assert floor_gate(y, new * np.nan, blocks, spec=spec, task_type="binary").verdict == "fail"


class TestBaseline:
    def test_rates_by_segment_with_fallback(self):
        hour = np.repeat([5.0, 6.0, 7.0], [100, 100, 5])
        y = np.concatenate([np.repeat([0, 1], [80, 20]), np.repeat([0, 1], [50, 50]), np.ones(5)])
        b = fit_baseline(pd.DataFrame({"hour": hour}), y, ["hour"], "binary")
        got = b.predict({"hour": np.array([5, 6, 7, 23])})  # integers now, and an unseen hour
        np.testing.assert_allclose(got, [0.2, 0.5, y.mean(), y.mean()])
        assert Baseline.from_dict(json.loads(json.dumps(b.to_dict()))) == b

    def test_several_columns_nulls_and_objects(self):
        frame = pd.DataFrame(
            {"carrier": ["AA"] * 30 + [None] * 30, "late": pd.array([True, False] * 30, dtype="boolean")}
        )
        y = np.arange(60) % 2
        b = fit_baseline(frame, y, ["carrier"], "binary")
        assert b.values == {"AA": 0.5, "null": 0.5}
        both = fit_baseline(pd.concat([frame, frame]), np.tile(y, 2), ["carrier", "late"], "binary")
        assert len(both.values) == 4
        assert both.predict(frame.head(2)).tolist() == [0.0, 1.0]

    def test_median_for_absolute_errors_mean_for_squared(self):
        y = np.array([0.0] * 15 + [10.0] * 10)
        frame = {"x": np.zeros(25)}
        assert fit_baseline(frame, y, [], "regression").overall == 0.0
        assert fit_baseline(frame, y, [], "regression", MAE).statistic == "median"
        mse = get_metric("neg_mean_squared_error", "regression")
        assert fit_baseline(frame, y, [], "regression", mse).overall == 4.0

    def test_without_segments_the_auc_is_a_half(self):
        y, new, _, blocks = holdout()
        b = fit_baseline({"x": y}, y, [], "binary")
        r = baseline_gate(
            y, new, b.predict({"x": y}), blocks, spec=BaselineGate(), metric=AUC, within="pooled", min_gain=0.0
        )
        assert r.verdict == "pass"
        assert r.figures["baseline"] == 0.5
        assert r.figures["by"] == "overall"

    def test_a_model_that_is_the_baseline_fails(self):
        y, new, old, blocks = holdout(seed=4)
        kwargs = {"metric": AUC, "within": "pooled", "min_gain": 0.0}
        assert baseline_gate(y, new, new, blocks, spec=BaselineGate(), **kwargs).verdict == "fail"
        assert baseline_gate(y, new, old, blocks, spec=BaselineGate(mode="disabled"), **kwargs).mode == "disabled"

    def test_a_first_version_is_judged_by_its_point_estimate(self):
        y, new, old, blocks = holdout(seed=5, new=1.02, old=0.98)
        kwargs = {"spec": BaselineGate(), "metric": AUC, "within": "pooled", "min_gain": 0.0}
        bound = baseline_gate(y, new, old, blocks, **kwargs)
        point = baseline_gate(y, new, old, blocks, first_version=True, **kwargs)
        assert (bound.verdict, point.verdict) == ("fail", "pass" if bound.figures["gain"] > 0 else "fail")
        assert "standard error" in point.reason
        assert point.figures["decided_by"] == "point estimate"

    def test_what_cannot_be_fitted_says_so(self):
        with pytest.raises(DataError, match="'hour' is not among"):
            fit_baseline({"x": np.zeros(3)}, [0, 1, 0], ["hour"], "binary")
        with pytest.raises(DataError, match="1 of 3 are not"):
            fit_baseline({"x": np.zeros(3)}, [0, 1, np.nan], [], "binary")
        with pytest.raises(DataError, match="1 of 3 are not"):
            fit_baseline({"x": np.zeros(3)}, [0, np.nan, 2], [], "multiclass")


def test_a_floor_holds_when_too_many_days_are_left_out() -> None:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 600)
    score = np.clip(y * 0.3 + rng.uniform(0, 0.7, 600), 0, 1)
    blocks = np.repeat([f"2013-02-{d:02d}" for d in range(1, 13)], 50)
    spec = FloorGate(minimum={"roc_auc": 0.55})
    whole = floor_gate(y, score, blocks, spec=spec, task_type="binary", left_out=2)
    assert whole.verdict == "pass"
    assert whole.figures["roc_auc_low"] < whole.figures["roc_auc"] < whole.figures["roc_auc_high"]
    thin = floor_gate(y, score, blocks, spec=spec, task_type="binary", left_out=12)
    assert (thin.verdict, thin.figures["left_out"]) == ("hold", 12)
