"""``perennial status``: what there is, from logs and ledger; exit codes; for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from perennial.cli import main
from perennial.lake.homes import feature_table, feed_table, prediction_table, quarantine_table
from perennial.ledger import Entry, Ledger
from perennial.registry.pause import PAUSED, RESUMED, set_state
from perennial.runs import Actor
from perennial.specs.loader import load_specs

pytestmark = pytest.mark.fast


@pytest.fixture
def shell(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing answers: neither MLflow nor Airflow."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("PERENNIAL_AIRFLOW", "http://127.0.0.1:9")
    return home


def status(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, object]]:
    code = main(["status", "--json"])
    return code, json.loads(capsys.readouterr().out)


def fill() -> None:
    specs = load_specs()
    flights = specs.feed("flights")
    table = feed_table(flights)
    table.replace({"2013-01-01": pa.table({"flight_id": ["a", "b"]}), "2013-01-02": pa.table({"flight_id": ["c"]})})
    table.replace({"2013-01-02": pa.table({"flight_id": ["c", "d"]})})
    refused = pa.table({"feed": ["flights"], "row": [1], "reason": ["bad"], "record": ["{}"]})
    quarantine_table().replace({"flightsT2013-01-02": refused})
    feature_table("flight_delay", "0" * 64, ["flight_id"]).replace(
        {"2013-01-01": pa.table({"flight_id": ["a"]})}, labels={"2013-01-01": {"inputs": "x"}}
    )
    published = {
        key: pa.table(
            {"flight_id": ["a", "b"], "output": ["1", "1"], "model_version": ["1", "1"], "degraded": [False, late]}
        )
        for key, late in (("2013-01-01", False), ("2013-01-02", True))
    }
    prediction_table(specs.model("flight_delay"), flights).replace(published)
    Ledger().append(
        Entry(id="1", event="decision", subject="flight_delay", verdict="fail", reason="too weak", as_of="2013-03-01")
    )


def test_an_empty_home_is_no_error(shell: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert "none yet" in said and "Airflow not reachable at http://127.0.0.1:9" in said
    assert "nothing stands still" in said


def test_it_says_what_there_is_and_what_is_degraded(shell: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill()
    code, said = status(capsys)
    assert code == 1
    flights = next(f for f in said["feeds"] if f["name"] == "flights")  # type: ignore[attr-defined]
    assert (flights["size"]["newest"], flights["size"]["partitions"], flights["size"]["rows"]) == ("2013-01-02", 2, 4)
    assert 0 < flights["size"]["live"] < flights["size"]["stored"]
    assert flights["refused"] == 1
    model = next(m for m in said["models"] if m["name"] == "flight_delay")  # type: ignore[attr-defined]
    assert model["predictions"]["newest"] == "2013-01-02" and model["features"]["rows"] == 1
    assert model["degraded"] == ["2013-01-02"] and model["aliases"] is None
    assert model["decision"] == {"verdict": "fail", "reason": "too weak", "as_of": "2013-03-01"}
    assert said["findings"] == ["flight_delay: 2013-01-02 published without an input (degraded)"]
    assert main(["status"]) == 1
    text = capsys.readouterr().out
    assert "flight_delay: last decision fail, as of 2013-03-01: too weak" in text
    assert "! flight_delay: 2013-01-02 published without an input" in text


def test_a_paused_model_is_found_until_it_is_resumed(shell: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import datetime as dt

    ledger, as_of = Ledger(), dt.datetime(2013, 3, 1, tzinfo=dt.UTC)
    set_state(ledger, "flight_delay", PAUSED, reason="audit", as_of=as_of, actor=Actor("flight_delay.operate", "1"))
    code, said = status(capsys)
    assert (code, said["findings"]) == (1, ["flight_delay is paused (audit): resume it with its operate DAG"])
    set_state(ledger, "flight_delay", RESUMED, reason="done", as_of=as_of, actor=Actor("flight_delay.operate", "2"))
    assert status(capsys)[0] == 0


def test_usage(shell: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--nonsense"]) == 2
