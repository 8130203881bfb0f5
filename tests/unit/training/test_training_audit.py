"""What an audit compares, and how its tables read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perennial.errors import DataError
from perennial.specs import ModelSpec
from perennial.training.audit import audit_sections, audited_columns, decided, fairness_rows, slice_rows

pytestmark = pytest.mark.fast


def spec(**given: Any) -> ModelSpec:
    said = {
        "version": 1, "name": "hiring", "owner": "people", "task": "binary", "metric": "roc_auc", "entity": "people",
        "features": "features.sql", "labels": {"feed": "jobs", "column": "hired"},
        "estimator": {"type": "sklearn.linear_model.LogisticRegression"},
    }  # fmt: skip
    return ModelSpec.model_validate({**said, **given})


def test_a_decision_needs_a_score_and_a_threshold() -> None:
    y, scores = np.array([1.0, 0.0, 1.0]), np.array([0.5, 0.49, np.nan])
    outcome, decision = decided(spec(), y, scores, 0.5)
    assert outcome is y and np.array_equal(decision, [1, 0, np.nan], equal_nan=True)
    assert np.isnan(decided(spec(), y, scores, None)[1]).all()


def test_of_several_classes_one_is_audited_against_all_others() -> None:
    classes = ("full", "none", "part")
    many = spec(task={"type": "multiclass", "positive": "none"}, metric="accuracy")
    scores = np.array([[0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [np.nan, 1, 0]])
    outcome, decision = decided(many, np.array([1.0, 1.0, 0.0, 2.0]), scores, None, classes)
    assert outcome.tolist() == [1, 1, 0, 0] and np.array_equal(decision, [1, 0, 0, np.nan], equal_nan=True)
    with pytest.raises(DataError, match=r"task\.positive is none, and the classes are a, b"):
        decided(many, outcome, scores, None, ("a", "b"))


def test_each_column_is_read_once_and_only_when_asked_for() -> None:
    gates = {
        "slices": [{"by": "age", "bins": [40]}, {"by": "town", "mode": "disabled"}],
        "fairness": {"by": ["sex", "age"]},
    }
    assert audited_columns(spec(gates=gates)) == ["age", "sex"]
    gates["fairness"] = {"by": ["sex"], "mode": "disabled"}
    assert audited_columns(spec(gates=gates)) == ["age"] and audited_columns(spec()) == []


def test_a_line_without_figures_is_shown_too() -> None:
    held = {
        "column": "sex", "group": "<x>", "measure": "false_positive_rate", "n": 3, "rate": None, "rate_rest": 0.25,
        "difference": None, "low": None, "high": None, "verdict": "hold", "why": "3 negatives in the group",
    }  # fmt: skip
    small = {"by": "age", "slice": "missing", "rows": 3, "verdict": "hold", "why": "3 rows"}
    small |= dict.fromkeys(("candidate", "champion", "harm", "bound"))
    document = {
        "slices": [small],
        "fairness": {"table": [held], "fairlearn": {"sex": {"selection_rate_difference": 0.1}}},
    }
    assert fairness_rows(document)[0][:8] == ("sex", "<x>", "false positive rate", 3, "", "0.250", "", "")
    assert slice_rows(document)[0][:4] == ("age", "missing", 3, "")
    page = "".join(audit_sections(document))
    assert "&lt;x&gt;" in page and 'class="hold"' in page and "selection rate difference" in page
    assert audit_sections({}) == []
