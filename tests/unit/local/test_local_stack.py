"""What the embedded stack decides before it starts anything: environment, secrets, ports, the lock of its folder."""

from __future__ import annotations

import base64
import json
import socket
import stat
from pathlib import Path

import pytest

from perennial.errors import ConflictError, UsageError
from perennial.local.demo import forget
from perennial.local.stack import Stack
from perennial.settings import TELEMETRY_OFF

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PERENNIAL_SPECS", "PERENNIAL_LAKE", "PERENNIAL_HOME", "PERENNIAL_PORT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def make(tmp_path: Path, port: int = 18080, **env: str) -> Stack:
    return Stack(tmp_path / "home", port, project=tmp_path / "project", env=env)


def test_every_component_gets_the_same_complete_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://somebody/elses")
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_DEFAULT", "slack://kept")
    env = make(tmp_path).environment
    assert env.items() >= TELEMETRY_OFF.items()
    assert env["AIRFLOW_HOME"] == str(tmp_path / "home" / "airflow")
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"sqlite:///{tmp_path}/home/airflow/airflow.db"
    assert env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:18080/execution/"
    assert env["AIRFLOW__CORE__DAGS_FOLDER"] == str(tmp_path / "project" / "dags")
    assert env["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert env["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:18081"
    assert env["PERENNIAL_SPECS"] == str(tmp_path / "project" / "include")
    assert env["PYTHONPATH"].split(":")[0] == str(tmp_path / "project" / "include")
    assert env["OMP_NUM_THREADS"] == "1"
    assert env["AIRFLOW_CONN_SLACK_DEFAULT"] == "slack://kept"
    assert "PYTHONDONTWRITEBYTECODE" not in env


def test_the_caller_s_environment_wins(tmp_path: Path) -> None:
    stack = make(tmp_path, AIRFLOW__CORE__PARALLELISM="4", PERENNIAL_LAKE="s3://bucket/lake")
    assert stack.environment["AIRFLOW__CORE__PARALLELISM"] == "4"
    assert stack.settings.lake == "s3://bucket/lake"
    assert stack.settings.home == tmp_path / "home"
    assert stack.settings.mlflow == stack.urls["mlflow"]


def test_two_stacks_share_no_port(tmp_path: Path) -> None:
    def ports(stack: Stack) -> set[str]:
        return {v for k, v in stack.environment.items() if k.startswith("AIRFLOW__") and k.endswith("PORT")}

    one = make(tmp_path / "a", 18080)
    two = make(tmp_path / "b", 18090)
    assert len(ports(one)) == 4
    assert not ports(one) & ports(two)


def test_secrets_are_made_once_and_are_the_owner_s_alone(tmp_path: Path) -> None:
    first, second = make(tmp_path).environment, make(tmp_path).environment
    secrets = ["AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET"]
    assert len({first[s] for s in secrets}) == 3
    assert all(first[s] == second[s] for s in secrets)
    assert len(base64.urlsafe_b64decode(first["AIRFLOW__CORE__FERNET_KEY"])) == 32
    keys = tmp_path / "home" / "keys"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in keys.iterdir()} == {0o600}
    assert make(tmp_path / "other").environment[secrets[0]] != first[secrets[0]]


def test_passwords_are_made_for_every_user_and_kept(tmp_path: Path) -> None:
    stack = make(tmp_path)
    password = stack.password
    assert len(password) >= 16
    more = make(tmp_path, AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS="admin:admin,vera:viewer")
    assert more.passwords.keys() == {"admin", "vera"}
    assert more.password == password
    assert json.loads((tmp_path / "home" / "keys" / "passwords.json").read_text()) == more.passwords


@pytest.mark.parametrize("port", [0, 80, 65532, 70000])
def test_a_port_that_cannot_be(tmp_path: Path, port: int) -> None:
    with pytest.raises(UsageError, match=f"PERENNIAL_PORT is {port}"):
        make(tmp_path, port)


@pytest.mark.parametrize(("offset", "what"), [(0, "Airflow"), (1, "MLflow")])
def test_a_taken_port_is_named(tmp_path: Path, offset: int, what: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        stack = make(tmp_path, port - offset)
        with pytest.raises(ConflictError, match=f"Port {port} for {what} is taken; set PERENNIAL_PORT"):
            stack.start()
    assert stack.records == []


def test_a_second_stack_on_the_same_home_is_refused(tmp_path: Path) -> None:
    first = make(tmp_path)
    first._acquire()
    try:
        with pytest.raises(ConflictError, match=r"already runs in .*home \(process \d+, http://127.0.0.1:18080\)"):
            make(tmp_path, 18090).start()
    finally:
        first.stop()
    second = make(tmp_path, 18090)
    second._acquire()
    second.stop()


def test_stop_before_start_is_no_error(tmp_path: Path) -> None:
    make(tmp_path).stop()
    assert not (tmp_path / "home").exists()


def test_the_story_removes_only_what_a_story_made(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    with pytest.raises(UsageError, match="set PERENNIAL_HOME"):
        forget(tmp_path)
    assert (tmp_path / "lake").exists()
    (tmp_path / "story").touch()
    forget(tmp_path)
    assert not (tmp_path / "lake").exists()
