"""Names of the metrics that a spec may use, by task, so that a typo is found without importing scikit-learn."""

from __future__ import annotations


def _plain(names: frozenset[str]) -> frozenset[str]:
    return frozenset(name.removeprefix("neg_") for name in names if name.startswith("neg_"))


BINARY = frozenset(
    {
        "accuracy",
        "average_precision",
        "balanced_accuracy",
        "d2_brier_score",
        "d2_log_loss_score",
        "f1",
        "jaccard",
        "matthews_corrcoef",
        "neg_brier_score",
        "neg_log_loss",
        "neg_negative_likelihood_ratio",
        "positive_likelihood_ratio",
        "precision",
        "recall",
        "roc_auc",
    }
)
REGRESSION = frozenset(
    {
        "d2_absolute_error_score",
        "explained_variance",
        "neg_max_error",
        "neg_mean_absolute_error",
        "neg_mean_absolute_percentage_error",
        "neg_mean_gamma_deviance",
        "neg_mean_poisson_deviance",
        "neg_mean_squared_error",
        "neg_mean_squared_log_error",
        "neg_median_absolute_error",
        "neg_root_mean_squared_error",
        "neg_root_mean_squared_log_error",
        "r2",
    }
)
#: ``mean_absolute_error`` means the same as ``neg_mean_absolute_error``.
PLAIN = {"binary": _plain(BINARY), "regression": _plain(REGRESSION)}
BY_TASK = {"binary": BINARY, "regression": REGRESSION}

#: Metrics whose value is a share: a floor outside 0 and 1 is a slip.
SHARES = frozenset(
    {"accuracy", "average_precision", "balanced_accuracy", "f1", "jaccard", "precision", "recall", "roc_auc"}
)
