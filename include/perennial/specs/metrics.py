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
MULTICLASS = frozenset(
    {
        "accuracy",
        "balanced_accuracy",
        "f1_macro",
        "f1_micro",
        "f1_weighted",
        "jaccard_macro",
        "jaccard_micro",
        "jaccard_weighted",
        "matthews_corrcoef",
        "neg_log_loss",
        "precision_macro",
        "precision_micro",
        "precision_weighted",
        "recall_macro",
        "recall_micro",
        "recall_weighted",
        "roc_auc_ovo",
        "roc_auc_ovr",
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
BY_TASK = {"binary": BINARY, "multiclass": MULTICLASS, "regression": REGRESSION}
#: ``mean_absolute_error`` means the same as ``neg_mean_absolute_error``.
PLAIN = {task: _plain(names) for task, names in BY_TASK.items()}

#: Metrics whose value is a share: a floor outside 0 and 1 is a slip.
SHARES = frozenset(
    {"accuracy", "average_precision", "balanced_accuracy", "f1", "jaccard", "precision", "recall", "roc_auc"}
) | (MULTICLASS - {"matthews_corrcoef", "neg_log_loss"})
