"""One Airflow home per test process: Airflow reads its settings once, when it is first imported.

The environment is only set inside :func:`airflow_environment`, so that tests which start Airflow by themselves, with
an environment of their own, see nothing of it.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

PROJECT = Path(__file__).resolve().parent.parent


@functools.cache
def airflow_settings() -> dict[str, str]:
    """The environment of this process's Airflow: SQLite, the project's DAGs and plugins, nothing else."""
    home = Path(tempfile.mkdtemp(prefix="perennial-airflow-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    sections = {
        "core": {
            "dags_folder": PROJECT / "dags",
            "plugins_folder": PROJECT / "plugins",
            "load_examples": False,
            "unit_test_mode": False,
            "hostname_callable": "socket.gethostname",
        },
        "database": {"sql_alchemy_conn": f"sqlite:///{home / 'airflow.db'}"},
        "logging": {"base_log_folder": home / "logs", "colored_console_log": False},
        "scheduler": {"catchup_by_default": False},
    }
    found = {
        f"AIRFLOW__{s.upper()}__{k.upper()}": str(v) for s, options in sections.items() for k, v in options.items()
    }
    return {"AIRFLOW_HOME": str(home), "PERENNIAL_PRELOAD": "0", **found}


@contextmanager
def airflow_environment() -> Iterator[Path]:
    """Airflow's variables, for as long as it lasts."""
    with mock.patch.dict(os.environ, airflow_settings()):
        yield Path(airflow_settings()["AIRFLOW_HOME"])
