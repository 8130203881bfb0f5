"""``check``: what a spec names exists and fits, and every message says where and what to write."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from perennial.check import CheckResult, check_paths
from perennial.errors import UsageError

pytestmark = pytest.mark.fast

FEED = """version: 1
name: {name}
owner: flight-ops
timezone: America/New_York
start: 2013-01-01
source: {{path: "{name}/{{partition}}.parquet"}}
columns: {{flight_id: string, origin: string, hour: integer, sched_dep: timestamp, late: integer, delay: float}}
key: [flight_id]
event_time: sched_dep
"""
MODEL = """version: 1
name: m
owner: flight-ops
task: binary
metric: roc_auc
entity: flights
features: features.sql
labels: {feed: arrivals, column: late}
estimator: {type: sklearn.ensemble.HistGradientBoostingClassifier, params: {max_iter: 100}}
"""
SQL = """-- One row per flight.
SELECT f.flight_id, f.sched_dep, f.hour, w.origin
FROM flights f LEFT JOIN weather w USING (flight_id)
WHERE f.partition = $partition
"""
RULES = """- {type: expect_table_row_count_to_be_between, kwargs: {min_value: 1}}
- {type: expect_column_values_to_not_be_null, kwargs: {column: flight_id}, severity: warning}
"""


class Project:
    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("flights", "arrivals", "weather"):
            self.write(f"feeds/{name}/feed.yaml", FEED.format(name=name))
            self.write(f"feeds/{name}/expectations.yaml", RULES)
        self.write("models/m/model.yaml", MODEL)
        self.write("models/m/features.sql", SQL)

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
        return file

    def model(self, old: str = "", new: str = "") -> CheckResult:
        assert old in MODEL
        path = self.write("models/m/model.yaml", MODEL.replace(old, new) if old else MODEL)
        (result,) = check_paths([path])
        return result

    def sql(self, text: str) -> CheckResult:
        self.write("models/m/features.sql", text)
        return self.model()

    def rules(self, text: str) -> CheckResult:
        (result,) = check_paths([self.write("feeds/flights/expectations.yaml", text).parent])
        return result


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("PERENNIAL_SPECS", str(tmp_path / "specs"))
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path / "specs")


def said(result: CheckResult) -> str:
    assert not result.ok
    return "\n".join(result.messages)


def test_a_good_folder_passes(project: Project) -> None:
    results = check_paths()
    assert [r.messages for r in results] == [(), (), (), ()]
    assert {r.path.parent.name for r in results} == {"flights", "arrivals", "weather", "m"}


def test_paths_may_be_files_folders_or_files_beside_a_spec(project: Project) -> None:
    for path in ("models", "models/m", "models/m/model.yaml", "models/m/features.sql"):
        assert [r.path.name for r in check_paths([project.root / path])] == ["model.yaml"]


def test_a_folder_outside_the_settings_is_checked_by_itself(project: Project, tmp_path: Path) -> None:
    other = Project(tmp_path / "elsewhere")
    assert all(r.ok for r in check_paths([other.root]))


@pytest.mark.parametrize("path", ["nowhere", "empty"])
def test_nothing_to_check_is_a_usage_error(project: Project, tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="there is no"):
        check_paths([tmp_path / path])


def test_a_broken_spec_is_reported_with_its_place(project: Project) -> None:
    assert "specs/models/m/model.yaml:5:9: " in said(project.model("roc_auc", "roc_uac"))


def test_broken_defaults_are_reported(project: Project) -> None:
    project.write("defaults.yaml", "ownr: x\n")
    results = check_paths()
    assert not any(r.ok for r in results)
    assert any(r.path.name == "defaults.yaml" for r in results)


# ------------------------------------------------------------------------------------------------------------ features


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (
            "SELECT flight_id, sched_dep,\n  houre FROM flights WHERE partition = $partition",
            ("features.sql:2: ", "houre"),
        ),
        ("SELECT flight_id,\nFROM WHERE", ("features.sql:", "syntax error")),
        ("SELECT 1; SELECT 2", ("2 statements",)),
        ("SELECT * FROM\nfligths", ("features.sql:2: ", 'it reads "fligths"', 'did you mean "flights"?')),
        ("SELECT flight_id, hour FROM flights", ("'sched_dep'", "must return the key and the event time")),
        ("SELECT flight_id, sched_dep FROM flights", ("returns no feature",)),
        ("SELECT flight_id, sched_dep, late FROM flights", ('returns the label "late"',)),
        ("SELECT flight_id, sched_dep, [hour] AS h FROM flights", ("returns h as nested values",)),
    ],
)
def test_feature_queries_that_do_not_bind(project: Project, sql: str, expected: tuple[str, ...]) -> None:
    message = said(project.sql(sql))
    for part in expected:
        assert part in message


def test_a_missing_feature_file(project: Project) -> None:
    (project.root / "models/m/features.sql").unlink()
    assert "features.sql:1: cannot be read" in said(project.model())


def test_a_common_table_expression_is_not_a_feed(project: Project) -> None:
    query = "WITH x AS (SELECT * FROM flights) SELECT flight_id, sched_dep, hour FROM x WHERE partition = $partition"
    assert project.sql(query).ok


def test_feeds_of_one_model_share_grain_and_zone(project: Project) -> None:
    project.write("feeds/weather/feed.yaml", FEED.format(name="weather").replace("America/New_York", "UTC"))
    assert "feeds of one model share grain and time zone" in said(project.model())


def test_a_feed_with_errors_is_named_where_it_is_read(project: Project) -> None:
    project.write("feeds/weather/feed.yaml", "version: 1\n")
    message = said(project.model())
    assert 'features.sql:3: the feed "weather" has errors of its own' in message


PYTHON = """FEEDS = ["flights"]

def features(feeds, partition):
    frame = feeds["flights"]
    return frame[["flight_id", "sched_dep", "hour"]]
"""


def python(project: Project, text: str) -> CheckResult:
    project.write("models/m/features.py", text)
    return project.model("features.sql", "features.py")


def test_python_features(project: Project) -> None:
    assert python(project, PYTHON).ok


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PYTHON.replace("FEEDS", "FEDS"), "must say which feeds it reads"),
        (PYTHON.replace("def features", "def feature"), "must define features(feeds, partition)"),
        (PYTHON.replace("):", ")"), "features.py:3: "),
        ("import nowhere\n" + PYTHON, "features.py:1: ModuleNotFoundError"),
    ],
)
def test_python_features_that_do_not_work(project: Project, text: str, expected: str) -> None:
    assert expected in said(python(project, text))


def test_python_features_that_need_rows_are_noted(project: Project) -> None:
    result = python(project, PYTHON.replace("    return", '    frame["hour"].iloc[0]\n    return'))
    assert result.ok
    assert any("could not be tried on empty frames" in note for note in result.notes)


# ----------------------------------------------------------------------------------------------------------- estimator


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("BoostingClassifier", "BoostingClasifier", 'did you mean "sklearn.ensemble.HistGradientBoostingClassifier"?'),
        ("sklearn.ensemble.H", "sklern.ensemble.H", "cannot be imported"),
        ("sklearn.ensemble.HistGradientBoostingClassifier", "os.path", "is not a class"),
        ("sklearn.ensemble.HistGradientBoostingClassifier, params: {max_iter: 100}", "collections.Counter", "no fit"),
        ("max_iter: 100", "max_itr: 100", 'has no parameter "max_itr", did you mean "max_iter"?'),
        ("max_iter: 100", "max_iter: many", "max_iter"),
        ("BoostingClassifier", "BoostingRegressor", "is a regressor, and the task is binary"),
        (
            "sklearn.ensemble.HistGradientBoostingClassifier, params: {max_iter: 100}",
            "sklearn.linear_model.RidgeClassifier",
            "gives no probabilities",
        ),
        ("metric: roc_auc", "metric: nowhere:function", "cannot be imported"),
        (
            "metric: roc_auc",
            "metric: roc_auc\nsearch: {trials: 3, space: {max_leaf_node: {int: [7, 63]}}}",
            'has no parameter "max_leaf_node", did you mean "max_leaf_nodes"?',
        ),
        ("metric: roc_auc", "metric: roc_auc\ngates: {baseline: {by: [houre]}}", 'not a feature, did you mean "hour"?'),
        (
            "metric: roc_auc",
            "metric: roc_auc\ngates: {slices: [{by: houre}]}",
            '"houre" is neither a feature nor a column of flights, did you mean "hour"?',
        ),
        (
            "metric: roc_auc",
            "metric: roc_auc\ngates: {fairness: {by: [carrier, {column: sex}]}}",
            '"sex" is neither a feature nor a column of flights',
        ),
        ("metric: roc_auc", "metric: roc_auc\ngates: {slices: [{by: hour, minimum: {'a.b:c': 0.5}}]}", "a.b:c"),
    ],
)
def test_what_the_model_names(project: Project, old: str, new: str, expected: str) -> None:
    message = said(project.model(old, new))
    assert expected in message
    assert "specs/models/m/model.yaml:" in message


def test_a_classifier_for_a_regression(project: Project) -> None:
    text = MODEL.replace("task: binary", "task: regression").replace("roc_auc", "r2").replace("late}", "delay}")
    (result,) = check_paths([project.write("models/m/model.yaml", text)])
    assert "is a classifier, and the task is regression" in said(result)


ESTIMATOR = "{type: sklearn.ensemble.HistGradientBoostingClassifier, params: {max_iter: 100}}"


def test_a_factory_in_the_models_folder(project: Project) -> None:
    project.write(
        "models/m/pipeline.py",
        "from sklearn.linear_model import LogisticRegression as LR\n\n\ndef build(C=1.0):\n    return LR(C=C)\n",
    )
    assert project.model(ESTIMATOR, "{type: pipeline.py:build, params: {C: 0.5}}").ok
    assert 'has no parameter "D"' in said(project.model(ESTIMATOR, "{type: pipeline.py:build, params: {D: 0.5}}"))
    assert "make" in said(project.model(ESTIMATOR, "{type: pipeline.py:make}"))


def test_a_factory_that_fails(project: Project) -> None:
    project.write("models/m/pipeline.py", "x = 1\nraise RuntimeError('no')\n")
    assert "pipeline.py:2: RuntimeError: no" in said(project.model(ESTIMATOR, "{type: pipeline.py:build}"))
    (project.root / "models/m/pipeline.py").unlink()
    assert "pipeline.py is not there" in said(project.model(ESTIMATOR, "{type: pipeline.py:build}"))


def test_blanks_are_pointed_at(project: Project) -> None:
    message = said(project.sql(SQL + "-- <fill in: more>\n"))
    assert "features.sql:5: a blank: -- <fill in: more>" in message


# -------------------------------------------------------------------------------------------------------- expectations


def test_expectations_are_needed(project: Project) -> None:
    (project.root / "feeds/flights/expectations.yaml").unlink()
    (result,) = check_paths([project.root / "feeds/flights"])
    assert "there is no expectations.yaml beside it" in said(result)


COUNT = "- {type: expect_table_row_count_to_be_between, kwargs: {min_value: 1}}\n"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (RULES.splitlines()[1], "an empty partition passes every other rule: add {type: expect_table_row_count"),
        (COUNT.replace("min_value: 1", "min_value: 0"), "no critical rule counts the rows"),
        (COUNT.replace("}}", "}, severity: info}"), "no critical rule counts the rows"),
        (COUNT + "- {type: expect_column_values_to_not_be_nul, kwargs: {column: hour}}", "not_be_null"),
        (COUNT + "- {type: expect_column_values_to_not_be_null, kwargs: {column: houre}}", 'did you mean "hour"?'),
        (COUNT + "- {type: expect_column_values_to_not_be_null}", "does not take these kwargs: column"),
        (COUNT + "- {typ: x}", "a rule is {type: expect_"),
        (COUNT + "- {type: expect_column_values_to_be_unique, kwarg: {}}", 'did you mean "kwargs"?'),
        (COUNT + "- {type: expect_column_to_exist, kwargs: {column: hour}, severity: crit}", "is not a severity"),
        (COUNT + "- {type: expect_column_to_exist, kwargs: [a]}", "kwargs is a mapping"),
        ("type: x\n", "holds a mapping"),
        ("", "the file is empty"),
        (COUNT + "# <fill in: more>\n- <fill in: a rule>\n", "a blank to fill in"),
    ],
)
def test_expectations_that_do_not_work(project: Project, rules: str, expected: str) -> None:
    message = said(project.rules(rules))
    assert expected in message
    assert "expectations.yaml:" in message


def test_a_model_that_says_too_little_for_a_promotion_is_told_so(project: Project) -> None:
    (result,) = check_paths([project.root / "models/m"])
    assert result.ok
    assert [n.split(":")[0] for n in result.notes] == [
        "there is no README.md beside it",
        "it says nothing about fairness, so its checklist cannot be met and no version is promoted",
    ]
    project.write("models/m/README.md", "# m\nFor planning.\n")
    project.write("models/m/model.yaml", MODEL + "gates: {fairness: {not_applicable: Flights are no people.}}\n")
    assert check_paths([project.root / "models/m"])[0].notes == ()
    project.write("models/m/model.yaml", MODEL + "waive: [{item: bias_tested, reason: a try}]\n")
    assert check_paths([project.root / "models/m"])[0].notes == ()


@pytest.mark.parametrize(("text", "expected"), [("def prepare(:\n", ":1: "), ("x = 1\n", "must define prepare(frame)")])
def test_prepare(project: Project, text: str, expected: str) -> None:
    project.write("feeds/flights/prepare.py", text)
    (result,) = check_paths([project.root / "feeds/flights"])
    assert expected in said(result)
    project.write("feeds/flights/prepare.py", "def prepare(frame):\n    return frame\n")
    assert check_paths([project.root / "feeds/flights"])[0].ok


# ------------------------------------------------------------------------------------------------- what ships, and docs

REPOSITORY = Path(__file__).parents[2]


def test_the_page_add_a_model_works_to_the_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(REPOSITORY / "include/feeds", tmp_path / "include/feeds")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERENNIAL_SPECS", "include")
    page = (REPOSITORY / "docs/add-a-model.md").read_text("utf-8")
    blocks = re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    for path, text in blocks:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, "utf-8")
    results = check_paths([Path("include/models/arrival_delay"), Path("include/feeds/passengers")])
    assert [(r.path.parent.name, r.messages) for r in results] == [("passengers", ()), ("arrival_delay", ())]


def test_the_specs_that_ship_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERENNIAL_SPECS", str(REPOSITORY / "include"))
    results = check_paths()
    assert [(r.path.name, r.messages) for r in results if not r.ok] == []
    assert len(results) >= 5
