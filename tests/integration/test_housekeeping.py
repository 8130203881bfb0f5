"""Maintenance beside a real MLflow: what a registered version needs stays, what was refused long ago goes."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from lifecycle import Life, utc

from perennial.errors import RegistryError
from perennial.housekeeping.expiry import Expired, find_expired, remove
from perennial.housekeeping.overview import overview
from perennial.housekeeping.pins import Pins, find_pins
from perennial.housekeeping.places import Place, places
from perennial.housekeeping.work import Outcome, Work, expire, plan, report, tidy, vacuum
from perennial.lake.homes import feature_table, feed_table, quarantine_table
from perennial.lake.table import PartitionedTable, Snapshot
from perennial.ledger import Ledger
from perennial.registry import tracking, versions
from perennial.runs import Actor, RunState
from perennial.specs.loader import SpecSet, load_specs
from perennial.training.bundle import Bundle

pytestmark = pytest.mark.integration

LATER = dt.datetime.now(dt.UTC) + dt.timedelta(days=30)  # past every grace
ME = Actor("perennial.maintain", "test")


def snapshots(life: Life) -> list[tuple[PartitionedTable, Snapshot]]:
    """Everything that the champion was made from."""
    champion = versions.require_champion(life.spec.name)
    bundle = Bundle(tracking.cache_folder().fetch(champion.model_id))
    found = []
    for group in bundle.document("snapshots").values():
        for name, said in group.items():
            snapshot = Snapshot.from_dict(said)
            if name == "features":
                found.append(
                    (feature_table(life.spec.name, bundle.definition.digest, list(bundle.definition.key)), snapshot)
                )
            else:
                found.append((feed_table(life.feeds["arrivals"]), snapshot))
    return found


def age(lake: Path, days: int = 40) -> None:
    """Make all files and removals older."""
    for path in lake.rglob("*"):
        if path.suffix == ".json" and path.parent.name == "_delta_log":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for action in lines:
                if "remove" in action:
                    action["remove"]["deletionTimestamp"] -= days * 86_400_000
            path.write_text("\n".join(json.dumps(a) for a in lines))
        if path.is_file():
            at = path.stat().st_mtime - days * 86400
            os.utime(path, (at, at))


def keeping(specs: SpecSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **edits: str) -> SpecSet:
    """The same specs, with lines added to some of their files."""
    root = tmp_path / "specs"
    for kind in ("feeds", "models"):
        for name in specs.feeds if kind == "feeds" else specs.models:
            shutil.copytree(specs.folder_of("feed" if kind == "feeds" else "model", name), root / kind / name)
    shutil.copy(specs.folder_of("feed", "flights").parents[1] / "defaults.yaml", root)
    for name, line in edits.items():
        (path,) = (
            root.glob(f"*/{name}/*l.yaml") if (root / "models" / name).exists() else root.glob(f"*/{name}/feed.yaml")
        )
        path.write_text(path.read_text() + f"{line}\n")
    monkeypatch.setenv("PERENNIAL_SPECS", str(root))
    found = load_specs()
    assert found.errors == []
    return found


def test_vacuum_after_corrections_keeps_what_the_champion_was_trained_on(life: Life, home: Path) -> None:
    labels = feed_table(life.feeds["arrivals"])
    for key in ("2013-01-10", "2013-01-11", "2013-02-20"):
        old = labels.read([key])
        assert old is not None
        labels.replace({key: old.drop_columns(["partition", "digest"]).slice(1)})  # a correction
    labels.drop(["2013-01-12"])
    once = labels.snapshot(["2013-01-13"])
    first = labels.read(["2013-01-13"])
    assert first is not None
    labels.replace({"2013-01-13": first.drop_columns(["partition", "digest"]).slice(2)})
    labels.replace({"2013-01-13": first.drop_columns(["partition", "digest"]).slice(3)})
    age(home / "lake")
    work = plan(load_specs())
    named = set(work.pins.versions)
    assert named == {"feeds/arrivals", f"features/flight_delay/{life_definition(life)}"}
    said: list[str] = []
    tidy(work, said.append)
    removed = vacuum(work, said.append)
    assert removed["feeds/arrivals"] == 1, "only what the second of three deliveries wrote"
    assert any("part-" in line for line in said), "what was removed is in the log"
    for table, snapshot in snapshots(life):
        assert table.read_snapshot(snapshot).num_rows == snapshot.rows
    assert labels.read_snapshot(once).num_rows == once.rows


def life_definition(life: Life) -> str:
    champion = versions.require_champion(life.spec.name)
    return Bundle(tracking.cache_folder().fetch(champion.model_id)).definition.digest[:16]


def test_a_version_that_does_not_say_what_it_needs_stops_everything(life: Life) -> None:
    run = tracking.run_of(life.spec.name, life.actor("by-hand"))
    bare = tracking.client().create_logged_model("1", name="model", source_run_id=run)
    tracking.client().log_model_artifacts(bare.model_id, str(life.folder))
    versions.register(life.spec.name, run, bare.model_id, {})
    with pytest.raises(RegistryError, match="does not say which data version 2 of flight_delay was trained on"):
        plan(load_specs())


def test_a_version_without_inputs_is_asked_for_its_bundle(life: Life) -> None:
    run = tracking.run_of("flight_delay", life.actor("copy"))  # it has no data set inputs, the bundle has the snapshots
    versions.register("flight_delay", run, versions.require_champion("flight_delay").model_id, {})
    pins = find_pins()
    assert pins.of("feeds/arrivals") and len(pins.mlflow_runs) == 2


def test_open_runs_pin_what_they_froze(life: Life) -> None:
    before = find_pins().of("feeds/arrivals")
    frozen = feed_table(life.feeds["arrivals"]).snapshot(["2013-03-01"])
    RunState(life.actor("open")).write("snapshots", {"train": {"labels": {**frozen.to_dict(), "version": 0}}})
    assert find_pins().of("feeds/arrivals") == sorted({0, *before})
    assert Pins.from_dict(find_pins().to_dict()) == find_pins()


def test_feed_rows_leave_by_retention_and_the_snapshot_keeps_them(
    life: Life, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = keeping(load_specs(), tmp_path, monkeypatch, arrivals="retention: P60D", flights="retention: P80D")
    work = plan(specs, now=dt.datetime.now(dt.UTC))
    (rows,) = [e for e in work.expired if e.what == "rows" and e.subject == "arrivals"]
    assert (rows.items[0], rows.items[-1], len(rows.items)) == ("2013-01-01", "2013-01-30", 30)
    said: list[str] = []
    expire(plan(specs, dry_run=True), life.ledger, ME, said.append)
    assert len(feed_table(specs.feed("arrivals")).partitions()) == 90, "a look removes nothing"
    assert "would remove 30 rows of arrivals" in " ".join(said)
    expire(work, life.ledger, ME, said.append)
    left = feed_table(specs.feed("arrivals")).partitions()
    assert (min(left), len(left)) == ("2013-01-31", 60)
    assert len(feed_table(specs.feed("flights")).partitions()) == 80
    (entry,) = Ledger().find("arrivals", event="retention")
    assert entry.figures["span"] == ["2013-01-01", "2013-01-30"] and entry.as_of
    expire(work, life.ledger, ME, said.append)
    assert len(Ledger().find("arrivals", event="retention")) == 1, "once is enough"
    age(home / "lake")
    vacuum(plan(specs), said.append)
    for table, snapshot in snapshots(life):
        assert table.read_snapshot(snapshot).num_rows == snapshot.rows
    # arrivals begin on January 31 now, and features look back into them: the next training begins so much later
    again = Life()
    planned, *_ = again.prepare(utc("2013-04-01T04:00"))
    begins = dt.date(2013, 1, 31) + dt.timedelta(days=planned.definition.lookback_days)
    assert planned.train_keys[0] == begins.isoformat()
    assert not planned.missing


def test_bundles_of_refused_candidates_expire_and_their_figures_stay(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = life.train("refused", utc("2013-02-20T05:00"))
    tracking.finish(refused.candidate.run_id, tags={"decision": "rejected", "reason": "too weak"})
    champion = versions.require_champion(life.spec.name)
    specs = keeping(load_specs(), tmp_path, monkeypatch, flight_delay="retention: {candidates: P5D}")
    assert [e for e in find_expired(specs, find_pins()) if e.what == "candidates"] == [], "it ended a moment ago"
    (gone,) = [e for e in find_expired(specs, find_pins(), now=LATER) if e.what == "candidates"]
    assert gone.items == (refused.candidate.run_id,)
    where = tracking.client().get_logged_model(refused.candidate.model_id).artifact_location
    folder = Path(where.removeprefix("file://"))
    assert (folder / "MLmodel").exists()

    def dead_at(n: int) -> Iterator[None]:
        yield from (None for _ in range(n))
        raise BrokenPipeError

    turns = dead_at(1)
    with pytest.raises((BrokenPipeError, RuntimeError)):
        remove(gone, fence=lambda: next(turns))
    remove(gone)
    assert not (folder / "MLmodel").exists()
    run = tracking.client().get_run(refused.candidate.run_id)
    assert run.data.tags["reason"] == "too weak" and run.data.metrics
    assert tracking.bundle_of(refused.candidate.run_id) is None, "a cleared run fits again"
    assert [e for e in find_expired(specs, find_pins(), now=LATER) if e.what == "candidates"] == []
    remove(gone)
    assert Bundle(tracking.BundleCache(tmp_path / "fresh").fetch(champion.model_id)).facts


def test_a_removal_that_was_killed_is_finished_by_the_next(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.artifact import local_artifact_repo

    refused = life.train("refused", utc("2013-02-20T05:00"))
    tracking.finish(refused.candidate.run_id, tags={"decision": "held"})
    specs = keeping(load_specs(), tmp_path, monkeypatch, flight_delay="retention: {candidates: P5D}")
    (gone,) = [e for e in find_expired(specs, find_pins(), now=LATER) if e.what == "candidates"]
    with monkeypatch.context() as patch:
        patch.setattr(local_artifact_repo.LocalArtifactRepository, "delete_artifacts", _killed)
        with pytest.raises(KeyboardInterrupt):
            remove(gone)
    assert tracking.bundle_of(refused.candidate.run_id) is None
    (still,) = [e for e in find_expired(specs, find_pins(), now=LATER) if e.what == "candidates"]
    remove(still)
    assert [e for e in find_expired(specs, find_pins(), now=LATER) if e.what == "candidates"] == []
    with pytest.raises(RegistryError):
        tracking.BundleCache(tmp_path / "other").fetch(refused.candidate.model_id)


def _killed(*args: object) -> None:
    raise KeyboardInterrupt


def test_reports_and_staged_files_expire_by_the_instant_of_their_run(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = keeping(load_specs(), tmp_path, monkeypatch, flight_delay="retention: {reports: P10D}")

    def run(name: str, as_of: str | None, dag: str = "flight_delay.score") -> str:
        state = RunState(Actor(dag, name))
        if as_of:
            state.write("request", {"as_of": f"{as_of}T05:00:00+00:00"})
        state.write("scored", {"rows": 1})
        state.report("page.html", b"<html>")
        return state.name

    old, new = run("old", "2013-03-01"), run("new", "2013-03-20")
    trained = run("train-1", "2013-01-01", dag="flight_delay.train")  # the champion's own: its page is kept
    failed = run("failed", None)
    find = lambda: {  # noqa: E731
        name for e in find_expired(specs, find_pins(), now=LATER) if e.what == "runs" for name in e.items
    }
    assert find() == {old}
    assert find_expired(specs, find_pins()) == [] or old not in {
        i for e in find_expired(specs, find_pins()) for i in e.items
    }, "what was written in the last days stays"
    (gone,) = [e for e in find_expired(specs, find_pins(), now=LATER) if e.what == "runs"]
    remove(gone)
    state = RunState(Actor("x", "y")).store
    assert set(state.folders("runs")) >= {new, trained, failed} and old not in state.folders("runs")
    assert old not in state.folders("reports") and new in state.folders("reports")
    assert find() == set()


def test_quarantined_rows_and_files_expire_with_the_feed(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = keeping(load_specs(), tmp_path, monkeypatch, flights="retention: {quarantine: P30D}")
    refused = pa.table({"feed": ["flights"], "row": [1], "reason": ["bad"], "record": ["{}"]})
    quarantine_table().replace(
        {"flightsT2013-01-05": refused, "flightsT2013-03-30": refused, "goneT2013-01-01": refused}
    )
    state = RunState(ME).store
    for key in ("2013-01-05", "2013-03-30"):
        state.put(f"quarantine/flights/{key}/{key}.csv", b"x")
    found = {e.what: e for e in find_expired(specs, find_pins())}
    assert found["quarantine"].items == ("flightsT2013-01-05",)
    assert found["files"].items == ("2013-01-05",)
    for e in found.values():
        remove(e)
    assert list(quarantine_table().partitions()) == ["flightsT2013-03-30", "goneT2013-01-01"]
    assert state.folders("quarantine/flights") == ["2013-03-30"]


def test_feature_tables_that_no_definition_names_are_removed_after_their_grace(life: Life, home: Path) -> None:
    present = life_definition(life)
    stray = Place("features/flight_delay/0123456789abcdef")
    PartitionedTable(stray.uri, ["id"], labels=("inputs",)).replace(
        {"2013-01-01": pa.table({"id": [1]})}, labels={"2013-01-01": {"inputs": "x"}}
    )
    specs = load_specs()
    assert [e for e in find_expired(specs, find_pins()) if e.what == "definition"] == []
    (gone,) = [e for e in find_expired(specs, find_pins(), now=LATER) if e.what == "definition"]
    assert gone.where == stray.name
    remove(gone)
    assert stray.name not in [p.name for p in places()]
    assert f"features/flight_delay/{present}" in [p.name for p in places()]
    assert remove(gone) == 1, "again is no error"
    specs.errors.append(type("E", (), {"name": "flight_delay", "kind": "model"})())  # type: ignore[arg-type]
    del specs.models["flight_delay"]
    pins = Pins({}, frozenset(), frozenset(), frozenset())
    assert [e for e in find_expired(specs, pins, now=LATER) if e.what == "definition"] == [], "broken is not gone"


def test_the_report_says_what_went_and_what_was_kept(life: Life) -> None:
    work = plan(load_specs(), dry_run=True, only=["feeds/*"])
    outcome = Outcome(
        expired=[{**Expired("rows", "flights", "feeds/flights", ("a",), "old").to_dict(), "items": 1, "first": "a",
                  "last": "a", "bytes": 0}],
        tidied=[t.to_dict() for t in tidy(work, lambda _: None)],
        vacuumed=vacuum(work, lambda _: None),
        missed=[{"feed": "flights", "landed": ["2013-04-01"], "absent": []}],
    )  # fmt: skip
    page = report(work, outcome).decode()
    assert Work.from_dict(work.to_dict()) == work
    for text in ("A look only", "feeds/arrivals", "2013-04-01 landed and were not ingested", "2013-04-01T04:00"):
        assert text in page


def test_status_names_the_champion(life: Life) -> None:
    found = overview(load_specs())
    aliases = {m.name: m.aliases for m in found.models}
    assert aliases == {"employment": {}, "flight_delay": {"champion": "1"}, "flight_duration": {}}
    assert [m.decision["verdict"] for m in found.models if m.decision] == ["pass"]
