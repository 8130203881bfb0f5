"""What a model may say, with the defaults that are safe to ship.

The classes hold values only; reading YAML with file, line and column is ``specs.loader``, what cannot work is
``specs.rules``, and everything that needs the rest of the project (does the estimator import, does the SQL run) is
``perennial.check``.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from perennial.specs.durations import Duration
from perennial.specs.feeds import FeedSpec
from perennial.specs.gates import Gates
from perennial.specs.grains import GRAINS, Every
from perennial.specs.values import (
    NINETY_DAYS,
    Column,
    Date,
    Integer,
    Mode,
    Name,
    Number,
    Prefix,
    Size,
    Strict,
    Text,
    Texts,
    beside,
    listed,
    single,
    word_or_duration,
)

MANY_LABELLED = 112  # blocks (days of daily feeds); from here on a regression judges over 56 of them


class Task(Strict):
    """What is predicted."""

    type: Literal["binary", "multiclass", "regression"] = Field(description="Kind of prediction.")
    positive: Annotated[Any, AfterValidator(single)] = Field(
        default=1, description="The label value that is the positive class (multiclass: what fairness audits)."
    )
    classes: Annotated[list[Text | Integer], BeforeValidator(listed)] | None = Field(
        default=None,
        description="The labels of a multiclass task; any other is an error. Default: those of the training rows.",
    )


class Metric(Strict):
    """The one figure that gates, judge and monitor share."""

    name: Text = Field(description="A scikit-learn scorer, or module:function(y_true, y_score) -> float.")
    within: Literal["pooled", "block"] = Field(
        default="pooled", description="Over all rows at once, or the mean over blocks."
    )


class Features(Strict):
    """How rows get their features."""

    path: Annotated[str, beside(".sql", ".py")] = Field(description="features.sql or features.py, beside the spec.")
    lookback: Duration = Field(
        default=dt.timedelta(days=28),
        description="How far back features may look. Default: P28D; hours P7D, weeks P12W, months P12M, years P1Y.",
    )


class Labels(Strict):
    """Where the truth comes from."""

    feed: Name = Field(description="The feed that brings the labels.")
    column: Column = Field(description="Its column with the truth.")
    horizon: Duration = Field(
        default=dt.timedelta(0), description="The outcome's own period; the feed's delay comes on top."
    )
    min_coverage: Number = Field(default=0.9, gt=0, le=1, description="A block with fewer labelled rows is left out.")


class Estimator(Strict):
    """What learns."""

    type: Annotated[
        str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*\.)+[A-Za-z_][A-Za-z0-9_]*$|^pipeline\.py:[A-Za-z_][A-Za-z0-9_]*$")
    ] = Field(description="Importable scikit-learn-compatible class, or pipeline.py:build in the model's folder.")
    params: dict[str, Any] = Field(default={}, description="Arguments of its constructor.")


class Search(Strict):
    """A search for better parameters, by Optuna, on inner time splits only."""

    trials: Integer = Field(default=0, ge=0, le=10_000, description="Number of trials; 0 is no search.")
    space: dict[str, dict[str, Any]] = Field(
        default={}, description="{param: {int|float: [low, high], log: true} | {choice: [...]}}"
    )


class Training(Strict):
    """When and on what a model trains."""

    schedule: Text | None = Field(default=None, description="Cron, in the entity feed's time zone.")
    start: Date | None = Field(
        default=None, description="Train on partitions from this day on; default: the entity feed's start."
    )
    window: Annotated[Literal["expanding"] | Duration, word_or_duration("expanding")] = Field(
        default="expanding", description="All history, or the last so many days (weeks, months), such as P90D."
    )
    holdout: Duration | None = Field(
        default=None,
        description="Default: 14 days (weeks, months), one year; regression 56 of them once 112 are labelled.",
    )
    gap: Annotated[Literal["auto"] | Duration, word_or_duration("auto")] = Field(
        default="auto",
        description="Partitions between training and holdout; auto: the label horizon and delay, rounded up.",
    )
    max_missing: Number = Field(
        default=0.05, ge=0, lt=1, description="Largest share of missing partitions to train over."
    )
    seed: Integer = Field(default=7, ge=0, lt=2**32, description="Seed of everything random.")
    weight: str | None = Field(default=None, description="Not available yet.")


class Compute(Strict):
    """Where and with how much a model trains."""

    backend: Literal["local", "docker", "ecs", "kubernetes"] = Field(default="local", description="Where the fit runs.")
    cpus: Integer = Field(default=1, ge=1, le=1024, description="Threads that a fit may use.")
    timeout: Duration = Field(default=dt.timedelta(hours=2), description="A fit that takes longer is stopped.")
    queue: str | None = Field(default=None, description="Airflow queue of the fit.")


#: What must hold before a version is promoted (``training.checklist`` says how each is found out).
ChecklistItem = Literal[
    "code_committed",
    "data_versioned",
    "dependencies_locked",
    "environment_captured",
    "unseen_data",
    "bias_tested",
    "registered_and_signed",
    "stage_checked",
    "rollback_ready",
]


class Waiver(Strict):
    """An item of the checklist that this model may be promoted without."""

    item: ChecklistItem = Field(description="Its name in the checklist.")
    reason: Text = Field(description="Why; it stands in the ledger and in the card.")


class Rollout(Strict):
    """How a new version meets production."""

    strategy: Literal["immediate", "shadow", "canary", "ab", "blue_green"] = Field(
        default="immediate", description="How."
    )


class Stage(Strict):
    """What a version may take when it scores; it is measured in a fresh process before it may serve."""

    latency_per_1000: Duration = Field(
        default=dt.timedelta(seconds=1), description="Longest time for a batch of 1,000 rows."
    )
    memory: Size = Field(default="1g", description="Most memory of a process that loads it and scores, such as 512m.")

    @property
    def memory_bytes(self) -> int:
        """``memory`` as a number."""
        return int(self.memory[:-1]) << 10 * ("kmgt".index(self.memory[-1]) + 1)


class At(Strict):
    """A time after the period's end."""

    at: Duration = Field(description="So long after the period ends, such as PT7H.")


def _on(value: Any) -> Any:
    if value == "data" or isinstance(value, (dict, At)):
        return value
    raise ValueError(f"{value!r} is not a way to start scoring: write data")


class Scoring(Strict):
    """When and how rows are scored."""

    on: Annotated[Literal["data"] | At, BeforeValidator(_on, json_schema_input_type=Literal["data"] | At)] = Field(
        default="data", description="data: as soon as the inputs of a partition are there."
    )
    wait: Duration = Field(default=dt.timedelta(hours=6), description="How long to wait for a late input.")
    shards: Integer = Field(default=1, ge=1, le=64, description="Number of parallel parts.")
    threshold: Number | None = Field(
        default=None, description="Decision threshold (binary); default: the training base rate."
    )
    runtime: Literal["sklearn", "onnx"] = Field(
        default="sklearn",
        description="onnx: by ONNX Runtime, if it gives scikit-learn's scores on the holdout (else scikit-learn).",
    )


class Drift(Strict):
    """Do inputs look different from the training window?"""

    mode: Mode = Field(default="enabled", description="dry_run: judged and recorded, without effect.")
    window: Duration = Field(
        default=dt.timedelta(days=7),
        description="Length of the disjoint windows. Default: P7D (an ISO week); months P1M, years P1Y.",
    )
    share: Number = Field(default=0.3, gt=0, lt=1, description="Share of columns that must drift.")
    false_asks_per_year: Number = Field(
        default=1.0, gt=0, le=12, description="What the thresholds are calibrated to. Years: 0.1."
    )


class Performance(Strict):
    """Did the metric fall against the holdout?"""

    mode: Mode = Field(default="enabled", description="dry_run: judged and recorded, without effect.")
    window: Duration = Field(
        default=dt.timedelta(days=14),
        description="Length of the disjoint windows. Default: P14D; weeks P14W, months P14M, years P1Y.",
    )
    max_drop: Number = Field(default=0.05, ge=0, description="Smallest drop that matters.")


class Rule(Strict):
    """k of the last n windows."""

    k: Integer = Field(default=2, ge=1, le=52, description="So many windows must speak ... Years: 1.")
    n: Integer = Field(default=3, ge=1, le=52, description="... of the last so many. Years: 1.")


class Monitoring(Strict):
    """What is watched after scoring."""

    drift: Drift = Field(default=Drift(), description="Do inputs look different from the training window?")
    performance: Performance = Field(default=Performance(), description="Did the metric fall against the holdout?")
    rule: Rule = Field(default=Rule(), description="k of the last n windows.")


class Retraining(Strict):
    """When monitoring may start a training."""

    on: Annotated[list[Literal["drift", "performance"]], BeforeValidator(listed, json_schema_input_type=list[str])] = (
        Field(default=["drift", "performance"], description="What may ask.")
    )
    cooldown: Duration = Field(
        default=dt.timedelta(days=7),
        description="Least time between two retrainings; train does not count. Default: P7D; months P1M, years P1Y.",
    )
    max_per_month: Integer = Field(default=4, ge=0, le=1000, description="Budget of trainings.")
    min_new_labels: Integer = Field(default=1000, ge=0, description="Fewer new labelled rows than this: no training.")


class ModelRetention(Strict):
    """How much of a model's work is kept. Counted back from its newest, never by the clock. Versions are kept."""

    predictions: Duration | None = Field(default=None, description="Older published scores leave. Default: keep.")
    features: Duration | None = Field(
        default=None, description="Older feature partitions leave; they can be built again. Default: keep."
    )
    candidates: Duration = Field(
        default=NINETY_DAYS, description="How long bundles of rejected candidates are kept; their figures stay."
    )
    reports: Duration = Field(default=NINETY_DAYS, description="How long runs' reports and staged files are kept.")


class ModelSpec(Strict):
    """A named prediction task. The smallest is ten lines; everything else has a default."""

    version: Literal[1] = Field(description="Version of the spec language.")
    name: Name = Field(description="The name of the folder that the spec lies in.")
    owner: Text = Field(description="Who answers for it, such as a team.")
    description: str = Field(default="", description="One sentence for people.")
    task: Task = Field(description="What is predicted: binary, multiclass or regression.")
    metric: Metric = Field(description="The one figure that gates, judge and monitor share, such as roc_auc.")
    entity: Name = Field(description="The feed whose rows are scored, and whose partitions drive the model.")
    features: Features = Field(description="features.sql or features.py, beside the spec.")
    labels: Labels = Field(description="Where the truth comes from.")
    estimator: Estimator = Field(description="What learns.")
    search: Search = Field(default=Search(), description="A search for better parameters.")
    training: Training = Field(default=Training(), description="When and on what a model trains.")
    compute: Compute = Field(default=Compute(), description="Where and with how much a model trains.")
    gates: Gates = Field(default=Gates(), description="What a candidate must pass before it becomes a version.")
    stage: Stage = Field(default=Stage(), description="Budgets of a version, checked before it may serve.")
    waive: list[Waiver] = Field(default=[], description="Items of the checklist that may be unmet, each with a reason.")
    rollout: Rollout = Field(default=Rollout(), description="How a new version meets production.")
    scoring: Scoring = Field(default=Scoring(), description="When and how rows are scored.")
    monitoring: Monitoring = Field(default=Monitoring(), description="What is watched after scoring.")
    retraining: Retraining = Field(default=Retraining(), description="When monitoring may start a training.")
    retention: ModelRetention = Field(default=ModelRetention(), description="How much of its work is kept.")
    tags: Texts = Field(default=[], description="Tags of the DAGs.")
    dag_prefix: Prefix = Field(default="", description="Put before the names of the DAGs.")
    pool: Text = Field(default="perennial_heavy", description="Airflow pool of the heavy steps.")
    queue: str | None = Field(default=None, description="Airflow queue of the tasks.")
    retries: Integer = Field(default=2, ge=0, le=10, description="How often Airflow tries a failed task again.")

    @field_validator("task", mode="before", json_schema_input_type=Task | str)
    @classmethod
    def _short_task(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @field_validator("metric", mode="before", json_schema_input_type=Metric | str)
    @classmethod
    def _short_metric(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("features", mode="before", json_schema_input_type=Features | str)
    @classmethod
    def _short_features(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @property
    def rows_are_blocks(self) -> bool:
        """Whether every row counts as an independent observation, in gates and monitoring: of yearly feeds."""
        return self.gates.champion.block == "row"

    def holdout_blocks(self, labelled: int, every: Every) -> int:
        """Length of the holdout in blocks (days of hourly and daily feeds), given how many blocks are labelled.

        :param every: grain of the entity feed.
        """
        said = self.training.holdout
        if said is not None:
            return GRAINS[every].block.whole(said)
        if every == "year":
            return 1
        return 56 if self.task.type == "regression" and labelled >= MANY_LABELLED else 14

    def gap_partitions(self, label_feed: FeedSpec) -> int:
        """Partitions between training and holdout, so that no training label was unknown when the holdout began."""
        grain = GRAINS[label_feed.every]
        if self.training.gap != "auto":
            return grain.whole(self.training.gap)
        return grain.at_least(self.labels.horizon + label_feed.delay)

    def min_gain(self, gate: Literal["champion", "baseline"]) -> float:
        """Smallest gain that the gate asks for (relative for a regression)."""
        said = self.gates.champion.min_gain if gate == "champion" else self.gates.baseline.min_gain
        if said is not None:
            return said
        return 0.01 if gate == "champion" and self.task.type == "regression" else 0.0
