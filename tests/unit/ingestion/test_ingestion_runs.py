"""Whole ingestion runs over real files: judge, commit, set aside, refuse, and run again."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.csv as pc
import pytest

from perennial.errors import DataError
from perennial.ingestion import Verdict, commit, judge_partitions, quarantine_partitions
from perennial.ingestion.ingest import read_verdicts
from perennial.lake.homes import feed_table, quarantine_table
from perennial.ledger import Entry, Ledger
from perennial.local.landing import CORRUPTIONS, FEEDS, LandingSimulator
from perennial.runs import Actor, RunState
from perennial.specs import FeedSpec, load_specs

pytestmark = pytest.mark.fast

D1, D2, D3 = "2013-05-01", "2013-05-02", "2013-05-03"
AS_OF = "2013-05-04T04:00:00+00:00"


class Ingestion:
    """Runs of one feed in an empty home."""

    def __init__(self, home: Path, feed: str = "flights") -> None:
        specs = load_specs()
        self.feed: FeedSpec = specs.feed(feed)
        self.folder = specs.folder_of("feed", feed)
        self.landing = LandingSimulator(home / "landing")
        self.ledger = Ledger()
        self.home, self.runs, self.report = home, 0, b""

    def state(self, run: str | None = None) -> RunState:
        self.runs += 1
        return RunState(Actor(f"{self.feed.name}.ingest", run or f"manual__{self.runs}", "validate"))

    def run(self, *keys: str, run: str | None = None) -> dict[str, Verdict]:
        """One run, as the DAG does it."""
        state = self.state(run)
        verdicts, report = judge_partitions(self.feed, self.folder, keys, state)
        self.report = Path(report.removeprefix("file://")).read_bytes()
        assert read_verdicts(state) == verdicts
        assert [v.key for v in verdicts] == sorted(keys)
        for kind in ("commit", "quarantine_rows"):
            commit(self.feed, state, [kind], self.ledger, as_of=AS_OF)
        quarantine_partitions(self.feed, state, self.ledger, as_of=AS_OF)
        return {v.key: v for v in verdicts}

    def committed(self) -> dict[str, int]:
        return {k: p.rows for k, p in feed_table(self.feed).partitions().items()}

    def quarantined(self, key: str) -> list[dict[str, Any]]:
        rows = quarantine_table().read([f"{self.feed.name}T{key}"])
        return [] if rows is None else sorted(rows.to_pylist(), key=lambda r: r["row"])

    def entries(self) -> list[Entry]:
        return list(self.ledger.entries(self.feed.name))

    def path(self, key: str) -> Path:
        return self.landing.path(self.feed.name, key)  # type: ignore[arg-type]

    def edit(self, key: str, old: str, new: str) -> None:
        path = self.path(key)
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))


@pytest.fixture
def flights(home: Path) -> Ingestion:
    found = Ingestion(home)
    found.landing.land("flights", D1, D3)
    return found


# What becomes of each way to spoil a file, and what the sentence must name. Where a model could live with the nulls
# (arr_delay of a cancelled flight), the shipped rules let them through.
WORDS = {"flights": "distance", "weather": "temp", "arrivals": "arr_delay"}
EXPECTED = {
    "missing_column": "quarantine_batch",
    "nulls": "quarantine_batch",
    "duplicate_keys": "quarantine_batch",
    "truncated": "quarantine_batch",
    "wrong_type": "quarantine_batch",
    "bad_values": "quarantine_rows",
    "empty": "quarantine_batch",
    "missing": "missing",
}


@pytest.mark.parametrize("feed", FEEDS)
def test_every_corruption_has_its_verdict_and_its_sentence(home: Path, tmp_path: Path, feed: str) -> None:
    run = Ingestion(home, feed)
    # a rule that every feed should have: the column that the corruption hits is not null
    run.folder = tmp_path / feed
    shutil.copytree(load_specs().folder_of("feed", feed), run.folder)
    rules = run.folder / "expectations.yaml"
    rule = f"- {{type: expect_column_values_to_not_be_null, kwargs: {{column: {WORDS[feed]}, mostly: 0.5}}}}\n"
    rules.write_text(rules.read_text() + rule)
    days = {how: f"2013-05-{i + 10}" for i, how in enumerate(CORRUPTIONS)}
    for how, day in days.items():
        run.landing.land(feed, day, day)  # type: ignore[arg-type]
        run.landing.corrupt(feed, day, how)  # type: ignore[arg-type]
    good = "2013-05-20"
    run.landing.land(feed, good, good)  # type: ignore[arg-type]
    found = run.run(*days.values(), good)
    assert found[good].verdict == "commit"
    for how, day in days.items():
        v = found[day]
        said = "; ".join(v.reasons)
        assert v.verdict == EXPECTED[how], (how, v)
        if how in ("missing_column", "wrong_type", "nulls", "bad_values"):
            assert WORDS[feed] in said, (how, said)
        if how in ("missing_column", "truncated", "wrong_type", "missing"):
            assert run.path(day).name in said, (how, said)
        if how == "duplicate_keys":
            assert f"key {', '.join(run.feed.key)}" in said
        if how == "empty":
            assert "no rows" in said
        assert (v.sha256 is None) == (how == "missing")
    assert set(run.committed()) == {good, days["bad_values"]}
    # one entry for each partition that is not clean, and one for the clean ones
    entries = run.entries()
    assert {e.partition: e.verdict for e in entries} == {d: EXPECTED[h] for h, d in days.items()} | {good: "commit"}
    assert len(entries) == len(days) + 1
    for e in entries:
        assert e.reason
        assert e.as_of == AS_OF


def test_clean_partitions_share_one_commit_and_one_entry(flights: Ingestion) -> None:
    found = flights.run(D1, D2, D3)
    assert {v.verdict for v in found.values()} == {"commit"}
    assert flights.committed() == {k: v.rows for k, v in found.items()}
    assert feed_table(flights.feed).version == 1  # creation, then one commit
    (entry,) = flights.entries()
    assert (entry.verdict, entry.partition, entry.figures["keys"]) == ("commit", None, [D1, D3])
    assert entry.figures["rows"] == sum(v.rows for v in found.values())
    assert quarantine_table().version is None


def test_running_again_changes_nothing(flights: Ingestion) -> None:
    flights.edit(D2, ",EWR,", ",XXX,")
    flights.run(D1, D2, run="scheduled__1")
    before = (feed_table(flights.feed).version, quarantine_table().version, flights.entries())
    flights.run(D1, D2, run="scheduled__1")  # cleared
    assert (feed_table(flights.feed).version, quarantine_table().version, flights.entries()) == before
    flights.run(D1, D2)  # another run of the same keys
    assert (feed_table(flights.feed).version, quarantine_table().version) == before[:2]
    assert len(flights.entries()) == 2 * len(before[2])


def test_bad_rows_are_set_aside_and_a_clean_delivery_takes_them_back(flights: Ingestion) -> None:
    flights.edit(D2, ",EWR,", ",XXX,")
    v = flights.run(D2)[D2]
    assert (v.verdict, v.bad) == ("quarantine_rows", 1)
    assert flights.committed()[D2] == v.rows - 1
    (bad,) = flights.quarantined(D2)
    assert (bad["feed"], bad["reason"].split(":")[0]) == ("flights", "origin")
    record = json.loads(bad["record"])
    assert record["origin"] == "XXX"
    assert pc.read_csv(flights.path(D2)).to_pylist()[bad["row"]]["flight_id"] == record["flight_id"]
    (entry,) = flights.entries()
    assert entry.figures == {"rows": v.rows, "bad_rows": 1}
    assert entry.digests["content"] == feed_table(flights.feed).partitions()[D2].digest

    flights.landing.land("flights", D2, D2)
    assert flights.run(D2)[D2].verdict == "commit"
    assert flights.committed()[D2] == v.rows
    assert flights.quarantined(D2) == []


def test_a_record_with_nan_is_still_json(home: Path) -> None:
    weather = Ingestion(home, "weather")
    weather.landing.corrupt("weather", D1, "bad_values")
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = weather.path(D1)
    table = pq.ParquetFile(path).read()
    nan = table.set_column(table.column_names.index("visib"), "visib", pa.array([float("nan")] * table.num_rows))
    pq.write_table(nan, path)
    weather.run(D1)
    for row in weather.quarantined(D1):
        assert json.loads(row["record"], parse_constant=pytest.fail)["visib"] is None


def test_a_correction_replaces_what_was_there(flights: Ingestion) -> None:
    flights.run(D1, D2)
    before = feed_table(flights.feed).partitions()
    lines = flights.path(D2).read_text().splitlines(keepends=True)
    flights.path(D2).write_text("".join(lines[:-5]))
    flights.run(D2)
    after = feed_table(flights.feed).partitions()
    assert after[D2].rows == before[D2].rows - 5
    assert after[D2].digest != before[D2].digest
    assert after[D1] == before[D1]


def test_a_refused_correction_leaves_the_good_rows_and_keeps_the_file(flights: Ingestion) -> None:
    flights.run(D2)
    before = flights.committed()
    flights.landing.corrupt("flights", D2, "missing_column")
    raw = flights.path(D2).read_bytes()
    v = flights.run(D2)[D2]
    assert v.verdict == "quarantine_batch"
    assert flights.committed() == before
    kept = flights.home / "state" / "quarantine" / "flights" / D2 / f"{D2}.csv"
    assert kept.read_bytes() == raw
    (note,) = flights.quarantined(D2)
    assert "has no column 'distance'" in note["reason"]
    flights.landing.land("flights", D2, D2)
    flights.run(D2)
    assert flights.quarantined(D2) == []


def test_a_missing_file_stops_nothing_else(flights: Ingestion) -> None:
    flights.path(D2).unlink()
    found = flights.run(D1, D2, D3)
    assert [v.verdict for v in found.values()] == ["commit", "missing", "commit"]
    assert found[D2].reasons == (
        f"flights {D2} has not landed: {(flights.home / 'landing').as_uri()}/flights/{D2}.csv is not there",
    )
    assert set(flights.committed()) == {D1, D3}
    assert flights.quarantined(D2) == []
    assert {e.partition: e.verdict for e in flights.entries()} == {None: "commit", D2: "missing"}


def test_what_is_published_is_what_was_judged(flights: Ingestion) -> None:
    """The files vanish between judging and acting."""
    flights.path(D2).write_bytes(b"")
    state = flights.state()
    judge_partitions(flights.feed, flights.folder, [D1, D2], state)
    flights.path(D1).unlink()
    flights.path(D2).unlink()
    commit(flights.feed, state, ["commit"], flights.ledger, as_of=AS_OF)
    (refused,) = quarantine_partitions(flights.feed, state, flights.ledger, as_of=AS_OF)
    assert set(flights.committed()) == {D1}
    assert refused.reasons[0].endswith(f"flights/{D2}.csv is empty (0 bytes)")


def test_an_older_delivery_never_replaces_a_newer_one(flights: Ingestion) -> None:
    """A run that judged the first delivery commits late, after the second has been delivered and committed."""
    late = flights.state()
    judge_partitions(flights.feed, flights.folder, [D1], late)
    lines = flights.path(D1).read_text().splitlines(keepends=True)
    flights.path(D1).write_text("".join(lines[:-5]))
    flights.run(D1, run="scheduled__2")
    newer = flights.committed()
    with pytest.raises(DataError, match=f"flights {D1} was delivered anew .* clear this run from validate"):
        commit(flights.feed, late, ["commit"], flights.ledger, as_of=AS_OF)
    assert flights.committed() == newer


def test_a_cleared_run_that_finds_another_file_says_so_in_the_ledger(flights: Ingestion) -> None:
    flights.landing.corrupt("flights", D1, "empty")
    flights.run(D1, run="scheduled__1")
    flights.landing.corrupt("flights", D1, "missing_column")
    flights.run(D1, run="scheduled__1")
    flights.landing.land("flights", D1, D1)
    flights.run(D1, run="scheduled__1")
    lines = flights.path(D1).read_text().splitlines(keepends=True)
    flights.path(D1).write_text("".join(lines[:-5]))
    flights.run(D1, run="scheduled__1")
    assert [e.verdict for e in flights.entries()] == ["quarantine_batch", "quarantine_batch", "commit", "commit"]


def test_an_orphan_publishes_nothing(flights: Ingestion) -> None:
    def dead() -> None:
        raise BrokenPipeError

    flights.edit(D2, ",EWR,", ",XXX,")
    flights.path(D3).write_bytes(b"")
    state = flights.state()
    judge_partitions(flights.feed, flights.folder, [D1, D2, D3], state)
    for kind in ("commit", "quarantine_rows"):
        with pytest.raises(BrokenPipeError):
            commit(flights.feed, state, [kind], flights.ledger, as_of=AS_OF, fence=dead)
    with pytest.raises(BrokenPipeError):
        quarantine_partitions(flights.feed, state, flights.ledger, as_of=AS_OF, fence=dead)
    assert flights.committed() == {}
    assert flights.entries() == []
    assert quarantine_table().version is None


def test_a_step_without_the_one_before_says_so(flights: Ingestion) -> None:
    with pytest.raises(DataError, match="has no 'verdicts' yet: clear the run from its first task"):
        commit(flights.feed, flights.state(), ["commit"], flights.ledger, as_of=AS_OF)


def test_the_report_escapes_what_the_data_says(flights: Ingestion) -> None:
    script = "<script>alert(1)</script>"
    text = flights.path(D1).read_text().splitlines(keepends=True)
    text[0] = text[0].replace("flight_id", "flight_id", 1).rstrip("\n") + f",{script}\n"
    flights.path(D1).write_text(text[0] + "".join(line.rstrip("\n") + ",x\n" for line in text[1:]))
    flights.edit(D2, text[1].split(",")[6], script)  # a distance that is no number
    flights.edit(D3, ",EWR,", ",<b>,")
    found = flights.run(D1, D2, D3)
    assert [v.verdict for v in found.values()] == ["commit", "quarantine_batch", "quarantine_rows"]
    assert script in found[D2].reasons[0]
    page = flights.report.decode()
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 2  # the note about D1's column, the reason of D2
    assert "undeclared columns left out" in page
    for key in (D1, D2, D3):
        assert key in page


def test_the_clock_does_not_matter(flights: Ingestion) -> None:
    """Two runs years apart put the same bytes into the lake."""
    flights.ledger._now = lambda: dt.datetime(2033, 1, 1, tzinfo=dt.UTC)
    flights.run(D1)
    assert flights.entries()[0].at.startswith("2033")
    assert flights.entries()[0].as_of == AS_OF
