"""Imports the heavy libraries once, before LocalExecutor forks its workers: a task then starts in a split second.

Imports only: running an OpenMP region in the parent deadlocks the children (measured, FACTS). Set
``PERENNIAL_PRELOAD=0`` to do without. Celery workers get the same list through ``imports`` in their configuration.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import time
import warnings
from typing import Any

from airflow.listeners import hookimpl

log = logging.getLogger(__name__)

MODULES = (
    "numpy",
    "pandas",
    "pyarrow.parquet",
    "pyarrow.csv",
    "pyarrow.dataset",
    "duckdb",
    "deltalake",
    "sklearn.ensemble",
    "sklearn.compose",
    "sklearn.pipeline",
    "skops.io",
    "mlflow",
    "mlflow.sklearn",
    "mlflow.tracking",
    "mlflow.store.model_registry.rest_store",
    "mlflow.store.tracking.rest_store",
    "mlflow.data.meta_dataset",
    "model_signing.signing",
    "model_signing.verifying",
    "deltalake.fs.fs_handler",
    "great_expectations",
    "evidently",
    "evidently.metrics",
    "scipy.stats",
    "optuna",
    "perennial.training.evaluate",
    "perennial.scoring.predict",
    "perennial.monitoring.watch",
    "perennial.ingestion.ingest",
)


def preload() -> None:
    """Import every module of :data:`MODULES`; one that fails is left for the task that needs it to complain about."""
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    start = time.monotonic()
    with warnings.catch_warnings():
        # skops looks through every attribute of every loaded module; Airflow's deprecated ones would all complain
        warnings.simplefilter("ignore")
        for name in MODULES:
            try:
                importlib.import_module(name)
            except Exception:  # some libraries fail otherwise than by ImportError; the scheduler must start
                log.warning("could not import %s ahead of time", name, exc_info=True)
    log.info("imported %d heavy modules in %.1f s, before workers fork", len(MODULES), time.monotonic() - start)


class PreloadListener:
    """Runs :func:`preload` when the scheduler's job starts, which is before its executor does."""

    @hookimpl
    def on_starting(self, component: Any) -> None:
        """Airflow's hook: some long-running component of this process starts."""
        wanted = os.environ.get("PERENNIAL_PRELOAD", "1") != "0"
        if wanted and type(component).__name__ == "Job" and "scheduler" in sys.argv:
            preload()
