"""What may go by the specs' retention: partitions, quarantine, rejected candidates, reports and staged files.

Age is counted back from the newest of the same feed or model, never by the clock: an idle stack, or a replay of an old
year, loses nothing. The clock only protects: what was written in the last days (``grace``) stays in any case.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shutil
import zoneinfo
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from perennial.errors import PerennialError, UsageError
from perennial.features.definition import load_definition
from perennial.housekeeping.pins import Pins
from perennial.housekeeping.places import LOG, Place, dag_prefixes, places, stored_bytes
from perennial.lake.homes import quarantine_table
from perennial.lake.table import Fence, no_fence
from perennial.registry import tracking
from perennial.settings import settings
from perennial.specs import FeedSpec
from perennial.specs.loader import SpecSet
from perennial.specs.partitions import known_at_instant, period
from perennial.storage import Store, open_store

#: What was written this recently stays: a run may still need it.
GRACE = dt.timedelta(days=7)
#: Reports and staged files of runs whose feed or model is gone.
DEFAULT_KEEP = dt.timedelta(days=90)
#: Decisions (tags of MLflow runs) whose bundles may go, and the tag that says that one has gone.
REFUSED, EXPIRED_TAG = ("rejected", "held", "dry run"), "perennial.expired"
#: Documents that say which instant a run stood for; they are removed last.
_DATED = ("plan.json", "request.json")


@dataclass(frozen=True)
class Expired:
    """One kind of thing that has expired for one feed or model.

    :param what: ``rows``, ``predictions``, ``features``, ``definition``, ``quarantine``, ``candidates``, ``runs``.
    :param subject: the feed or model. ``where``: table, experiment or folder.
    :param items: keys, run names or ids.
    """

    what: str
    subject: str
    where: str
    items: tuple[str, ...]
    why: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"items": list(self.items)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Expired:
        return cls(**{**value, "items": tuple(value["items"])})


def expired_keys(feed: FeedSpec, keys: Iterable[str], keep: dt.timedelta | None) -> list[str]:
    """Partitions that ended ``keep`` or more before the newest of them did; none when everything is kept."""
    if keep is None:
        return []
    zone = zoneinfo.ZoneInfo(feed.timezone)
    ends: dict[str, dt.datetime] = {}
    for key in keys:
        with contextlib.suppress(UsageError):  # a key of another grain, from before the spec was changed
            # by the wall: days of the spec are calendar days, also over a clock change
            ends[key] = period(feed, key)[1].astimezone(zone).replace(tzinfo=None)
    newest = max(ends.values(), default=dt.datetime.max)
    return sorted(k for k, end in ends.items() if end <= newest - keep)


# ----------------------------------------------------------------------------------------------------- what has expired


def find_expired(specs: SpecSet, pins: Pins, *, now: dt.datetime | None = None) -> list[Expired]:
    """Everything that has expired. Looks only.

    :raises RegistryError: when MLflow cannot be asked.
    """
    now = now or dt.datetime.now(dt.UTC)
    found = [*_partitions(specs), *_definitions(specs, pins, now), *_quarantine(specs), *_refused_files(specs)]
    found += [*_candidates(specs, pins, now), *_runs(specs, pins, now)]
    return [e for e in found if e.items]


def _partitions(specs: SpecSet) -> Iterator[Expired]:
    for place in places():
        if place.kind == "feeds" and place.subject in specs.feeds:
            feed, keep, what = specs.feeds[place.subject], specs.feeds[place.subject].retention.rows, "rows"
        elif place.kind in ("features", "predictions") and place.subject in specs.models:
            model = specs.models[place.subject]
            feed, what = specs.feeds[model.entity], place.kind
            keep = model.retention.features if what == "features" else model.retention.predictions
        else:
            continue
        if keep is not None:
            keys = expired_keys(feed, place.table.partitions(), keep)
            yield Expired(what, place.subject, place.name, tuple(keys), f"more than {keep.days} days before the newest")


def _definitions(specs: SpecSet, pins: Pins, now: dt.datetime) -> Iterator[Expired]:
    """Feature tables of definitions that neither a present spec, nor a version, nor an open run names."""
    lake = open_store(settings().lake)
    for model in lake.folders("features"):
        present = _present(specs, model)
        if present is None:
            continue
        for name in lake.folders(f"features/{model}"):
            table = f"features/{model}/{name}"
            if name == present or pins.of(table):
                continue
            written = max((at for _, _, at in lake.sizes(table)), default=now)
            if written < now - GRACE:
                why = "no present spec, registered version or open run has this definition"
                yield Expired("definition", model, table, (name,), why)


def _present(specs: SpecSet, model: str) -> str | None:
    """Name of the table of the model's present definition; ``""`` when it has no spec; ``None``: it cannot be told."""
    broken = any(e.name == model or e.kind == "defaults" for e in specs.errors)
    if model not in specs.models:
        return None if broken else ""
    try:
        spec = specs.models[model]
        return load_definition(spec, specs.folder_of("model", model), specs.feeds).digest[:16]
    except (PerennialError, OSError):
        return None


def _quarantine(specs: SpecSet) -> Iterator[Expired]:
    keys: dict[str, list[str]] = {}
    for whole in quarantine_table().partitions():
        feed, _, key = whole.partition("T")
        keys.setdefault(feed, []).append(key)
    for name, mine in sorted(keys.items()):
        if name in specs.feeds:
            keep = specs.feeds[name].retention.quarantine
            gone = set(expired_keys(specs.feeds[name], {*mine, *_newest(name)}, keep)) & set(mine)
            items = tuple(f"{name}T{k}" for k in sorted(gone))
            yield Expired(
                "quarantine", name, "quarantine", items, f"refused more than {keep.days} days before the newest"
            )


def _refused_files(specs: SpecSet) -> Iterator[Expired]:
    state = open_store(settings().state)
    for name, feed in sorted(specs.feeds.items()):
        mine = state.folders(f"quarantine/{name}")
        keep = feed.retention.quarantine
        gone = set(expired_keys(feed, {*mine, *_newest(name)}, keep)) & set(mine)
        why = f"refused more than {keep.days} days before the newest"
        yield Expired("files", name, f"quarantine/{name}", tuple(sorted(gone)), why)


def _newest(feed: str) -> list[str]:
    """The newest partition of a feed in the lake."""
    return list(Place(f"feeds/{feed}").table.partitions())[-1:]


def _candidates(specs: SpecSet, pins: Pins, now: dt.datetime) -> Iterator[Expired]:
    """MLflow runs whose candidate was refused, and whose as_of lies too far before the newest one's."""
    client = tracking.client()
    for name, model in sorted(specs.models.items()):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            continue
        runs = list(_search(experiment.experiment_id))
        instants = {r.info.run_id: _instant(r.data.params.get("as_of")) for r in runs}
        newest = max((at for at in instants.values() if at), default=None)
        keep = model.retention.candidates
        gone = [
            r.info.run_id
            for r in runs
            if r.data.tags.get("decision") in REFUSED
            and r.data.tags.get(EXPIRED_TAG) != "done"
            and r.info.run_id not in pins.mlflow_runs
            and r.data.tags.get(tracking.MODEL_TAG) not in pins.bundles
            and (at := instants[r.info.run_id]) is not None
            and newest is not None
            and at <= newest - keep
            and (r.info.end_time or 0) / 1000 < (now - GRACE).timestamp()
        ]
        yield Expired(
            "candidates",
            name,
            name,
            tuple(sorted(gone)),
            f"refused more than {keep.days} days before the newest training",
        )


def _search(experiment_id: str) -> Iterator[Any]:
    token: str | None = None
    while True:
        page = tracking.client().search_runs([experiment_id], max_results=500, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _runs(specs: SpecSet, pins: Pins, now: dt.datetime) -> Iterator[Expired]:
    """Staged files and reports of runs, by what their documents say of their instant."""
    state = open_store(settings().state)
    written: dict[str, dt.datetime] = {}
    for top in ("runs", "reports"):
        for key, _, at in state.sizes(top):
            name = key.split("/")[1]
            written[name] = max(at, written.get(name, at))
    prefixes = dag_prefixes(specs)
    by_subject: dict[str, dict[str, dt.datetime]] = {}
    for name in written:
        subject = next((s for p, s in prefixes.items() if name.startswith(f"{p}.")), name.split(".", 1)[0])
        instant = _run_instant(state, name)
        by_subject.setdefault(subject, {})[name] = instant or dt.datetime.max.replace(tzinfo=dt.UTC)
    for subject, runs in sorted(by_subject.items()):
        spec = specs.feeds.get(subject) or specs.models.get(subject)
        keep = spec.retention.reports if spec else DEFAULT_KEEP
        dated = [at for at in runs.values() if at.year < dt.MAXYEAR]
        newest = max(dated, default=None)
        # a run that never said its instant has failed at its first task: the time of writing decides then
        youngest = max(written[n] for n in runs)
        gone = [
            n
            for n, at in runs.items()
            if n not in pins.runs
            and written[n] < now - GRACE
            and (written[n] <= youngest - keep if at.year == dt.MAXYEAR else newest is not None and at <= newest - keep)
        ]
        yield Expired(
            "runs", subject, "runs and reports", tuple(sorted(gone)), f"more than {keep.days} days before the newest"
        )


def _run_instant(state: Store, name: str) -> dt.datetime | None:
    for document in _DATED:
        try:
            said = json.loads(state.get(f"runs/{name}/{document}"))
        except (KeyError, ValueError):
            continue
        if instant := _instant(said.get("as_of")):
            return instant
        if said.get("keys") and said.get("feed"):
            return known_at_instant(FeedSpec.stored(said["feed"]), max(said["keys"]))
    return None


def _instant(text: str | None) -> dt.datetime | None:
    return dt.datetime.fromisoformat(text) if text else None


# ------------------------------------------------------------------------------------------------------------- removing


def remove(expired: Expired, *, metadata: Mapping[str, str] | None = None, fence: Fence = no_fence) -> int:
    """Remove what has expired; what is gone already is passed over, so this may be killed and run again.

    :returns: how many of the items were still there.
    """
    if expired.what in ("rows", "features", "predictions", "quarantine"):
        return len(Place(expired.where).table.drop(expired.items, metadata=metadata, fence=fence))
    fence()
    if expired.what == "definition":
        _remove_table(open_store(settings().lake), expired.where)
        return len(expired.items)
    state = open_store(settings().state)
    if expired.what == "files":
        for item in expired.items:
            _remove_folder(state, f"{expired.where}/{item}")
    elif expired.what == "runs":
        for item in expired.items:
            _remove_folder(state, f"reports/{item}")
            _remove_folder(state, f"runs/{item}", last=_DATED)
    elif expired.what == "candidates":
        for item in expired.items:
            fence()
            _remove_bundle(item)
    return len(expired.items)


def _remove_table(lake: Store, name: str) -> None:
    """First the log, from its newest commit down: at every moment what is left is a table, older, or none."""
    keys = sorted(lake.list(name), reverse=True)
    log = [k for k in keys if f"/{LOG}/" in k]
    pointers = [k for k in log if k.endswith("_last_checkpoint")]
    for key in (*pointers, *(k for k in log if k not in pointers), *(k for k in keys if k not in set(log))):
        lake.delete(key)
    lake.prune(name)


def _remove_folder(state: Store, prefix: str, last: Sequence[str] = ()) -> None:
    keys = sorted(state.list(prefix), key=lambda k: k.rsplit("/", 1)[-1] in last)
    for key in keys:
        state.delete(key)
    state.prune(prefix)


def _remove_bundle(run_id: str) -> None:
    """Remove the bundle of a refused candidate. Its run stays, with parameters, figures, decision and reason.

    The run forgets its bundle first, so that a cleared run fits again instead of looking for what is gone.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client = tracking.client()
    run = client.get_run(run_id)
    model_id = run.data.tags.get(tracking.MODEL_TAG) or run.data.tags.get(EXPIRED_TAG)
    if model_id is None or model_id == "done":
        client.set_tag(run_id, EXPIRED_TAG, "done")
        return
    client.set_tag(run_id, EXPIRED_TAG, model_id)
    if tracking.MODEL_TAG in run.data.tags:
        client.delete_tag(run_id, tracking.MODEL_TAG)
    model = _logged_model(model_id)
    if model is not None:
        get_artifact_repository(model.artifact_location, tracking_uri=settings().mlflow).delete_artifacts()
        client.delete_logged_model(model_id)
    shutil.rmtree(tracking.cache_folder().root / model_id, ignore_errors=True)
    client.set_tag(run_id, EXPIRED_TAG, "done")


def _logged_model(model_id: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return tracking.client().get_logged_model(model_id)
    except MlflowException as e:
        if e.error_code in tracking.ABSENT:
            return None
        raise


def size_of(expired: Expired) -> int:
    """Bytes that go at once. Of partitions and candidates nothing is counted: vacuum and MLflow free those."""
    if expired.what == "definition":
        return stored_bytes(open_store(settings().lake), expired.where)
    state = open_store(settings().state)
    if expired.what == "files":
        return sum(stored_bytes(state, f"{expired.where}/{i}") for i in expired.items)
    if expired.what == "runs":
        return sum(stored_bytes(state, f"{top}/{i}") for i in expired.items for top in ("runs", "reports"))
    return 0
