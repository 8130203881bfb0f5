"""The steps of a model's life as the DAGs take them, without Airflow."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perennial.lake.homes import feed_table
from perennial.lake.landing import read_landed
from perennial.lake.table import Snapshot, no_fence
from perennial.ledger import Ledger
from perennial.local.landing import Feed, LandingSimulator
from perennial.registry import versions
from perennial.registry.checklist import Checklist
from perennial.registry.checklist import record as record_checklist
from perennial.runs import Actor, RunState
from perennial.scoring import predict
from perennial.specs import FeedSpec, ModelSpec
from perennial.specs.loader import SpecSet, load_specs
from perennial.specs.partitions import keys_between, period
from perennial.training import stage
from perennial.training.data import snapshot_rows
from perennial.training.evaluate import Evaluation, evaluate, record
from perennial.training.fit import Candidate, fit
from perennial.training.plan import TrainingPlan, make_plan

MODEL = "flight_delay"
FIRST, LAST = "2013-01-01", "2013-03-31"
FEEDS: tuple[Feed, ...] = ("flights", "weather", "arrivals")


def utc(text: str) -> dt.datetime:
    """An instant, written short."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def land_feeds(specs: SpecSet, landing: Path, first: str, last: str) -> None:
    """Real days, as files and, without the ceremony of a contract, in the lake."""
    simulator = LandingSimulator(landing)
    for name in FEEDS:
        feed = specs.feed(name)
        simulator.land(name, first, last)
        folder = specs.folder_of("feed", name)
        feed_table(feed).replace({k: read_landed(feed, folder, k).table for k in keys_between(feed, first, last)})


@dataclass
class Trained:
    """What a training run left behind."""

    actor: Actor
    plan: TrainingPlan
    train: dict[str, Snapshot]
    holdout: dict[str, Snapshot]
    candidate: Candidate
    evaluation: Evaluation


class Life:
    """One model, its feeds, its ledger."""

    def __init__(self, model: str = MODEL) -> None:
        self.specs: SpecSet = load_specs(only=model)
        self.spec: ModelSpec = self.specs.model(model)
        self.feeds: Mapping[str, FeedSpec] = self.specs.feeds
        self.folder = self.specs.folder_of("model", model)
        self.ledger = Ledger()

    @property
    def entity(self) -> FeedSpec:
        return self.feeds[self.spec.entity]

    def actor(self, run: str, task: str = "", dag: str = "train") -> Actor:
        return Actor(f"{self.spec.name}.{dag}", run, task)

    def prepare(
        self, as_of: dt.datetime, **given: Any
    ) -> tuple[TrainingPlan, dict[str, Snapshot], dict[str, Snapshot]]:
        """Plan, features, snapshots."""
        spec = given.pop("spec", self.spec)
        plan = make_plan(spec, self.feeds, given.pop("folder", self.folder), as_of=as_of, **given)
        plan.builder().ensure([*plan.train_keys, *plan.holdout_keys])
        train, holdout = (
            snapshot_rows(plan.spec, plan.feeds, plan.definition, keys) for keys in (plan.train_keys, plan.holdout_keys)
        )
        return plan, train, holdout

    def train(self, run: str, as_of: dt.datetime, **given: Any) -> Trained:
        """Plan, fit, evaluate, record."""
        plan, train, holdout = self.prepare(as_of, **given)
        actor = self.actor(run)
        candidate = fit(plan, train, holdout, actor)
        return self.judge(Trained(actor, plan, train, holdout, candidate, None))  # type: ignore[arg-type]

    def judge(self, done: Trained) -> Trained:
        """Evaluate and record, once more perhaps."""
        done.evaluation = evaluate(done.plan, done.holdout, done.candidate, self.ledger)
        record(done.plan, done.evaluation, done.candidate, self.ledger, done.actor)
        return done

    def roll_out(self, done: Trained, fence: Callable[[], None] = no_fence) -> str:
        """Register and promote."""
        tags = {"verdict": done.evaluation.verdict}
        version = versions.register(self.spec.name, done.candidate.run_id, done.candidate.model_id, tags)
        self.promote(version.version, done.evaluation.champion, done.plan.as_of, done.actor.run_id, fence=fence)
        return version.version

    def promote(
        self,
        version: str,
        expected: str | None,
        as_of: dt.datetime,
        run: str,
        *,
        fence: Callable[[], None] = no_fence,
        event: str = "promote",
    ) -> str | None:
        """Move the champion, with a checklist on record: what it takes to meet one is another test's concern."""
        if event == "promote":
            record_checklist(Checklist(self.spec.name, version, ()), self.ledger, self.actor(run), as_of.isoformat())
        return versions.promote(
            self.spec.name, version, expected=expected, reason="a test says so", as_of=as_of,
            actor=self.actor(run, "rollout"), ledger=self.ledger, fence=fence, event=event,
        )  # fmt: skip

    def score(self, key: str, run: str, *, as_of: dt.datetime | None = None, version: str | None = None) -> RunState:
        """Resolve, score, check; nothing is published yet."""
        at = as_of or period(self.entity, key)[1]
        arms = predict.resolve_arms(self.spec, self.entity, key, at, self.ledger, version)
        state = RunState(self.actor(run, "score", "score"))
        now = dt.datetime.now(dt.UTC)
        predict.score_partition(self.spec, self.feeds, key, arms, state, now=now)
        return state

    def publish(self, key: str, run: str, **given: Any) -> RunState:
        """Score and publish."""
        state = self.score(key, run, **given)
        assert predict.check_output(self.spec, self.feeds, key, state) == []
        predict.publish(self.spec, self.entity, key, state)
        return state

    def stage(self, version: str) -> stage.Staged:
        """Check a version as the task does."""
        actor, found = self.actor(f"stage-{version}", "stage_check"), versions.get(self.spec.name, version)
        done = stage.stage_check(found, actor)
        stage.record(found, done, dt.datetime.now(dt.UTC), self.ledger, actor)
        return done

    def second(self) -> str:
        """Another version, which is the first one's bundle, of the same run, under a number of its own."""
        from perennial.registry.tracking import client

        c = versions.require_champion(self.spec.name)
        made = client().create_model_version(c.model, f"models:/{c.model_id}", run_id=c.run_id, model_id=c.model_id)
        return str(made.version)
