"""S3 credentials from an Airflow connection, for tasks, triggers and the report pages alike."""

from __future__ import annotations

import os
from typing import Any

from perennial.settings import settings


def use_connection() -> None:
    """Hand the S3 credentials of ``PERENNIAL_AWS_CONN_ID`` to the libraries of this process, once."""
    connection = settings().aws_conn_id
    if not connection or os.environ.get("PERENNIAL_AWS_APPLIED") == connection:
        return
    from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook

    hook: Any = AwsGenericHook(aws_conn_id=connection, client_type="s3")
    found = hook.get_credentials()
    os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = found.access_key, found.secret_key
    if found.token:
        os.environ["AWS_SESSION_TOKEN"] = found.token
    if hook.region_name:
        os.environ["AWS_REGION"] = hook.region_name
    if hook.conn_config.endpoint_url:
        os.environ["PERENNIAL_S3_ENDPOINT"] = hook.conn_config.endpoint_url
    os.environ["PERENNIAL_AWS_APPLIED"] = connection
