"""Buttons on task pages: the report that a task wrote, and the MLflow run that it belongs to."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperatorLink


class ReportLink(BaseOperatorLink):
    """The page that this task wrote."""

    name = "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Airflow asks right after the task has run, in the same process."""
        return getattr(operator, "report_url", None) or ""


class MlflowLink(BaseOperatorLink):
    """The MLflow run."""

    name = "MLflow run"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Airflow asks right after the task has run, in the same process."""
        return getattr(operator, "mlflow_url", None) or ""


class CardLink(BaseOperatorLink):
    """The model card."""

    name = "Model card"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Airflow asks right after the task has run, in the same process."""
        return getattr(operator, "card_url", None) or ""
