"""Whatever goes into a gate: a verdict and a sentence come out, and no pass on NaN or on missing evidence."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.gates.baseline import baseline_gate
from perennial.gates.champion import champion_gate
from perennial.gates.fairness import fairness_gate
from perennial.gates.floor import floor_gate
from perennial.gates.metrics import get_metric
from perennial.gates.slices import Rival, Rows, slice_gates
from perennial.gates.verdict import GateResult
from perennial.specs.gates import BaselineGate, ChampionGate, FairnessGate, FloorGate, SliceGate

pytestmark = pytest.mark.fast

METRICS = {"binary": ["roc_auc", "neg_log_loss", "accuracy", "f1"], "regression": ["neg_mean_absolute_error", "r2"]}


@st.composite
def evidence(draw: st.DrawFn) -> dict[str, Any]:
    """Labels, two models' scores and blocks of a holdout: any size, any numbers, now and then a NaN or an infinity."""
    task = draw(st.sampled_from(["binary", "regression"]))
    n = draw(st.integers(0, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if task == "binary":
        y = (rng.random(n) < draw(st.sampled_from([0.0, 0.2, 0.5, 1.0]))).astype(float)
        new, old = rng.random(n), rng.random(n)
    else:
        y, new, old = (rng.standard_normal(n) * draw(st.sampled_from([0.0, 1.0, 1e6])) for _ in range(3))
    if draw(st.booleans()):
        new = y.copy()  # as good as can be
    spoiled = draw(st.sampled_from([None, None, "y", "new", "old"]))
    arrays = {"y": y, "new": new, "old": old}
    if spoiled and n:
        arrays[spoiled][draw(st.integers(0, n - 1))] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    blocks = np.array([f"2013-01-{1 + i % draw(st.integers(1, 28)):02d}" for i in range(n)], dtype=str)
    return {
        **arrays,
        "blocks": blocks,
        "spoiled": spoiled if n else None,
        "task": task,
        "metric": draw(st.sampled_from(METRICS[task])),
        "within": draw(st.sampled_from(["pooled", "block"])),
        "left_out": draw(st.integers(0, 30)),
    }


def gates(e: dict[str, Any]) -> dict[str, GateResult]:
    metric = get_metric(e["metric"], e["task"])
    threshold = 0.5 if e["task"] == "binary" else None
    common = {"within": e["within"], "left_out": e["left_out"]}
    return {
        "floor": floor_gate(
            e["y"], e["new"], e["blocks"], spec=FloorGate(minimum={e["metric"]: -1e30}), task_type=e["task"],
            threshold=threshold, **common,
        ),
        "baseline": baseline_gate(
            e["y"], e["new"], e["old"], e["blocks"], spec=BaselineGate(), metric=metric, min_gain=0.0,
            threshold=threshold, first_version=False, **common,
        ),
        "champion": champion_gate(
            e["y"], e["new"], e["old"], e["blocks"], spec=ChampionGate(), metric=metric, min_gain=0.0, judged_before=0,
            threshold_new=threshold, threshold_old=threshold, **common,
        ),
    }  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(evidence())
def test_a_gate_never_passes_on_nan_or_on_missing_evidence(e: dict[str, Any]) -> None:
    for name, found in gates(e).items():
        assert found.verdict in ("pass", "fail", "hold"), found
        assert found.reason and "Traceback" not in found.reason and "\n" not in found.reason, found.reason
        touched = e["spoiled"] in ("y", "new") or (e["spoiled"] == "old" and name != "floor")
        blocks = len(set(e["blocks"]))
        if touched:
            assert found.verdict != "pass", (name, e["spoiled"], found)
        if blocks == 0 or (name != "floor" and blocks < 10):
            assert found.verdict != "pass", (name, blocks, found)
        if blocks + e["left_out"] and e["left_out"] / (blocks + e["left_out"]) > 0.2:
            assert found.verdict != "pass", (name, found)
        if found.verdict == "pass" and "gain" in found.figures:
            assert np.isfinite(found.figures["gain"]) and found.figures["gain"] > 0


def test_an_empty_holdout_is_no_pass() -> None:
    e = {
        "y": np.array([]), "new": np.array([]), "old": np.array([]), "blocks": np.array([], dtype=str),
        "task": "binary", "metric": "roc_auc", "within": "pooled", "left_out": 0,
    }  # fmt: skip
    assert {r.verdict for r in gates(e).values()} <= {"fail", "hold"}
    assert pd.Series([r.reason for r in gates(e).values()]).str.len().min() > 10


@st.composite
def grouped(draw: st.DrawFn) -> dict[str, Any]:
    """Evidence with a column of groups: any sizes, all or some of it null, now and then a spoiled row."""
    n = draw(st.sampled_from([0, 1, 3, 40, 900, 3000]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = draw(st.integers(1, 4))
    group = rng.choice(["a", "b", "c", "d"][:kinds], n).astype(object)
    nulls = draw(st.sampled_from([0.0, 0.0, 0.1, 0.3, 1.0]))
    group[rng.random(n) < nulls] = draw(st.sampled_from([None, np.nan, "<missing>"]))
    y = (rng.random(n) < draw(st.sampled_from([0.0, 0.4, 1.0]))).astype(float)
    score = np.clip(y * draw(st.sampled_from([0.0, 0.3, 1.0])) + rng.random(n) * 0.7, 0, 1)
    arrays = {"y": y, "score": score, "old": rng.random(n)}
    spoiled = draw(st.sampled_from([None, None, "y", "score", "old"]))
    if spoiled and n:
        arrays[spoiled][draw(st.integers(0, n - 1))] = draw(st.sampled_from([np.nan, np.inf]))
    days = draw(st.sampled_from([1, 5, 14]))
    return {
        **arrays, "group": group, "blocks": np.arange(n) * days // max(n, 1), "spoiled": spoiled if n else None,
        "left_out": draw(st.sampled_from([0, 0, 30])), "there": draw(st.sampled_from([True, True, True, False])),
    }  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(grouped())
def test_slices_and_fairness_never_pass_on_nan_or_on_missing_evidence(e: dict[str, Any]) -> None:
    columns = {"group": e["group"]} if e["there"] else {}
    decision = np.where(np.isfinite(e["score"]), e["score"] >= 0.5, np.nan)
    fair = fairness_gate(
        e["y"], decision, columns, e["blocks"], spec=FairnessGate.model_validate({"by": ["group"], "limit": 0.4}),
        left_out=e["left_out"],
    )  # fmt: skip
    rival = Rival(e["old"], np.ones(len(e["y"]), dtype=bool))
    rows = Rows(e["y"], e["score"], e["blocks"], get_metric("roc_auc", "binary"), "pooled", None, rival, e["left_out"])
    (sliced,) = slice_gates([SliceGate(by="group")], columns, rows)
    null = np.array([v is None or v != v or v == "<missing>" for v in e["group"]], dtype=bool)
    for found in (fair, sliced):
        result = found.result
        assert result.verdict in ("pass", "fail", "hold"), result
        assert result.reason and "Traceback" not in result.reason and "\n" not in result.reason, result.reason
        json.dumps([result.to_dict(), found.table], allow_nan=False)
        touched = e["spoiled"] in ("y", "score") or (e["spoiled"] == "old" and found is sliced)
        if touched or not e["there"] or e["left_out"] or len(null) < 30 or null.all():
            assert result.verdict != "pass", result
        if result.verdict == "pass":
            assert any(r["verdict"] == "pass" for r in found.table)
            assert not any(r["verdict"] == "fail" for r in found.table)
    if fair.result.verdict == "pass":
        assert null.mean() <= 0.2 and len(set(e["group"][~null])) + null.any() > 1
        assert all(abs(r["difference"]) < 0.4 for r in fair.table if r["judged"])
    json.dumps(fair.shown, allow_nan=False)
