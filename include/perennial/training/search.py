"""Hyperparameter search with Optuna. It sees inner time splits of the training rows only, never the holdout.

Trials run one after the other with a seeded sampler, so the same rows, space and seed give the same choice.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from perennial.errors import DataError
from perennial.gates.metrics import get_metric
from perennial.specs import ModelSpec
from perennial.training import estimators
from perennial.training.classes import problem_of_holdout
from perennial.training.data import Rows

#: Inner splits: train on the first 50, 65, 80 % of the blocks, score on the next 15 %.
SPLITS = ((0.50, 0.65), (0.65, 0.80), (0.80, 0.95))


def search(
    spec: ModelSpec, folder: Path, rows: Rows, seed: int, progress: Callable[[int, float], None] = lambda n, best: None
) -> dict[str, Any]:
    """Find the best parameters of ``spec.search.space``.

    :returns: the best trial's parameters.
    :raises DataError: when there are too few blocks to split by time, or no trial could be scored.
    """
    import optuna

    blocks = np.unique(rows.blocks)
    if len(blocks) < 10:
        raise DataError(
            f"{spec.name}: a search needs at least 10 training partitions to split by time, not {len(blocks)}"
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    metric = get_metric(spec.metric.name, spec.task.type)
    splits = []
    for start, end in SPLITS:
        a, b = blocks[int(start * len(blocks)) - 1], blocks[int(end * len(blocks)) - 1]
        splits.append((rows.take(rows.blocks <= a), rows.take((rows.blocks > a) & (rows.blocks <= b))))

    def objective(trial: optuna.Trial) -> float:
        # in name order: the sampler draws in the order of asking, and a stored spec does not keep the file's
        params = {name: _suggest(trial, name, how) for name, how in sorted(spec.search.space.items())}
        values = []
        for train, test in splits:
            if any(problem_of_holdout(part.y, rows.classes) for part in (train, test)):
                return float("nan")  # such a trial counts as failed
            model = estimators.fit(spec, estimators.make(spec, folder, train.X, seed, params), train.X, train.y)
            threshold = float(train.y.mean()) if spec.task.type == "binary" else None
            values.append(metric(test.y, estimators.score(model, test.X, spec.task.type), threshold))
        return float(np.mean(values))

    study = optuna.create_study(
        direction="maximize" if metric.greater_is_better else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed),
    )

    def tell(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if _scored(study):
            progress(trial.number + 1, study.best_value)

    study.optimize(objective, n_trials=spec.search.trials, n_jobs=1, callbacks=[tell])
    if not _scored(study):
        raise DataError(
            f"{spec.name}: no trial of the search gave a finite {metric.name}: an inner split may lack a class; "
            "train on a longer window"
        )
    return dict(study.best_params)


def _scored(study: Any) -> bool:
    import optuna

    return bool(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))


def _suggest(trial: Any, name: str, how: dict[str, Any]) -> Any:
    log = bool(how.get("log", False))
    if "int" in how:
        low, high = how["int"]
        return trial.suggest_int(name, low, high, log=log)
    if "float" in how:
        low, high = how["float"]
        return trial.suggest_float(name, low, high, log=log)
    return trial.suggest_categorical(name, how["choice"])
