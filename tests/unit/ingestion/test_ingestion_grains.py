"""Feeds of every grain are ingested by the same steps, under the keys of their grain."""

from __future__ import annotations

from pathlib import Path

import pytest

from grain_world import GrainWorld
from perennial.ingestion import commit, judge_partitions, quarantine_partitions
from perennial.lake.homes import feed_table, quarantine_table
from perennial.lake.landing import landing_path
from perennial.ledger import Ledger
from perennial.runs import Actor, RunState

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("every", "keys"),
    [
        ("hour", ["2013-01-07T00", "2013-01-07T01", "2013-01-07T02"]),
        ("week", ["2013-W02", "2013-W03", "2013-W04"]),
        ("month", ["2013-02", "2013-03", "2013-04"]),
        ("year", ["2014", "2015", "2016"]),
    ],
)
def test_good_rows_are_committed_and_bad_ones_set_aside_by_key(
    home: Path, tmp_path: Path, every: str, keys: list[str]
) -> None:
    world = GrainWorld(tmp_path, every, rows=100)
    assert world.keys(3) == keys
    world.land(home / "landing", keys[:2])
    feed = world.load().feed("visits")
    assert landing_path(feed, keys[1]) == f"visits/{keys[1]}.csv"
    second = home / "landing" / "visits" / f"{keys[1]}.csv"
    lines = second.read_text().splitlines(keepends=True)
    lines[5] = lines[5].replace(next(s for s in ("north", "east", "south", "west") if s in lines[5]), "moon")
    second.write_text("".join(lines))

    state, ledger = RunState(Actor("visits.ingest", "manual__1", "validate")), Ledger()
    verdicts, _ = judge_partitions(feed, world.root / "feeds" / "visits", keys, state)
    assert {v.key: v.verdict for v in verdicts} == dict(
        zip(keys, ("commit", "quarantine_rows", "missing"), strict=True)
    )
    for kind in ("commit", "quarantine_rows"):
        commit(feed, state, [kind], ledger, as_of="2020-01-01T00:00:00+00:00")
    refused = quarantine_partitions(feed, state, ledger, as_of="2020-01-01T00:00:00+00:00")
    assert [f"visits {keys[2]} has not landed" in v.reasons[0] for v in refused] == [True]
    assert {k: p.rows for k, p in feed_table(feed).partitions().items()} == {keys[0]: 100, keys[1]: 99}
    aside = quarantine_table().read([f"visitsT{keys[1]}"])
    assert aside is not None and aside.num_rows == 1 and "moon" in aside.column("record")[0].as_py()
