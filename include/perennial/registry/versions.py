"""Versions and aliases: register once per run, move aliases one at a time, write every move to the ledger.

MLflow's alias writes are last-writer-wins. Moves are therefore made by tasks in a pool of one slot, check that the
champion is still the one that was judged against, and read back what they set.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from perennial.errors import ChampionMovedError, ConflictError, RegistryError, UsageError
from perennial.ledger import Entry, Ledger
from perennial.ledger.entries import champion_at
from perennial.registry import heads, moves
from perennial.registry.once import once
from perennial.registry.tracking import ABSENT, MODEL_TAG, client, sentence
from perennial.runs import Actor

CHAMPION, CHALLENGER, PREVIOUS = moves.CHAMPION, moves.CHALLENGER, moves.PREVIOUS


@dataclass(frozen=True)
class Version:
    """A registered version and where its bundle is."""

    model: str
    version: str
    model_id: str
    run_id: str
    tags: Mapping[str, str]


def _version(raw: Any) -> Version:
    model_id = raw.model_id or raw.tags.get(MODEL_TAG) or str(raw.source).removeprefix("models:/")
    return Version(raw.name, str(raw.version), model_id, raw.run_id, dict(raw.tags))


def register(
    model: str,
    run_id: str,
    model_id: str,
    tags: Mapping[str, str],
    description: str = "",
    fence: Callable[[], None] = lambda: None,
) -> Version:
    """Register the bundle of a run, once: the same run always gives the same version."""
    from mlflow.exceptions import MlflowException

    c = client()

    def find() -> Any:
        found = c.search_model_versions(f"name = '{model}' and run_id = '{run_id}'")
        fence()
        return next(iter(found), None)

    fence()
    try:
        c.create_registered_model(model)
    except MlflowException as e:
        if e.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"models:/{model_id}"
    raw = once(
        find,
        lambda: c.create_model_version(
            model, source, run_id=run_id, tags=dict(tags), description=description, model_id=model_id
        ),
    )
    return _version(raw)


def get(model: str, version: str) -> Version:
    """A version by number.

    :raises RegistryError: when there is none.
    """
    from mlflow.exceptions import MlflowException

    try:
        return _version(client().get_model_version(model, version))
    except MlflowException as e:
        if e.error_code not in ABSENT:
            raise
        raise RegistryError(f"{model} has no version {version}: {sentence(e)}") from e


def by_alias(model: str, alias: str) -> Version | None:
    """The version that an alias names; ``None`` when there is no such alias or model."""
    from mlflow.exceptions import MlflowException

    try:
        return _version(client().get_model_version_by_alias(model, alias))
    except MlflowException as e:
        if e.error_code in ABSENT:
            return None
        raise


def named(model: str, version: str) -> Version:
    """The version that somebody asks for, by its number or an alias.

    :raises UsageError: when there is none.
    """
    if version.isdigit():
        try:
            return get(model, version)
        except RegistryError as e:
            raise UsageError(str(e)) from e
    found = by_alias(model, version)
    if found is None:
        raise UsageError(f"{model} has no version with the alias {version!r}: give a number, or champion")
    return found


def aliases(model: str) -> dict[str, str]:
    """All aliases of a model."""
    from mlflow.exceptions import MlflowException

    try:
        return {k: str(v) for k, v in client().get_registered_model(model).aliases.items()}
    except MlflowException as e:
        if e.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise


def promote(
    model: str,
    version: str,
    *,
    expected: str | None,
    reason: str,
    as_of: dt.datetime,
    actor: Actor,
    ledger: Ledger,
    fence: Callable[[], None] = lambda: None,
    event: str = "promote",
) -> str | None:
    """Make ``version`` champion and the old champion ``previous``; done twice, it is done once.

    What this very act did before stands, even when the champion has changed since: clearing an old run moves nothing.

    :param expected: the champion that was judged against (``None``: there was none).
    :returns: the version that was champion before.
    :raises ConflictError: when the champion is another one by now.
    """
    target = get(model, version)
    entry_id = actor.entry_id("alias", CHAMPION, version)
    if ledger.find(model, id=entry_id):
        return expected
    there = aliases(model)
    now = there.get(CHAMPION)
    if now != version:
        if now != expected:
            raise ChampionMovedError(
                f"{model}: version {version} was judged against {_named(expected)}, but champion is {_named(now)} now; "
                "run the comparison again"
            )
        fence()
        moves.reconcile(
            model, lambda: there, as_of=as_of, actor=actor, ledger=ledger, fence=fence, settle=0
        )  # what the ledger does not know of is written down before it is replaced and forgotten
        if now is not None:
            client().set_registered_model_alias(model, PREVIOUS, now)
        fence()
        client().set_registered_model_alias(model, CHAMPION, version)
        read = aliases(model).get(CHAMPION)
        if read != version:
            raise ConflictError(
                f"{model}: champion was set to version {version} but reads {_named(read)}: somebody else writes it"
            )
    ledger.append(
        Entry(
            id=entry_id,
            event="alias",
            subject=model,
            version=version,
            verdict=event,
            reason=reason,
            as_of=as_of.isoformat(),
            figures={
                "alias": CHAMPION,
                "from": expected,
                "to": version,
                "previous": expected,
                "mlflow_run": target.run_id,
            },
            actor=actor.to_dict(),
            digests=_digests(target),
        ),
        fence=fence,
    )
    heads.advance(model, ledger, fence)
    return expected


def _digests(version: Version) -> dict[str, str]:
    """Digests of spec, features and data that the version was registered with."""
    named = ("spec", "features", "pipeline")
    return {k: v for k, v in version.tags.items() if k in named or k.startswith(("feed.", "snapshot."))}


def reconcile(
    model: str,
    *,
    as_of: dt.datetime,
    actor: Actor,
    ledger: Ledger,
    fence: Callable[[], None] = lambda: None,
    settle: float = moves.SETTLE,
) -> list[Entry]:
    """Write down what somebody moved or deleted in MLflow by hand (:func:`perennial.registry.moves.reconcile`)."""
    found = moves.reconcile(
        model, lambda: aliases(model), as_of=as_of, actor=actor, ledger=ledger, fence=fence, settle=settle
    )
    if found:
        heads.advance(model, ledger, fence)
    return found


def require_champion(model: str) -> Version:
    """The champion.

    :raises RegistryError: when there is none.
    """
    found = by_alias(model, CHAMPION)
    if found is None:
        raise RegistryError(
            f"{model} has no champion: train it first (DAG {model}.train), or promote a version by hand"
        )
    return found


def serving_at(model: str, as_of: dt.datetime, ledger: Ledger) -> Version:
    """What served at ``as_of``: the champion, or, when it was promoted later, the one that the ledger names for then.

    :raises RegistryError: when there was none.
    """
    champion = require_champion(model)
    made = [
        e
        for e in ledger.find(model, event="alias", version=champion.version)
        if e.figures.get("alias") == CHAMPION and e.as_of
    ]
    if not made or dt.datetime.fromisoformat(str(made[-1].as_of)) <= as_of:
        return champion
    then = champion_at(ledger, model, as_of)
    if then is None and made[0].verdict == moves.FOUND and made[0].figures.get("from") is None:
        return champion  # set by hand, nobody knows when
    if then is None:
        raise RegistryError(f"{model} had no champion on {as_of:%Y-%m-%d %H:%M} UTC; name a version in the form")
    return get(model, then)


def _named(version: str | None) -> str:
    return "no version" if version is None else f"version {version}"
