"""What landed and was never ingested, and when maintenance is due."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from pathlib import Path

import pyarrow as pa
import pytest

from perennial.housekeeping.due import COMMITS, claim
from perennial.housekeeping.expiry import expired_keys
from perennial.housekeeping.landed import MOST, Missed, find_missed, landed_keys
from perennial.lake.homes import feed_table
from perennial.ledger import Entry, Ledger
from perennial.specs import FeedSpec

pytestmark = pytest.mark.fast

NOW = dt.datetime(2013, 2, 1, tzinfo=dt.UTC)


def make(**changes: object) -> FeedSpec:
    return FeedSpec.model_validate(
        {
            "version": 1,
            "name": "visits",
            "owner": "web",
            "start": "2013-01-01",
            "source": {"path": "visits/day-{partition}.csv"},
            "columns": {"id": "string"},
            "key": ["id"],
            **changes,
        }
    )


@pytest.fixture
def landing(home: Path) -> Path:
    (home / "landing" / "visits").mkdir(parents=True)
    return home / "landing" / "visits"


def land(landing: Path, *days: int, at: dt.datetime = NOW - dt.timedelta(hours=2)) -> None:
    for day in days:
        path = landing / f"day-2013-01-{day:02d}.csv"
        path.write_text(f"id\n{day}\n")
        os.utime(path, (at.timestamp(), at.timestamp()))


def commit(feed: FeedSpec, *days: int) -> None:
    feed_table(feed).replace({f"2013-01-{d:02d}": pa.table({"id": [str(d)]}) for d in days})


def test_a_landed_partition_that_the_lake_lacks_is_missed(landing: Path) -> None:
    feed = make()
    land(landing, 1, 2, 3, 4)
    commit(feed, 1, 3, 6)
    found = find_missed(feed, Ledger(), now=NOW)
    assert found.landed == found.ask == ("2013-01-02", "2013-01-04")
    assert found.absent == ("2013-01-05",)
    assert found.sentence == (
        "visits: 2013-01-02, 2013-01-04 landed and were not ingested: ingestion is asked for them; "
        "2013-01-05 never landed"
    )
    assert Missed.from_dict(found.to_dict()) == found


def test_nothing_is_missed_of_what_is_in_time_refused_expired_or_elsewhere(landing: Path) -> None:
    feed = make(end="2013-01-20", retention="P10D")
    commit(feed, 18, 20)
    land(landing, 5, 10)  # gone by retention
    land(landing, 19, at=NOW - dt.timedelta(minutes=5))  # its own run is on the way
    land(landing, 25)  # after the feed's end
    (landing / "readme.csv").write_text("x")
    (landing / "day-notaday.csv").write_text("x")
    land(landing, 17)
    refused = hashlib.sha256(b"id\n17\n").hexdigest()
    Ledger().append(
        Entry(
            id="1", event="ingestion", subject="visits", verdict="quarantine_batch", reason="bad",
            partition="2013-01-17", digests={"file": refused},
        )
    )  # fmt: skip
    found = find_missed(feed, Ledger(), now=NOW)
    assert (found.landed, found.absent) == ((), ("2013-01-19",))
    (landing / "day-2013-01-17.csv").write_text("id\nanew\n")
    os.utime(landing / "day-2013-01-17.csv", (0, 0))
    assert find_missed(feed, Ledger(), now=NOW).landed == ("2013-01-17",), "delivered anew: nobody refused that"
    assert sorted(landed_keys(feed)) == ["2013-01-05", "2013-01-10", "2013-01-17", "2013-01-19", "2013-01-25"]


def test_a_partition_that_has_not_ended_is_not_missed(landing: Path) -> None:
    land(landing, 31, at=NOW - dt.timedelta(hours=20))
    assert find_missed(make(), Ledger(), now=NOW - dt.timedelta(hours=2)).landed == ()
    assert find_missed(make(), Ledger(), now=NOW).landed == ("2013-01-31",)


def test_a_whole_history_is_said_and_not_asked_for(landing: Path) -> None:
    land(landing, *range(1, MOST + 2))
    found = find_missed(make(), Ledger(), now=NOW)
    assert len(found.landed) == MOST + 1 and found.ask == ()
    assert "and 6 more landed and were not ingested: trigger visits.ingest with from and to" in found.sentence


def test_age_counts_back_from_the_newest_partition() -> None:
    feed = make(timezone="America/New_York")
    keys = [f"2013-03-{d:02d}" for d in range(1, 20)]
    keep = dt.timedelta(days=14)
    assert expired_keys(feed, keys, keep) == keys[:5]  # the newest is the 19th, and fourteen days stay
    assert expired_keys(feed, keys[:10], keep) == []
    assert expired_keys(feed, [], keep) == []
    assert expired_keys(feed, keys, None) == []
    assert expired_keys(feed, [*keys, "not-a-key"], keep) == keys[:5]


def test_maintenance_is_due_once_per_so_many_commits(home: Path) -> None:
    feed = make(every="year")  # the fewest commits
    table = feed_table(feed)
    assert claim(feed, "run-1") is None
    every = COMMITS["year"]
    for turn in range(every):
        table.replace({"2013": pa.table({"id": [str(turn)]})})
    assert table.version == every
    assert claim(feed, "run-1") == "visits-1"
    assert claim(feed, "run-1") == "visits-1", "a retry says the same"
    assert claim(feed, "run-2") is None
    for turn in range(every):
        table.replace({"2013": pa.table({"id": [f"again {turn}"]})})
    assert claim(feed, "run-3") == "visits-2"
