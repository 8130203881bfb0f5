"""The only place that reads Perennial's configuration, all of it from the environment.

=============================  =======================================================================================
``PERENNIAL_HOME``             folder of all local state; default ``.perennial`` in the working directory
``PERENNIAL_SPECS``            folders of specs (``feeds/``, ``models/``), separated by ``:``; default ``include``
``PERENNIAL_LAKE``             URI of the lake (``file://`` or ``s3://``); default ``$PERENNIAL_HOME/lake``
``PERENNIAL_STATE``            URI of runs' working state and reports; default ``$PERENNIAL_HOME/state``
``PERENNIAL_LEDGER``           URI of the ledger; default ``$PERENNIAL_HOME/ledger``
``PERENNIAL_LANDING``          URI of the landing area; default ``$PERENNIAL_HOME/landing``
``MLFLOW_TRACKING_URI``        MLflow's own variable
``PERENNIAL_S3_ENDPOINT``      endpoint of an S3-compatible store, when it is not AWS
``PERENNIAL_AWS_CONN_ID``      Airflow connection with the S3 credentials; empty: the environment's own credentials
``PERENNIAL_SIGNING``          how versions are signed and verified: ``key``
``PERENNIAL_SIGNING_KEY``      private key (PEM, or a file with it); default ``$PERENNIAL_HOME/keys/signing.pem``
``PERENNIAL_SIGNING_CONN_ID``  Airflow connection whose password is the private key; wins over the line above
``PERENNIAL_TRUSTED_KEYS``     public keys (PEM, or files and folders separated by ``:``) whose versions may be used;
                               default ``$PERENNIAL_HOME/keys/trusted``
``PERENNIAL_PORT``             port of Airflow in the embedded stack (8080); MLflow takes the next one
``PERENNIAL_REPORTS_URL``      where reports under ``$PERENNIAL_STATE/reports`` can be opened in a browser
``PERENNIAL_AIRFLOW``          URL of Airflow, for ``perennial status``; default: the embedded stack's
``PERENNIAL_AIRFLOW_USER``     who asks it; default: the embedded stack's user and password
``PERENNIAL_AIRFLOW_PASSWORD``
=============================  =======================================================================================
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """Resolved configuration. URIs have no trailing slash."""

    home: Path
    specs: tuple[Path, ...]
    lake: str
    state: str
    ledger: str
    landing: str
    mlflow: str
    s3_endpoint: str | None
    aws_conn_id: str | None
    signing: str
    signing_key: str = field(repr=False)
    signing_conn_id: str | None
    trusted_keys: str
    port: int
    reports_url: str | None
    airflow: str
    airflow_login: tuple[str, str] | None

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from ``env`` (default: the process environment)."""
        e = os.environ if env is None else env
        home = Path(e.get("PERENNIAL_HOME") or ".perennial").absolute()
        port = int(e.get("PERENNIAL_PORT") or 8080)
        specs = tuple(Path(p).absolute() for p in (e.get("PERENNIAL_SPECS") or "include").split(os.pathsep) if p)
        return cls(
            home=home,
            specs=specs,
            lake=_uri(e.get("PERENNIAL_LAKE"), home / "lake"),
            state=_uri(e.get("PERENNIAL_STATE"), home / "state"),
            ledger=_uri(e.get("PERENNIAL_LEDGER"), home / "ledger"),
            landing=_uri(e.get("PERENNIAL_LANDING"), home / "landing"),
            mlflow=e.get("MLFLOW_TRACKING_URI") or f"http://127.0.0.1:{port + 1}",
            s3_endpoint=e.get("PERENNIAL_S3_ENDPOINT") or None,
            aws_conn_id=e.get("PERENNIAL_AWS_CONN_ID") or None,
            signing=e.get("PERENNIAL_SIGNING") or "key",
            signing_key=e.get("PERENNIAL_SIGNING_KEY") or str(home / "keys" / "signing.pem"),
            signing_conn_id=e.get("PERENNIAL_SIGNING_CONN_ID") or None,
            trusted_keys=e.get("PERENNIAL_TRUSTED_KEYS") or str(home / "keys" / "trusted"),
            port=port,
            reports_url=(e.get("PERENNIAL_REPORTS_URL") or "").rstrip("/") or None,
            airflow=(e.get("PERENNIAL_AIRFLOW") or f"http://127.0.0.1:{port}").rstrip("/"),
            airflow_login=(e["PERENNIAL_AIRFLOW_USER"], e.get("PERENNIAL_AIRFLOW_PASSWORD") or "")
            if e.get("PERENNIAL_AIRFLOW_USER")
            else None,
        )


def _uri(value: str | None, default: Path) -> str:
    if not value:
        return default.as_uri()
    if "://" in value:
        return value.rstrip("/")
    return Path(value).absolute().as_uri()


def settings() -> Settings:
    """Settings of this process, read afresh (cheap, and tests may change the environment)."""
    return Settings.from_environment()


#: Every library's telemetry off, and quiet where a library is loud. The stack, the tests and the image set all of it.
TELEMETRY_OFF: dict[str, str] = {
    "DO_NOT_TRACK": "true",  # MLflow wants the word, Evidently takes anything
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "SCARF_ANALYTICS": "false",
    "SCARF_NO_ANALYTICS": "true",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    "GIT_PYTHON_REFRESH": "quiet",
    "OPTUNA_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
