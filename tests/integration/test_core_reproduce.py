"""``perennial reproduce``: a real MLflow over SQLite, a real lake, real flights, a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
import pytest
from deltalake import DeltaTable
from lifecycle import Life, utc

from perennial.cli import main
from perennial.lake.homes import feature_table, feed_table
from perennial.lake.table import PartitionedTable, Snapshot
from perennial.registry import tracking, versions
from perennial.training.bundle import Bundle
from perennial.training.fit import fit
from perennial.training.plan import TrainingPlan
from perennial.trust import signing
from perennial.trust.lineage import runtime

pytestmark = pytest.mark.integration

MARCH = utc("2013-03-01T05:00")  # all features of then are built
BOOSTING = "sklearn.ensemble.HistGradientBoostingClassifier"


@dataclass
class Fitted:
    """A version without gates."""

    life: Life
    plan: TrainingPlan
    version: str
    run_id: str
    bundle: Bundle
    snapshots: dict[str, Snapshot] = field(default_factory=dict)

    def edit(self, name: str, change: Callable[[Any], Any]) -> None:
        """Change a document of the bundle, as it lies in the cache, and sign it like that."""
        path = self.bundle.folder / "perennial" / f"{name}.json"
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))
        signing.sign(self.bundle.folder)


def train(life: Life, run: str = "small", *, folder: Path | None = None, **changes: Any) -> Fitted:
    """Train on a window of ten days and register; ``type`` and ``params`` are the estimator's."""
    kind, params = changes.pop("type", BOOSTING), changes.pop("params", {"max_iter": 10})
    estimator = life.spec.estimator.model_copy(update={"type": kind, "params": params})
    spec = life.spec.model_copy(update={"estimator": estimator, **changes})
    plan, train, holdout = life.prepare(MARCH, spec=spec, window_days=10, folder=folder or life.folder)
    candidate = fit(plan, train, holdout, life.actor(run))
    version = versions.register(life.spec.name, candidate.run_id, candidate.model_id, {}).version
    bundle = Bundle(tracking.cache_folder().fetch(candidate.model_id))
    return Fitted(life, plan, version, candidate.run_id, bundle, train)


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def inputs(self) -> dict[str, dict[str, Any]]:
        return {i["item"]: i for i in self.json["inputs"]}


@pytest.fixture
def ask(capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def run(model: str, version: str, *flags: str) -> Said:
        capfd.readouterr()
        code = main(["reproduce", model, version, *flags])
        return Said(code, *capfd.readouterr())

    return run


def corrected(rows: pa.Table) -> pa.Table:
    """Every flight that arrived was late after all."""
    late = pc.if_else(pc.is_valid(rows["late"]), 1, None).cast(pa.int64())
    return rows.set_column(rows.schema.get_field_index("late"), "late", late)


def reland(feed: Any, key: str) -> None:
    table = feed_table(feed)
    table.replace({key: corrected(table.read([key]).drop_columns(["partition", "digest"]))})


# ---------------------------------------------------------------------------------------------------------- identical


def test_the_champion_is_reproduced_and_nothing_is_written(life: Life, home: Path, ask: Any) -> None:
    def state() -> Any:
        c = tracking.client()
        experiment = c.get_experiment_by_name("flight_delay").experiment_id
        files = (p.relative_to(home) for p in home.rglob("*") if p.is_file())
        return (
            sorted(p for p in files if p.parts[0] not in ("cache", "mlflow.db")),
            len(c.search_runs([experiment])),
            len(c.search_logged_models(experiment_ids=[experiment])),
            len(c.search_model_versions("name = 'flight_delay'")),
        )

    before = state()
    found = ask("flight_delay", "champion")
    assert found.code == 0, found
    assert found.out.splitlines()[0].split() == ["recorded", "now"]
    champion = versions.require_champion("flight_delay")
    facts = Bundle(tracking.cache_folder().fetch(champion.model_id)).facts
    what = f"all 12,721 predictions over the holdout, and the fitted state {facts['state_sha256'][:12]}"
    assert found.out.splitlines()[-1] == f"identical: flight_delay version 1: {what}"
    assert f"fitting {BOOSTING} on 35,668 rows of 43 partitions" in found.err
    assert state() == before
    run = tracking.client().get_run(champion.run_id)
    assert run.data.tags["state_sha256"] == facts["state_sha256"] and run.data.tags["threads"] == "1"


def test_a_regression(life: Life, ask: Any) -> None:
    other = Life("flight_duration")
    kind = other.spec.estimator.type
    done = train(other, type=kind, params={"max_iter": 15, "loss": "absolute_error"})
    found = ask("flight_duration", done.version, "--json")
    assert found.code == 0 and found.json["identical"] is True, found.out
    assert found.json["predictions"]["rows"] > 10_000 and found.json["predictions"]["max_difference"] == 0
    assert found.inputs["train labels"]["recorded"] == done.snapshots["labels"].sha256


def test_a_search_chooses_the_same_again(life: Life, ask: Any) -> None:
    space = {"max_iter": {"int": [3, 12]}, "learning_rate": {"float": [0.01, 0.5], "log": True}}
    done = train(life, search=life.spec.search.model_copy(update={"trials": 3, "space": space}))
    found = ask("flight_delay", done.version, "--json")
    assert found.code == 0 and found.json["identical"] is True, found.out
    assert set(found.json["search"]["now"]) == set(space)
    assert found.json["search"]["now"] == found.json["search"]["recorded"] == done.bundle.facts["search"]


def test_threads_are_those_of_the_snapshot(life: Life, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version was fitted with two; the shell that asks is set to another number."""
    kind = "lightgbm.LGBMClassifier"
    compute = life.spec.compute.model_copy(update={"cpus": 2})
    done = train(life, type=kind, params={"n_estimators": 10, "verbose": -1}, compute=compute)
    assert done.bundle.facts["threads"]["openmp"] == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = ask("flight_delay", done.version, "--json")
    assert found.code == 0, found
    assert found.inputs["threads"]["same"] is True and "openmp 2" in found.inputs["threads"]["now"]
    libraries = list(found.inputs)[list(found.inputs).index("seed") + 1 :]
    assert libraries[0] == "lightgbm", "the estimator's own library is the first suspect"


def test_the_snapshot_answers_after_later_days_and_corrections(life: Life, home: Path, ask: Any) -> None:
    first = train(life)
    entity, arrivals = life.entity, life.feeds["arrivals"]
    rows = feed_table(entity).read(["2013-03-31"]).drop_columns(["partition", "digest"])
    day = pa.compute.add(rows["sched_dep"], pa.scalar(86_400_000_000, pa.duration("us")))
    rows = rows.set_column(rows.schema.get_field_index("sched_dep"), "sched_dep", day)
    feed_table(entity).replace({"2013-04-01": rows})
    inside = first.plan.train_keys[3]
    reland(arrivals, inside)
    life.prepare(MARCH, spec=first.plan.spec, window_days=10)  # features whose inputs changed are built anew
    found = ask("flight_delay", first.version, "--json")
    assert found.code == 0 and found.json["identical"] is True, found.out
    # the correction does matter: the same plan on today's rows is another model
    again = train(life, "again")
    assert again.plan.train_keys == first.plan.train_keys
    assert again.snapshots["labels"].sha256 != first.snapshots["labels"].sha256
    assert again.bundle.facts["state_sha256"] != first.bundle.facts["state_sha256"]
    assert ask("flight_delay", again.version).code == 0


def commits(table: PartitionedTable, like: str, n: int, **labels: str) -> None:
    """Commits of a partition that no snapshot names."""
    info = {"partition", "digest", *labels}
    rows = table.read([like])
    rows = rows.drop_columns([c for c in rows.column_names if c in info])
    for i in range(n):
        given = {k: f"{v}{i}" for k, v in labels.items()}
        table.replace({"2013-12-01": rows.slice(0, i + 1)}, labels={"2013-12-01": given})


def age(folder: Path, days: int) -> None:
    """Make everything in a table as old as that: commit times in the log, and the files."""
    for path in (folder / "_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in path.read_text().splitlines()]
        for action in actions:
            if "commitInfo" in action:
                action["commitInfo"]["timestamp"] -= days * 86_400_000
        path.write_text("".join(json.dumps(a) + "\n" for a in actions))
    then = time.time() - days * 86_400
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


@pytest.mark.parametrize("cleaned", [False, True])
def test_forty_days_and_two_checkpoints_later(life: Life, home: Path, ask: Any, cleaned: bool) -> None:
    """Delta removes logs of 30 days at a checkpoint; our tables do not. With the table property, the rows are gone."""
    definition = life.prepare(MARCH, window_days=10)[0].definition
    tables = {
        "labels": (feed_table(life.feeds["arrivals"]), {}),
        "features": (feature_table("flight_delay", definition.digest, list(definition.key)), {"inputs": "x"}),
    }
    for table, _ in tables.values():
        properties = {"delta.checkpointInterval": "5"}
        if cleaned:
            properties["delta.enableExpiredLogCleanup"] = "true"
        DeltaTable(table.uri).alter.set_table_properties(properties)
    done = train(life)
    for name, (table, labels) in tables.items():
        like = done.plan.train_keys[0]
        commits(table, like, 6, **labels)
        folder = Path(table.uri.removeprefix("file://"))
        age(folder, 40)
        commits(table, like, 6, **labels)
        assert len(list((folder / "_delta_log").glob("*.checkpoint.parquet"))) >= 2, name
    found = ask("flight_delay", done.version)
    if not cleaned:
        assert found.code == 0 and found.out.splitlines()[-1].startswith("identical: "), found
        return
    assert found.code == 1 and found.out == ""
    assert "(any more): its log was removed or cleaned up" in found.err.splitlines()[-1]


def test_a_lake_that_was_moved(life: Life, home: Path, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done = train(life)
    (home / "lake").rename(home / "elsewhere")
    lost = ask("flight_delay", done.version)
    assert lost.code == 1 and lost.err.splitlines()[-1].startswith(
        "perennial: the features that flight_delay was trained on are gone: there is no table at file://"
    )
    monkeypatch.setenv("PERENNIAL_LAKE", str(home / "elsewhere"))
    assert ask("flight_delay", done.version).code == 0


PIPELINE = """
import lightgbm
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline

class Hours(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.mean_ = float(np.nanmean(X["hour"]))
        return self
    def transform(self, X):
        return np.column_stack([X["hour"].fillna(self.mean_), (X["carrier"] == "AA").astype(float)])

def build(trees=5):
    return make_pipeline(Hours(), lightgbm.LGBMClassifier(n_estimators=trees, verbose=-1))
"""


def test_the_version_s_own_code_is_used_not_today_s(life: Life, tmp_path: Path, ask: Any) -> None:
    folder = tmp_path / "models" / "flight_delay"
    shutil.copytree(life.folder, folder)
    (folder / "pipeline.py").write_text(PIPELINE)
    done = train(life, folder=folder, type="pipeline.py:build", params={"trees": 7})
    assert done.bundle.sources() == {"pipeline.py": PIPELINE.encode()}
    assert "lightgbm==" in (done.bundle.folder / "requirements.txt").read_text(), "a package that only the code names"
    (folder / "pipeline.py").write_text("raise SystemExit('today')")
    found = ask("flight_delay", done.version, "--json")
    assert found.code == 0, found
    assert found.inputs["pipeline.py"]["same"] is True
    shutil.rmtree(folder)
    assert ask("flight_delay", done.version).code == 0


# ------------------------------------------------------------------------------------------------------------ differs


def test_randomness_without_a_seed_is_named(life: Life, tmp_path: Path, ask: Any) -> None:
    folder = tmp_path / "models" / "flight_delay"
    shutil.copytree(life.folder, folder)
    noise = 'X["hour"].fillna(self.mean_) + np.random.default_rng().normal(size=len(X))'
    (folder / "pipeline.py").write_text(PIPELINE.replace('X["hour"].fillna(self.mean_)', noise))
    done = train(life, folder=folder, type="pipeline.py:build", params={})
    found = ask("flight_delay", done.version, "--json")
    assert found.code == 1 and found.json["identical"] is False
    predictions = found.json["predictions"]
    assert 0 < predictions["differing"] <= predictions["rows"] and predictions["max_difference"] > 1e-6
    assert all(i["same"] for i in found.json["inputs"])
    assert found.json["suspect"].startswith("nothing on record changed") or "not committed" in found.json["suspect"]
    assert any("booster" in p.lower() for p in found.json["state"]["parts"])


def test_other_kernels_are_found_out(life: Life, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """BLAS kernels of an older processor round otherwise, and a linear model shows it."""
    done = train(life, type="sklearn.linear_model.LogisticRegression", params={"max_iter": 30})
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    found = ask("flight_delay", done.version, "--json")
    blas = found.inputs["blas"]
    if blas["same"]:
        pytest.skip("this machine's BLAS takes no other kernels")
    assert found.code == 1
    assert found.json["suspect"] == f"blas {blas['recorded']} -> {blas['now']}" and "Nehalem" in blas["now"]
    assert 0 < found.json["predictions"]["max_difference"] < 1e-3
    assert any(p.endswith(".coef_") for p in found.json["state"]["parts"])


def test_another_library_is_shown_and_is_the_first_suspect(life: Life, ask: Any) -> None:
    done = train(life)

    def older(facts: Any) -> None:
        facts["runtime"]["libraries"]["scikit-learn"] = "1.9.0"

    done.edit("facts", older)
    harmless = ask("flight_delay", done.version)
    assert harmless.code == 0, "the model is the same all the same"
    (line,) = [ln for ln in harmless.out.splitlines() if ln.startswith("scikit-learn")]
    assert line.split() == ["scikit-learn", "1.9.0", runtime()["libraries"]["scikit-learn"]]
    path = done.bundle.folder / "perennial" / "holdout.parquet"
    frame = pd.read_parquet(path)
    frame.loc[:1, "score"] += 0.25
    frame.to_parquet(path, index=False)
    signing.sign(done.bundle.folder)
    found = ask("flight_delay", done.version)
    assert found.code == 1
    *_, differs, suspect = found.out.splitlines()
    assert f"differs: flight_delay version {done.version}: 2 of {len(frame):,} predictions" in differs
    assert "by at most 0.25" in differs and "fitted state" not in differs
    assert suspect == f"first suspect: scikit-learn 1.9.0 -> {runtime()['libraries']['scikit-learn']}"


def test_a_bundle_that_is_older_than_the_record(life: Life, ask: Any) -> None:
    """Its predictions can be compared, its fitted state cannot, and what is not on record is not the same."""
    done = train(life)
    (done.bundle.folder / "perennial" / "state.json").unlink()
    signing.sign(done.bundle.folder)
    done.edit("facts", lambda f: [f.pop(k) for k in ("threads", "runtime", "state_sha256")])
    tracking.client().delete_tag(done.run_id, "state_sha256")
    found = ask("flight_delay", done.version, "--json")
    assert found.code == 1 and found.json["predictions"]["differing"] == 0
    assert found.json["differences"] == ["the fitted state cannot be compared: it is older than that record"]
    assert found.json["suspect"] is None
    assert found.inputs["numpy"]["recorded"] == found.inputs["threads"]["recorded"] == "not on record"


# ------------------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize("thorough", [False, True])
def test_rows_that_were_tampered_with_are_refused(life: Life, ask: Any, thorough: bool) -> None:
    """A thorough hand also corrects the file's size in the log; the digest of the rows still gives it away."""
    done = train(life)
    key, folder = done.plan.train_keys[2], Path(done.snapshots["labels"].uri.removeprefix("file://"))
    (path,) = folder.glob(f"partition={key}/*/*.parquet")
    before = path.stat().st_size
    pyarrow.parquet.write_table(corrected(pyarrow.parquet.read_table(path, partitioning=None)), path)
    if thorough:
        for log in (folder / "_delta_log").glob("*.json"):
            lines = log.read_text().splitlines()
            new = [
                ln.replace(f'"size":{before},', f'"size":{path.stat().st_size},') if path.name in ln else ln
                for ln in lines
            ]
            log.write_text("".join(f"{ln}\n" for ln in new))
    found = ask("flight_delay", done.version)
    assert found.code == 1 and found.out == ""
    assert f"partition {key} are not what was written (sha256 differs)" in found.err.splitlines()[-1]


def test_rows_that_were_vacuumed_are_one_sentence(life: Life, ask: Any) -> None:
    done = train(life)
    reland(life.feeds["arrivals"], done.plan.train_keys[0])
    table = DeltaTable(feed_table(life.feeds["arrivals"]).uri)
    assert table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    found = ask("flight_delay", done.version)
    assert found.code == 1 and found.out == ""
    said = found.err.splitlines()
    assert said[-1].startswith("perennial: file://") and "cannot be read" in said[-1], said
    assert not any("Traceback" in line for line in said)


def test_a_bundle_that_says_something_else_than_its_run_is_refused(life: Life, ask: Any) -> None:
    done = train(life)
    done.edit("facts", lambda f: f.update(state_sha256="0" * 64))
    found = ask("flight_delay", done.version)
    assert found.code == 1 and f"bundle of flight_delay version {done.version} was changed: its MLflow" in found.err


@pytest.mark.parametrize(("model", "version"), [("flight_delay", "9"), ("flight_delay", "nobody"), ("nothing", "1")])
def test_no_such_version_is_a_wrong_question(life: Life, ask: Any, model: str, version: str) -> None:
    found = ask(model, version)
    assert found.code == 2 and found.err.startswith(f"perennial: {model} has no version "), found


def test_a_registry_that_is_down_is_one_sentence(home: Path, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracking.client.cache_clear()
    found = ask("flight_delay", "1")
    tracking.client.cache_clear()
    assert found.code == 1 and found.err.startswith("perennial: MLflow at http://127.0.0.1:9 does not answer: ")
    assert len(found.err.splitlines()) == 1
