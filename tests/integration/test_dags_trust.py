"""Signing and the stage check as tasks: what a run says, what it leaves undone, and what it never prints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from in_process import Airflow, weak
from lifecycle import Life

from perennial.lake.homes import prediction_table
from perennial.registry import tracking, versions
from perennial.settings import settings
from perennial.trust import keys

pytestmark = pytest.mark.integration

GOOD = {"floor": {"roc_auc": 0.5}, "baseline": {"mode": "disabled"}, "champion": {"mode": "dry_run"}}


def test_a_tampered_champion_fails_its_run_with_a_sentence(airflow: Airflow, life: Life) -> None:
    folder = tracking.cache_folder().fetch(versions.require_champion("flight_delay").model_id)
    (folder / "model.skops").write_bytes(b"PK")
    ran = airflow.run("flight_delay.score", "2013-03-20")
    assert ran.state == "failed"
    assert ran.said.startswith(
        "flight_delay version 1 is refused: model.skops was changed after it was signed; its local"
    )
    assert ran.tasks["inputs"] == "failed" and ran.tasks["publish"] == "upstream_failed" and ran.events == []
    assert not prediction_table(life.spec, life.entity).partitions()
    (entry,) = life.ledger.find("flight_delay", event="signature", verdict="refused")
    assert (entry.version, entry.actor["task_id"]) == ("1", "inputs")
    assert airflow.run("flight_delay.score", "2013-03-20").done("publish"), "the registry's copy is whole"


def test_a_version_that_fails_its_stage_check_is_not_rolled_out(
    airflow: Airflow, life: Life, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = weak(monkeypatch, tmp_path, **GOOD)
    path = root / "models" / "flight_delay" / "model.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "stage": {"memory": "64m"}}))
    ran = airflow.run("flight_delay.train", as_of="2013-03-26", window=20)
    assert ran.state == "failed" and ran.done("register"), ran.log
    assert ran.tasks["stage_check"] == "failed" and ran.tasks["rollout"] == "upstream_failed"
    assert ran.said.startswith("flight_delay version 2 failed its stage check: it takes ")
    assert ran.said.endswith("MB of memory (at most 64 MB); it is registered but may not serve, the champion stays")
    assert versions.aliases("flight_delay") == {"champion": "1"}
    assert versions.get("flight_delay", "2").tags["stage"] == "fail"
    asked = airflow.run("flight_delay.operate", action="promote", version=2, reason="I insist")
    assert asked.state == "failed" and "version 2 failed its stage check" in asked.said
    assert versions.aliases("flight_delay") == {"champion": "1"}


def test_the_key_may_come_from_a_connection_and_is_not_printed(
    airflow: Airflow, life: Life, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    weak(monkeypatch, tmp_path, **GOOD)
    new = keys.new_pair(tmp_path / "vault")
    pem = (tmp_path / "vault" / "signing.pem").read_text()
    trusted = tmp_path / "trusted"
    shutil.copytree(settings().trusted_keys, trusted)
    shutil.copy(new.where, trusted)
    monkeypatch.setenv("PERENNIAL_TRUSTED_KEYS", str(trusted))
    monkeypatch.setattr(keys, "_HELD", [])
    monkeypatch.setenv("PERENNIAL_SIGNING_CONN_ID", "signing")
    without = airflow.run("flight_delay.train", as_of="2013-03-26", window=20)
    assert without.state == "failed" and without.tasks["fit"] == "failed"
    assert without.said.startswith("there is no key to sign versions with: the Airflow connection 'signing'")

    monkeypatch.setenv("AIRFLOW_CONN_SIGNING", json.dumps({"conn_type": "generic", "password": pem}))
    ran = airflow.run("flight_delay.train", as_of="2013-03-26", window=20)
    assert ran.state == "success" and ran.done("rollout"), ran.log
    assert versions.get("flight_delay", "2").tags["signature.key"] == new.fingerprint
    (entry,) = life.ledger.find("flight_delay", event="signature", verdict="signed")
    assert entry.figures["key"] == new.fingerprint
    printed = "".join([*capfd.readouterr(), ran.log, json.dumps(ran.xcom)])
    assert "signed" in printed and not [line for line in pem.splitlines()[1:-1] if line in printed]
