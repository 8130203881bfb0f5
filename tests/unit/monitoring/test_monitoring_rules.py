"""Performance of a window, windows of the calendar, k of n."""

from __future__ import annotations

import datetime as dt
import itertools
import json

import numpy as np
import pytest

from perennial.gates.blocks import estimate
from perennial.gates.metrics import get_metric
from perennial.monitoring.performance import performance_window
from perennial.monitoring.rule import Window, judge, windows
from perennial.specs.models import Performance

pytestmark = pytest.mark.fast

AUC = get_metric("roc_auc", "binary")
MAE = get_metric("neg_mean_absolute_error", "regression")
SPEC = Performance()


def window(strength=1.0, days=14, rows=150, seed=0):
    rng = np.random.default_rng(seed)
    n = days * rows
    x = rng.standard_normal(n)
    y = (rng.random(n) < 1 / (1 + np.exp(1.2 - x))).astype(int)
    return y, strength * x + 0.5 * rng.standard_normal(n), np.repeat(np.arange(days), rows)


@pytest.fixture(scope="module")
def reference():
    e = estimate(AUC, *window(seed=9))
    return e.value, e.se


class TestPerformance:
    def test_quiet_and_flagged(self, reference):
        assert performance_window(reference, *window(), AUC, SPEC).verdict == "quiet"
        r = performance_window(reference, *window(strength=0.0), AUC, SPEC)
        assert (r.verdict, r.flagged, r.state) == ("flagged", True, "flagged")
        assert r.drop > r.threshold
        assert "exceeds" in r.reason
        json.dumps(r.to_dict(), allow_nan=False)

    def test_threshold_by_hand_and_the_minimum_size(self, reference):
        y, s, b = window(strength=0.5, seed=3)
        r = performance_window(reference, y, s, b, AUC, Performance(max_drop=0.0))
        assert r.threshold == pytest.approx(1.77 * 1.2 * np.hypot(reference[1], r.se))
        assert r.drop == pytest.approx(reference[0] - r.value)
        assert performance_window(reference, y, s, b, AUC, Performance(max_drop=0.9)).verdict == "quiet"

    def test_an_improvement_is_quiet(self, reference):
        assert performance_window(reference, *window(strength=9.0), AUC, SPEC).verdict == "quiet"

    def test_regression_drops_are_relative(self):
        rng = np.random.default_rng(1)
        y, b = rng.normal(size=1400), np.repeat(np.arange(14), 100)
        better = performance_window((1.0, 0.01), y, y + 0.9, b, MAE, SPEC)
        worse = performance_window((1.0, 0.01), y, y + 1.2, b, MAE, SPEC)
        assert (better.verdict, worse.verdict) == ("quiet", "flagged")
        assert worse.drop == pytest.approx(0.2)

    def test_missing_evidence_is_never_quiet(self, reference):
        y, s, b = window()
        bad = s.copy()
        bad[0] = np.nan
        labels = y.astype(float)
        labels[5] = np.nan
        held = [
            performance_window(reference, y, bad, b, AUC, SPEC),
            performance_window(reference, labels, s, b, AUC, SPEC),
            performance_window(reference, y * 0, s, b, AUC, SPEC),
            performance_window(reference, *window(days=9), AUC, SPEC),
            performance_window(reference, y, s, b, AUC, SPEC, left_out=4),
            performance_window(reference, [], [], [], AUC, SPEC),
            performance_window((float("nan"), 0.01), y, s, b, AUC, SPEC),
            performance_window((0.7, None), y, s, b, AUC, SPEC),
            performance_window(reference, (b == 0).astype(int), s, b, AUC, SPEC),
            performance_window(reference, y, s, b, get_metric("f1", "binary"), SPEC),
            performance_window((0.0, 0.0), y.astype(float), s, b, MAE, SPEC),
        ]
        assert [r.verdict for r in held] == ["hold"] * len(held)
        assert {r.state for r in held} == {"failed"}
        for r in held:
            json.dumps(r.to_dict(), allow_nan=False)


class TestWindows:
    def test_weeks_are_iso_weeks_and_complete(self):
        found = windows(dt.date(2013, 1, 1), dt.date(2013, 1, 26), dt.timedelta(days=7))
        assert found == [
            Window(dt.date(2013, 1, 7), dt.date(2013, 1, 13)),
            Window(dt.date(2013, 1, 14), dt.date(2013, 1, 20)),
        ]
        assert [w.key for w in found] == ["2013-W02", "2013-W03"]
        assert len(windows(dt.date(2013, 1, 1), dt.date(2013, 1, 27), dt.timedelta(days=7))) == 3

    def test_a_feed_that_starts_on_a_monday(self):
        assert windows(dt.date(2013, 1, 7), dt.date(2013, 1, 13), dt.timedelta(days=7))[0].start == dt.date(2013, 1, 7)

    def test_fortnights_count_from_the_first_monday(self):
        found = windows(dt.date(2013, 1, 1), dt.date(2013, 2, 28), dt.timedelta(days=14))
        assert [w.start.isoformat() for w in found] == ["2013-01-07", "2013-01-21", "2013-02-04"]
        assert found[0].key == "2013-01-07/2013-01-20"
        assert all(a.end + dt.timedelta(days=1) == b.start for a, b in itertools.pairwise(found))

    def test_other_lengths_count_from_the_first_day(self):
        found = windows(dt.date(2013, 1, 1), dt.date(2013, 1, 7), dt.timedelta(days=3))
        assert [w.start.day for w in found] == [1, 4]

    def test_windows_of_a_monthly_feed_are_months(self):
        found = windows(dt.date(2012, 1, 1), dt.date(2012, 4, 29), dt.timedelta(days=30), "month")
        assert [(str(w.start), str(w.end)) for w in found] == [
            ("2012-01-01", "2012-01-31"),
            ("2012-02-01", "2012-02-29"),
            ("2012-03-01", "2012-03-31"),
        ]
        quarters = windows(dt.date(2012, 2, 1), dt.date(2012, 10, 31), dt.timedelta(days=90), "month")
        assert [w.key for w in quarters] == [
            "2012-02-01/2012-04-30", "2012-05-01/2012-07-31", "2012-08-01/2012-10-31",
        ]  # fmt: skip

    def test_windows_of_hourly_and_weekly_feeds_are_weeks(self):
        for every in ("hour", "week"):
            found = windows(dt.date(2013, 1, 7), dt.date(2013, 1, 20), dt.timedelta(days=7), every)
            assert [w.key for w in found] == ["2013-W02", "2013-W03"]

    def test_nothing_complete_and_nonsense(self):
        assert windows(dt.date(2013, 1, 1), dt.date(2013, 1, 12), dt.timedelta(days=7)) == []
        for length in (dt.timedelta(0), dt.timedelta(hours=36)):
            with pytest.raises(ValueError, match="whole number of days"):
                windows(dt.date(2013, 1, 1), dt.date(2013, 2, 1), length)


@pytest.mark.parametrize(
    ("states", "outcome"),
    [
        ("", "quiet"),
        ("q", "quiet"),
        ("f", "alert"),
        ("qf", "alert"),
        ("ff", "ask"),
        ("fqf", "ask"),
        ("fqqf", "alert"),
        ("ffq", "ask"),
        ("ffx", "alert"),
        ("x", "alert"),
        ("xq", "quiet"),
        ("fxf", "ask"),
        ("xxf", "alert"),
        ("ffqq", "quiet"),
    ],
)
def test_two_of_three(states, outcome):
    names = {"q": "quiet", "f": "flagged", "x": "failed"}
    ruling = judge([names[s] for s in states], k=2, n=3)
    assert ruling.outcome == outcome
    assert ruling.considered == min(3, len(states))


def test_k_of_n_must_make_sense():
    with pytest.raises(ValueError, match="1 <= k <= n"):
        judge(["quiet"], k=3, n=2)
