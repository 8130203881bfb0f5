"""The steps of an ingestion run: judge, then commit, set rows aside, or refuse whole partitions.

A run may carry one key or a whole history. Judging reads each file once and stages the accepted rows, so what is
committed is what was judged, even if the file changes in between.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial.contracts.expectations import Judgement, judge, load_rules
from perennial.errors import ConflictError, DataError, NotReadyError
from perennial.lake.content import combined_digest
from perennial.lake.homes import feed_table, quarantine_table
from perennial.lake.landing import UnreadableError, landing_uri, raw_bytes, read_landed, seconds_since_written
from perennial.lake.table import Fence, no_fence
from perennial.ledger import Entry, Ledger
from perennial.pages import page, section, table
from perennial.runs import Actor, RunState
from perennial.specs import FeedSpec
from perennial.specs.loader import digest
from perennial.storage import plain

if TYPE_CHECKING:
    import pyarrow as pa

#: Seconds after which a file that cannot be read is taken for what it is, and no longer for one in the making.
SETTLED = 10.0

#: Partitions judged in one Great Expectations run; bounds memory.
CHUNK = 64


@dataclass(frozen=True)
class Verdict:
    """What becomes of one partition.

    :param verdict: ``commit``, ``quarantine_rows``, ``quarantine_batch`` or ``missing``.
    :param rows: rows in the file; ``bad``: how many of them are set aside.
    """

    key: str
    verdict: str
    rows: int
    bad: int
    reasons: tuple[str, ...]
    sha256: str | None

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Verdict:
        return cls(**{**value, "reasons": tuple(value["reasons"])})


def judge_partitions(
    feed: FeedSpec,
    folder: Path,
    keys: Sequence[str],
    state: RunState,
    *,
    look_again: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Verdict], str]:
    """Read and judge the files of ``keys``, and stage the rows that are good.

    :param look_again: do not judge a file that cannot be read while it is seconds old: it may not be whole yet.
    :returns: one verdict per key, and where the report page is.
    :raises ConflictError: ``look_again``, and it may not be whole yet.
    """
    rules = load_rules(feed, folder)
    verdicts: list[Verdict] = []
    judgements: list[Judgement] = []
    notes: list[tuple[str, str]] = []
    for start in range(0, len(keys), CHUNK):
        chunk = keys[start : start + CHUNK]
        tables: dict[str, pa.Table] = {}
        files: dict[str, bytes] = {}
        for key in chunk:
            try:
                files[key] = raw_bytes(feed, key)
                landed = read_landed(feed, folder, key, files[key])
            except NotReadyError as e:
                verdicts.append(Verdict(key, "missing", 0, 0, (str(e),), None))
            except DataError as e:
                if look_again and isinstance(e, UnreadableError):
                    _refuse_unfinished(feed, key, e)
                verdicts.append(Verdict(key, "quarantine_batch", 0, 0, (str(e),), _sha256(files[key])))
                state.store.put(state.key(f"staged/{key}.refused"), files[key])
            else:
                tables[key] = landed.table
                notes += [(key, note) for note in landed.notes]
        for found in judge(feed, rules, {k: t.to_pandas() for k, t in tables.items()}):
            judgements.append(found)
            sha = _sha256(files[found.key])
            verdicts.append(
                Verdict(found.key, found.verdict, found.rows, len(found.bad_rows), found.reasons, sha),
            )
            if found.verdict == "quarantine_batch":
                state.store.put(state.key(f"staged/{found.key}.refused"), files[found.key])
            else:
                _stage(feed, state, found, tables[found.key])
        progress(min(start + CHUNK, len(keys)), len(keys))
    verdicts.sort(key=lambda v: v.key)
    state.write("verdicts", [asdict(v) for v in verdicts])
    report = state.report("validation.html", _report(feed, verdicts, judgements, notes))
    return verdicts, report


def _refuse_unfinished(feed: FeedSpec, key: str, problem: DataError) -> None:
    """A file that cannot be read and was written to a moment ago is perhaps not whole yet: worth another look.

    :raises ConflictError: which is retried.
    """
    age = seconds_since_written(feed, key)
    if 0 <= age < SETTLED:
        raise ConflictError(
            f"{problem}; it was written to {age:.0f} s ago and may not be whole yet, so it is looked at again "
            "(upstream should write beside it and rename)"
        )


def _stage(feed: FeedSpec, state: RunState, found: Judgement, rows: pa.Table) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    good = pa.array([i not in found.bad_rows for i in range(rows.num_rows)], pa.bool_())
    _put(state, f"staged/{found.key}.parquet", rows.filter(good))
    if found.bad_rows:
        order = sorted(found.bad_rows)
        records = rows.take(order).to_pylist()
        _put(
            state,
            f"staged/{found.key}.bad.parquet",
            _refused(feed, [(i, found.bad_rows[i], r) for i, r in zip(order, records, strict=True)]),
        )


def _refused(feed: FeedSpec, rows: Sequence[tuple[int, str, dict[str, Any]]]) -> pa.Table:
    import pyarrow as pa

    return pa.table(
        {
            "feed": pa.array([feed.name] * len(rows), pa.string()),
            "row": pa.array([i for i, _, _ in rows], pa.int64()),
            "reason": pa.array([reason for _, reason, _ in rows], pa.string()),
            "record": pa.array([json.dumps(plain(r), default=str, sort_keys=True) for _, _, r in rows], pa.string()),
        }
    )


def _put(state: RunState, name: str, rows: pa.Table) -> None:
    import pyarrow.parquet

    sink = io.BytesIO()
    pyarrow.parquet.write_table(rows, sink)
    state.store.put(state.key(name), sink.getvalue())


def _staged(state: RunState, name: str) -> pa.Table:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(io.BytesIO(_staged_bytes(state, name)))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _staged_bytes(state: RunState, name: str) -> bytes:
    try:
        return state.store.get(state.key(name))
    except KeyError:
        raise DataError(f"{state.key(name)} is not there: clear this run from its validation task") from None


def read_verdicts(state: RunState) -> list[Verdict]:
    """The verdicts that :func:`judge_partitions` stored for this run."""
    return [Verdict.from_dict(v) for v in state.read("verdicts")]


def commit(
    feed: FeedSpec, state: RunState, kinds: Sequence[str], ledger: Ledger, *, as_of: str, fence: Fence = no_fence
) -> dict[str, str]:
    """Publish the staged rows of every partition whose verdict is one of ``kinds``, in one commit.

    Rows set aside go to the quarantine in the same step; a partition that is clean now empties its old quarantine.

    :param kinds: ``commit`` and/or ``quarantine_rows``.
    :returns: content digest per committed key.
    """
    mine = [v for v in read_verdicts(state) if v.verdict in kinds]
    if not mine:
        return {}
    _refuse_older(feed, mine)
    refused = {
        f"{feed.name}T{v.key}": _staged(state, f"staged/{v.key}.bad.parquet") if v.bad else _refused(feed, [])
        for v in mine
    }
    quarantine_table().replace(refused, fence=fence)
    rows = {v.key: _staged(state, f"staged/{v.key}.parquet") for v in mine}
    digests = feed_table(feed).replace(rows, metadata={"perennial.run": state.actor.run_id}, fence=fence)
    for v in mine:
        if v.verdict == "quarantine_rows":
            _record(ledger, feed, state.actor, v, as_of, {"content": digests[v.key]}, fence)
    clean = [v for v in mine if v.verdict == "commit"]
    if clean:
        content = combined_digest([(v.key, digests[v.key]) for v in clean])
        figures = {"partitions": len(clean), "rows": sum(v.rows for v in clean), "keys": _span([v.key for v in clean])}
        ledger.append(
            Entry(
                id=state.actor.entry_id("ingestion", "commit", content[:12]),
                event="ingestion",
                subject=feed.name,
                verdict="commit",
                reason=f"{len(clean)} partition{'s' * (len(clean) > 1)} passed every critical rule",
                as_of=as_of,
                partition=clean[0].key if len(clean) == 1 else None,
                figures=figures,
                actor=state.actor.to_dict(),
                digests={"content": content, "spec": digest(feed)},
            ),
            fence=fence,
        )
    return digests


def quarantine_partitions(
    feed: FeedSpec, state: RunState, ledger: Ledger, *, as_of: str, fence: Fence = no_fence
) -> list[Verdict]:
    """Refuse whole partitions: keep the file as it was judged, and say why. Nothing is committed for them.

    Rows of an earlier, good delivery of the same partition stay as they are.
    """
    mine = [v for v in read_verdicts(state) if v.verdict in ("quarantine_batch", "missing")]
    for v in mine:
        if v.verdict == "quarantine_batch":
            data = _staged_bytes(state, f"staged/{v.key}.refused")
            suffix = landing_uri(feed, v.key).rsplit("/", 1)[-1]
            state.store.put(f"quarantine/{feed.name}/{v.key}/{suffix}", data)
            reason = "; ".join(v.reasons)
            note = {"uri": landing_uri(feed, v.key), "rows": v.rows}
            quarantine_table().replace({f"{feed.name}T{v.key}": _refused(feed, [(-1, reason, note)])}, fence=fence)
        _record(ledger, feed, state.actor, v, as_of, {}, fence)
    return mine


def _refuse_older(feed: FeedSpec, mine: Sequence[Verdict]) -> None:
    """A late retry must not put an older delivery over a newer one.

    :raises DataError: when the file that was judged has been delivered anew since.
    """
    for v in mine:
        try:
            now = _sha256(raw_bytes(feed, v.key))
        except NotReadyError:
            continue  # cleaned up after landing; what was judged is staged
        if v.sha256 is not None and now != v.sha256:
            raise DataError(
                f"{feed.name} {v.key} was delivered anew after this run judged it: clear this run from validate"
            )


def _record(
    ledger: Ledger, feed: FeedSpec, actor: Actor, v: Verdict, as_of: str, digests: dict[str, str], fence: Fence
) -> None:
    digests = {**digests, "spec": digest(feed)}
    if v.sha256:
        digests["file"] = v.sha256
    ledger.append(
        Entry(
            # a run that is cleared and finds another file there acts anew
            id=actor.entry_id("ingestion", v.key, (v.sha256 or v.verdict)[:12]),
            event="ingestion",
            subject=feed.name,
            verdict=v.verdict,
            reason="; ".join(v.reasons),
            as_of=as_of,
            partition=v.key,
            figures={"rows": v.rows, "bad_rows": v.bad},
            actor=actor.to_dict(),
            digests=digests,
        ),
        fence=fence,
    )


def _span(keys: Sequence[str]) -> list[str]:
    return [min(keys), max(keys)]


def _report(
    feed: FeedSpec,
    verdicts: Sequence[Verdict],
    judgements: Sequence[Judgement],
    notes: Sequence[tuple[str, str]] = (),
) -> bytes:
    counts = {name: sum(v.verdict == name for v in verdicts) for name in sorted({v.verdict for v in verdicts})}
    lead = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in counts.items())
    by_interest = sorted(verdicts, key=lambda v: (v.verdict == "commit", v.key))
    rows = [(v.key, v.verdict, v.rows, v.bad, "; ".join(v.reasons)) for v in by_interest]
    parts = [section("Partitions", table(("partition", "verdict", "rows", "set aside", "why"), rows, state=1))]
    if notes:
        parts.append(section("Notes", table(("partition", "note"), notes[:50])))
    shown = [j for j in judgements if j.verdict != "commit"] or judgements[:1]
    for j in shown[:10]:
        checks = [
            (c.rule, c.severity, "pass" if c.passed else ("warning" if c.severity != "critical" else "fail"), c.detail)
            for c in j.checks
        ]
        parts.append(section(f"Rules on {j.key}", table(("rule", "severity", "verdict", "observed"), checks, state=2)))
    return page(f"Validation of {feed.name}", lead or "no partition", *parts)
