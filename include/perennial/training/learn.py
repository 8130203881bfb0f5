"""What a training computes: from a plan and its snapshots to a fitted estimator. Writes nothing, in any process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.errors import DataError
from perennial.lake.table import Snapshot
from perennial.training import estimators
from perennial.training.classes import check_training
from perennial.training.data import Rows, load_rows
from perennial.training.plan import TrainingPlan
from perennial.training.search import search
from perennial.trust.state import fitted_state

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Learned:
    """What a training comes to, before anything is written. The same plan and snapshots give the same.

    :param window: every row of the training window; ``rows``: the labelled ones, which it was fitted on.
    :param judged: the holdout, and ``scores`` what the model says of it.
    :param params: what a search chose. ``threshold``: binary only.
    :param state: the fitted state's digest and parts; ``sha256`` is null when ``error`` says that it has none.
    """

    window: Rows
    rows: Rows
    judged: Rows
    params: dict[str, Any]
    model: Any
    threshold: float | None
    scores: NDArray[np.float64]
    state: dict[str, Any]
    packages: tuple[str, ...]


def learn(
    plan: TrainingPlan, train: Mapping[str, Snapshot], holdout: Mapping[str, Snapshot], progress: Progress
) -> Learned:
    """Fit on ``train`` and score ``holdout``; writes nothing. The caller sets the threads.

    :raises DataError: when there is nothing to learn from.
    """
    spec, folder = plan.spec, Path(plan.folder)
    everything = load_rows(spec, plan.feeds, plan.definition, train)
    rows = everything.labelled
    judged = load_rows(spec, plan.feeds, plan.definition, holdout, everything.classes)
    _check_rows(plan, rows)
    params: dict[str, Any] = {}
    if spec.search.trials > 0:
        params = search(spec, folder, rows, plan.seed, lambda n, best: progress(f"trial {n}: best {best:.4f}"))
    progress(f"fitting {spec.estimator.type} on {len(rows.y):,} rows of {len(plan.train_keys)} partitions")
    model = estimators.make(spec, folder, rows.X, plan.seed, params)
    estimators.fit(spec, model, rows.X, rows.y)
    state, packages = _state(model, spec.estimator.type)
    threshold = None
    if spec.task.type == "binary":
        threshold = spec.scoring.threshold if spec.scoring.threshold is not None else float(rows.y.mean())
    scores = estimators.score(model, judged.X, spec.task.type)
    return Learned(everything, rows, judged, params, model, threshold, scores, state, packages)


def _state(model: Any, kind: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The fitted state as the bundle keeps it, and the packages of the model's classes."""
    try:
        found = fitted_state(model)
    except Exception as e:  # a class of somebody else's; the model may be good all the same
        packages = {kind.partition(".")[0], type(model).__module__.partition(".")[0]}
        return {"sha256": None, "parts": {}, "error": (str(e).strip().splitlines() or [type(e).__name__])[0]}, tuple(
            sorted(packages)
        )
    return {"sha256": found.sha256, "parts": dict(found.parts), "error": None}, found.packages


def _check_rows(plan: TrainingPlan, rows: Rows) -> None:
    name, task = plan.spec.name, plan.spec.task.type
    if len(rows.y) == 0:
        raise DataError(f"{name}: none of the {len(plan.train_keys)} training partitions has a labelled row")
    if task == "multiclass":
        check_training(plan.spec, rows.y, rows.classes)
    if task == "binary" and len(np.unique(rows.y)) < 2:
        only = "positive" if rows.y[0] == 1 else "negative"
        raise DataError(f"{name}: every one of the {len(rows.y):,} training rows is {only}; there is nothing to learn")
