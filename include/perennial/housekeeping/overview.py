"""What there is: feeds and models with their newest partitions, versions, decisions, and bytes. Reads logs, no rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import httpx
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from perennial.errors import PerennialError
from perennial.housekeeping.places import Place, places, stored_bytes
from perennial.ledger import Ledger
from perennial.registry.pause import paused
from perennial.settings import settings
from perennial.specs.loader import SpecSet
from perennial.storage import open_store, storage_options


@dataclass(frozen=True)
class Size:
    """Of one or more tables. ``live``: what the newest versions name; ``stored``: everything on disk."""

    partitions: int = 0
    rows: int = 0
    live: int = 0
    stored: int = 0
    newest: str | None = None


@dataclass(frozen=True)
class FeedState:
    """A feed.

    :param refused: partitions with rows in the quarantine.
    """

    name: str
    size: Size
    refused: int


@dataclass(frozen=True)
class ModelState:
    """A model.

    :param aliases: version by alias; ``None``: MLflow could not be asked.
    :param degraded: published partitions that lacked an input.
    :param decision: the last decision on a candidate: verdict, reason, as_of.
    """

    name: str
    aliases: Mapping[str, str] | None
    features: Size
    predictions: Size
    degraded: tuple[str, ...]
    decision: Mapping[str, str | None] | None
    paused: str | None


@dataclass(frozen=True)
class Overview:
    """Everything at a glance."""

    feeds: tuple[FeedState, ...]
    models: tuple[ModelState, ...]
    other: Mapping[str, int]  # bytes by what they are: quarantine, monitoring, reports, ...

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def overview(specs: SpecSet) -> Overview:
    """Look at the lake, the ledger and the registry. Takes the time of reading the tables' logs."""
    ledger = Ledger()
    found = {p.name: p for p in places()}
    refused: dict[str, int] = {}
    if "quarantine" in found:
        for key in found["quarantine"].table.partitions():
            name = key.partition("T")[0]
            refused[name] = refused.get(name, 0) + 1
    feeds = [FeedState(n, _size([found.get(f"feeds/{n}")]), refused.get(n, 0)) for n in sorted(specs.feeds)]
    models = []
    for name in sorted(specs.models):
        features = [p for p in found.values() if p.kind == "features" and p.subject == name]
        predictions = found.get(f"predictions/{name}")
        decisions = ledger.find(name, event="decision")
        last = decisions[-1] if decisions else None
        pause = paused(ledger, name)
        models.append(
            ModelState(
                name,
                aliases(name),
                _size(features),
                _size([predictions]),
                tuple(degraded(predictions)) if predictions else (),
                {"verdict": last.verdict, "reason": last.reason, "as_of": last.as_of} if last else None,
                pause.reason if pause else None,
            )
        )
    return Overview(tuple(feeds), tuple(models), _other())


def _size(tables: list[Place | None] | list[Place]) -> Size:
    total = Size()
    for place in tables:
        if place is None:
            continue
        known = place.table.partitions()
        newest = max((k for k in (total.newest, max(known, default=None)) if k), default=None)
        total = Size(
            total.partitions + len(known),
            total.rows + sum(p.rows for p in known.values()),
            total.live + sum(p.bytes for p in known.values()),
            total.stored + stored_bytes(open_store(settings().lake), place.name),
            newest,
        )
    return total


def degraded(place: Place) -> list[str]:
    """Partitions with rows that were scored without an input; the log's statistics say it."""
    try:
        log = DeltaTable(place.uri, storage_options=storage_options(place.uri)).get_add_actions(flatten=True)
    except TableNotFoundError:
        return []
    files = pa.table(log)
    if "max.degraded" not in files.column_names:
        return []
    rows = files.select(["partition.partition", "max.degraded"]).to_pylist()
    return sorted({r["partition.partition"] for r in rows if r["max.degraded"]})


def _other() -> dict[str, int]:
    s = settings()
    lake, state = open_store(s.lake), open_store(s.state)
    return {
        "quarantine": stored_bytes(lake, "quarantine") + stored_bytes(state, "quarantine"),
        "monitoring": stored_bytes(lake, "monitoring"),
        "reports": stored_bytes(state, "reports"),
        "runs": stored_bytes(state, "runs"),
        "ledger": stored_bytes(open_store(s.ledger), ""),
        "landing": stored_bytes(open_store(s.landing), ""),
    }


def aliases(model: str) -> dict[str, str] | None:
    """Aliases of a model; ``None`` when MLflow cannot be asked.

    A server is asked over HTTP directly: importing MLflow takes three seconds, which is no way to ask for a status.
    """
    uri = settings().mlflow
    if not uri.startswith(("http://", "https://")):
        from perennial.registry import versions

        return versions.aliases(model)
    local = httpx.URL(uri).host in ("127.0.0.1", "localhost", "::1")
    try:
        answer = httpx.get(
            f"{uri}/api/2.0/mlflow/registered-models/get", params={"name": model}, timeout=5, trust_env=not local
        )
        if answer.status_code == 404:
            return {}
        answer.raise_for_status()
        return {a["alias"]: str(a["version"]) for a in answer.json()["registered_model"].get("aliases", [])}
    except (httpx.HTTPError, ValueError, KeyError):
        return None


def findings(specs: SpecSet, found: Overview) -> list[str]:
    """What is not as it should be, in a sentence each."""
    said = [f"{e.kind} {e.name} is broken: {e.message.splitlines()[0]}" for e in specs.errors]
    for m in found.models:
        if m.paused is not None:
            said.append(f"{m.name} is paused ({m.paused}): resume it with its operate DAG")
        if m.degraded:
            keys = ", ".join(m.degraded[:5]) + (f" and {len(m.degraded) - 5} more" if len(m.degraded) > 5 else "")
            said.append(f"{m.name}: {keys} published without an input (degraded)")
    return said


def ask(specs: SpecSet) -> tuple[Overview, list[str]]:
    """The overview and its findings.

    :raises PerennialError: when the lake cannot be read.
    """
    try:
        found = overview(specs)
    except OSError as e:
        raise PerennialError(f"{settings().lake} cannot be read: {e}") from e
    return found, findings(specs, found)
