"""The embedded stack: Airflow and MLflow on one machine, without Docker, and the demo's landing simulator.

Nothing is imported here, because Airflow's own processes import this package for the one constant below.
"""

from __future__ import annotations

#: Airflow's ``[database] sql_alchemy_connect_args`` names this: on a busy machine a writer waits instead of failing.
SQLITE_CONNECT_ARGS: dict[str, object] = {"timeout": 60}
