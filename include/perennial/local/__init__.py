"""The embedded stack: Airflow and MLflow on one machine, without Docker, and the demo's landing simulator.

Nothing is imported here, because Airflow's own processes import this package for the one constant below.
"""

from __future__ import annotations

#: Airflow's ``[database] sql_alchemy_connect_args`` names this: on a busy machine a writer waits instead of failing.
#: Airflow's API server can wait for a lock that another of its own requests holds; only this timeout ends that, so it
#: is well below its clients' patience (60 s), and callers ask again.
SQLITE_CONNECT_ARGS: dict[str, object] = {"timeout": 15}
