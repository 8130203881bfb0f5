"""Several classes, and rows as blocks: fast paths equal recomputation and scikit-learn, and nothing passes blindly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as skl

from perennial.gates import blocks
from perennial.gates.baseline import Baseline, baseline_gate, fit_baseline
from perennial.gates.champion import champion_gate
from perennial.gates.floor import floor_gate
from perennial.gates.metrics import get_metric, roc_auc
from perennial.monitoring.performance import performance_window
from perennial.specs.gates import BaselineGate, ChampionGate, FloorGate
from perennial.specs.metrics import MULTICLASS
from perennial.specs.models import Performance

pytestmark = pytest.mark.fast

OVR = get_metric("roc_auc_ovr", "multiclass")
CHAMPION: dict[str, Any] = {
    "spec": ChampionGate(),
    "within": "pooled",
    "min_gain": 0.0,
    "judged_before": 0,
    "left_out": 0,
}


def data(seed: int = 0, n_blocks: int = 14, rows: int = 60, skill: float = 1.5) -> tuple[Any, Any, Any]:
    """Labels 0, 1, 2, probabilities, and the block of each row."""
    rng = np.random.default_rng(seed)
    n = n_blocks * rows
    y = rng.choice(3, n, p=[0.2, 0.5, 0.3]).astype(float)
    logits = rng.normal(size=(n, 3)) + skill * (y[:, None] == np.arange(3))
    p = np.exp(logits)
    return y, p / p.sum(axis=1, keepdims=True), np.sort(rng.integers(0, n_blocks, n))


REFERENCE = {
    "accuracy": lambda y, s: skl.accuracy_score(y, s.argmax(1)),
    "balanced_accuracy": lambda y, s: skl.balanced_accuracy_score(y, s.argmax(1)),
    "f1_macro": lambda y, s: skl.f1_score(y, s.argmax(1), average="macro"),
    "neg_log_loss": lambda y, s: skl.log_loss(y, s, labels=[0, 1, 2]),
    "roc_auc_ovr": lambda y, s: skl.roc_auc_score(y, s, multi_class="ovr"),
    "roc_auc_ovo": lambda y, s: skl.roc_auc_score(y, s, multi_class="ovo"),
    "matthews_corrcoef": lambda y, s: skl.matthews_corrcoef(y, s.argmax(1)),
}


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_metrics_and_their_jackknife_are_scikit_learns(name: str) -> None:
    y, s, codes = data(1)
    metric = get_metric(name, "multiclass")
    assert metric(y, s) == pytest.approx(REFERENCE[name](y, s), abs=1e-12)
    series = blocks.leave_one_out(metric, y, s, codes, 14, "pooled")
    assert series.value == pytest.approx(REFERENCE[name](y, s), abs=1e-12)
    without = [REFERENCE[name](y[codes != b], s[codes != b]) for b in range(14)]
    np.testing.assert_allclose(series.without, without, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", sorted(MULTICLASS))
def test_every_metric_a_spec_may_name_has_a_value_and_an_error(name: str) -> None:
    y, s, codes = data(2)
    e = blocks.estimate(get_metric(name, "multiclass"), y, s, codes)
    assert np.isfinite(e.value) and e.se is not None and e.se > 0


@pytest.mark.parametrize(
    ("name", "task"), [("f1_macro", "multiclass"), ("balanced_accuracy", "multiclass"), ("f1", "binary")]
)
def test_rows_as_blocks_of_decisions_equal_recomputation(name: str, task: str) -> None:
    y, s, _ = data(3, n_blocks=1, rows=90)
    if task == "binary":
        y, s = (y == 1).astype(float), s[:, 1]
    threshold = 0.4 if task == "binary" else None
    metric = get_metric(name, task)
    series = blocks.leave_one_out(metric, y, s, np.arange(90), 90, "pooled", threshold)
    rows = np.arange(90)
    without = [metric(y[rows != i], s[rows != i], threshold) for i in rows]
    np.testing.assert_allclose(series.without, without, rtol=0, atol=1e-12)


def test_rows_as_blocks_give_delongs_error_and_no_inflation() -> None:
    y, s, _ = data(4, n_blocks=1, rows=400)
    y, s = (y == 1).astype(float), np.round(s[:, 1], 2)
    positives, negatives = s[y == 1], s[y == 0]
    pairs = (positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives)
    delong = pairs.mean(1).var(ddof=1) / len(positives) + pairs.mean(0).var(ddof=1) / len(negatives)
    e = blocks.estimate(get_metric("roc_auc", "binary"), y, s, None)
    assert (e.n_blocks, e.v, e.r1) == (400, 1.0, None)
    assert e.value == pytest.approx(roc_auc(y, s))
    assert e.se == pytest.approx(np.sqrt(delong), rel=0.005)


def test_rows_have_no_order_and_days_have() -> None:
    """The same rows sorted by their loss: as rows the error stays, as blocks in time neighbours are alike."""
    y, s, _ = data(5, n_blocks=1, rows=300)
    metric = get_metric("neg_log_loss", "multiclass")
    order = np.argsort(-np.log(s[np.arange(300), y.astype(int)]))
    shuffled, in_order = (blocks.estimate(metric, y[o], s[o], None) for o in (np.arange(300), order))
    assert shuffled.bound(0.9) == pytest.approx(in_order.bound(0.9))
    assert blocks.estimate(metric, y[order], s[order], np.arange(300)).v > 3


def test_a_better_model_beats_the_champion_over_rows_and_an_equal_one_does_not() -> None:
    y, s, _ = data(6, n_blocks=20, rows=100)
    _, other, _ = data(7, n_blocks=20, rows=100)
    mixed = 0.5 * s + 0.5 * other
    better = champion_gate(y, s, mixed, None, metric=OVR, **CHAMPION)
    assert better.verdict == "pass" and "(2000 rows, V 1.0)" in better.reason
    assert (better.figures["block"], better.figures["n_blocks"], better.figures["r1"]) == ("row", 2000, None)
    assert champion_gate(y, s, s, None, metric=OVR, **CHAMPION).verdict == "fail"


def test_the_champion_gate_says_what_ranks_cannot_see() -> None:
    y, s, codes = data(8)
    tilted = s * [0.2, 1.0, 1.0]
    tilted /= tilted.sum(axis=1, keepdims=True)
    r = champion_gate(y, tilted, s, codes, metric=OVR, classes=("early", "late", "on time"), **CHAMPION)
    assert any(w.startswith("log loss rises") for w in r.warnings)
    assert any(w.startswith("the share of decisions for early moves from") for w in r.warnings)
    assert r.figures["share_early_new"] < r.figures["share_early_old"]


def test_the_baseline_is_the_rate_of_each_class_by_segment() -> None:
    rng = np.random.default_rng(9)
    place = rng.choice(["a", "b"], 1000)
    y = np.where(place == "a", rng.choice(3, 1000, p=[0.7, 0.2, 0.1]), rng.choice(3, 1000, p=[0.1, 0.2, 0.7]))
    table = Baseline.from_dict(fit_baseline({"place": place}, y, ["place"], "multiclass").to_dict())
    p = table.predict({"place": np.array(["a", "b", "elsewhere"])})
    assert p.shape == (3, 3) and p.sum(axis=1) == pytest.approx(1)
    assert p[0, 0] == pytest.approx((y[place == "a"] == 0).mean())
    assert p[2] == pytest.approx([(y == k).mean() for k in range(3)])
    codes = np.repeat(np.arange(20), 50)
    same = table.predict({"place": place})
    r = baseline_gate(y, same, same, codes, spec=BaselineGate(), metric=OVR, within="pooled", min_gain=0.0)
    assert r.verdict == "fail", "no gain over itself"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda y: np.where(y == 2, 0, y), "the holdout has no row of 1 of the 3 classes"),
        (lambda y: np.where(np.arange(len(y)) < 5, -1, y), "5 of 840 labels of the holdout are of a class"),
        (lambda y: np.where(np.arange(len(y)) < 5, 3, y), "5 of 840 labels of the holdout are of a class"),
    ],
)
@pytest.mark.parametrize("observed", ["partition", "row"])
def test_a_class_too_many_or_too_few_is_never_a_pass(change: Any, says: str, observed: str) -> None:
    y, s, codes = data(10)
    y = change(y)
    of = codes if observed == "partition" else None
    accuracy = get_metric("accuracy", "multiclass")
    floor = floor_gate(y, s, of, spec=FloorGate(minimum={"accuracy": 0.1}), task_type="multiclass")
    champion = champion_gate(y, s, 1 - s, of, metric=accuracy, **CHAMPION)
    window = performance_window((0.5, 0.01), y, s, of, accuracy, Performance())
    assert (floor.verdict, champion.verdict, window.state) == ("hold", "hold", "failed")
    for reason in (floor.reason, champion.reason, window.reason):
        assert says in reason


def test_a_window_over_rows_is_judged_with_one_partition() -> None:
    y, s, _ = data(11)
    window = performance_window((0.99, 0.001), y, s, None, get_metric("accuracy", "multiclass"), Performance())
    assert (window.state, window.n_blocks) == ("flagged", 840)
    one = np.zeros(len(y), dtype=int)
    assert performance_window((0.99, 0.001), y, s, one, OVR, Performance()).state == "failed", "one block says nothing"
