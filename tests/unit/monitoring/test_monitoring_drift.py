"""Drift: pinned methods, parity of the two engines, and data failures that are not drift."""

from __future__ import annotations

import datetime as dt
import decimal
import json

import numpy as np
import pandas as pd
import pytest

from perennial.errors import DataError
from perennial.monitoring.calibration import Calibration, calibrate, logarithms
from perennial.monitoring.drift import (
    ColumnPlan,
    _columns,
    _run,
    block_distances,
    check_presence,
    distances,
    judge_window,
    report,
)

pytestmark = pytest.mark.fast


def flights(n: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    carriers = np.array(["AA", "B6", "DL", "EV", "UA", "WN"])
    wind = np.where(rng.random(n) < 0.1, np.nan, rng.gamma(3, 3, n) + shift)
    wind[:2] = [np.inf, -np.inf]
    return pd.DataFrame(
        {
            "hour": rng.integers(5, 24, n),
            "distance": rng.choice([187, 229, 733, 1069, 2475.0], n) + rng.integers(0, 40, n),
            "wind": wind,
            "precip": np.where(rng.random(n) < 0.93, 0.0, rng.exponential(0.05, n)),
            "temp": pd.array(np.round(rng.normal(35 + 8 * shift, 9, n), 1), dtype="Float64"),
            "origin": pd.Categorical(rng.choice(["EWR", "JFK", "LGA"], n)),
            "carrier": pd.Series(rng.choice(carriers[: 5 if seed % 2 else 6], n)).where(rng.random(n) > 0.05),
            "weekend": pd.array(rng.random(n) < 0.3, dtype="boolean"),
            "gates": rng.integers(1, 4, n).astype(float),
        }
    )


class TestPlan:
    def test_methods_by_type_and_number_of_values(self):
        frame = flights(500, 1)
        frame["at"] = pd.Timestamp("2013-01-01", tz="UTC")
        frame["day"] = dt.date(2013, 1, 1)
        frame["empty"] = np.nan
        frame["price"] = [decimal.Decimal(i) for i in range(500)]
        plan = ColumnPlan.choose(frame)
        assert {c: plan.method(c) for c in ("hour", "wind", "temp", "price")} == dict.fromkeys(
            ("hour", "wind", "temp", "price"), "wasserstein"
        )
        assert {plan.method(c) for c in ("origin", "carrier", "weekend", "gates")} == {"jensenshannon"}
        assert plan.kinds["gates"] == "discrete"
        assert set(plan.skipped) == {"at", "day", "empty"}
        assert ColumnPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan

    def test_some_columns_only(self):
        plan = ColumnPlan.choose(flights(50, 1), ["hour", "origin"])
        assert plan.columns == ("hour", "origin")
        assert plan.only(["origin"]).columns == ("origin",)


class TestParity:
    @pytest.mark.parametrize(("seed", "rows", "shift"), [(1, 4000, 0.0), (2, 700, 0.7), (3, 60, 3.0)])
    def test_numpy_equals_evidently(self, seed, rows, shift):
        reference, current = flights(3000, 10 * seed + 1), flights(rows, 10 * seed + 2, shift)  # an unseen carrier
        plan = ColumnPlan.choose(reference)
        a = distances(reference, current, plan, engine="evidently")
        b = distances(reference, current, plan)
        assert list(a) == list(b) == list(plan.columns)
        for name in a:
            assert b[name] == pytest.approx(a[name], rel=1e-9, abs=1e-9), name
            assert a[name] > 0

    @pytest.mark.parametrize("seed", range(3))
    def test_numpy_equals_evidently_on_every_kind_of_column(self, seed):
        """What the lake, a file or a user's frame may hold: the figure that decides is Evidently's."""

        def frame(n, seed):
            rng = np.random.default_rng(seed)
            words = np.array(["a", "b", "c", "\U0001f600", "nan", "None", ""], dtype=object)
            texts, flags = words[rng.integers(seed % 2, 7, n)], rng.random(n) < 0.3 + seed / 50
            mixed = np.array([1, True, 1.0, "1", "True", None], dtype=object)[rng.integers(0, 6, n)]
            return pd.DataFrame(
                {
                    "heavy": rng.standard_cauchy(n),
                    "ties": np.round(rng.exponential(2, n)) - 0.0,
                    "zeros": np.where(rng.random(n) < 0.5, -0.0, rng.integers(0, 3, n)),
                    "int32": rng.integers(-9, 9, n).astype("int32"),
                    "nullable": pd.array(np.where(flags, rng.integers(0, 40, n), np.nan), "Float64").astype("Int64"),
                    "object": pd.Series(rng.normal(seed / 5, 1, n)).astype(object).where(~flags, None),
                    "decimal": [decimal.Decimal(int(v)) / 4 for v in rng.integers(0, 90, n)],
                    "text": pd.Series(texts).where(~flags, None),
                    "string": pd.array(texts, dtype="string"),
                    "arrow": pd.array(texts, dtype="string[pyarrow]"),
                    "category": pd.Categorical(texts),
                    "flag": flags,
                    "nullable_flag": pd.array(np.where(rng.random(n) < 0.1, None, flags), dtype="boolean"),
                    "mixed": mixed,
                }
            )  # fmt: skip

        reference, current = frame(2500, 2 * seed + 1), frame(1200, 2 * seed + 2)
        plan = ColumnPlan.choose(reference)
        assert set(plan.kinds.values()) == {"numeric", "discrete", "categorical"}
        theirs = distances(reference, current, plan, engine="evidently")
        assert distances(reference, current, plan) == pytest.approx(theirs, rel=1e-9, abs=1e-12)
        assert min(theirs.values()) > 1e-5, "equal columns would compare nothing"

    def test_a_constant_reference_uses_the_floor_under_the_deviation(self):
        reference = pd.DataFrame({"x": np.full(300, 5.0)})
        current = pd.DataFrame({"x": np.full(300, 5.5)})
        plan = ColumnPlan({"x": "numeric"})
        got = {e: distances(reference, current, plan, engine=e)["x"] for e in ("numpy", "evidently")}
        assert got["numpy"] == pytest.approx(got["evidently"]) == pytest.approx(500.0)

    def test_equal_data_have_no_distance(self):
        frame = flights(800, 5)
        plan = ColumnPlan.choose(frame)
        for engine in ("numpy", "evidently"):
            assert max(distances(frame, frame, plan, engine=engine).values()) < 1e-7

    def test_integers_that_became_floats_are_the_same_values(self):
        reference = pd.DataFrame({"few": np.tile([1, 2, 3], 100), "flag": np.tile([True, False], 150)})
        current = pd.DataFrame({"few": np.tile([1.0, 2.0, np.nan, 3.0], 50), "flag": pd.array([True, False] * 100)})
        for engine in ("numpy", "evidently"):
            assert max(distances(reference, current, ColumnPlan.choose(reference), engine=engine).values()) < 1e-7

    @pytest.mark.parametrize("engine", ["numpy", "evidently"])
    def test_missing_and_empty_columns_are_errors(self, engine):
        frame = flights(300, 6)
        plan = ColumnPlan.choose(frame)
        with pytest.raises(DataError, match="'wind' is missing from the current"):
            distances(frame, frame.drop(columns="wind"), plan, engine=engine)
        with pytest.raises(DataError, match="'origin' has no usable value in the current"):
            distances(frame, frame.assign(origin=None), plan, engine=engine)
        with pytest.raises(DataError, match="no column"):
            distances(frame, frame, ColumnPlan({}), engine=engine)

    def test_evidently_really_uses_the_pinned_method(self):
        from evidently.metrics import ValueDrift

        frame = flights(300, 7)  # below Evidently's switch to p-values
        plan = ColumnPlan.choose(frame, ["wind"])
        run = _run(
            [ValueDrift(column="wind", method="wasserstein")],
            _columns(frame, plan, "a"),
            _columns(frame, plan, "b"),
            plan,
        )
        assert run.dict()["metrics"][0]["config"]["method"] == "wasserstein"


class TestPresence:
    def test_healthy_data_have_no_problem(self):
        assert check_presence(flights(3000, 1), flights(500, 2)) == []

    def test_every_kind_of_failure(self):
        reference, current = flights(3000, 1), flights(500, 3)
        current = current.drop(columns="hour").assign(
            origin=None,
            wind=current["wind"].where(np.arange(500) % 10 == 0),
            distance=["far"] * 500,
            precip=[0.1] * 250 + ["wet"] * 250,
        )
        found = {p.column: p.kind for p in check_presence(reference, current)}
        assert found == {"hour": "missing", "origin": "empty", "wind": "nulls", "distance": "type", "precip": "type"}

    def test_few_rows_and_none(self):
        reference = flights(3000, 1)
        assert [p.kind for p in check_presence(reference, flights(99, 3))] == ["rows"]
        assert [p.kind for p in check_presence(reference, flights(100, 3).head(0))] == ["rows"]
        assert check_presence(reference, flights(99, 3), min_rows=50) == []

    def test_a_tolerated_jump_and_columns_that_were_always_empty(self):
        reference, current = flights(3000, 1).assign(none=None), flights(500, 3).assign(none=None)
        current["carrier"] = current["carrier"].where(np.arange(500) % 3 > 0)
        assert [p.column for p in check_presence(reference, current)] == ["carrier"]
        assert check_presence(reference, current, null_jump=0.5) == []

    def test_named_columns_only(self):
        reference = flights(300, 1)
        assert check_presence(reference, reference.drop(columns="hour"), columns=["wind"]) == []
        with pytest.raises(DataError, match="missing from the reference"):
            check_presence(reference, reference, columns=["nothing"])


class TestBlocks:
    def test_each_block_is_compared_with_the_rest(self):
        frame = flights(45 * 40, 1)
        days = pd.date_range("2013-01-01", periods=45).repeat(40)
        plan = ColumnPlan.choose(frame)
        found = block_distances(frame, days, plan)
        assert found.matrix.shape == (39, 9)
        assert (found.starts[0], found.starts[-1], found.reference_days) == ("2013-01-01", "2013-02-08", 45)
        inside = (days >= "2013-01-11") & (days < "2013-01-18")
        row = found.matrix[found.starts.index("2013-01-11")]
        want = distances(frame[~inside], frame[inside], plan)
        np.testing.assert_allclose(row, list(want.values()), rtol=1e-9)

    def test_order_of_rows_and_kind_of_days_do_not_matter(self):
        frame = flights(30 * 20, 1)
        days = np.repeat([f"2013-01-{d + 1:02d}" for d in range(30)], 20)
        plan = ColumnPlan.choose(frame)
        order = np.random.default_rng(0).permutation(len(frame))
        a = block_distances(frame, days, plan)
        b = block_distances(frame.iloc[order], days[order], plan)
        np.testing.assert_allclose(a.matrix, b.matrix, rtol=1e-12)

    def test_blocks_without_a_value_are_left_out(self):
        frame = flights(30 * 20, 1)
        days = np.repeat(np.arange("2013-01-01", "2013-01-31", dtype="datetime64[D]"), 20)
        frame.loc[days < np.datetime64("2013-01-09"), "wind"] = np.nan
        found = block_distances(frame, days, ColumnPlan.choose(frame))
        assert found.starts[0] == "2013-01-03"


@pytest.fixture(scope="module")
def calibrated() -> Calibration:
    frame = flights(45 * 60, 1)
    days = pd.date_range("2013-01-01", periods=45).repeat(60)
    found = block_distances(frame, days, ColumnPlan.choose(frame))
    return calibrate(
        logarithms(found.matrix), found.columns, share=0.3, k=2, n=3, false_asks_per_year=1,
        reference_days=found.reference_days, seed=7,
    )  # fmt: skip


class TestJudging:
    def test_flagged_from_the_needed_number_of_columns(self, calibrated):
        quiet = {c: t * 0.9 for c, t in calibrated.thresholds.items()}
        assert not judge_window(quiet, calibrated).flagged
        over = list(calibrated.columns[: calibrated.needed])
        some = {**quiet, **{c: calibrated.thresholds[c] * 1.1 for c in over[:-1]}}
        assert not judge_window(some, calibrated).flagged
        result = judge_window({**some, over[-1]: 9.0}, calibrated)
        assert (result.flagged, result.state, result.drifted[0]) == (True, "flagged", over[-1])
        assert set(result.drifted) == set(over)
        json.dumps(result.to_dict(), allow_nan=False)

    def test_a_missing_distance_is_a_data_failure(self, calibrated):
        quiet = dict.fromkeys(calibrated.columns, 1e-3)
        with pytest.raises(DataError, match="hour"):
            judge_window({**quiet, "hour": float("nan")}, calibrated)
        quiet.pop("wind")
        with pytest.raises(DataError, match="wind"):
            judge_window(quiet, calibrated)

    def test_report_is_written_whole_with_the_pinned_thresholds(self, calibrated, tmp_path):
        reference, current = flights(2000, 1), flights(400, 3, shift=3.0)
        plan = ColumnPlan.choose(reference)
        path = tmp_path / "reports" / "drift.html"
        thresholds = {c: calibrated.thresholds[c] for c in ("wind", "origin", "temp")}
        report(reference, current, plan, thresholds, path)
        text = path.read_text()
        assert "Wasserstein distance (normed)" in text
        assert "wind" in text
        assert "carrier" not in text
        assert f"drift threshold is {thresholds['wind']:0.2f}" in text
        assert [p.name for p in path.parent.iterdir()] == ["drift.html"]
