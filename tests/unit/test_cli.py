"""The command line: verbs, exit codes, output for people and for programs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

import perennial
from perennial.cli import VERBS, main
from perennial.specs.schema import schemas

pytestmark = pytest.mark.fast

INCLUDE = Path(perennial.__file__).parent.parent
FEED = """version: 1
name: visits
owner: web
start: 2013-01-01
source: {path: "visits/{partition}.csv"}
columns: {id: string, pages: integer, bought: integer}
key: [id]
"""
ANSWERS = {
    "owner": "web",
    "description": "x",
    "start": "2013-01-01",
    "task": "binary",
    "metric": "roc_auc",
    "entity": "visits",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERENNIAL_SPECS", str(tmp_path / "include"))
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "include" / "feeds" / "visits"
    folder.mkdir(parents=True)
    (folder / "feed.yaml").write_text(FEED)
    (folder / "expectations.yaml").write_text(
        "- {type: expect_table_row_count_to_be_between, kwargs: {min_value: 1}}\n"
    )
    return tmp_path


def test_check_passes_and_fails(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert capsys.readouterr().out == "PASS include/feeds/visits/feed.yaml\n1 passed, 0 failed\n"
    (home / "include/feeds/visits/feed.yaml").write_text(FEED.replace("key: [id]", "key: [di]"))
    assert main(["check", "include"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("FAIL include/feeds/visits/feed.yaml\n  include/feeds/visits/feed.yaml:7:7: ")
    assert out.endswith("0 passed, 1 failed\n")
    assert "\x1b" not in out


def test_check_for_programs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--json", "--resolved"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["ok"] is True
    assert result["resolved"]["retries"] == 2


def test_check_resolved_is_a_spec_again(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--resolved"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:-1]
    (home / "include/feeds/visits/feed.yaml").write_text("\n".join(line[2:] for line in lines))
    assert main(["check"]) == 0


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["check", "nowhere"], ["check", "--nonsense"], ["new", "feed"]]
)
def test_asking_in_the_wrong_way_exits_with_2(home: Path, arguments: list[str]) -> None:
    assert main(arguments) == 2


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert f"perennial {verb}" in out


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from perennial.cli import main; main(['--help']); print([m for m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in ("pydantic", "pandas", "sklearn", "duckdb", "great_expectations", "mlflow"):
        assert f"'{heavy}'" not in run.stdout


def test_reading_specs_imports_nothing_heavy() -> None:
    code = "import sys, perennial.specs; print([m for m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in ("numpy", "pandas", "sklearn", "duckdb", "great_expectations", "mlflow", "airflow"):
        assert f"'{heavy}'" not in run.stdout


def fill(path: Path, answers: dict[str, str]) -> None:
    """Replace each blank by the answer for its key."""
    lines = []
    for line in path.read_text().splitlines():
        key = line.strip().split(":")[0]
        lines.append(re.sub(r'"?<fill in: [^>]*>"?', answers.get(key, "x"), line))
    path.write_text("\n".join(lines) + "\n")


def test_a_skeleton_fails_at_each_blank_until_it_is_filled(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "feed", "orders"]) == 0
    assert main(["new", "model", "buys"]) == 0
    capsys.readouterr()
    assert main(["check"]) == 1
    out = capsys.readouterr().out
    written = [home / "include" / p for p in ("feeds/orders", "models/buys")]
    blanks = sum(text.count("<fill in") for f in written for text in (p.read_text() for p in f.iterdir()))
    assert out.count(" a blank: ") == blanks
    fill(written[0] / "feed.yaml", ANSWERS | {'"<fill in': "id", "key": "id"})
    estimator = "sklearn.linear_model.LogisticRegression"
    labels = {"feed": "visits", "column": "bought", "type": estimator}
    fill(written[1] / "model.yaml", ANSWERS | labels)
    fill(written[1] / "README.md", {})
    sql = "SELECT id, pages FROM visits WHERE partition = $partition\n"
    (written[1] / "features.sql").write_text(sql)
    assert main(["check"]) == 0, capsys.readouterr().out


def test_new_refuses_what_is_there_and_what_is_no_name(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "feed", "visits"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["new", "model", "../x"]) == 2
    assert "is not a name" in capsys.readouterr().err
    assert main(["new", "model", "other", "--into", "team"]) == 0
    assert (home / "team/models/other/model.yaml").exists()


def test_schemas_are_written_and_are_schemas(home: Path) -> None:
    assert main(["schema", "--out", "out"]) == 0
    for path in (home / "out").iterdir():
        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))


def test_schemas_in_the_repository_are_current() -> None:
    for kind, schema in schemas().items():
        path = INCLUDE / "schemas" / f"{kind}.schema.json"
        assert json.loads(path.read_text()) == schema, "run: perennial schema --out include/schemas"


@pytest.mark.parametrize(
    ("change", "fine"),
    [
        ({}, True),
        ({"task": {"type": "regression"}}, True),
        ({"metric": {"name": "roc_auc", "within": "block"}}, True),
        ({"features": {"path": "features.sql", "lookback": "P7D"}}, True),
        ({"gates": {"floor": {"roc_auc": 0.6, "mode": "dry_run"}}}, True),
        ({"training": {"window": "P90D", "gap": "auto"}}, True),
        ({"scoring": {"on": "data"}}, True),
        ({"task": "multiclass"}, True),
        ({"task": {"type": "multiclass", "classes": ["a", "b", "c"]}}, True),
        ({"task": {"type": "multiclass", "classes": "a"}}, False),
        ({"rollout": {"strategy": "canary"}}, False),
        ({"compute": {"backend": "docker"}}, False),
        ({"nonsense": 1}, False),
        ({"training": {"weight": "w"}}, False),
    ],
)
def test_the_schema_of_a_model_takes_the_short_forms_and_only_what_works(change: dict[str, object], fine: bool) -> None:
    model = yaml.safe_load(
        """
        version: 1
        name: m
        task: binary
        metric: roc_auc
        entity: visits
        features: features.sql
        labels: {feed: visits, column: bought}
        estimator: {type: sklearn.linear_model.LogisticRegression}
        """
    )
    validator = jsonschema.Draft202012Validator(schemas()["model"])
    assert validator.is_valid(model | change) is fine


def test_the_schema_of_a_feed() -> None:
    validator = jsonschema.Draft202012Validator(schemas()["feed"])
    feed = yaml.safe_load(FEED.replace("2013-01-01", '"2013-01-01"'))
    assert validator.is_valid(feed)
    assert validator.is_valid(feed | {"every": "week"})
    assert not validator.is_valid(feed | {"every": "fortnight"})
