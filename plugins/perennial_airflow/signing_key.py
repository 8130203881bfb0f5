"""The key that signs versions, from an Airflow connection. Asked for by the task that signs, and by no other."""

from __future__ import annotations

from perennial.errors import SignatureError
from perennial.settings import settings


def use_connection() -> None:
    """Sign with the password of ``PERENNIAL_SIGNING_CONN_ID``; it stays in this process's memory.

    :raises SignatureError: when there is no such connection, or it has no password.
    """
    name = settings().signing_conn_id
    if not name:
        return
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    from perennial.trust.keys import hold

    try:
        pem = Connection.get(name).password
    except AirflowNotFoundException:
        pem = None
    if not pem:
        raise SignatureError(
            f"there is no key to sign versions with: the Airflow connection {name!r} (PERENNIAL_SIGNING_CONN_ID) does "
            "not exist or has no password; its password must be the private key in PEM"
        )
    hold(pem)
