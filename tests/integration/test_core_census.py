"""The yearly life of the census model on the real survey: four years, two decisions, and what fairness says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from lifecycle import Life, Trained

from perennial.ingestion import commit, judge_partitions
from perennial.lake.homes import feed_table, prediction_table
from perennial.local.census import EMPLOYMENT, PERSONS, land_census
from perennial.monitoring.conclude import conclude
from perennial.monitoring.watch import drift_look, performance_look
from perennial.registry import tracking, versions
from perennial.runs import Actor, RunState
from perennial.settings import settings
from perennial.specs.gates import FairnessGate
from perennial.specs.partitions import known_at_instant
from perennial.training.bundle import Bundle
from perennial.training.evaluate import evaluate, report
from perennial.training.guards import check_guards

pytestmark = pytest.mark.integration

YEARS = ["2015", "2016", "2017", "2018"]


def ingest(life: Life, keys: list[str]) -> None:
    """Land and judge by each feed's own contract."""
    land_census(Path(settings().landing.removeprefix("file://")), int(keys[0]), int(keys[-1]))
    for name in (PERSONS, EMPLOYMENT):
        feed = life.feeds[name]
        state = RunState(Actor(f"{name}.ingest", keys[0], "validate"))
        verdicts, _ = judge_partitions(feed, life.specs.folder_of("feed", name), keys, state)
        assert {v.verdict for v in verdicts} == {"commit"}, [v.reason for v in verdicts]
        commit(feed, state, ["commit"], life.ledger, as_of="2019-01-01T00:00:00+00:00")


def gate(done: Trained, name: str) -> Any:
    return next(r for r in done.evaluation.results if r.gate == name)


def audited(life: Life, limit: float, *more: dict[str, Any]) -> Any:
    """The shipped spec with another audit."""
    shipped = life.spec.gates.fairness
    fairness = FairnessGate(by=[*(c.model_dump() for c in shipped.by), *more], limit=limit)
    return life.spec.model_copy(update={"gates": life.spec.gates.model_copy(update={"fairness": fairness})})


def judged_by(life: Life, done: Trained, spec: Any) -> Any:
    """The same candidate under another spec's gates."""
    return evaluate(replace(done.plan, spec=spec), done.holdout, done.candidate, life.ledger)


def test_the_census_model_lives_by_years(home: Path, registry: str) -> None:
    life = Life("employment")
    assert life.spec.rows_are_blocks
    ingest(life, YEARS)
    as_of = {y: known_at_instant(life.entity, y) for y in YEARS}

    # the first version: trained on two years, judged on the third
    first = life.train("train-1", as_of["2017"])
    assert (first.plan.train_keys, first.plan.holdout_keys) == (("2015", "2016"), ("2017",)), "a year is the holdout"
    assert first.evaluation.verdict == "pass", first.evaluation.reason
    floor, baseline = gate(first, "floor").figures, gate(first, "baseline")
    assert floor["n_blocks"] == floor["rows"] > 58_000 and 0.001 < floor["roc_auc_se"] < 0.003
    assert 0.82 < floor["roc_auc"] < 0.84 and baseline.figures["gain"] > 0.01
    fairness = gate(first, "fairness")
    assert fairness.verdict == "pass" and fairness.figures["columns"] == "SEX, RAC1P"
    assert 0.15 < fairness.figures["worst_bound"] < 0.2, "false positives among Asian persons; README.md"
    assert fairness.figures["worst_group"] == "RAC1P asian"
    assert b"false positive rate" in report(first.plan, first.evaluation)

    # two other audits of the same model: rejected for unfairness
    rejected = judged_by(life, first, audited(life, 0.2, {"column": "DIS", "groups": {"yes": ["1"], "no": ["2"]}}))
    assert rejected.verdict == "fail" and rejected.reason.startswith("fairness: selection rate of DIS")
    strict = judged_by(life, first, audited(life, 0.1))
    assert strict.verdict == "fail" and "false positive rate of RAC1P asian" in strict.reason, "the default limit"
    life.roll_out(first)

    # the next year: scored by version 1, watched, and a challenger with a year more
    life.publish("2018", "score-2018")
    rows = prediction_table(life.spec, life.entity).read(["2018"])
    assert rows is not None and rows.num_rows == feed_table(life.entity).partitions()["2018"].rows
    assert not any(rows.column("in_sample").to_pylist())
    version = versions.require_champion("employment")
    bundle = Bundle(tracking.cache_folder().fetch(version.model_id))
    assert bundle.document("drift")["calibration"] is None, "two years say nothing of how years differ"

    performance = performance_look(life.spec, life.feeds, version, as_of["2018"])
    (window,) = performance.windows
    assert (window["window"], window["state"], window["n_blocks"]) == ("2018-01-01/2018-12-31", "quiet", rows.num_rows)
    drift = drift_look(life.spec, life.feeds, version, as_of["2018"])
    assert drift.outcome == "alert" and "need at least 1460 days" in drift.reason
    (window,) = drift.windows
    assert window["state"] == "not judged" and set(window["shown"]) == set(bundle.facts["columns"])
    assert max(window["shown"].values()) < 0.2
    asked = {"version": "1", "as_of": as_of["2018"].isoformat(), "key": "2018"}
    looks = [drift.to_dict(), performance.to_dict()]
    found = conclude(life.spec, looks, asked, life.ledger, life.actor("watch", dag="monitor"))
    assert found.outcome == "alert" and b"not judged" in found.page, "somebody looks, nobody retrains by itself"
    guards = {g.name: g for g in check_guards(life.spec, life.feeds, as_of["2018"], life.ledger, life.actor("x"))}
    assert guards["new_labels"].passed

    second = life.train("train-2", as_of["2018"])
    assert (second.plan.train_keys, second.plan.holdout_keys) == (("2015", "2016", "2017"), ("2018",))
    champion = gate(second, "champion")
    assert champion.figures["n_blocks"] == rows.num_rows and champion.figures["V"] == 1
    assert abs(champion.figures["gain"]) < 0.01 and champion.figures["se"] < 0.001
    expected = "pass" if champion.figures["bound"] > 0 else "fail"
    assert champion.verdict == expected and f"({rows.num_rows} rows, V 1.0)" in champion.reason

    # a year whose file came without its ages is a failure of the data, whatever the calibration
    persons = feed_table(life.entity)
    spoilt = persons.read(["2018"]).drop_columns(["partition", "digest"])
    at = spoilt.schema.get_field_index("AGEP")
    persons.replace({"2018": spoilt.set_column(at, "AGEP", pa.nulls(spoilt.num_rows, pa.int64()))})
    broken = drift_look(life.spec, life.feeds, version, as_of["2018"])
    assert broken.windows[0]["state"] == "failed" and "column 'age' has no value" in broken.reason
