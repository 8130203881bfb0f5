"""Defines no DAG: a broken spec shows up here as an import error. Its DAGs live on from the last good spec."""

from __future__ import annotations

from airflow.sdk import get_parsing_context

from perennial.errors import SpecError
from perennial_airflow.factory import spec_errors

errors = [] if get_parsing_context().dag_id else spec_errors()
if errors:
    raise SpecError("\n\n".join(errors))
