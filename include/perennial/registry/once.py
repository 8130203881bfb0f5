"""Create something in MLflow exactly once, over a network that may lose the answer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

#: What MLflow's client says when the server could not be reached, or broke off.
_OUTAGE = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


def once(find: Callable[[], T | None], create: Callable[[], T], *, attempts: int = 5, pause: float = 1.0) -> T:
    """What ``find`` finds; else what ``create`` makes.

    MLflow's client sends a request again when the connection breaks before the answer has come. The server may have
    done it by then, and a second run or version would stand beside the first. So a creation is sent once, and after an
    outage it is looked first, with all the patience that the client has.
    """
    from mlflow.exceptions import MlflowException

    for attempt in range(attempts):
        found = find()
        if found is not None:
            return found
        try:
            with _sent_once():
                return create()
        except MlflowException as e:
            if e.error_code not in _OUTAGE or attempt == attempts - 1:
                raise
            time.sleep(pause * 2**attempt)
    raise AssertionError("unreachable")


@contextmanager
def _sent_once() -> Iterator[None]:
    """MLflow reads this variable before each request."""
    before = os.environ.get(_RETRIES)
    os.environ[_RETRIES] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_RETRIES]
        else:
            os.environ[_RETRIES] = before
