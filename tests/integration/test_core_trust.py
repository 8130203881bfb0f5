"""Signing, refusing and staging a version, over a real MLflow and a real lake: nothing that was tampered with runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
from lifecycle import Life

from grain_world import GrainWorld
from perennial.cli import main
from perennial.errors import RefusedError, SignatureError, StageError
from perennial.lake.homes import prediction_table
from perennial.registry import tracking, versions
from perennial.runs import RunState
from perennial.scoring import predict
from perennial.settings import settings
from perennial.specs.partitions import known_at_instant
from perennial.training import stage
from perennial.training.attest import attest, record_signature, trust_tags
from perennial.training.bundle import Bundle
from perennial.training.evaluate import evaluate
from perennial.training.fit import Candidate, fit
from perennial.trust import signing
from perennial.trust.keys import new_pair

pytestmark = pytest.mark.integration

KEYS = 50
SLOW = """
import time
from sklearn.linear_model import LogisticRegression


class Slow(LogisticRegression):
    def predict_proba(self, X):
        time.sleep({seconds})
        return super().predict_proba(X)


def build():
    return Slow()
"""
PIPELINES = {
    "slow": SLOW.format(seconds=1.2),
    "local": """
import sys, types
from sklearn.linear_model import LogisticRegression

module = types.ModuleType("only_here")
exec("from sklearn.linear_model import LogisticRegression\\nclass Mine(LogisticRegression): pass", module.__dict__)
module.Mine.__module__ = "only_here"
sys.modules["only_here"] = module


def build():
    return module.Mine()
""",
    "dying": """
import os
from sklearn.linear_model import LogisticRegression


class Dying(LogisticRegression):
    def __setstate__(self, state):
        super().__setstate__(state)
        if os.environ.get("HERE") != "1":
            os._exit(7)


def build():
    return Dying()
""",
}


class Shop(Life):
    """A small model's life: 50 days of visits, a logistic regression."""

    def __init__(self, world: GrainWorld) -> None:
        super().__init__("returns")
        self.world, self.keys = world, world.keys(KEYS)

    def fit(self, run: str, **given: Any) -> Candidate:
        """Train on what is known at the end, without gates."""
        self.plan, train, holdout = self.prepare(known_at_instant(self.feeds["outcomes"], self.keys[-1]), **given)
        self.holdout = holdout
        return fit(self.plan, train, holdout, self.actor(run, "fit"))

    def register(self, candidate: Candidate) -> versions.Version:
        """As the task does."""
        actor = self.actor("register", "register")
        bundle = Bundle.open("returns", candidate, actor=actor)
        made = versions.register("returns", candidate.run_id, candidate.model_id, trust_tags(bundle))
        record_signature(made, bundle, self.plan.as_of, self.ledger, actor)
        return versions.get("returns", made.version)

    def refusals(self) -> list[Any]:
        return self.ledger.find("returns", event="signature", verdict="refused")


@pytest.fixture(scope="module")
def _sold(tmp_path_factory: pytest.TempPathFactory, _empty_mlflow: Path, signing_keys: dict[str, str]) -> Path:
    """A home with a champion."""
    root = tmp_path_factory.mktemp("shop")
    home = root / "home"
    home.mkdir()
    shutil.copy(_empty_mlflow, home / "mlflow.db")
    world = GrainWorld(root, "day")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PERENNIAL_")}
    env = kept | signing_keys | {
        "PERENNIAL_HOME": str(home),
        "PERENNIAL_SPECS": str(world.root),
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
    }  # fmt: skip
    before = Path.cwd()
    with mock.patch.dict(os.environ, env, clear=True):
        tracking.client.cache_clear()
        os.chdir(home)  # artifacts go to ./mlruns
        try:
            life = Shop(world)
            world.fill(life.keys)
            made = life.register(life.fit("train-1"))
            life.promote(made.version, None, life.plan.as_of, "train-1")
        finally:
            os.chdir(before)
            tracking.client.cache_clear()
    return root


@pytest.fixture
def shop(home: Path, _sold: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """The small model's life with a champion, in a home of this test's own; its artifacts may be tampered with."""
    shutil.copytree(_sold / "home", home, dirs_exist_ok=True, ignore=shutil.ignore_patterns("mlruns"))
    shutil.copytree(_sold / "specs", home.parent / "specs")
    monkeypatch.setenv("PERENNIAL_SPECS", str(home.parent / "specs"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    monkeypatch.chdir(home)
    tracking.client.cache_clear()
    world = GrainWorld.__new__(GrainWorld)
    world.root, world.every, world.rows = home.parent / "specs", "day", 40
    yield Shop(world)
    tracking.client.cache_clear()


@pytest.fixture
def artifact(shop: Shop, home: Path) -> Iterator[Path]:
    """The champion's folder in the registry's store, which a test may change; no local copy is left.

    The store is shared by this module's tests, so the folder is put back as it was.
    """
    champion = versions.require_champion("returns")
    shutil.rmtree(home / "cache", ignore_errors=True)
    folder = Path(tracking.client().get_logged_model(champion.model_id).artifact_location.removeprefix("file://"))
    kept = folder.with_name("kept")
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept)
    yield folder
    shutil.rmtree(folder)
    kept.rename(folder)


def score(life: Shop, key: str, run: str) -> Any:
    """All steps of scoring."""
    actor = life.actor(run, "score", "score")
    arms = predict.resolve_arms(life.spec, life.entity, key, known_at_instant(life.entity, life.keys[-1]), life.ledger,
                                "1")  # fmt: skip
    predict.builders_of(life.spec, arms, life.feeds, actor)
    return life.publish(key, run, version="1")


@dataclass
class Opens:
    """A pickle that creates a file when it is loaded."""

    path: str

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def evil(folder: Path) -> None:
    """Put such a pickle where MLflow looks for the model."""
    about = (folder / "MLmodel").read_text()
    (folder / "MLmodel").write_text(
        about.replace("serialization_format: skops", "serialization_format: cloudpickle").replace(
            "model.skops", "model.pkl"
        )
    )
    (folder / "model.pkl").write_bytes(pickle.dumps(Opens(str(Path.cwd() / "owned"))))


def edit(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    path = folder / "perennial" / f"{name}.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def features(plan: Any) -> None:
    plan["definition"]["source"] = plan["definition"]["source"].replace("v.basket", "-v.basket AS basket")


TAMPERED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "changed": (lambda f: edit(f, "facts", lambda v: v.update(threshold=0)), "perennial/facts.json was changed"),
    "features": (lambda f: edit(f, "plan", features), "perennial/plan.json was changed"),
    "pipeline": (lambda f: [(f / "perennial/source").mkdir(), (f / "perennial/source/pipeline.py").write_text("1/0")],
                 "perennial/source/pipeline.py was added"),
    "added": (lambda f: (f / "sitecustomize.py").write_text("1/0"), "sitecustomize.py was added"),
    "renamed": (lambda f: (f / "MLmodel").rename(f / "mlmodel"), "MLmodel was renamed to mlmodel"),
    "missing": (lambda f: (f / "perennial/drift.json").unlink(), "perennial/drift.json is missing"),
    "unsigned": (lambda f: (f / "model.sig").unlink(), "it has no signature (model.sig)"),
    "pickle": (evil, "MLmodel was changed, model.pkl was added after it was signed"),
}  # fmt: skip


@pytest.mark.parametrize("how", TAMPERED)
def test_a_tampered_champion_publishes_nothing(shop: Shop, artifact: Path, how: str, home: Path) -> None:
    key = shop.keys[-1]
    change, says = TAMPERED[how]
    change(artifact)
    for _ in range(2):  # a retry of the task finds the same, and adds no entry
        with pytest.raises(RefusedError) as refused:
            score(shop, key, "score-1")
    assert f"returns version 1 is refused: {says}" in str(refused.value)
    assert not (home / "owned").exists()
    assert not prediction_table(shop.spec, shop.entity).partitions()
    (entry,) = shop.refusals()
    assert entry.version == "1" and says in entry.reason and entry.actor["dag_id"] == "returns.score"

    shutil.rmtree(artifact)
    shutil.copytree(artifact.with_name("kept"), artifact)
    score(shop, key, "score-2")
    assert set(prediction_table(shop.spec, shop.entity).partitions()) == {key}, "once it is whole again, nothing sticks"


def test_a_link_in_the_local_copy_is_refused(shop: Shop, artifact: Path, tmp_path: Path) -> None:
    """The local copy is no more believed than the registry; a download would not keep the link."""
    folder = tracking.cache_folder().fetch(versions.require_champion("returns").model_id)
    (folder / "perennial" / "plan.json").rename(tmp_path / "plan.json")
    (folder / "perennial" / "plan.json").symlink_to(tmp_path / "plan.json")
    with pytest.raises(RefusedError, match=r"perennial/plan.json is a symbolic link; its local copy was moved to "):
        score(shop, shop.keys[-1], "score-1")
    assert score(shop, shop.keys[-1], "score-1"), "the registry's is whole, and is downloaded anew"


def test_a_copy_that_is_changed_between_verification_and_use_is_refused(shop: Shop, home: Path) -> None:
    bundle = Bundle.open("returns", versions.require_champion("returns"))
    edit(bundle.folder, "facts", lambda v: v.update(threshold=0))
    with pytest.raises(RefusedError, match=r"perennial/facts.json was changed after it was verified"):
        bundle.document("facts")
    evil(bundle.folder)
    with pytest.raises(RefusedError, match=r"MLmodel was changed, perennial/facts.json was changed, model.pkl was"):
        _ = bundle.model
    assert not (home / "owned").exists()


def test_the_malicious_pickle_would_work(shop: Shop, artifact: Path, home: Path) -> None:
    """What the other tests find absent is there when MLflow loads the folder without us."""
    import mlflow.sklearn

    evil(artifact)
    mlflow.sklearn.load_model(str(artifact)).close()
    assert (home / "owned").exists()


def test_the_good_bundle_of_another_run_is_refused(shop: Shop, artifact: Path) -> None:
    """Signed, whole and trusted, and yet not this version: an older one put in its place, say."""
    other = shop.fit("train-2", seed=8)
    folder = tracking.cache_folder().fetch(other.model_id)
    shutil.rmtree(artifact)
    shutil.copytree(folder, artifact)
    with pytest.raises(RefusedError, match=f"its bundle is that of returns in MLflow run {other.run_id}, not of run "):
        score(shop, shop.keys[-1], "score-1")


def test_a_version_that_was_signed_anew_is_refused(shop: Shop, artifact: Path, capsys: Any) -> None:
    """By somebody with the key, after it was judged and registered."""
    edit(artifact, "facts", lambda v: v.update(threshold=0))
    signing.sign(artifact)
    with pytest.raises(RefusedError, match="it was signed anew since it was registered: its digest was "):
        evaluate_against(shop)
    tracking.client().delete_model_version_tag("returns", "1", signing.DIGEST_TAG)
    assert main(["verify", "returns", "1"]) == 1
    assert "the ledger says that its digest was" in capsys.readouterr().out


def evaluate_against(shop: Shop) -> None:
    candidate = shop.fit("train-2", seed=8)
    evaluate(shop.plan, shop.holdout, candidate, shop.ledger, actor=shop.actor("train-2", "evaluate"))


def test_a_rotated_key_scores_until_it_is_no_longer_trusted(
    shop: Shop, artifact: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, trusted = home / "keys", home / "trusted"
    new = new_pair(own)
    trusted.mkdir()
    old = Bundle.open("returns", versions.require_champion("returns")).signed.signer
    for path in (*Path(settings().trusted_keys).iterdir(), Path(new.where)):
        shutil.copy(path, trusted)
    monkeypatch.setenv("PERENNIAL_SIGNING_KEY", str(own / "signing.pem"))
    monkeypatch.setenv("PERENNIAL_TRUSTED_KEYS", str(trusted))
    score(shop, shop.keys[-1], "score-1")
    two = shop.register(shop.fit("train-2"))
    assert (two.tags["signature.key"], versions.get("returns", "1").tags["signature.key"]) == (new.fingerprint, old)
    next(p for p in trusted.iterdir() if old.startswith(p.stem)).unlink()
    with pytest.raises(RefusedError, match=f"it is signed with the key {old[:16]}, which is not among the trusted"):
        score(shop, shop.keys[-2], "score-2")
    assert attest("returns", "2").signed


def test_without_a_key_nothing_is_fitted(shop: Shop, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.delenv("PERENNIAL_SIGNING_KEY")
    with pytest.raises(SignatureError, match="there is no key to sign versions with at"):
        shop.fit("train-2")
    runs = tracking.client().search_runs([tracking.client().get_experiment_by_name("returns").experiment_id])
    assert len(runs) == 1, "it failed before there was a run"


# ---------------------------------------------------------------------------------------------------- perennial verify


def test_the_verb_says_who_signed(shop: Shop, artifact: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop.prepare(known_at_instant(shop.feeds["outcomes"], shop.keys[-1]))
    assert main(["verify", "returns", "champion", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    tags = versions.get("returns", "1").tags
    assert (
        said["signed"] is True
        and said["signer"] == tags["signature.key"]
        and said["digest"] == tags["signature.digest"]
    )
    assert said["files"] == int(tags["signature.files"]) > 10 and said["stage"] is None
    assert tags["state_sha256"] == Bundle.open("returns", versions.get("returns", "1")).facts["state_sha256"]

    (artifact / "conda.yaml").write_text("")
    assert main(["verify", "returns", "1"]) == 1
    assert capsys.readouterr().out == "returns version 1 is refused: conda.yaml was changed after it was signed\n"
    assert main(["verify", "returns", "9"]) == 2
    capsys.readouterr()
    shutil.rmtree(home / "cache")
    assert main(["reproduce", "returns", "1"]) == 1
    assert "returns version 1 is refused: conda.yaml was changed after it was signed" in capsys.readouterr().err


def test_the_documented_command_of_the_package_checks_a_version(shop: Shop, artifact: Path, tmp_path: Path) -> None:
    """The lines of docs/trust.md, as they stand there, without Perennial."""
    docs = (Path(__file__).parents[2] / "docs" / "trust.md").read_text()
    block = docs.split("<!-- checked by a test -->\n```sh\n")[1].split("```")[0]
    values = {
        "MODEL_ID": versions.require_champion("returns").model_id,
        "PUBLIC_KEY": str(next(Path(settings().trusted_keys).iterdir())),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    run = lambda: subprocess.run(  # noqa: E731
        ["bash", "-euc", block], env={**os.environ, **values}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    done = run()
    assert done.returncode == 0 and "Verification succeeded" in done.stdout + done.stderr, done
    (artifact / "conda.yaml").write_text("")
    shutil.rmtree(tmp_path / "version", ignore_errors=True)
    done = run()
    assert done.returncode == 1 and "conda.yaml" in done.stdout + done.stderr


# ------------------------------------------------------------------------------------------------------------- staging


def test_a_good_version_passes_its_stage_check(shop: Shop, artifact: Path) -> None:
    shop.prepare(known_at_instant(shop.feeds["outcomes"], shop.keys[-1]))
    two = shop.register(shop.fit("train-2"))
    with pytest.raises(StageError, match="returns version 2 has had no stage check"):
        stage.require_passed("returns", two.version, shop.ledger)
    found = shop.stage(two.version)
    assert found.passed, found.reason
    assert found.figures["rows"] == 256 and found.figures["differing"] == 0
    assert 0 < found.figures["latency"] <= found.figures["max_latency"] == 1
    assert 50 * 2**20 < found.figures["memory"] <= found.figures["max_memory"] == 2**30
    shop.stage(two.version)
    (entry,) = shop.ledger.find("returns", event="stage")
    assert (entry.verdict, entry.version) == ("pass", "2"), "done twice, it is on record once"
    assert versions.get("returns", "2").tags["stage"] == "pass"
    stage.require_passed("returns", two.version, shop.ledger)
    told = attest("returns", "2")
    assert (told.signed, told.stage, told.stage_figures["rows"]) == (True, "pass", 256)


def variant(shop: Shop, run: str, pipeline: str | None = None, **budget: Any) -> versions.Version:
    """A version with another estimator or other budgets."""
    spec, folder = shop.spec, shop.folder
    if pipeline:
        (folder / "pipeline.py").write_text(PIPELINES[pipeline])
        own = spec.estimator.model_copy(update={"type": "pipeline.py:build", "params": {}})
        spec = spec.model_copy(update={"estimator": own})
    if budget:
        spec = spec.model_copy(update={"stage": spec.stage.model_copy(update=budget)})
    return shop.register(shop.fit(run, spec=spec))


def failed(shop: Shop, version: versions.Version) -> str:
    found = shop.stage(version.version)
    assert found.verdict == "fail", found.reason
    (entry,) = shop.ledger.find("returns", event="stage")
    assert (entry.verdict, entry.reason, entry.version) == ("fail", found.reason, version.version)
    assert versions.get("returns", version.version).tags["stage"] == "fail"
    with pytest.raises(StageError, match="returns may not be served by it: version 2 failed its stage check"):
        stage.require_passed("returns", version.version, shop.ledger)
    return found.reason


def test_other_scores_than_when_it_was_fitted_fail(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A golden sample with one bit more in one score: what is loaded is not what was fitted."""
    from perennial.training import golden

    real = golden.make

    def off(*given: Any) -> dict[str, pd.DataFrame]:
        tables = real(*given)
        scores = tables[golden.SCORES]
        scores.iloc[3, 0] += 2**-50
        return tables

    monkeypatch.setattr(golden, "make", off)
    said = failed(shop, variant(shop, "train-2"))
    assert said.endswith("1 of the 256 rows of its golden sample have another score than when it was fitted")


def test_a_slow_version_fails(shop: Shop) -> None:
    said = failed(shop, variant(shop, "train-2", "slow"))
    assert "1,000 rows take 1.2" in said and "(at most 1 s)" in said


def test_a_big_version_fails(shop: Shop) -> None:
    said = failed(shop, variant(shop, "train-2", memory="64m"))
    assert "MB of memory (at most 64 MB)" in said


def test_a_version_that_loads_only_where_it_was_fitted_fails(shop: Shop) -> None:
    said = failed(shop, variant(shop, "train-2", "local"))
    assert "it cannot be loaded in a fresh process: ModuleNotFoundError: No module named 'only_here'" in said
    sys.modules.pop("only_here")


def test_a_version_whose_process_dies_fails(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "1")
    made = variant(shop, "train-2", "dying")
    monkeypatch.delenv("HERE")
    assert "the fresh process that loaded it ended with exit code 7" in failed(shop, made)


def test_a_tampered_candidate_is_not_even_loaded(shop: Shop, home: Path) -> None:
    made = variant(shop, "train-2")
    folder = Path(tracking.client().get_logged_model(made.model_id).artifact_location.removeprefix("file://"))
    evil(folder)
    with pytest.raises(RefusedError, match=r"version 2 is refused: MLmodel was changed, model.pkl was added"):
        shop.stage(made.version)
    assert not (home / "owned").exists() and len(shop.refusals()) == 1


def test_no_child_of_ours_gets_the_signing_key(shop: Shop, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a version's own code could read in the fresh process."""
    key = Path(settings().signing_key).read_text()
    monkeypatch.setenv("PERENNIAL_SIGNING_KEY", key)
    (shop.folder / "pipeline.py").write_text(
        "import os\nfrom pathlib import Path\nfrom sklearn.linear_model import LogisticRegression\n"
        "class Nosy(LogisticRegression):\n"
        "    def __setstate__(self, state):\n"
        "        super().__setstate__(state)\n"
        f"        Path({str(home / 'seen')!r}).write_text(repr(dict(os.environ)))\n"
        "def build():\n    return Nosy()\n"
    )
    own = shop.spec.estimator.model_copy(update={"type": "pipeline.py:build", "params": {}})
    made = shop.register(shop.fit("train-2", spec=shop.spec.model_copy(update={"estimator": own})))
    (home / "seen").unlink(missing_ok=True)
    assert shop.stage(made.version).passed
    seen = (home / "seen").read_text()
    assert "PERENNIAL_TRUSTED_KEYS" in seen and "PRIVATE KEY" not in seen


def test_nothing_that_is_written_holds_a_key(shop: Shop, artifact: Path, home: Path, capfd: Any) -> None:
    """Ledger, run state, MLflow, bundles and what went to the terminal: searched for every line of the private key."""
    lines = Path(settings().signing_key).read_text().splitlines()[1:-1]
    two = shop.register(shop.fit("train-2"))
    shop.stage(two.version)
    (artifact / "added").touch()
    with pytest.raises(RefusedError):
        score(shop, shop.keys[-1], "score-1")
    main(["verify", "returns", "2"])
    texts = [p.read_bytes() for p in home.rglob("*") if p.is_file()] + ["".join(capfd.readouterr()).encode()]
    assert len(texts) > 50
    assert not [line for line in lines if any(line.encode() in t for t in texts)]


def test_the_state_of_a_run_keeps_the_arm_s_run(shop: Shop) -> None:
    """An arm says of which MLflow run its bundle must be."""
    (arm,) = predict.resolve_arms(shop.spec, shop.entity, shop.keys[-1], known_at_instant(shop.entity, shop.keys[-1]),
                                  shop.ledger, "1")  # fmt: skip
    state = RunState(shop.actor("score-1"))
    state.write("arms", [arm.to_dict()])
    assert predict.Arm(**state.read("arms")[0]) == arm and arm.run_id == versions.get("returns", "1").run_id
