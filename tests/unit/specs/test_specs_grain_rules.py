"""Models over hourly, weekly, monthly and yearly feeds: defaults that make sense, and what cannot work is refused."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest

from grain_world import GrainWorld
from perennial.errors import SpecError
from perennial.specs import FeedSpec, digest, load_feed, load_specs
from perennial.specs.grain_rules import notes
from perennial.specs.models import ModelSpec

pytestmark = pytest.mark.fast


def model(tmp_path: Path, every: str, more: str = "", **given: str) -> ModelSpec:
    return GrainWorld(tmp_path, every, more=more, **given).load().model("returns")  # type: ignore[arg-type]


@pytest.fixture
def said(tmp_path: Path) -> Callable[..., str]:
    """What is wrong with the model over feeds of a grain with some lines added."""

    def of(every: str, more: str = "", **given: str) -> str:
        world = GrainWorld(tmp_path, every, more=more, **given)  # type: ignore[arg-type]
        return "\n".join(e.message for e in load_specs([world.root]).errors)

    return of


@pytest.mark.parametrize(
    ("every", "lookback", "drift", "performance", "cooldown", "holdout", "gap"),
    [
        ("hour", 7, 7, 14, 7, 14, 24),
        ("day", 28, 7, 14, 7, 14, 1),
        ("week", 84, 7, 98, 7, 14, 1),
        ("month", 360, 30, 420, 30, 14, 1),
        ("year", 365, 365, 365, 365, 1, 1),
    ],
)
def test_defaults_follow_from_the_grain(
    tmp_path: Path, every: str, lookback: int, drift: int, performance: int, cooldown: int, holdout: int, gap: int
) -> None:
    spec = model(tmp_path, every)
    lengths = (
        spec.features.lookback, spec.monitoring.drift.window, spec.monitoring.performance.window,
        spec.retraining.cooldown,
    )  # fmt: skip
    assert [x.days for x in lengths] == [lookback, drift, performance, cooldown]
    feed = GrainWorld(tmp_path, every).load().feed("outcomes")
    assert spec.holdout_blocks(100, feed.every) == holdout
    assert spec.gap_partitions(feed) == gap, "labels are a day late"


def test_a_year_is_judged_by_its_rows_and_one_window_speaks(tmp_path: Path) -> None:
    spec = model(tmp_path, "year")
    assert spec.rows_are_blocks and not model(tmp_path / "m", "month").rows_are_blocks
    m = spec.monitoring
    assert (m.rule.k, m.rule.n, m.drift.false_asks_per_year) == (1, 1, 0.1)
    assert ModelSpec.stored(spec.model_dump(mode="json")).rows_are_blocks
    said = model(tmp_path / "s", "year", "monitoring: {rule: {k: 2, n: 3}}\ngates: {champion: {confidence: 0.95}}\n")
    assert (said.monitoring.rule.k, said.gates.champion.confidence, said.rows_are_blocks) == (2, 0.95, True)


def test_there_is_no_metric_within_a_row(tmp_path: Path) -> None:
    world = GrainWorld(tmp_path, "year")
    path = world.root / "models/returns/model.yaml"
    path.write_text(path.read_text().replace("metric: roc_auc", "metric: {name: roc_auc, within: block}"))
    (error,) = load_specs([world.root]).errors
    assert "with rows as blocks there is no metric within a block: write within: pooled" in error.message


def test_a_search_over_few_years_is_refused(said: Callable[..., str], tmp_path: Path) -> None:
    more = "search: {trials: 3, space: {C: {float: [0.1, 1.0]}}}\n"
    assert said("year", more) == "", "nobody knows how many years there will be"
    world = GrainWorld(tmp_path / "w", "year", more=more)
    path = world.root / "feeds/visits/feed.yaml"
    path.write_text(path.read_text() + "end: 2020-12-31\n")
    message = "\n".join(e.message for e in load_specs([world.root]).errors)
    assert 'and "visits" has 7 years: write trials: 0' in message


def test_what_is_said_stands_and_reading_it_again_changes_nothing(tmp_path: Path) -> None:
    more = "monitoring: {performance: {window: P20W}}\n"
    spec = model(tmp_path, "week", more)
    assert spec.monitoring.performance.window == dt.timedelta(weeks=20)
    assert digest(ModelSpec.stored(spec.model_dump(mode="json"))) == digest(spec)


def test_a_long_regression_is_judged_over_56_blocks(tmp_path: Path) -> None:
    spec = model(tmp_path, "week")
    regression = spec.model_copy(update={"task": spec.task.model_copy(update={"type": "regression"})})
    assert (regression.holdout_blocks(111, "week"), regression.holdout_blocks(112, "week")) == (14, 56)


@pytest.mark.parametrize(
    ("every", "more", "expected"),
    [
        ("hour", "training: {holdout: PT36H}", "training.holdout counts whole days: write P1D or P2D"),
        ("hour", "training: {holdout: PT6H}", "training.holdout is shorter than a day: write at least P1D"),
        ("hour", "training: {holdout: P9D}", "a holdout of 9 days has 9 blocks"),
        ("hour", "training: {gap: PT90M}", "counts whole partitions of an hour: write PT1H or PT2H"),
        ("hour", "training: {gap: PT3H}", "a gap of PT3H lets training see labels that were not known yet: "
         "write auto, or at least PT24H"),
        ("hour", "retraining: {cooldown: PT30M}", "shorter than one partition, so it holds nothing back: "
         "write at least PT1H"),
        ("hour", "monitoring: {drift: {window: PT12H}}", "monitoring.drift.window is shorter than a day"),
        ("hour", "monitoring: {performance: {window: P7D}}", "a performance window of 7 days has 7 blocks, and no "
         "window is judged by fewer than 10: write at least P10D, or mode: disabled"),
        ("week", "training: {holdout: P30D}", "training.holdout counts whole partitions of a week: write P4W or P5W"),
        ("week", "training: {window: P6D}", "training.window is shorter than one partition: write at least P1W"),
        ("week", "training: {holdout: P8W}", "a holdout of 8 weeks has 8 blocks, and the baseline and champion gates "
         "cannot decide over fewer than 10: write at least P10W"),
        ("week", "training: {gap: P0D}", "a gap of P0W lets training see labels that were not known yet: write auto, "
         "or at least P1W"),
        ("week", "monitoring: {drift: {window: P10D}}", "drift.window counts whole partitions of a week: "
         "write P1W or P2W"),
        ("week", "monitoring: {performance: {window: P4W}}", "write at least P10W, or mode: disabled"),
        ("week", "retraining: {cooldown: P1D}", "a cooldown of P1D is shorter than one partition, so it holds nothing "
         "back: write at least P1W"),
        ("month", "training: {holdout: P3M}", "a holdout of 3 months has 3 blocks"),
        ("month", "training: {window: P45D}", "training.window counts whole partitions of a month: write P1M or P2M"),
        ("month", "retraining: {cooldown: P1D}", "write at least P1M"),
        ("month", "monitoring: {drift: {window: P7D}}", "monitoring.drift.window is shorter than one partition: "
         "write at least P1M"),
        ("month", "monitoring: {performance: {window: P3M}}", "a performance window of 3 months has 3 blocks"),
        ("year", "gates: {champion: {block: partition}}", "a holdout of 1 year has 1 blocks, and the baseline and "
         "champion gates cannot decide over fewer than 10: write at least P10Y, or gates: {champion: {block: row}}"),
        ("year", "training: {holdout: P6M}", "training.holdout is shorter than one partition: write at least P1Y"),
        ("year", "training: {window: P18M}", "training.window counts whole partitions of a year: write P1Y or P2Y"),
        ("year", "retraining: {cooldown: P6M}", "write at least P1Y"),
        ("year", "monitoring: {drift: {window: P3M}}", "monitoring.drift.window is shorter than one partition: "
         "write at least P1Y"),
        ("month", "gates: {champion: {block: row}}", "rows of one month are alike, and counting each as independent "
         "evidence would let everything pass: write block: partition (row is for yearly feeds)"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(said: Callable[..., str], every: str, more: str, expected: str) -> None:
    assert expected in said(every, more + "\n" if more else "")


@pytest.mark.parametrize("every", ["hour", "day", "week", "month", "year"])
def test_a_window_without_blocks_enough_is_fine_when_it_is_switched_off(said: Callable[..., str], every: str) -> None:
    unit = {"hour": "P3D", "day": "P3D", "week": "P3W", "month": "P3M", "year": "P3Y"}[every]
    off = "{mode: disabled}"
    more = (
        f"monitoring: {{performance: {{mode: disabled, window: {unit}}}}}\ntraining: {{holdout: {unit}}}\n"
        f"gates: {{baseline: {off}, champion: {off}}}\n"
    )
    assert said(every, more) == ""


@pytest.mark.parametrize(
    ("every", "delay", "expected"),
    [
        ("week", "P20W", "a holdout of P14W is shorter than the wait for its labels, P140D (horizon and delay): "
         "write training: {holdout: P20W} or more"),
        ("month", "P500D", "write training: {holdout: P18M} or more"),
        ("hour", "P20D", "write training: {holdout: P20D} or more"),
    ],
)  # fmt: skip
def test_a_holdout_shorter_than_the_wait_for_its_labels(
    said: Callable[..., str], every: str, delay: str, expected: str
) -> None:
    assert expected in said(every, delay=delay)


def test_feeds_of_one_model_share_their_grain(tmp_path: Path) -> None:
    world = GrainWorld(tmp_path, "week")
    path = world.root / "feeds/outcomes/feed.yaml"
    path.write_text(path.read_text().replace("every: week", "every: day"))
    (error,) = load_specs([world.root]).errors
    expected = (
        '"outcomes" has partitions of a day and "visits" of a week: feeds of one model share their grain '
        "(there are no rollups yet)"
    )
    assert expected in error.message


def test_check_names_a_feature_s_feed_of_another_grain(tmp_path: Path) -> None:
    from perennial.check import check_paths

    world = GrainWorld(tmp_path, "week")
    path = world.root / "feeds/sales/feed.yaml"
    path.write_text(path.read_text().replace("every: week", "every: day"))
    found = next(r for r in check_paths([world.root]) if r.path.name == "model.yaml")
    expected = '"sales" has partitions of a day in America/New_York and "visits" of a week in America/New_York'
    assert not found.ok and expected in found.messages[0]


# --------------------------------------------------------------------------------------------------------------- feeds


def feed(tmp_path: Path, every: str, **lines: str) -> Path:
    world = GrainWorld(tmp_path, every)
    path = world.root / "feeds/sales/feed.yaml"
    text = path.read_text()
    for key, value in lines.items():
        kept = [line for line in text.splitlines() if not line.startswith(f"{key}:")]
        text = "\n".join([*kept, f"{key}: {value}"]) + "\n"
    path.write_text(text)
    return path


def test_hours_are_utc_only(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_feed(feed(tmp_path, "hour", timezone="America/New_York"))
    assert (
        "hours are UTC only, because 01:00 comes twice a year in a zone such as America/New_York: write timezone: UTC"
    ) in str(caught.value)


def test_a_feed_has_at_least_one_whole_period(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no whole month lies between 2013-01-07 and 2013-02-27: write a later end"):
        load_feed(feed(tmp_path, "month", end="2013-02-27"))


@pytest.mark.parametrize(
    ("every", "start", "end", "expected"),
    [
        ("day", "2013-01-02", "2013-12-30", []),
        ("hour", "2013-01-02", "2013-12-30", []),
        ("week", "2013-01-07", "2013-12-29", []),
        ("month", "2013-01-01", "2013-02-28", []),
        ("week", "2013-01-01", "2013-12-31", [
            "start: 2013-01-01 lies inside a week; the first whole one is 2013-W02",
            "end: 2013-12-31 lies inside a week; the last whole one is 2013-W52",
        ]),
        ("month", "2013-01-15", "2013-12-31", [
            "start: 2013-01-15 lies inside a month; the first whole one is 2013-02",
        ]),
    ],
)  # fmt: skip
def test_a_period_that_only_partly_lies_inside_is_mentioned(
    tmp_path: Path, every: str, start: str, end: str, expected: list[str]
) -> None:
    found = load_feed(feed(tmp_path, every, start=start, end=end))
    assert isinstance(found, FeedSpec) and list(notes(found)) == expected
