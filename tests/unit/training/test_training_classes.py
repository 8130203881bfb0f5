"""Classes: numbers in the order of their names, decided by the training rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from perennial.errors import DataError
from perennial.specs.loader import load_specs
from perennial.specs.models import Task
from perennial.training import classes, estimators

pytestmark = pytest.mark.fast

NAMES = ("early", "late", "on time")


@pytest.fixture
def spec(home: Path) -> Any:
    found = load_specs(only="flight_delay").model("flight_delay")
    return found.model_copy(update={"task": Task(type="multiclass")})


def test_labels_become_numbers_and_back() -> None:
    labels = pa.chunked_array([["late", None, "early"], ["on time", "lost"]])
    assert classes.classes_among(labels.unique().to_pylist()) == ("early", "late", "lost", "on time")
    found = classes.codes(labels, NAMES)
    assert found[[0, 2, 3, 4]].tolist() == [1, 0, 2, classes.UNSEEN] and np.isnan(found[1])
    whole = pa.chunked_array([pa.array([10, 2, None])])
    assert classes.classes_among(whole.to_pylist()) == ("10", "2"), "by name, as they are published"
    assert classes.codes(whole, ("10", "2"))[:2].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("y", "names", "says"),
    [
        ([0, 1, 1], NAMES, "no training row is of the class on time: train on a longer window"),
        ([0, 1, 2, -1], NAMES, "1 training rows have a label that task.classes does not name"),
        ([0, 0], ("early",), "every training row is of the class early"),
        (list(range(101)), tuple(f"{i:03d}" for i in range(101)), "101 different values, more than 100 classes"),
    ],
)
def test_a_training_without_its_classes_is_refused(spec: Any, y: list[int], names: tuple[str, ...], says: str) -> None:
    with pytest.raises(DataError, match=says):
        classes.check_training(spec, np.array(y, dtype=float), names)
    classes.check_training(spec, np.array([0.0, 1, 2]), NAMES)


def test_a_holdout_says_which_class_is_missing_and_how_many_are_unknown() -> None:
    assert classes.problem_of_holdout(np.array([0.0, 1, 2]), NAMES) is None
    assert classes.problem_of_holdout(np.array([0.0, 2]), NAMES) == "the holdout has no row of the class late"
    said = classes.problem_of_holdout(np.array([0.0, 1, 2, -1]), NAMES)
    assert said == "1 of 4 labels of the holdout are of a class that training has not seen"
    assert classes.problem_of_holdout(np.array([-1.0, 5]), ()) is None, "no class, no problem"


def test_another_versions_scores_get_our_columns() -> None:
    theirs = np.array([[0.2, 0.8]])
    assert classes.aligned(theirs, ("early", "on time"), NAMES).tolist() == [[0.2, 0.0, 0.8]]
    assert classes.aligned(theirs, ("early", "lost"), NAMES) is None, "it knows a class that we do not"


def test_scores_in_a_table_come_back_as_they_were() -> None:
    wide = np.random.default_rng(0).random((4, 11))
    for scores in (wide, wide[:, 0]):
        assert np.array_equal(classes.scores_of(pd.DataFrame(classes.score_columns(scores))), scores)


def test_an_estimator_gives_a_probability_of_each_class(spec: Any, home: Path) -> None:
    rng = np.random.default_rng(1)
    X = pd.DataFrame({"hour": rng.uniform(0, 24, 600), "place": rng.choice(["a", "b"], 600).astype(object)})
    y = np.digitize(X["hour"], [6, 12]).astype(float)
    model = estimators.fit(spec, estimators.make(spec, home, X, 7), X, y)
    scores = estimators.score(model, X, "multiclass")
    assert scores.shape == (600, 3) and np.allclose(scores.sum(axis=1), 1)
    assert (scores.argmax(axis=1) == y).mean() > 0.85, "columns are in the order of the numbers"
