"""The one file that Airflow's plugin loader may see; everything else is the package ``perennial_airflow`` beside it."""

from __future__ import annotations

import sys

from airflow.plugins_manager import AirflowPlugin

from perennial_airflow.failures import FailureListener
from perennial_airflow.preload import PreloadListener
from perennial_airflow.schedules import KeyedTimetable, WeekMapper

#: Plugins are loaded in every process; the API server alone needs the web parts.
_IS_API_SERVER = "api-server" in sys.argv[1:2]


def _web_apps() -> list[dict[str, object]]:
    from perennial_airflow.web.reports import build_app

    return [{"app": build_app(), "url_prefix": "/perennial", "name": "Perennial reports"}]


class PerennialPlugin(AirflowPlugin):
    """Perennial's timetable, key mapper, listener and report pages."""

    name = "perennial"
    timetables = [KeyedTimetable]  # noqa: RUF012 - Airflow's own convention
    partition_mappers = [WeekMapper]  # noqa: RUF012
    listeners = [PreloadListener(), FailureListener()]  # noqa: RUF012
    fastapi_apps = _web_apps() if _IS_API_SERVER else []
