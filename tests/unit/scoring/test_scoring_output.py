"""What is staged is checked before it is published, and published as a whole or not at all."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from perennial.errors import DataError
from perennial.lake.homes import feed_table, prediction_table
from perennial.runs import Actor, RunState
from perennial.scoring.predict import Published, check_output, publish, published
from perennial.specs.loader import SpecSet, load_specs

pytestmark = pytest.mark.fast

KEY = "2013-03-05"


@pytest.fixture
def specs(home: Path) -> SpecSet:
    found = load_specs(only="flight_delay")
    flights = found.feed("flights")
    from perennial.lake.landing import arrow_schema

    schema = arrow_schema(flights)
    columns = {f.name: pa.nulls(3, f.type) for f in schema} | {"flight_id": pa.array(["a", "b", "c"])}
    feed_table(flights).replace({KEY: pa.table(columns, schema=schema)})
    return found


def stage(run: str, ids: list[str], scores: list[float], versions: list[str] | None = None) -> RunState:
    n = len(ids)
    rows = pa.table(
        {
            "flight_id": pa.array(ids, pa.string()),
            "output": pa.array(["1"] * n),
            "score": pa.array(scores, pa.float64()),
            "decision": pa.array([s > 0.5 for s in scores], pa.bool_()),
            "model_version": pa.array(versions or ["1"] * n, pa.string()),
            "arm": pa.array(["champion"] * n),
            "in_sample": pa.array([False] * n),
            "degraded": pa.array([False] * n),
            "run": pa.array([run] * n),
            "scored_at": pa.array([dt.datetime.now(dt.UTC)] * n, pa.timestamp("us", tz="UTC")),
        }
    )
    state = RunState(Actor("flight_delay.score", run, "score"))
    sink = io.BytesIO()
    pyarrow.parquet.write_table(rows, sink)
    state.store.put(state.key("predictions.parquet"), sink.getvalue())
    return state


@pytest.mark.parametrize(
    ("ids", "scores", "says"),
    [
        (["a", "b", "c"], [0.0, 1.0, 0.4], []),
        (["a", "b", "c"], [0.1, float("nan"), 0.4], ["1 of 3 scores are not finite numbers"]),
        (["a", "b", "c"], [0.1, -0.2, 0.4], ["scores lie between -0.200 and 0.400, outside [0, 1]"]),
        (["a", "c"], [0.1, 0.4], ["1 of 3 flights of 2013-03-05 have no score"]),
        (["a", "b", "c", "c"], [0.1, 0.2, 0.3, 0.3], ["a row was scored twice by the same version"]),
        (["a", "b", "c", "x"], [0.1, 0.2, 0.3, 0.3], ["1 scores are of no flights of 2013-03-05"]),
    ],
)
def test_the_check_says_what_is_wrong(specs: SpecSet, ids: list[str], scores: list[float], says: list[str]) -> None:
    assert check_output(specs.model("flight_delay"), specs.feeds, KEY, stage("r", ids, scores)) == says


def test_two_versions_may_score_the_same_row(specs: SpecSet) -> None:
    ids = ["a", "b", "c"] * 2
    state = stage("r", ids, [0.1] * 6, ["1"] * 3 + ["2"] * 3)
    assert check_output(specs.model("flight_delay"), specs.feeds, KEY, state) == []


def test_a_regression_may_score_anything_finite(specs: SpecSet) -> None:
    spec = load_specs(only="flight_duration").model("flight_duration")
    assert check_output(spec, specs.feeds, KEY, stage("r", ["a", "b", "c"], [-3.0, 900.0, 4.0])) == []


def test_a_partition_that_is_not_in_the_lake_is_said(specs: SpecSet) -> None:
    problems = check_output(specs.model("flight_delay"), specs.feeds, "2013-03-06", stage("r", ["a"], [0.1]))
    assert problems == ["flights 2013-03-06 is not in the lake"]


def test_publishing_again_changes_nothing_and_other_scores_replace(specs: SpecSet) -> None:
    spec, entity = specs.model("flight_delay"), specs.feed("flights")
    table = prediction_table(spec, entity)
    assert published(spec, entity, KEY) is None
    one = publish(spec, entity, KEY, stage("one", ["a", "b", "c"], [0.1, 0.2, 0.3]))
    version = table.version
    assert publish(spec, entity, KEY, stage("two", ["a", "b", "c"], [0.1, 0.2, 0.3])) == one
    assert table.version == version and published(spec, entity, KEY) == Published("1", False)
    publish(spec, entity, KEY, stage("three", ["a", "b", "c"], [0.3, 0.2, 0.1], ["2"] * 3))
    assert published(spec, entity, KEY) == Published("2", False)
    rows = table.read([KEY])
    assert rows.num_rows == 3 and set(rows["run"].to_pylist()) == {"three"}


def test_an_orphan_publishes_nothing(specs: SpecSet) -> None:
    spec, entity = specs.model("flight_delay"), specs.feed("flights")

    def dead() -> Any:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        publish(spec, entity, KEY, stage("one", ["a", "b", "c"], [0.1, 0.2, 0.3]), dead)
    assert prediction_table(spec, entity).partitions() == {}


def test_nothing_staged_is_a_sentence(specs: SpecSet) -> None:
    state = RunState(Actor("flight_delay.score", "none", "publish"))
    with pytest.raises(DataError, match="this run has staged no predictions: clear it from its scoring task"):
        publish(specs.model("flight_delay"), specs.feed("flights"), KEY, state)


def test_what_is_published_from_a_file_is_what_is_published_from_memory(
    specs: SpecSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition that does not fit into a batch is never held whole."""
    from perennial.scoring import predict

    spec, entity = specs.model("flight_delay"), specs.feed("flights")
    held = publish(spec, entity, KEY, stage("a", ["c", "a", "b"], [0.1, 0.2, 0.3]))
    version = prediction_table(spec, entity).version
    monkeypatch.setattr(predict, "BATCH", 1)
    assert publish(spec, entity, KEY, stage("b", ["a", "b", "c"], [0.2, 0.3, 0.1])) == held
    assert prediction_table(spec, entity).version == version, "the same scores again change nothing"
    assert publish(spec, entity, KEY, stage("c", ["b", "a", "c"], [0.4, 0.3, 0.1])) != held
    rows = prediction_table(spec, entity).read([KEY])
    assert rows is not None
    assert dict(zip(rows["flight_id"].to_pylist(), rows["score"].to_pylist(), strict=True)) == {
        "a": 0.3, "b": 0.4, "c": 0.1,
    }  # fmt: skip


def test_staging_streams_and_says_its_figures(specs: SpecSet) -> None:
    from perennial.scoring import staging

    def batch(ids: list[str], scores: list[float]) -> pa.RecordBatch:
        decisions = [s > 0.5 for s in scores]
        return pa.RecordBatch.from_pydict({"flight_id": ids, "score": scores, "decision": decisions})

    state = RunState(Actor("flight_delay.score", "figures", "score"))
    found = staging.stage(state, iter([batch(["a", "b"], [0.25, 0.75]), batch(["c"], [0.5])]), ["flight_id"])
    assert (found.rows, found.mean_score, found.positive) == (3, 0.5, pytest.approx(1 / 3))
    with staging.staged(state) as rows:
        assert rows.table().to_pylist()[2] == {"flight_id": "c", "score": 0.5, "decision": False}
        staging.stage(state, iter([batch(["z"], [float("nan")])]), ["flight_id"])
        assert rows.table()["flight_id"].to_pylist() == ["a", "b", "c"], "a retry beside it changes nothing here"
    with staging.staged(state) as rows:
        assert rows.num_rows == 1
    assert staging.stage(state, iter([batch(["z"], [float("nan")])]), ["flight_id"]).mean_score is None

    def fails() -> Iterator[pa.RecordBatch]:
        yield batch(["y"], [0.1])
        raise DataError("half way")

    with pytest.raises(DataError, match="half way"):
        staging.stage(state, fails(), ["flight_id"])
    with staging.staged(state) as rows:
        assert rows.table()["flight_id"].to_pylist() == ["z"], "whole or not at all"
    assert list(state.store.list("runs")) == [state.key(staging.STAGED)], "nothing temporary is left"


def test_a_large_partition_is_staged_in_order_of_its_keys(specs: SpecSet, monkeypatch: pytest.MonkeyPatch) -> None:
    from perennial.scoring import staging

    monkeypatch.setattr(staging, "BATCH", 2)
    rows = {"flight_id": ["c", "a", "b"], "score": [0.1, 0.2, 0.3], "decision": [True, False, None]}
    state = RunState(Actor("flight_delay.score", "order", "score"))
    staging.stage(state, iter([pa.RecordBatch.from_pydict(rows)]), ["flight_id"])
    with staging.staged(state) as found:
        assert found.ordered(["flight_id"])
        assert found.table().to_pydict() == {
            "flight_id": ["a", "b", "c"], "score": [0.2, 0.3, 0.1], "decision": [False, None, True],
        }  # fmt: skip
