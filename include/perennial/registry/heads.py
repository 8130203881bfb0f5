"""Heads of the ledger's chains, kept outside of the ledger: in MLflow, so that a chain whose tail was cut shows it.

A model's head is a tag of the registered model. A feed, or a model without a version yet, has none; its head is a tag
of the experiment ``perennial.ledger``. MLflow's database is another place with other credentials than the ledger's
folder or bucket, so whoever can cut the one cannot, by that alone, fix the other.

A head only ever moves forward, along a chain that still leads through it, and at moments that are on record anyway
(decisions, alias moves, maintenance, verification). So it may lag. A head beyond the end of a chain, or with another
sha256, is damage. MLflow being away is not: then the head lags.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from perennial.errors import RegistryError
from perennial.ledger import Head, Ledger
from perennial.registry.tracking import client, sentence
from perennial.settings import settings

log = logging.getLogger(__name__)

TAG = "perennial.ledger.head"
EXPERIMENT = "perennial.ledger"
_PREFIX = "head."
_HEAD = re.compile(r"(\d+):([0-9a-f]{64})")


def kept() -> dict[str, dict[str, Head]]:
    """The heads of all subjects, by where they are kept.

    :raises RegistryError: when MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException

    found: dict[str, dict[str, Head]] = {}
    try:
        with _briefly():
            for name, tags in _models():
                _add(found, name, "MLflow's registered model", tags.get(TAG))
            experiment = client().get_experiment_by_name(EXPERIMENT)
    except MlflowException as e:
        raise RegistryError(
            f"MLflow at {settings().mlflow} does not say which heads of the ledger it keeps, so that a cut tail "
            f"would not show ({sentence(e)}): start it, or look at the chains alone with --offline"
        ) from e
    for key, value in (experiment.tags if experiment is not None else {}).items():
        if key.startswith(_PREFIX):
            _add(found, key.removeprefix(_PREFIX), f"MLflow's experiment {EXPERIMENT}", value)
    return found


def advance(subject: str, ledger: Ledger, fence: Callable[[], None] = lambda: None) -> Head | None:
    """Bring the kept head of a chain up to its end, best effort: an outage of MLflow is a warning.

    A chain that does not lead through the head that is kept is damaged: the head stays, as the witness.

    :returns: the head that was written; ``None`` when there was nothing to write, or it could not be.
    """
    try:
        with _briefly():
            where, known = _kept_for(subject)
        head = ledger.head(subject)
        if head is None or (known is not None and known.seq == head.seq and known.sha256 == head.sha256):
            return None
        damage = known and _leads_through(ledger, subject, known, head)
    except Exception:  # a head may lag; what was done is in the ledger
        log.warning("the head of the ledger of %s was not brought up to date", subject, exc_info=True)
        return None
    if damage:
        log.error("the ledger of %s is damaged (%s): run perennial ledger verify %s", subject, damage, subject)
        return None
    fence()
    try:
        with _briefly():
            _write(where, subject, f"{head.seq}:{head.sha256}")
    except Exception:  # as above
        log.warning("the head of the ledger of %s was not written", subject, exc_info=True)
        return None
    return head


def _leads_through(ledger: Ledger, subject: str, known: Head, head: Head) -> str | None:
    """What is wrong between the head that is kept and the chain's end; ``None`` when nothing is."""
    if head.seq < known.seq:
        return f"it ends with entry {head.seq}, and MLflow keeps entry {known.seq}"
    raw = ledger.at(subject, known.seq)
    if raw is None or hashlib.sha256(raw).hexdigest() != known.sha256:
        return f"entry {known.seq} is not the one that MLflow keeps"
    for seq in range(known.seq + 1, head.seq + 1):
        following = ledger.at(subject, seq)
        if following is None or json.loads(following)["prev"] != hashlib.sha256(raw).hexdigest():
            return f"entry {seq} does not follow entry {seq - 1}"
        raw = following
    return None


def _kept_for(subject: str) -> tuple[str | None, Head | None]:
    """Where the head of a subject goes (an experiment's id; ``None``: its registered model), and the newest kept."""
    from mlflow.exceptions import MlflowException

    found: dict[str, dict[str, Head]] = {}
    registered = False
    try:
        _add(found, subject, "model", client().get_registered_model(subject).tags.get(TAG))
        registered = True
    except MlflowException as e:
        if e.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    experiment = client().get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        _add(found, subject, "experiment", experiment.tags.get(f"{_PREFIX}{subject}"))
    known = max(found.get(subject, {}).values(), key=lambda h: h.seq, default=None)
    if registered:
        return None, known
    return (str(experiment.experiment_id) if experiment is not None else _make_experiment()), known


def _make_experiment() -> str:
    from mlflow.exceptions import MlflowException

    try:
        return str(client().create_experiment(EXPERIMENT))
    except MlflowException as e:
        if e.error_code != "RESOURCE_ALREADY_EXISTS":  # somebody was faster
            raise
        return str(client().get_experiment_by_name(EXPERIMENT).experiment_id)


def _write(where: str | None, subject: str, text: str) -> None:
    if where is None:
        client().set_registered_model_tag(subject, TAG, text)
    else:
        client().set_experiment_tag(where, f"{_PREFIX}{subject}", text)


def _add(found: dict[str, dict[str, Head]], subject: str, where: str, text: str | None) -> None:
    match = _HEAD.fullmatch(text or "")
    if match:
        found.setdefault(subject, {})[where] = Head(int(match[1]), match[2])


def _models() -> Iterator[tuple[str, Mapping[str, str]]]:
    token: Any = None
    while True:
        page = client().search_registered_models(max_results=500, page_token=token)
        for model in page:
            yield model.name, model.tags
        token = page.token
        if not token:
            return


@contextmanager
def _briefly() -> Iterator[None]:
    """Ask MLflow once: a head is not worth waiting for. MLflow reads these variables before each request."""
    wanted = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
