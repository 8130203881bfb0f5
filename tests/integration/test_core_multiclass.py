"""A model of three classes, from landed files to a monitored champion: real lake, real MLflow over SQLite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from lifecycle import Life, Trained

from grain_world import STORES, GrainWorld
from perennial.ingestion import commit, judge_partitions
from perennial.lake.homes import feed_table, prediction_table
from perennial.monitoring.conclude import conclude
from perennial.monitoring.watch import drift_look, performance_look
from perennial.registry import tracking, versions
from perennial.runs import Actor, RunState
from perennial.scoring.explain import explain
from perennial.settings import settings
from perennial.specs import FeedSpec
from perennial.specs.partitions import known_at_instant
from perennial.training.bundle import Bundle
from perennial.training.reproduce import reproduce

pytestmark = pytest.mark.integration

NAMES = ["exchanged", "kept", "returned"]


class SeveralWorld(GrainWorld):
    """Visits that end in one of three ways."""

    def __init__(self, root: Path, more: str = "") -> None:
        super().__init__(root, "day", rows=80, delay="P1D", lookback=", lookback: P3D", more=more)
        columns = "visit_id: string, store: string, ending: string"
        common = {"every": "day", "zone": "America/New_York", "start": "2013-01-07"}
        self._feed("outcomes", columns, "visit_id", delay="P1D", **common)
        file = self.root / "models/returns/model.yaml"
        text = file.read_text().replace("task: binary", "task: multiclass").replace("returned}", "ending}")
        file.write_text(text.replace("metric: roc_auc", "metric: roc_auc_ovr"))

    def table(self, feed: FeedSpec, key: str) -> pa.Table:
        if feed.name != "outcomes":
            return super().table(feed, key)
        visits = super().table(self.load().feed("visits"), key)
        store = np.array([STORES.index(s) for s in visits.column("store").to_pylist()])
        pull = 1.5 * visits.column("basket").to_numpy() + 1.5 * self._sold(self._before(feed, key))[store]
        noise = self._rng(key, 2).logistic(size=len(pull))
        ending = np.array(["kept", "exchanged", "returned"])[np.digitize(pull + noise, [0.5, 2.0])]
        return pa.table({"visit_id": visits.column("visit_id"), "store": visits.column("store"), "ending": ending})

    @staticmethod
    def _before(feed: FeedSpec, key: str) -> str:
        from perennial.specs.partitions import shift

        return shift(feed, key, -1)


class SeveralLife(Life):
    """Its life."""

    def __init__(self, world: SeveralWorld, keys: int) -> None:
        super().__init__("returns")
        self.world, self.keys = world, world.keys(keys)

    def ingest(self, keys: list[str]) -> None:
        self.world.land(Path(settings().landing.removeprefix("file://")), keys)
        for name, feed in self.feeds.items():
            state = RunState(Actor(f"{name}.ingest", keys[0], "validate"))
            verdicts, _ = judge_partitions(feed, self.specs.folder_of("feed", name), keys, state)
            assert {v.verdict for v in verdicts} == {"commit"}
            commit(feed, state, ["commit"], self.ledger, as_of="2020-01-01T00:00:00+00:00")

    def relabel(self, keys: list[str], old: str, new: str) -> None:
        """A correction of the outcomes: one ending is written as another."""
        outcomes, changed = self.feeds["outcomes"], {}
        for key in keys:
            rows = self.world.table(outcomes, key)
            ending = pc.replace_substring(rows.column("ending"), old, new)
            changed[key] = rows.set_column(2, "ending", ending)
        feed_table(outcomes).replace(changed)


def gate(done: Trained, name: str) -> Any:
    return next(r for r in done.evaluation.results if r.gate == name)


def test_a_model_of_three_classes(home: Path, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = SeveralWorld(tmp_path, "gates: {floor: {roc_auc_ovr: 0.6, f1_macro: 0.3}, baseline: {by: []}}\n")
    monkeypatch.setenv("PERENNIAL_SPECS", str(world.root))
    life = SeveralLife(world, 84)
    keys, entity, outcomes = life.keys, life.entity, life.feeds["outcomes"]
    life.ingest(keys)

    first = life.train("train-1", known_at_instant(outcomes, keys[47]))
    assert first.evaluation.verdict == "pass", first.evaluation.reason
    floor = gate(first, "floor").figures
    assert floor["roc_auc_ovr"] > 0.7 and floor["f1_macro"] > 0.4 and floor["n_blocks"] == 14
    assert gate(first, "baseline").figures["baseline"] == pytest.approx(0.5), "rates without a segment rank nothing"
    life.roll_out(first)
    version = versions.require_champion("returns")
    bundle = Bundle(tracking.cache_folder().fetch(version.model_id))
    assert bundle.facts["classes"] == NAMES and bundle.facts["threshold"] is None
    assert bundle.facts["metric"]["value"] == pytest.approx(floor["roc_auc_ovr"])
    again = reproduce("returns", version.version)
    assert (again.rows, again.differing, again.max_difference) == (14 * 80, 0, 0.0)

    for key in keys[35:77]:
        life.publish(key, f"score-{key}", version="1")
    rows = prediction_table(life.spec, entity).read([keys[40]])
    assert rows.num_rows == 3 * 80 and sorted(set(rows.column("output").to_pylist())) == NAMES
    per_visit = rows.group_by("visit_id").aggregate([("score", "sum"), ("decision", "sum"), ("score", "max")])
    assert per_visit.column("score_sum").to_numpy() == pytest.approx(1)
    assert set(per_visit.column("decision_sum").to_pylist()) == {1}
    decided = rows.filter(rows.column("decision")).sort_by("visit_id").column("score")
    assert decided.to_pylist() == per_visit.sort_by("visit_id").column("score_max").to_pylist(), "the likeliest"

    told = explain(life.spec, life.feeds, f"{keys[40]}-000", keys[40])
    assert told.as_it_was and told.published["decision"], "the class that was decided for"
    assert told.base + sum(f.contribution for f in told.features) == pytest.approx(told.again, abs=0.05)

    now = known_at_instant(outcomes, keys[76])
    performance = performance_look(life.spec, life.feeds, version, now)
    assert [(w["state"], w["n_blocks"], w["rows"]) for w in performance.windows][-1] == ("quiet", 14, 14 * 80)
    drift = drift_look(life.spec, life.feeds, version, now)
    distances = drift.windows[-1]["predictions"]
    assert list(distances) == [*NAMES, "predicted class"] and all(0 <= d < 1 for d in distances.values())
    asked = {"version": "1", "as_of": now.isoformat(), "key": keys[76]}
    page = conclude(life.spec, [drift.to_dict(), performance.to_dict()], asked, life.ledger, life.actor("watch")).page
    assert b"predicted classes" in page

    second = life.train("train-2", now)
    judged = gate(second, "champion")
    assert judged.figures["n_blocks"] == 14 and judged.figures["log_loss_new"] is not None
    assert judged.verdict in ("pass", "fail") and "share_kept_new" in judged.figures

    life.relabel(keys[56:77], "kept", "returned")
    spoilt = performance_look(life.spec, life.feeds, version, now)
    assert spoilt.windows[-1]["state"] == "failed" and "no row of 1 of the 3 classes" in spoilt.windows[-1]["reason"]
    assert spoilt.outcome == "alert"
    lacking = life.train("train-3", now)
    assert {r.verdict for r in lacking.evaluation.results} - {"not_applicable"} == {"hold"}
    assert gate(lacking, "floor").reason == "the holdout has no row of the class kept"

    life.relabel(keys[56:63], "kept", "kept")
    life.relabel(keys[63:77], "kept", "lost")
    unknown = life.train("train-4", now)
    assert unknown.evaluation.verdict == "hold"
    assert "labels of the holdout are of a class that training has not seen" in gate(unknown, "champion").reason

    life.relabel(keys[:63], "kept", "lost")
    other = life.train("train-5", now)
    assert gate(other, "champion").verdict == "hold"
    assert "knows the classes exchanged, kept, returned, this candidate only" in gate(other, "champion").reason
