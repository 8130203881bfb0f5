"""Keeping one Delta table fast and small: merge files, checkpoint the log, vacuum.

All of it may run beside readers and writers, may be killed anywhere, and may run twice. A file that a pinned version
names is never removed.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from perennial.errors import UsageError
from perennial.housekeeping.places import LOG, Place
from perennial.lake.table import PARTITION, Fence, no_fence
from perennial.storage import open_store, storage_options

#: A partition is one file when it is written. From this many small files on they are merged.
MANY_FILES, SMALL_BYTES = 8, 16 * 2**20
#: Commits since the last checkpoint that are worth a new one: opening a table reads all of them.
COMMITS = 10
#: Vacuum leaves what was replaced less than this long ago, so that nobody's reading is disturbed.
KEEP_HOURS, LEAST_HOURS = 168, 24
#: Checkpoints that stay besides those that pinned versions are read through.
NEWEST_CHECKPOINTS = 2


@dataclass(frozen=True)
class Tidied:
    """What was done to a table, or would be."""

    name: str
    partitions: int
    files: int
    bytes: int
    merged: int = 0  # files that were merged into larger ones
    checkpoint: bool = False
    log_files: int = 0  # old checkpoints removed
    removed: int = 0  # files that vacuum removed
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


def tidy(place: Place, pinned: Sequence[int], *, dry_run: bool = False, fence: Fence = no_fence) -> Tidied | None:
    """Merge small files, write a checkpoint, and remove old checkpoints that no pinned version is read through.

    :returns: ``None`` when there is no table.
    """
    known = place.table.partitions()
    table = _open(place)
    if table is None:
        return None
    many = sorted(k for k, p in known.items() if p.files >= MANY_FILES and p.bytes / p.files < SMALL_BYTES)
    merged, note = sum(known[k].files for k in many), ""
    if many and not dry_run:
        fence()
        try:
            done = table.optimize.compact(partition_filters=[(PARTITION, "in", many)])
            merged = done["numFilesRemoved"]
        except CommitFailedError:
            merged, note = 0, "files were not merged: somebody wrote at the same time"
        table.update_incremental()
    wanted = table.version() - _last_checkpoint(place) >= COMMITS
    if wanted and not dry_run:
        fence()
        table.create_checkpoint()
    old = old_checkpoints(place, pinned)
    if old and not dry_run:
        fence()
        store = open_store(place.uri)
        for key in old:
            store.delete(key)
    size = sum(p.bytes for p in known.values())
    return Tidied(
        place.name, len(known), sum(p.files for p in known.values()), size, merged, wanted, len(old), note=note
    )


def _open(place: Place, version: int | None = None) -> DeltaTable | None:
    from deltalake.exceptions import TableNotFoundError

    try:
        return DeltaTable(place.uri, version=version, storage_options=storage_options(place.uri))
    except TableNotFoundError:
        return None


def _last_checkpoint(place: Place) -> int:
    try:
        return int(json.loads(open_store(place.uri).get(f"{LOG}/_last_checkpoint"))["version"])
    except KeyError:
        return -1


def old_checkpoints(place: Place, pinned: Sequence[int], *, now: dt.datetime | None = None) -> list[str]:
    """Checkpoints that nothing is read through: a checkpoint repeats the whole table, so that keeping every one makes
    the log grow with the square of the partitions. Any version can be read without them, from the commits.

    Kept: the newest ones, what was written in the last day, and for each pinned version the one at or before it.
    Nothing is removed from a log whose first commits are gone.
    """
    now = now or dt.datetime.now(dt.UTC)
    log: dict[str, dt.datetime] = {k.rsplit("/", 1)[-1]: at for k, _, at in open_store(place.uri).sizes(LOG)}
    if f"{0:020d}.json" not in log:
        return []
    found = sorted((int(n[:20]), n) for n in log if n[20:] == ".checkpoint.parquet" and n[:20].isdigit())
    kept = {n for _, n in found[-NEWEST_CHECKPOINTS:]}
    for version in pinned:
        before = [n for v, n in found if v <= version]
        kept.update(before[-1:])
    young = now - dt.timedelta(days=1)
    return [f"{LOG}/{n}" for _, n in found if n not in kept and log[n] < young]


def vacuum(
    place: Place,
    pinned: Sequence[int],
    *,
    keep_hours: int = KEEP_HOURS,
    dry_run: bool = False,
    fence: Fence = no_fence,
) -> list[str]:
    """Remove files that neither the newest version nor a pinned one names, and that left ``keep_hours`` ago or more.

    A full vacuum: the log forgets what was replaced long ago, so only a look at the folder finds it. Files of a commit
    that is being written are younger than ``keep_hours`` and stay.

    :returns: the files, as paths in the table.
    :raises UsageError: when ``keep_hours`` is less than a day.
    """
    if keep_hours < LEAST_HOURS:
        raise UsageError(
            f"vacuum cannot keep less than {LEAST_HOURS} hours: who reads an older version now would lose its files"
        )
    table = _open(place)
    if table is None:
        return []
    # a lake that was moved or restored may be behind what is pinned; what is not there cannot be kept
    keep = [v for v in pinned if v <= table.version()]
    how: dict[str, Any] = {
        "retention_hours": keep_hours,
        "enforce_retention_duration": False,
        "full": True,
        "keep_versions": keep or None,
    }
    # Delta also names files that an earlier vacuum has removed, and would write a commit for them each time
    there = {key for key, _, _ in open_store(place.uri).sizes()}
    gone = sorted({key for path in table.vacuum(dry_run=True, **how) if (key := _key(path, there))})
    if gone and not dry_run:
        fence()
        table.vacuum(dry_run=False, **how)
    return gone


def _key(path: str, there: Collection[str]) -> str | None:
    """A file that vacuum names, below the table; ``None`` when it is not there (any more)."""
    parts = path.split("/")
    return next((key for i in range(len(parts)) if (key := "/".join(parts[i:])) in there), None)
