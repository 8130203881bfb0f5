"""Fit, judge, register, promote, score: a real MLflow over SQLite, a real lake, real flights."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
import pytest
from lifecycle import Life, Trained, utc

from perennial.errors import ConflictError, DataError, RegistryError, SpecError
from perennial.lake.homes import feed_table, prediction_table
from perennial.ledger.entries import champion_at
from perennial.registry import tracking, versions
from perennial.runs import RunState
from perennial.scoring import predict
from perennial.training.bundle import Bundle
from perennial.training.evaluate import Evaluation, judged_before, report
from perennial.training.fit import fit
from perennial.training.plan import TrainingPlan

pytestmark = pytest.mark.integration

MID_MARCH = utc("2013-03-16T04:00")
LATE_MARCH = utc("2013-03-26T04:00")  # its holdout, March 11-24, has no storm


def bundle(model_id: str) -> Bundle:
    return Bundle(tracking.cache_folder().fetch(model_id))


def gate(evaluation: Evaluation, name: str) -> Any:
    return next(r for r in evaluation.results if r.gate == name)


def quick(life: Life, **changes: Any) -> Any:
    """The spec with a small estimator."""
    kind = "sklearn.ensemble.HistGradientBoostingClassifier"
    estimator = life.spec.estimator.model_copy(update={"type": kind, "params": {"max_iter": 10}})
    return life.spec.model_copy(update={"estimator": estimator, **changes})


def champion(life: Life) -> versions.Version:
    return versions.require_champion(life.spec.name)


# ------------------------------------------------------------------------------------------------------- fit and judge


def test_the_first_version_s_bundle_has_all_that_later_steps_need(life: Life) -> None:
    first = champion(life)
    found = bundle(first.model_id)
    facts = found.facts
    assert facts["train_end"] == "2013-02-13T05:00:00+00:00" and facts["as_of"] == "2013-03-01T05:00:00+00:00"
    assert 0.15 < facts["threshold"] < 0.3, "the training base rate"
    assert facts["seed"] == 7 and facts["train_partitions"] == 43
    plan = TrainingPlan.from_dict(found.document("plan"))
    assert plan.spec == found.spec == life.spec and found.definition.digest == plan.definition.digest
    snapshots = found.document("snapshots")
    assert set(snapshots) == {"train", "holdout"} and len(snapshots["train"]["features"]["sha256"]) == 64
    assert found.document("drift")["calibration"] is not None
    assert found.document("baseline")["by"] == ["hour"]
    assert len(found.frame("reference")) == 20_000
    holdout = found.frame("holdout")
    assert list(holdout.columns) == ["partition", "label", "score"] and holdout["partition"].min() == "2013-02-14"
    assert list(found.model.predict_proba(found.frame("reference").head(3)).shape) == [3, 2]
    with pytest.raises(RegistryError, match="is not a bundle of Perennial"):
        found.document("nothing")


def test_the_mlflow_run_says_where_it_came_from(life: Life) -> None:
    first = champion(life)
    run = tracking.client().get_run(first.run_id)
    tags, params = run.data.tags, run.data.params
    assert tags["perennial.run"] == "flight_delay.train/train-1" and len(tags["perennial.inputs"]) == 64
    assert {"spec", "features", "feed.flights", "git_commit", "git_dirty", "lock_sha256", "seed"} <= set(tags)
    assert len(tags["spec"]) == 64 and len(tags["lock_sha256"]) == 64
    assert params["as_of"] == "2013-03-01T05:00:00+00:00" and params["estimator.max_iter"] == "100"
    assert 0.6 < run.data.metrics["holdout_roc_auc"] < 0.75
    inputs = {i.dataset.name: {t.key: t.value for t in i.tags} for i in run.inputs.dataset_inputs}
    assert set(inputs) == {"train_features", "train_labels", "holdout_features", "holdout_labels"}
    snapshots = bundle(first.model_id).document("snapshots")
    assert inputs["train_features"]["sha256"] == snapshots["train"]["features"]["sha256"]
    assert inputs["train_labels"]["delta_version"] == str(snapshots["train"]["labels"]["version"])


def test_a_retry_of_fit_finds_what_the_first_try_logged(life: Life) -> None:
    plan, train, holdout = life.prepare(MID_MARCH, spec=quick(life))
    actor = life.actor("again")
    first = fit(plan, train, holdout, actor)
    said: list[str] = []
    again = fit(TrainingPlan.from_dict(plan.to_dict()), train, holdout, actor, said.append)
    assert again == first and said == [f"run {first.run_id} has its bundle already"]
    c = tracking.client()
    experiment = c.get_experiment_by_name("flight_delay").experiment_id
    runs = c.search_runs([experiment], filter_string="tags.`perennial.run` = 'flight_delay.train/again'")
    assert len(runs) == 1
    logged = c.search_logged_models(experiment_ids=[experiment])
    assert [m.model_id for m in logged if m.source_run_id == first.run_id] == [first.model_id]


def test_a_fit_that_died_in_mid_logging_is_done_again(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, train, holdout = life.prepare(MID_MARCH, spec=quick(life))
    actor = life.actor("killed")
    with monkeypatch.context() as m:
        m.setattr(tracking, "_inputs", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            fit(plan, train, holdout, actor)
    found = fit(plan, train, holdout, actor)
    assert tracking.bundle_of(found.run_id) == found.model_id
    assert bundle(found.model_id).facts["seed"] == 7


def test_a_run_that_was_cleared_on_corrected_data_is_another_candidate(life: Life) -> None:
    """Its first bundle was trained on other rows: taking it again would make the lineage a lie."""
    spec = quick(life)
    first = life.train("cleared", MID_MARCH, spec=spec)
    arrivals = life.feeds["arrivals"]
    rows = feed_table(arrivals).read(["2013-02-01"]).drop_columns(["partition", "digest"])
    late = pc.if_else(pc.is_valid(rows["late"]), 1, None).cast(pa.int64())
    feed_table(arrivals).replace({"2013-02-01": rows.set_column(rows.schema.get_field_index("late"), "late", late)})
    second = life.train("cleared", MID_MARCH, spec=spec)
    assert second.candidate != first.candidate
    assert tracking.client().get_run(first.candidate.run_id).data.tags["perennial.run"].endswith("/cleared")
    assert len(life.ledger.find("flight_delay", event="decision")) == 3, "the first version's, and one for each"
    assert judged_before(life.ledger, "flight_delay", "1", "2013-01-01", "2013-12-31", second.candidate.run_id) == 1
    life.judge(second)
    assert len(life.ledger.find("flight_delay", event="decision")) == 3, "a retry adds nothing"


def test_the_same_plan_gives_the_same_scores(life: Life) -> None:
    one, other = (life.train(run, MID_MARCH, spec=quick(life)) for run in ("one", "other"))
    a, b = (bundle(d.candidate.model_id).frame("holdout")["score"] for d in (one, other))
    assert np.array_equal(a, b)
    assert one.candidate.run_id != other.candidate.run_id


def test_labels_of_one_kind_only_are_a_sentence(life: Life) -> None:
    arrivals = feed_table(life.feeds["arrivals"])
    keys = [k for k in arrivals.partitions() if k < "2013-02-01"]
    rows = arrivals.read(keys)
    quiet = {}
    for key in keys:
        own = rows.filter(pc.equal(rows["partition"], key)).drop_columns(["partition", "digest"])
        late = pc.if_else(pc.is_valid(own["late"]), 0, None).cast(pa.int64())
        quiet[key] = own.set_column(own.schema.get_field_index("late"), "late", late)
    arrivals.replace(quiet)
    plan, train, holdout = life.prepare(utc("2013-02-15T05:00"), window_days=10)
    with pytest.raises(
        DataError, match=r"flight_delay: every one of the [\d,]+ training rows is negative; there is not"
    ):
        fit(plan, train, holdout, life.actor("flat"))


def test_code_that_changed_in_mid_run_is_refused(life: Life, tmp_path: Path) -> None:
    folder = tmp_path / "flight_delay"
    shutil.copytree(life.folder, folder)
    (folder / "pipeline.py").write_text("def build(): ...\n")
    estimator = life.spec.estimator.model_copy(update={"type": "pipeline.py:build", "params": {}})
    spec = life.spec.model_copy(update={"estimator": estimator})
    plan, train, holdout = life.prepare(MID_MARCH, spec=spec, folder=folder)
    (folder / "pipeline.py").write_text("def build(): pass\n")
    with pytest.raises(SpecError, match=r"pipeline\.py:build was edited in mid-run: clear the run as a whole"):
        fit(plan, train, holdout, life.actor("edited"))


def test_a_search_never_sees_the_holdout(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    from perennial.training import learn as module

    seen: list[Any] = []
    real = module.search

    def spy(spec: Any, folder: Path, rows: Any, seed: int, progress: Any) -> dict[str, Any]:
        seen.append(rows)
        return real(spec, folder, rows, seed, progress)

    monkeypatch.setattr(module, "search", spy)
    space = {"max_iter": {"int": [3, 6]}}
    spec = quick(life, search=life.spec.search.model_copy(update={"trials": 2, "space": space}))
    plan, train, holdout = life.prepare(MID_MARCH, spec=spec, window_days=15)
    found = fit(plan, train, holdout, life.actor("search"))
    assert set(seen[0].blocks) == set(plan.train_keys) and not set(seen[0].blocks) & set(plan.holdout_keys)
    assert not np.isnan(seen[0].y).any()
    chosen = bundle(found.model_id).facts["search"]["max_iter"]
    assert tracking.client().get_run(found.run_id).data.params["estimator.max_iter"] == str(chosen)


def test_scores_that_are_no_numbers_fail_every_gate(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    from perennial.training import learn as module

    real = module.estimators.score

    def broken(model: Any, X: Any, task: str) -> Any:
        found = real(model, X, task)
        found[3] = np.nan
        return found

    plan, train, holdout = life.prepare(MID_MARCH, spec=quick(life))
    actor = life.actor("nan")
    with monkeypatch.context() as m:
        m.setattr(module.estimators, "score", broken)
        candidate = fit(plan, train, holdout, actor)
    done = life.judge(Trained(actor, plan, train, holdout, candidate, None))  # type: ignore[arg-type]
    assert done.evaluation.verdict == "fail"
    assert {r.gate: r.verdict for r in done.evaluation.results} == {
        "floor": "fail",
        "baseline": "fail",
        "champion": "fail",
        "slices.origin": "fail",
        "fairness": "not_applicable",
    }


def test_the_first_version_is_decided_by_its_point_estimate(life: Life) -> None:
    (decision,) = life.ledger.find("flight_delay", event="decision")
    assert decision.verdict == "pass" and decision.figures["champion"] is None
    assert decision.figures["holdout"] == ["2013-02-14", "2013-02-27"]
    gates = {e.figures["gate"]: e for e in life.ledger.find("flight_delay", event="gate")}
    assert gates["champion"].verdict == "not_applicable"
    assert gates["baseline"].figures["decided_by"] == "point estimate"
    assert len(decision.digests["spec"]) == 64


def test_days_with_too_few_labels_are_left_out_and_counted(life: Life) -> None:
    """A blizzard on February 8 and 9: half of the flights never arrived."""
    done = life.train("storm", utc("2013-02-15T05:00"), spec=quick(life))
    assert done.plan.holdout_keys[0] == "2013-01-31"
    figures = gate(done.evaluation, "baseline").figures
    assert figures["left_out"] == 2 and figures["n_blocks"] == 12


def test_a_champion_is_judged_only_on_days_that_it_has_not_trained_on(life: Life) -> None:
    """A champion trained until March 9 meets a holdout of March 1-14: five days are left, and five are too few."""
    life.roll_out(life.train("newer", LATE_MARCH, spec=quick(life)))
    assert bundle(champion(life).model_id).facts["train_end"] == "2013-03-10T05:00:00+00:00"
    done = life.train("older", MID_MARCH, spec=quick(life))
    found = gate(done.evaluation, "champion")
    assert found.verdict == "hold" and done.evaluation.verdict in ("hold", "fail")
    assert found.figures["n_blocks"] == 5 and found.figures["left_out"] == 0, found.figures
    assert "5 blocks there is too little to judge by (at least 10)" in found.reason


def test_sharing_a_holdout_spends_it_and_the_ledger_counts(life: Life) -> None:
    one = life.train("one", LATE_MARCH, spec=quick(life))
    dry = life.train("dry", LATE_MARCH, seed=9, dry_run=True, spec=quick(life))
    assert [gate(d.evaluation, "champion").figures["j"] for d in (one, dry)] == [1, 2]
    again = gate(life.judge(one).evaluation, "champion")
    assert again.figures["j"] == 1, "who is judged again keeps its place"
    assert "candidate 2 on this holdout" in gate(dry.evaluation, "champion").reason
    other = "another MLflow run"
    assert judged_before(life.ledger, "flight_delay", "1", "2013-03-20", "2013-04-02", other) == 2
    assert judged_before(life.ledger, "flight_delay", "1", "2013-03-25", "2013-04-07", other) == 0
    assert judged_before(life.ledger, "flight_delay", "2", "2013-03-11", "2013-03-24", other) == 0


def test_a_champion_that_reads_a_feed_which_the_spec_dropped(life: Life, tmp_path: Path, monkeypatch: Any) -> None:
    """The candidate no longer reads weather; the champion still scores with it, also beside the candidate."""
    before = scores(life.score(DAY, "before"))
    shutil.copytree(life.folder.parents[1], tmp_path / "include", ignore=shutil.ignore_patterns("perennial"))
    sql = tmp_path / "include" / "models" / "flight_delay" / "features.sql"
    kept = [ln for ln in sql.read_text().splitlines() if "    w." not in ln and "weather" not in ln]
    sql.write_text("\n".join(kept) + "\n")
    monkeypatch.setenv("PERENNIAL_SPECS", str(tmp_path / "include"))
    edited = Life()
    assert "weather" not in edited.feeds
    assert scores(edited.score(DAY, "after")).equals(before)
    done = edited.train("edited", LATE_MARCH, spec=quick(edited))
    assert "weather" not in done.plan.feeds
    assert gate(done.evaluation, "champion").figures["n_blocks"] == 14, gate(done.evaluation, "champion")


def test_gates_that_are_off_do_not_ask_the_champion(life: Life, monkeypatch: Any) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("the champion was scored")

    monkeypatch.setattr("perennial.training.evaluate.champion_scores", never)
    spec = quick(life)
    off = spec.gates.champion.model_copy(update={"mode": "disabled"})
    gates = spec.gates.model_copy(update={"champion": off, "slices": []})
    done = life.train("off", MID_MARCH, spec=spec.model_copy(update={"gates": gates}))
    assert gate(done.evaluation, "champion").mode == "disabled"


def test_a_dry_run_is_on_record_and_registers_nothing(life: Life) -> None:
    done = life.train("dry", MID_MARCH, dry_run=True, spec=quick(life))
    assert life.ledger.find("flight_delay", event="decision")[-1].figures["dry_run"] is True
    assert versions.aliases("flight_delay") == {"champion": "1"}
    assert len(tracking.client().search_model_versions("name = 'flight_delay'")) == 1
    page = report(done.plan, done.evaluation).decode()
    assert "Decision on flight_delay" in page and "against version 1" in page


def test_an_outage_is_no_verdict(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the champion cannot be fetched the task fails and is retried; the candidate is not rejected for it."""
    plan, train, holdout = life.prepare(MID_MARCH, spec=quick(life))
    actor = life.actor("outage")
    candidate = fit(plan, train, holdout, actor)
    real = tracking.BundleCache.fetch
    mine = champion(life).model_id

    def fetch(cache: Any, model_id: str) -> Path:
        if model_id == mine:
            raise ConnectionError("no route")
        return real(cache, model_id)

    monkeypatch.setattr(tracking.BundleCache, "fetch", fetch)
    with pytest.raises(ConnectionError):
        life.judge(Trained(actor, plan, train, holdout, candidate, None))  # type: ignore[arg-type]
    assert len(life.ledger.find("flight_delay", event="decision")) == 1


def test_an_evaluation_survives_json(life: Life) -> None:
    done = life.train("json", MID_MARCH, spec=quick(life))
    assert Evaluation.from_dict(done.evaluation.to_dict()) == done.evaluation


def test_a_bundle_that_mlflow_does_not_have_is_a_sentence(life: Life) -> None:
    with pytest.raises(RegistryError, match="has no bundle m-0123"):
        tracking.cache_folder().fetch("m-0123")


# ------------------------------------------------------------------------------------------------------------ registry


def test_registering_twice_is_one_version(life: Life) -> None:
    first = champion(life)
    again = versions.register("flight_delay", first.run_id, first.model_id, {})
    assert again == first
    assert len(tracking.client().search_model_versions("name = 'flight_delay'")) == 1


def test_what_does_not_exist_is_said(life: Life) -> None:
    with pytest.raises(RegistryError, match="flight_delay has no version 9"):
        versions.get("flight_delay", "9")
    assert versions.by_alias("flight_delay", "challenger") is None
    assert versions.by_alias("no_model", "champion") is None
    assert versions.aliases("no_model") == {}
    with pytest.raises(RegistryError, match="no_model has no champion: train it first"):
        versions.require_champion("no_model")


def test_promotion_moves_both_aliases_once_and_is_on_record(life: Life) -> None:
    two = life.second()
    assert life.promote(two, "1", MID_MARCH, "p") == "1"
    assert versions.aliases("flight_delay") == {"champion": two, "previous": "1"}
    entry = life.ledger.find("flight_delay", event="alias")[-1]
    assert (entry.version, entry.verdict, entry.figures["from"]) == (two, "promote", "1")
    before = len(list(life.ledger.entries("flight_delay")))
    assert life.promote(two, "1", MID_MARCH, "p") == "1"
    assert versions.aliases("flight_delay") == {"champion": two, "previous": "1"}
    assert len(list(life.ledger.entries("flight_delay"))) == before


def test_a_champion_that_the_ledger_does_not_know_is_written_down_before_it_is_replaced(life: Life) -> None:
    two, three = life.second(), versions.register("flight_delay", tracking.run_of("flight_delay", life.actor("c")),
                                                  champion(life).model_id, {}).version  # fmt: skip
    tracking.client().set_registered_model_alias("flight_delay", "champion", two)  # by hand, or by a task that died
    life.promote(three, two, MID_MARCH, "q")
    found, moved = life.ledger.find("flight_delay", event="alias")[-2:]
    assert (found.verdict, found.version, found.figures["from"]) == ("found", two, "1")
    assert (moved.verdict, moved.version, moved.figures["from"]) == ("promote", three, two)
    assert versions.aliases("flight_delay") == {"champion": three, "previous": two}


def test_a_champion_that_changed_meanwhile_is_a_conflict_and_moves_nothing(life: Life) -> None:
    two, three = life.second(), versions.register("flight_delay", tracking.run_of("flight_delay", life.actor("c")),
                                                  champion(life).model_id, {}).version  # fmt: skip
    life.promote(two, "1", MID_MARCH, "p")
    before = life.ledger.find("flight_delay", event="alias")
    with pytest.raises(
        ConflictError, match=f"version {three} was judged against version 1, but champion is version {two}"
    ):
        life.promote(three, "1", MID_MARCH, "q")
    assert versions.aliases("flight_delay") == {"champion": two, "previous": "1"}
    assert life.ledger.find("flight_delay", event="alias") == before
    with pytest.raises(ConflictError, match="was judged against no version"):
        life.promote(three, None, MID_MARCH, "q")


class DeadError(Exception):
    """The supervisor has gone."""


def dies_at(n: int) -> Callable[[], None]:
    count = iter(range(1, 100))

    def fence() -> None:
        if next(count) == n:
            raise DeadError

    return fence


@pytest.mark.parametrize("step", [1, 2, 3])
def test_an_orphan_that_dies_between_two_steps_leaves_what_a_retry_completes(life: Life, step: int) -> None:
    two = life.second()
    with pytest.raises(DeadError):
        life.promote(two, "1", MID_MARCH, "p", fence=dies_at(step))
    aliases = versions.aliases("flight_delay")
    assert (
        aliases == [{"champion": "1"}, {"champion": "1", "previous": "1"}, {"champion": two, "previous": "1"}][step - 1]
    )
    assert len(life.ledger.find("flight_delay", event="alias")) == 1
    life.promote(two, "1", MID_MARCH, "p")
    assert versions.aliases("flight_delay") == {"champion": two, "previous": "1"}
    assert [e.version for e in life.ledger.find("flight_delay", event="alias")] == ["1", two]


def test_clearing_an_old_promotion_moves_nothing(life: Life) -> None:
    two = life.second()
    life.promote(two, "1", MID_MARCH, "p")
    life.promote("1", two, utc("2013-03-20T04:00"), "back", event="roll_back")
    before = list(life.ledger.entries("flight_delay"))
    life.promote(two, "1", MID_MARCH, "p")
    assert versions.aliases("flight_delay") == {"champion": "1", "previous": two}
    assert list(life.ledger.entries("flight_delay")) == before


def test_what_served_when(life: Life) -> None:
    two = life.second()
    life.promote(two, "1", MID_MARCH, "p")

    def served(day: str) -> str:
        return versions.serving_at("flight_delay", utc(f"{day}T04:00"), life.ledger).version

    assert [served(d) for d in ("2013-03-02", "2013-03-15", "2013-03-16", "2013-06-01")] == ["1", "1", two, two]
    with pytest.raises(RegistryError, match="flight_delay had no champion on 2013-02-20 04:00 UTC; name a version"):
        served("2013-02-20")
    life.promote("1", two, utc("2013-03-20T04:00"), "back", event="roll_back")
    assert [served(d) for d in ("2013-03-02", "2013-03-18", "2013-03-20", "2013-06-01")] == ["1", two, "1", "1"]
    assert champion_at(life.ledger, "flight_delay", utc("2013-03-18T04:00")) == two
    assert life.ledger.find("flight_delay", event="alias")[-1].verdict == "roll_back"


# ------------------------------------------------------------------------------------------------------------- scoring

DAY = "2013-03-05"


def published(life: Life, *keys: str) -> pa.Table:
    return prediction_table(life.spec, life.entity).read(keys)


def test_predictions_have_the_columns_that_consumers_know(life: Life) -> None:
    life.publish(DAY, "s")
    rows = published(life, DAY)
    assert {f.name: str(f.type) for f in rows.schema} == {
        "flight_id": "string", "output": "string", "score": "double", "decision": "bool", "model_version": "string",
        "arm": "string", "in_sample": "bool", "degraded": "bool", "run": "string",
        "scored_at": "timestamp[us, tz=UTC]", "partition": "string", "digest": "string",
    }  # fmt: skip
    assert set(rows["output"].to_pylist()) == {"1"} and set(rows["arm"].to_pylist()) == {"champion"}
    unique = rows.group_by(["flight_id", "output", "model_version"]).aggregate([])
    assert unique.num_rows == rows.num_rows == feed_table(life.entity).read([DAY]).num_rows
    threshold = bundle(champion(life).model_id).facts["threshold"]
    assert rows["decision"].to_pylist() == [s >= threshold for s in rows["score"].to_pylist()]


def test_cancelled_flights_are_scored_too(life: Life) -> None:
    life.publish(DAY, "s")
    arrivals = feed_table(life.feeds["arrivals"]).read([DAY])
    cancelled = set(arrivals.filter(pc.is_null(arrivals["late"]))["flight_id"].to_pylist())
    assert cancelled and cancelled <= set(published(life, DAY)["flight_id"].to_pylist())


def test_scoring_again_publishes_the_same_rows_and_no_new_version(life: Life) -> None:
    table = prediction_table(life.spec, life.entity)
    first = life.publish(DAY, "one")
    version, before = table.version, published(life, DAY)
    second = life.publish(DAY, "two")
    assert first.actor.run_id != second.actor.run_id
    assert table.version == version and published(life, DAY).equals(before)


def test_a_partition_keeps_the_version_that_published_it(life: Life) -> None:
    two = life.second()
    life.publish(DAY, "one")
    life.promote(two, "1", utc("2013-03-03T05:00"), "p")
    life.publish(DAY, "again")
    life.publish("2013-03-06", "new")
    assert set(published(life, DAY)["model_version"].to_pylist()) == {"1"}
    assert set(published(life, "2013-03-06")["model_version"].to_pylist()) == {two}
    life.publish(DAY, "forced", version=two)
    assert set(published(life, DAY)["model_version"].to_pylist()) == {two}, (
        "the form wins, and the partition is replaced"
    )
    with pytest.raises(RegistryError, match="flight_delay has no version 77"):
        life.score(DAY, "x", version="77")


def test_a_past_that_precedes_the_promotion_gets_the_champion_of_then(life: Life) -> None:
    two = life.second()
    life.promote(two, "1", MID_MARCH, "p")
    life.publish(DAY, "late")
    assert set(published(life, DAY)["model_version"].to_pylist()) == {"1"}
    with pytest.raises(RegistryError, match="had no champion on 2013-02-02"):
        life.score("2013-02-01", "early")


def test_rows_from_before_train_end_are_marked(life: Life) -> None:
    life.publish("2013-02-12", "a", version="1")
    life.publish("2013-02-13", "b", version="1")
    assert set(published(life, "2013-02-12")["in_sample"].to_pylist()) == {True}
    assert set(published(life, "2013-02-13")["in_sample"].to_pylist()) == {False}


def staged(life: Life, change: Callable[[pa.Table], pa.Table]) -> tuple[RunState, list[str]]:
    """What the check says of predictions that were tampered with."""
    state = life.score(DAY, "bad")
    key = state.key("predictions.parquet")
    rows = change(pyarrow.parquet.read_table(io.BytesIO(state.store.get(key))))
    sink = io.BytesIO()
    pyarrow.parquet.write_table(rows, sink)
    state.store.put(key, sink.getvalue())
    return state, predict.check_output(life.spec, life.feeds, DAY, state)


def with_score(value: float) -> Callable[[pa.Table], pa.Table]:
    def change(rows: pa.Table) -> pa.Table:
        scores = [value, *rows["score"].to_pylist()[1:]]
        return rows.set_column(rows.schema.get_field_index("score"), "score", pa.array(scores, pa.float64()))

    return change


def renamed(rows: pa.Table) -> pa.Table:
    ids = ["nobody", *rows["flight_id"].to_pylist()[1:]]
    return rows.set_column(rows.schema.get_field_index("flight_id"), "flight_id", pa.array(ids))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_score(float("nan")), "1 of 853 scores are not finite numbers"),
        (with_score(float("inf")), "1 of 853 scores are not finite numbers"),
        (with_score(1.5), "scores lie between .* and 1.500, outside"),
        (lambda rows: rows.slice(3), "3 of 853 flights of 2013-03-05 have no score"),
        (lambda rows: pa.concat_tables([rows, rows.slice(0, 2)]), "a row was scored twice by the same version"),
        (renamed, "1 scores are of no flights of 2013-03-05"),
    ],
)
def test_bad_output_is_found(life: Life, change: Callable[[pa.Table], pa.Table], says: str) -> None:
    rows = feed_table(life.entity).read([DAY]).num_rows
    _, problems = staged(life, change)
    import re

    assert problems and re.search(says.replace("853", str(rows)), "; ".join(problems)), problems


def test_a_run_that_staged_nothing_is_a_sentence(life: Life) -> None:
    with pytest.raises(DataError, match="this run has staged no predictions: clear it from its scoring task"):
        predict.publish(life.spec, life.entity, DAY, RunState(life.actor("empty")))


def scores(state: RunState) -> pa.ChunkedArray:
    rows = state.store.get(state.key("predictions.parquet"))
    return pyarrow.parquet.read_table(io.BytesIO(rows))["score"]


def test_a_version_scores_with_its_own_feature_definition(life: Life, tmp_path: Path, monkeypatch: Any) -> None:
    """The spec's file has changed since, and even lacks a column that the version needs."""
    before = scores(life.score(DAY, "before"))
    shutil.copytree(life.folder.parents[1], tmp_path / "include", ignore=shutil.ignore_patterns("perennial"))
    sql = tmp_path / "include" / "models" / "flight_delay" / "features.sql"
    sql.write_text(sql.read_text().replace("    w.temp,\n", ""))
    monkeypatch.setenv("PERENNIAL_SPECS", str(tmp_path / "include"))
    edited = Life()
    assert scores(edited.score(DAY, "after")).equals(before)
    # a new candidate has the new definition, and the champion still scores the holdout by its own
    done = edited.train("edited", LATE_MARCH, spec=quick(edited))
    assert "temp" not in bundle(done.candidate.model_id).facts["columns"]
    assert gate(done.evaluation, "champion").figures["n_blocks"] == 14, gate(done.evaluation, "champion")
