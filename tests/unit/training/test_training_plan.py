"""Which rows a training may use: what follows from the spec, as_of and the lake."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from grain_world import GrainWorld
from perennial.errors import DataError, SpecError, UsageError
from perennial.lake.homes import feed_table
from perennial.specs.loader import SpecSet, load_specs
from perennial.specs.partitions import keys_between
from perennial.training.plan import TrainingPlan, last_labelled, make_plan, resolve_as_of

pytestmark = pytest.mark.fast


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


MARCH = utc("2013-03-01T05:00")  # midnight in New York


@pytest.fixture
def specs(home: Path) -> SpecSet:
    return load_specs(only="flight_delay")


def land(
    specs: SpecSet, first: str = "2013-01-01", last: str = "2013-03-05", but: dict[str, set[str]] | None = None
) -> None:
    """One row per day and feed, but for some days of some feeds."""
    from perennial.lake.landing import arrow_schema

    for name, feed in specs.feeds.items():
        keys = [k for k in keys_between(feed, first, last) if k not in (but or {}).get(name, set())]
        row = {f.name: pa.nulls(1, f.type) for f in arrow_schema(feed)}
        feed_table(feed).replace({k: pa.table(row, schema=arrow_schema(feed)) for k in keys})


def plan(specs: SpecSet, as_of: dt.datetime = MARCH, **given: Any) -> TrainingPlan:
    spec = given.pop("spec", specs.model("flight_delay"))
    return make_plan(spec, specs.feeds, specs.folder_of("model", "flight_delay"), as_of=as_of, **given)


def test_the_first_of_march(specs: SpecSet) -> None:
    """Labels a day late: holdout Feb 14-27, a gap of a day, train_end Feb 13 00:00 in New York."""
    land(specs)
    found = plan(specs)
    assert found.holdout_keys == tuple(keys_between(found.entity, "2013-02-14", "2013-02-27"))
    assert found.train_keys == tuple(keys_between(found.entity, "2013-01-01", "2013-02-12"))
    assert found.train_end == utc("2013-02-13T05:00")
    assert not found.missing and not found.holdout_missing


def test_a_second_earlier_a_day_less_is_known(specs: SpecSet) -> None:
    land(specs)
    assert plan(specs, MARCH - dt.timedelta(seconds=1)).holdout_keys[-1] == "2013-02-26"


def test_a_label_horizon_widens_the_gap(specs: SpecSet) -> None:
    land(specs)
    spec = specs.model("flight_delay")
    labels = spec.labels.model_copy(update={"horizon": dt.timedelta(days=2)})
    found = plan(specs, spec=spec.model_copy(update={"labels": labels}))
    assert (found.holdout_keys[0], found.holdout_keys[-1]) == ("2013-02-12", "2013-02-25")
    assert found.train_keys[-1] == "2013-02-08", "three days: two of horizon, one of delay"
    assert last_labelled(found.spec, found.label_feed, MARCH) == "2013-02-25"


def test_a_window_is_the_last_partitions_before_the_gap(specs: SpecSet) -> None:
    land(specs)
    found = plan(specs, window_days=14)
    assert found.train_keys == tuple(keys_between(found.entity, "2013-01-30", "2013-02-12"))
    assert found.window_days == 14
    assert plan(specs, window_days=400).train_keys[0] == "2013-01-01", "never before the feed"


def test_the_spec_s_own_window(specs: SpecSet) -> None:
    land(specs)
    spec = specs.model("flight_delay")
    training = spec.training.model_copy(update={"window": dt.timedelta(days=20)})
    found = plan(specs, spec=spec.model_copy(update={"training": training}))
    assert len(found.train_keys) == 20


def test_what_is_missing_is_listed_with_the_reason(specs: SpecSet) -> None:
    land(specs, but={"weather": {"2013-01-20"}, "arrivals": {"2013-02-20"}})
    found = plan(specs)
    assert dict(found.missing) == {"2013-01-20": "no weather 2013-01-20"}
    assert "2013-01-20" not in found.train_keys
    # the label of one day is an input of the next
    why = "no arrivals 2013-02-20"
    assert dict(found.holdout_missing) == {"2013-02-20": why, "2013-02-21": why}


@pytest.mark.parametrize(
    ("every", "as_of", "train", "holdout", "train_end"),
    [
        # the labels of the ninth of March are known an hour after it; a gap of an hour, and whole days to judge on
        ("hour", "2013-03-10T01:00", "2013-02-23T22", ("2013-02-24T00", "2013-03-09T23"), "2013-02-23T23:00"),
        ("hour", "2013-03-10T00:59", "2013-02-22T22", ("2013-02-23T00", "2013-03-08T23"), "2013-02-22T23:00"),
        ("week", "2013-09-09T05:00", "2013-W21", ("2013-W23", "2013-W36"), "2013-05-27T04:00"),
        ("month", "2014-09-01T05:00", "2013-05", ("2013-07", "2014-08"), "2013-06-01T04:00"),
    ],
)
def test_other_grains(
    home: Path, tmp_path: Path, every: str, as_of: str, train: str, holdout: tuple[str, str], train_end: str
) -> None:
    world = GrainWorld(tmp_path, every, start="2013-01-01", delay="PT1H", rows=1)
    specs = world.load()
    world.fill(world.keys({"hour": 24 * 80, "week": 40, "month": 24}[every]))
    found = make_plan(specs.model("returns"), specs.feeds, specs.folder_of("model", "returns"), as_of=utc(as_of))
    assert (found.holdout_keys[0], found.holdout_keys[-1]) == holdout
    assert len(found.holdout_keys) == {"hour": 14 * 24, "week": 14, "month": 14}[every]
    assert (found.train_keys[-1], found.train_end) == (train, utc(train_end))
    again = make_plan(
        specs.model("returns"), specs.feeds, specs.folder_of("model", "returns"), as_of=utc(as_of), window_days=4
    )
    assert len(again.train_keys) == {"hour": 96, "week": 4, "month": 4}[every], "a window counts days, weeks, months"
    assert TrainingPlan.from_dict(json.loads(json.dumps(found.to_dict()))).to_dict() == found.to_dict()


def test_too_little_of_other_grains_is_a_sentence(home: Path, tmp_path: Path) -> None:
    for every, as_of, says in (
        ("week", "2013-04-16T05:00", "there are 14 labelled weeks; the holdout takes 14 and the gap 1, which leaves"),
        ("hour", "2013-01-15T02:00", "there are 14 labelled days; the holdout takes 14 and the gap 1 hour, which"),
    ):
        world = GrainWorld(tmp_path / every, every, start="2013-01-01", delay="PT1H", rows=1)
        specs = world.load()
        with pytest.raises(DataError, match=says):
            make_plan(specs.model("returns"), specs.feeds, specs.folder_of("model", "returns"), as_of=utc(as_of))


def test_too_much_missing_is_a_sentence(specs: SpecSet) -> None:
    land(specs, but={"flights": set(keys_between(specs.feed("flights"), "2013-01-10", "2013-01-13"))})
    with pytest.raises(DataError, match=r"4 of 43 training partitions cannot be used, more than max_missing 5%"):
        plan(specs)


def test_nothing_labelled_yet_is_a_sentence(specs: SpecSet) -> None:
    land(specs)
    with pytest.raises(DataError, match="flight_delay: nothing is labelled by 2013-01-02 05:00 UTC; choose a later"):
        plan(specs, utc("2013-01-02T05:00"))


def test_too_little_for_a_holdout_and_a_gap_is_a_sentence(specs: SpecSet) -> None:
    land(specs)
    with pytest.raises(DataError, match="there are 14 labelled days; the holdout takes 14 and the gap 1"):
        plan(specs, utc("2013-01-16T05:00"))


def test_an_empty_lake_is_a_sentence(specs: SpecSet) -> None:
    with pytest.raises(DataError, match="training partitions cannot be used"):
        plan(specs)


def test_it_survives_json(specs: SpecSet) -> None:
    land(specs, but={"weather": {"2013-01-20"}})
    found = plan(specs, window_days=30, seed=11, dry_run=True)
    back = TrainingPlan.from_dict(json.loads(json.dumps(found.to_dict())))
    assert back.to_dict() == found.to_dict()
    assert back.spec == found.spec and back.feeds == dict(found.feeds) and back.definition == found.definition
    assert (back.seed, back.dry_run, back.as_of, back.train_end) == (11, True, MARCH, found.train_end)
    assert back.builder().definition.digest == found.definition.digest


def test_it_names_code_data_and_definitions(specs: SpecSet) -> None:
    land(specs)
    digests = plan(specs).digests
    assert {"spec", "features", "feed:flights", "feed:weather", "feed:arrivals"} <= set(digests)
    assert {"git_commit", "git_dirty", "lock_sha256"} <= set(digests)
    assert "pipeline" not in digests
    other = specs.model("flight_delay").model_copy(update={"description": "other"})
    assert plan(specs, spec=other).digests["spec"] != digests["spec"]


def test_a_model_s_own_code_is_part_of_the_plan(specs: SpecSet, tmp_path: Path) -> None:
    land(specs)
    spec = specs.model("flight_delay")
    spec = spec.model_copy(update={"estimator": spec.estimator.model_copy(update={"type": "pipeline.py:build"})})
    folder = tmp_path / "flight_delay"
    folder.mkdir()
    (folder / "features.sql").write_text((specs.folder_of("model", "flight_delay") / "features.sql").read_text())
    with pytest.raises(SpecError, match=r"pipeline\.py cannot be read"):
        make_plan(spec, specs.feeds, folder, as_of=MARCH)
    (folder / "pipeline.py").write_text("def build(): ...\n")
    one = make_plan(spec, specs.feeds, folder, as_of=MARCH).digests["pipeline"]
    (folder / "pipeline.py").write_text("def build(): pass\n")
    assert make_plan(spec, specs.feeds, folder, as_of=MARCH).digests["pipeline"] != one


@pytest.mark.parametrize(
    ("value", "instant"),
    [
        (None, "2013-06-01T12:00"),
        ("", "2013-06-01T12:00"),
        ("2013-03-01", "2013-03-01T05:00"),
        ("2013-07-01", "2013-07-01T04:00"),
        ("2013-03-01T06:00", "2013-03-01T11:00"),
        ("2013-03-01T06:00Z", "2013-03-01T06:00"),
        ("2013-03-01T06:00+02:00", "2013-03-01T04:00"),
    ],
)
def test_as_of_is_local_unless_it_says_its_zone(specs: SpecSet, value: str | None, instant: str) -> None:
    run_after = dt.datetime(2013, 6, 1, 14, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    assert resolve_as_of(value, run_after, specs.feed("flights")) == utc(instant)


@pytest.mark.parametrize("value", ["March 1", "2013-02-30", "01.03.2013"])
def test_what_is_no_instant_is_a_sentence(specs: SpecSet, value: str) -> None:
    with pytest.raises(UsageError, match=f"as_of '{value}' is not a date: write 2013-03-01"):
        resolve_as_of(value, MARCH, specs.feed("flights"))
