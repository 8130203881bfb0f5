"""How gates decide together, and that nothing which goes wrong is a pass."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial.gates.verdict import GateResult, combine, decide, disabled, guarded

pytestmark = pytest.mark.fast


def result(verdict, mode="enabled", **figures):
    return GateResult("g", verdict, "because", figures, mode)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([], "hold"),
        ([result("pass")], "pass"),
        ([result("pass"), result("fail"), result("hold")], "fail"),
        ([result("pass"), result("hold")], "hold"),
        ([result("pass"), result("not_applicable")], "pass"),
        ([result("not_applicable")], "hold"),
        ([result("fail", "dry_run"), result("pass")], "pass"),
        ([result("pass", "dry_run")], "hold"),
        ([result("pass", "dry_run"), disabled("h")], "hold"),
        ([disabled("g"), result("pass")], "pass"),
        ([disabled("g"), result("not_applicable")], "hold"),
        ([disabled("g"), disabled("h")], "pass"),
    ],
)
def test_combine(results, expected):
    assert combine(results) == expected


def test_all_disabled_passes_and_says_so():
    decision = decide([disabled("floor"), disabled("champion")])
    assert decision.verdict == "pass"
    assert "switched off" in decision.reason
    assert decision.warnings == (decision.reason,)


def test_reasons_name_the_gates_and_warnings_are_kept():
    a = GateResult("floor", "fail", "too low", warnings=("look here",))
    decision = decide([a, result("pass")])
    assert decision.reason == "floor: too low"
    assert decision.warnings == ("floor: look here",)


@given(
    st.lists(
        st.tuples(st.sampled_from(["pass", "fail", "hold", "not_applicable"]), st.sampled_from(["enabled", "dry_run"]))
    )
)
def test_pass_needs_an_enabled_pass_and_no_enabled_objection(items):
    verdict = combine([result(v, m) for v, m in items])
    enabled = [v for v, m in items if m == "enabled"]
    assert (verdict == "pass") == ("pass" in enabled and "fail" not in enabled and "hold" not in enabled)


def test_json_round_trip_without_nan():
    r = GateResult(
        "g", "fail", "r", {"a": np.float64("nan"), "b": np.int64(3), "c": np.bool_(True), "d": "x"}, warnings=("w",)
    )
    text = json.dumps(r.to_dict(), allow_nan=False)
    assert r.figures == {"a": None, "b": 3, "c": 1, "d": "x"}
    assert GateResult.from_dict(json.loads(text)) == r


def test_guarded_turns_an_error_into_a_fail():
    def broken():
        raise KeyError("no such column.\nsecond line")

    r = guarded("champion", "enabled", broken)
    assert (r.verdict, r.mode) == ("fail", "enabled")
    assert r.reason == "could not be computed: KeyError: 'no such column.\\nsecond line'"
    assert "\n" not in r.reason


@pytest.mark.parametrize("value", [float("nan"), None, float("inf")])
def test_guarded_never_passes_on_a_missing_figure(value):
    r = guarded("g", "enabled", lambda: result("pass", gain=1.0, bound=value), ("gain", "bound"))
    assert r.verdict == "fail"
    assert "bound" in r.reason
    assert guarded("g", "enabled", lambda: result("pass", gain=1.0), ("gain", "bound")).verdict == "fail"
    assert guarded("g", "enabled", lambda: result("pass", gain=1.0, other=value), ("gain",)).verdict == "pass"


def test_guarded_keeps_a_hold_and_sets_the_mode():
    r = guarded("g", "dry_run", lambda: result("hold", gain=None))
    assert (r.verdict, r.mode) == ("hold", "dry_run")


def test_unknown_verdict_is_refused():
    with pytest.raises(ValueError, match="unknown verdict"):
        result("maybe")
