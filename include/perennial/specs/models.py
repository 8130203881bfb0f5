"""What a feed and a model may say, with the defaults that are safe to ship.

The classes hold values only; reading YAML with file, line and column is ``specs.loader``, and everything that needs
the rest of the project (does the estimator import, does the SQL run) is ``perennial.check``.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from perennial.specs.durations import Duration

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Mode = Literal["enabled", "dry_run", "disabled"]


class Strict(BaseModel):
    """Unknown keys are errors, values are not coerced in surprising ways, objects do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


# --------------------------------------------------------------------------------------------------------------- feeds


ColumnType = Literal["string", "integer", "float", "boolean", "timestamp", "date"]


class FilesSource(Strict):
    """Files that an upstream system lands, one per partition."""

    kind: Literal["files", "sql", "derived"] = "files"
    path: str = Field(description="Path below the landing area, with {partition} for the key. .csv, .csv.gz or .parquet.")
    late_after: Duration = Field(dt.timedelta(hours=6), description="How long ingestion waits before it says 'missing'.")


class Contract(Strict):
    """What a partition must be before it is committed."""

    expectations: str = Field("expectations.yaml", description="Great Expectations rules, beside the feed's spec.")
    max_quarantined: float = Field(0.02, ge=0, le=1, description="Above this share of bad rows the whole partition is refused.")
    on_missing: Literal["alert", "ignore"] = "alert"


class FeedSpec(Strict):
    """A source of data that lands in partitions."""

    version: Literal[1]
    name: Name
    owner: str
    description: str = ""
    every: Literal["hour", "day", "week", "month", "year"] = "day"
    timezone: str = "UTC"
    start: dt.date
    end: dt.date | None = Field(None, description="Last partition. DAGs schedule nothing after it.")
    delay: Duration = Field(dt.timedelta(0), description="A partition is complete this long after its period ends.")
    known_at: str | None = Field(None, description="Column that says when a row became known (bitemporal cut).")
    event_time: str | None = Field(None, description="UTC timestamp column; joins inside a partition are cut by it.")
    source: FilesSource
    columns: dict[str, ColumnType] = Field(min_length=1, description="Every column and its type. Timestamps are UTC.")
    key: list[str] = Field(min_length=1)
    contract: Contract = Contract()
    retention: Duration = dt.timedelta(days=730)
    tags: list[str] = []
    pool: str = "perennial_heavy"
    retries: int = Field(2, ge=0, le=10)


# -------------------------------------------------------------------------------------------------------------- models


class Task(Strict):
    type: Literal["binary", "multiclass", "regression"]
    positive: Any = Field(1, description="The label value that counts as positive (binary).")


class Metric(Strict):
    name: str = Field(description="A scikit-learn scorer, or module:function(y_true, y_score) -> float.")
    within: Literal["pooled", "block"] = "pooled"


class Features(Strict):
    path: str = Field(description="features.sql or features.py, beside the spec.")
    lookback: Duration = Field(dt.timedelta(days=28), description="How far back the feature query may look.")


class Labels(Strict):
    feed: Name
    column: str
    horizon: Duration = dt.timedelta(0)
    min_coverage: float = Field(0.9, gt=0, le=1, description="A block with fewer labelled rows is left out.")


class Estimator(Strict):
    type: str = Field(description="Importable scikit-learn-compatible class, or pipeline.py:build in the model's folder.")
    params: dict[str, Any] = {}


class Search(Strict):
    trials: int = Field(0, ge=0, le=10_000)
    space: dict[str, dict[str, Any]] = Field({}, description="{param: {int|float: [low, high], log: bool} | {choice: [...]}}")


class Training(Strict):
    schedule: str | None = Field(None, description="Cron, in the entity feed's time zone.")
    start: dt.date | None = None
    window: Literal["expanding"] | Duration = "expanding"
    holdout: Duration | None = Field(None, description="Default: P14D; regression P56D once 112 labelled days exist.")
    gap: Literal["auto"] | Duration = "auto"
    max_missing: float = Field(0.05, ge=0, lt=1)
    seed: int = 7
    weight: str | None = None


class Compute(Strict):
    backend: Literal["local", "docker", "ecs", "kubernetes"] = "local"
    image: str | None = None
    cpus: int = Field(1, ge=1)
    memory: str = "4g"
    timeout: Duration = dt.timedelta(hours=2)
    queue: str | None = None


class FloorGate(Strict):
    mode: Mode = "enabled"
    minimum: dict[str, float] = Field({}, description="metric: minimum (or maximum, when lower is better)")


class BaselineGate(Strict):
    mode: Mode = "enabled"
    by: list[str] = Field([], description="Segments whose training rate (or mean) is the baseline; empty: the overall one.")
    min_gain: float | None = None
    confidence: float = Field(0.9, gt=0.5, lt=1)


class ChampionGate(Strict):
    mode: Mode = "enabled"
    min_gain: float | None = Field(None, description="Default 0, regression 0.01 (relative).")
    confidence: float = Field(0.9, gt=0.5, lt=1)
    block: str = Field("partition", description="partition, row, or a cluster column.")


class Gates(Strict):
    floor: FloorGate = FloorGate()
    baseline: BaselineGate = BaselineGate()
    champion: ChampionGate = ChampionGate()


class Rollout(Strict):
    strategy: Literal["immediate", "shadow", "canary", "ab", "blue_green"] = "immediate"


class At(Strict):
    at: Duration


class Scoring(Strict):
    on: Literal["data"] | At = "data"
    wait: Duration = dt.timedelta(hours=6)
    shards: int = Field(1, ge=1, le=64)
    threshold: float | None = Field(None, description="Decision threshold; default: the training base rate.")


class Drift(Strict):
    mode: Mode = "enabled"
    window: Duration = dt.timedelta(days=7)
    share: float = Field(0.3, gt=0, lt=1)
    false_asks_per_year: float = Field(1.0, gt=0, le=12)


class Performance(Strict):
    mode: Mode = "enabled"
    window: Duration = dt.timedelta(days=14)
    max_drop: float = Field(0.05, ge=0)


class Rule(Strict):
    k: int = Field(2, ge=1)
    n: int = Field(3, ge=1)


class Monitoring(Strict):
    drift: Drift = Drift()
    performance: Performance = Performance()
    rule: Rule = Rule()


class Retraining(Strict):
    on: list[Literal["drift", "performance"]] = ["drift", "performance"]
    cooldown: Duration = dt.timedelta(days=7)
    max_per_month: int = Field(4, ge=0)
    min_new_labels: int = Field(1000, ge=0)


class ModelSpec(Strict):
    """A named prediction task. The smallest is ten lines; everything else has a default."""

    version: Literal[1]
    name: Name
    owner: str
    description: str = ""
    task: Task
    metric: Metric
    entity: Name = Field(description="The feed whose rows are scored, and whose partitions drive the model.")
    features: Features
    labels: Labels
    estimator: Estimator
    search: Search = Search()
    training: Training = Training()
    compute: Compute = Compute()
    gates: Gates = Gates()
    rollout: Rollout = Rollout()
    scoring: Scoring = Scoring()
    monitoring: Monitoring = Monitoring()
    retraining: Retraining = Retraining()
    tags: list[str] = []
    dag_prefix: str = ""
    pool: str = "perennial_heavy"
    queue: str | None = None
    retries: int = Field(2, ge=0, le=10)

    @field_validator("task", mode="before")
    @classmethod
    def _short_task(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @field_validator("metric", mode="before")
    @classmethod
    def _short_metric(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("features", mode="before")
    @classmethod
    def _short_features(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _rule(self) -> ModelSpec:
        if self.monitoring.rule.k > self.monitoring.rule.n:
            raise ValueError("monitoring.rule: k must not be larger than n")
        return self
