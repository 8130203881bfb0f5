"""What stands still in Airflow without an error: missing pools, paused or missing DAGs, displaced cron."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator

import httpx

from perennial.local.rest import AirflowClient, AirflowError, Json
from perennial.settings import Settings
from perennial.specs import FeedSpec
from perennial.specs.loader import SpecSet
from perennial.specs.partitions import key_of, last_key, period

#: Pools that the DAGs name whatever the specs say; ``include/pools.json`` defines them.
POOLS = ("perennial_light", "perennial_promote", "perennial_heavy")
_PATTERNS = ("train", "score", "monitor", "retrain", "operate")


def reach(settings: Settings, timeout: float = 5.0) -> AirflowClient | None:
    """Airflow's API, if it answers; with the settings' login, or that of the embedded stack."""
    login = settings.airflow_login or _embedded(settings)
    if login is None:
        return None
    client = AirflowClient(settings.airflow, *login, timeout=timeout, retry_for=0)
    try:
        client.health()
    except (httpx.HTTPError, ValueError):
        client.close()
        return None
    return client


def _embedded(settings: Settings) -> tuple[str, str] | None:
    try:
        known = json.loads((settings.home / "keys" / "passwords.json").read_text("utf-8"))
        return "admin", str(known["admin"])
    except (OSError, ValueError, KeyError):
        return None


def airflow_findings(client: AirflowClient, specs: SpecSet, *, now: dt.datetime | None = None) -> list[str]:
    """One sentence for each thing that stands still.

    :raises AirflowError: when Airflow refuses to say.
    """
    now = now or dt.datetime.now(dt.UTC)
    dags = {d["dag_id"]: d for d in client.dags(tags=["perennial"], exclude_stale="true")}
    return [*_pools(client, specs), *_dags(dags, specs), *_cron(dags, specs, now), *_imports(client)]


def _pools(client: AirflowClient, specs: SpecSet) -> Iterator[str]:
    there = client.pools()
    wanted = {*POOLS, *(f.pool for f in specs.feeds.values()), *(m.pool for m in specs.models.values())}
    for name in sorted(wanted - set(there)):
        yield f"pool {name} is missing, so its tasks wait for ever: airflow pools import include/pools.json"
    for name in sorted(wanted & set(there)):
        if there[name]["slots"] == 0:
            yield f"pool {name} has no slots, so its tasks never start"


def _dags(dags: dict[str, Json], specs: SpecSet) -> Iterator[str]:
    wanted = {f"{n}.ingest" for n in specs.feeds}
    wanted |= {f"{m.dag_prefix}{n}.{p}" for n, m in specs.models.items() for p in _PATTERNS} | {"perennial.maintain"}
    for name in sorted(wanted - set(dags)):
        yield f"DAG {name} is not there: see the import errors, or wait for the DAG processor"
    for name in sorted(n for n, d in dags.items() if d["is_paused"]):
        yield f"DAG {name} is paused, and loses the events that come meanwhile: unpause it, use operate's pause instead"


def _cron(dags: dict[str, Json], specs: SpecSet, now: dt.datetime) -> Iterator[str]:
    """After a backfill into the future, cron stays silent until past it."""
    for name, feed in sorted(specs.feeds.items()):
        dag = dags.get(f"{name}.ingest")
        said = dag and dag.get("next_dagrun_run_after")
        if said and _lives(feed, now):
            due, following = period(feed, key_of(now, feed))[1], dt.datetime.fromisoformat(said)
            if following > due:
                yield (
                    f"{name}.ingest runs next on {following:%Y-%m-%d %H:%M} UTC, and {due:%Y-%m-%d %H:%M} would be its "
                    "turn: a backfill into the future displaced its cron, so trigger the keys by hand until then"
                )


def _lives(feed: FeedSpec, now: dt.datetime) -> bool:
    last = last_key(feed)
    begins = dt.datetime.combine(feed.start, dt.time(), dt.UTC)
    return begins <= now and (last is None or now < period(feed, last)[1])


def _imports(client: AirflowClient) -> Iterator[str]:
    for error in client.import_errors():
        last = (str(error["stack_trace"]).strip().splitlines() or [""])[-1]
        yield f"{error['filename']} cannot be imported: {last}"


__all__ = ["AirflowError", "airflow_findings", "reach"]
