"""Kill -9 in a write, a publication, a registration and an alias move: the life ends in the same state."""

from __future__ import annotations

import chaos_state
import pytest
from chaos_lives import ASKED, STRIKES, Lived
from chaos_world import ROWS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


def test_the_undisturbed_life_is_a_whole_one(calm: Lived) -> None:
    assert calm.state["aliases"] == {"champion": "2", "previous": "1"}
    assert len(calm.state["mlflow"]) == 2
    assert {"feeds/visits", "feeds/outcomes", "predictions/buys", "quarantine"} < set(calm.state["tables"])
    assert len(calm.state["tables"]["predictions/buys"]) == 14


def test_every_kill_hit_what_it_was_meant_for(hurt: Lived) -> None:
    assert set(hurt.struck) == set(STRIKES)
    assert sorted(hurt.mended) == ["mlflow", "scheduler"]


def test_the_fence_stops_a_task_that_goes_on_unsupervised(hurt: Lived) -> None:
    assert hurt.ended["worker"] == "raised BrokenPipeError"


def test_kills_leave_the_same_rows_versions_aliases_runs_and_ledger(calm: Lived, hurt: Lived) -> None:
    assert chaos_state.differences(calm.state, hurt.state) == []


def test_kills_need_no_operator_and_leave_no_files_and_no_processes(hurt: Lived) -> None:
    assert hurt.cleared == []
    assert hurt.leftovers == []
    assert hurt.processes == []


def test_a_day_scored_by_hand_by_event_and_by_backfill_at_once_has_one_set_of_rows(calm: Lived) -> None:
    for key in ASKED:
        assert sorted(kind for kind, _ in calm.published[key]) == ["asset_triggered", "backfill", "manual"]
        assert len({said["digest"] for _, said in calm.published[key]}) == 1
        rows = calm.rows[key]
        assert len(rows) == ROWS
        assert len({row["id"] for row in rows}) == ROWS
        assert {row["model_version"] for row in rows} == {"1"}
