"""What is worth retrying: I/O is, with backoff; a wrong spec, wrong data or a wrong request is not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception=[
                "perennial.errors.SpecError",
                "perennial.errors.DataError",
                "perennial.errors.UsageError",
                "perennial.errors.RegistryError",
                "perennial.errors.NotReadyError",
                "perennial.errors.ChampionMovedError",
                "perennial.errors.SignatureError",
                "perennial.errors.RefusedError",
                "perennial.errors.StageError",
            ],
            action=RetryAction.FAIL,
            reason="retrying cannot help: see the message",
        ),
    ]
)


def arguments(retries: int) -> dict[str, Any]:
    """``default_args`` for every task of a DAG."""
    return {
        "retries": retries,
        "retry_delay": timedelta(seconds=5),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
        "retry_policy": POLICY,
    }
