"""A model audited by a column that is no feature: real lake, real MLflow over SQLite, gates, ledger and page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from lifecycle import Life, Trained

from grain_world import GrainWorld
from perennial.errors import DataError
from perennial.lake.homes import feed_table
from perennial.specs.partitions import known_at_instant
from perennial.training.audit import audit_sections, fairness_rows, read_columns, slice_rows
from perennial.training.data import load_rows
from perennial.training.evaluate import Evaluation, evaluate, report

pytestmark = pytest.mark.integration

GATES = """gates:
  champion: {mode: dry_run}
  slices: [{by: store}]
  fairness: {by: [store], limit: 0.2, measures: [selection_rate]}
"""


class Audited(Life):
    """Forty weeks of visits; what was sold in a store moves its rate of decisions."""

    def __init__(self, world: GrainWorld) -> None:
        super().__init__("returns")
        self.world = world
        self.keys = world.keys(40)
        world.fill(self.keys)
        self.as_of = known_at_instant(self.feeds["outcomes"], self.keys[39])

    def stores(self, change: Any) -> None:
        """Other stores on record, as a correction would say; the outcomes and the features stay."""
        visits = self.feeds["visits"]
        rows = {k: self.world.table(visits, k) for k in self.keys[26:]}
        feed_table(visits).replace({k: t.set_column(1, "store", change(t)) for k, t in rows.items()})


@pytest.fixture
def audited(home: Path, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audited:
    world = GrainWorld(tmp_path, "week", rows=80, more=GATES)
    monkeypatch.setenv("PERENNIAL_SPECS", str(world.root))
    return Audited(world)


def gate(evaluation: Evaluation, name: str) -> Any:
    return next(r for r in evaluation.results if r.gate == name)


def again(life: Audited, done: Trained) -> Evaluation:
    return evaluate(done.plan, done.holdout, done.candidate, life.ledger)


def test_a_protected_column_that_is_no_feature(audited: Audited) -> None:
    life = audited
    done = life.train("one", life.as_of)
    columns = list(load_rows(life.spec, life.feeds, done.plan.definition, done.holdout).X.columns)
    assert columns == ["basket", "sold_before"], "the model never saw the store"
    audits = done.evaluation.audits
    evidence = audits["evidence"]
    assert (evidence["feed"], evidence["columns"]) == ("visits", ["store"]) and len(
        evidence["snapshot"]["sha256"]
    ) == 64
    lines = audits["fairness"]["table"]
    assert [r["group"] for r in lines] == ["east", "north", "south", "west"]
    assert sum(r["n"] for r in lines) == 14 * 80 == lines[0]["n"] + lines[0]["n_rest"]
    assert {r["by"] for r in lines} == {"blocks"}, "fourteen weeks"
    assert gate(done.evaluation, "slices.store").verdict == "not_applicable"
    assert Evaluation.from_dict(done.evaluation.to_dict()) == done.evaluation

    # every row got the store that the feed has for it
    feed = feed_table(life.entity).read(list(done.plan.holdout_keys)).sort_by(
        [("partition", "ascending"), ("visit_id", "ascending")]
    )  # fmt: skip
    rows = load_rows(life.spec, life.feeds, done.plan.definition, done.holdout)
    found, _ = read_columns(done.plan, done.holdout, rows, ["store", "visit_id", "basket", "nothing"])
    assert found["store"].tolist() == feed["store"].to_pylist() and "nothing" not in found
    assert found["visit_id"].tolist() == feed["visit_id"].to_pylist(), "a key can be audited too"
    assert np.array_equal(found["basket"], rows.X["basket"]), "a feature is taken as the model saw it"

    entries = {e.figures["gate"]: e for e in life.ledger.find("returns", event="gate")}
    assert entries["fairness"].verdict == gate(done.evaluation, "fairness").verdict
    assert entries["fairness"].figures["columns_sha256"] == evidence["snapshot"]["sha256"]
    page = report(done.plan, done.evaluation).decode()
    assert "Fairness: each group against the rest" in page and "demographic parity ratio" in page
    assert len(fairness_rows(audits)) == 4 and len(slice_rows(audits)) == 4


def test_unfair_decisions_reject_a_candidate_and_fair_ones_do_not(audited: Audited) -> None:
    """The score rises with the basket, so it finds the rich."""
    life = audited
    done = life.train("one", life.as_of)
    life.stores(lambda t: pa.array(["rich" if b > 0 else "poor" for b in t["basket"].to_pylist()]))
    unfair = again(life, done)
    assert unfair.verdict == "fail" and "fairness: selection rate of store" in unfair.reason, unfair.reason
    rng = np.random.default_rng(1)
    life.stores(lambda t: pa.array(rng.permutation(np.repeat(["a", "b"], 40))))
    fair = again(life, done)
    assert gate(fair, "fairness").verdict == "pass" and fair.verdict == "pass", fair.reason
    assert unfair.audits["evidence"]["snapshot"]["sha256"] != fair.audits["evidence"]["snapshot"]["sha256"]
    assert b'class="fail"' in "".join(audit_sections(unfair.audits)).encode()


def test_missing_values_and_missing_partitions(audited: Audited) -> None:
    life = audited
    done = life.train("one", life.as_of)
    life.stores(lambda t: pa.nulls(t.num_rows, pa.string()))
    found = again(life, done)
    assert found.verdict == "hold" and "store has no value in any of 1,120 rows" in found.reason, found.reason
    feed_table(life.entity).drop([life.keys[39]])
    with pytest.raises(DataError, match=f"has no rows for partition {life.keys[39]}"):
        again(life, done)


def test_a_candidate_that_loses_in_its_slices_is_rejected(audited: Audited) -> None:
    """The champion gate is a dry run here, so that slices alone decide."""
    life = audited
    life.roll_out(life.train("one", life.as_of))
    guess = life.spec.estimator.model_copy(update={"type": "sklearn.dummy.DummyClassifier", "params": {}})
    found = life.train("two", life.as_of, spec=life.spec.model_copy(update={"estimator": guess})).evaluation
    harmed = gate(found, "slices.store")
    assert harmed.verdict == "fail" and "against the champion, at least" in harmed.reason, harmed.reason
    assert harmed.figures["failed"] == 4 and gate(found, "champion").mode == "dry_run"
    assert found.verdict == "fail" and "slices.store" in found.reason
    same = life.train("three", life.as_of).evaluation
    assert gate(same, "slices.store").verdict == "pass", "as good as the champion"
