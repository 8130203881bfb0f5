"""What a feed and a model may say, with the defaults that are safe to ship.

The classes hold values only; reading YAML with file, line and column is ``specs.loader``, what cannot work is
``specs.rules``, and everything that needs the rest of the project (does the estimator import, does the SQL run) is
``perennial.check``.
"""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydantic import Strict as Exactly

from perennial.specs.durations import Duration, parse_duration
from perennial.specs.grains import GRAINS, Every

Mode = Literal["enabled", "dry_run", "disabled"]
ColumnType = Literal["string", "integer", "float", "boolean", "timestamp", "date"]

ONE_DAY = dt.timedelta(days=1)
NINETY_DAYS = dt.timedelta(days=90)
MANY_LABELLED = 112  # blocks (days of daily feeds); from here on a regression judges over 56 of them
RESERVED_COLUMNS = frozenset({"partition", "digest", "inputs"})  # the lake adds these itself


# ------------------------------------------------------------------------------------------------------ kinds of values


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", value):
        raise ValueError(
            f"{value!r} is not a name: lower-case letters, digits and _, a letter first, at most 63 characters"
        )
    return value


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("this must not be empty")
    return value


def _column(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", value):
        raise ValueError(f"{value!r} is not a column name: letters, digits and _, no digit first")
    return value


def _date(value: Any) -> Any:
    if isinstance(value, dt.datetime) or not isinstance(value, (dt.date, str)):
        raise ValueError(f"{value!r} is not a day: write it like 2013-01-31")
    if isinstance(value, str):
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
            raise ValueError(f"{value!r} is not a day: write it like 2013-01-31")
        try:
            value = dt.date.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value} is not in the calendar") from None
    if not 1900 <= value.year <= 2200:
        raise ValueError(f"{value} is not between 1900 and 2200")
    return value


def _timezone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{value!r} is not a time zone: write a name such as UTC or America/New_York") from None
    return value


def _beside(*endings: str) -> AfterValidator:
    """A file in the spec's own folder."""

    def check(value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or not value.strip():
            raise ValueError(f"{value!r} must be a file in the spec's own folder")
        if not value.endswith(endings):
            raise ValueError(f"{value!r} must end with {' or '.join(endings)}")
        return value

    return AfterValidator(check)


def _landing(value: str) -> str:
    if value.count("{partition}") != 1 or re.search(r"[{}]", value.replace("{partition}", "")):
        raise ValueError(f'{value!r} must hold {{partition}} exactly once, as in "arrivals/{{partition}}.parquet"')
    if value.startswith("/") or "://" in value or ".." in PurePosixPath(value).parts:
        raise ValueError(f"{value!r} must lie below the landing area: no scheme, no leading /, no ..")
    if not value.endswith((".csv", ".csv.gz", ".parquet")):
        raise ValueError(f"{value!r} must end with .csv, .csv.gz or .parquet")
    return value


def _word_or_duration(word: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        return value if value == word else _duration_or(value, word)

    return BeforeValidator(check, json_schema_input_type=str)


def _duration_or(value: Any, word: str) -> dt.timedelta:
    try:
        return parse_duration(value)
    except ValueError:
        raise ValueError(f"{value!r} is neither {word} nor a duration such as P14D") from None


def _single(value: Any) -> Any:
    if not isinstance(value, (bool, int, float, str)):
        raise ValueError("write one value, such as 1")
    return value


def _listed(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(f"write a list: [{value}]")
    return value


def _size(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(r"[1-9][0-9]{0,8}[kmgt]", value):
        raise ValueError(f"{value!r} is not a size: write 512m or 2g")
    return value


Size = Annotated[str, BeforeValidator(_size, json_schema_input_type=str)]
Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": "^[a-z][a-z0-9_]{0,62}$"})]
Text = Annotated[str, AfterValidator(_text), Field(json_schema_extra={"minLength": 1})]
Column = Annotated[str, AfterValidator(_column)]
Columns = Annotated[list[Column], BeforeValidator(_listed, json_schema_input_type=list[str])]
Texts = Annotated[list[Text], BeforeValidator(_listed, json_schema_input_type=list[str])]
Integer = Annotated[int, Exactly()]
Number = Annotated[float, Exactly()]
Date = Annotated[dt.date, BeforeValidator(_date, json_schema_input_type=dt.date)]
Prefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{0,100}$")]


class Strict(BaseModel):
    """Unknown keys are errors, values are not coerced in surprising ways, objects do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @classmethod
    def stored(cls, value: Any) -> Self:
        """Read a copy that was valid when it was stored: in a version's bundle, or by a run's first task.

        Such a copy outlives the spec language: a key that it has and that no longer exists is left out, and what was
        added since has its default.
        """
        return cls.model_validate(value, extra="ignore")


# --------------------------------------------------------------------------------------------------------------- feeds


class FilesSource(Strict):
    """Files that an upstream system lands, one per partition."""

    kind: Literal["files", "sql", "derived"] = Field(default="files", description="Where the data comes from.")
    path: Annotated[str, AfterValidator(_landing)] = Field(
        description="Path below the landing area, with {partition} for the key. .csv, .csv.gz or .parquet."
    )
    late_after: Duration = Field(default=dt.timedelta(hours=6), description="How long ingestion waits for a late file.")


class Contract(Strict):
    """What a partition must be before it is committed."""

    expectations: Annotated[str, _beside(".yaml", ".yml")] = Field(
        default="expectations.yaml", description="Great Expectations rules, beside the feed's spec."
    )
    max_quarantined: Number = Field(
        default=0.02, ge=0, le=1, description="Above this share of bad rows the whole partition is refused."
    )


class FeedRetention(Strict):
    """How much of a feed is kept. Counted back from its newest partition, never by the clock."""

    rows: Duration | None = Field(
        default=None,
        description="Older partitions leave the lake; what a registered version was trained on stays. Default: keep.",
    )
    quarantine: Duration = Field(default=NINETY_DAYS, description="How long refused rows and files are kept.")
    reports: Duration = Field(default=NINETY_DAYS, description="How long runs' reports and staged files are kept.")


class FeedSpec(Strict):
    """A source of data that lands in partitions."""

    version: Literal[1] = Field(description="Version of the spec language.")
    name: Name = Field(description="The name of the folder that the spec lies in.")
    owner: Text = Field(description="Who answers for it, such as a team.")
    description: str = Field(default="", description="One sentence for people.")
    every: Every = Field(
        default="day",
        description="Length of a partition. Keys are written 2013-01-01T05, 2013-01-01, 2013-W01, 2013-01 or 2013.",
    )
    timezone: Annotated[str, AfterValidator(_timezone)] = Field(
        default="UTC",
        description="Partitions are local periods of this zone (hours: UTC only); timestamps inside are UTC.",
    )
    start: Date = Field(description="First day. Weeks, months and years count when they lie wholly between the two.")
    end: Date | None = Field(default=None, description="Last day. DAGs schedule nothing after it.")
    delay: Duration = Field(
        default=dt.timedelta(0), description="A partition is complete this long after its period ends."
    )
    known_at: Column | None = Field(
        default=None, description="Column that says when a row became known (bitemporal cut)."
    )
    event_time: Column | None = Field(
        default=None, description="UTC timestamp column; joins inside a partition are cut by it."
    )
    source: FilesSource = Field(description="Where the data comes from.")
    columns: dict[Column, ColumnType] = Field(
        min_length=1, description="Every column and its type. Timestamps are UTC."
    )
    key: Columns = Field(min_length=1, description="Columns that together name one row.")
    contract: Contract = Field(default=Contract(), description="What a partition must be before it is committed.")
    retention: FeedRetention = Field(default=FeedRetention(), description="How much is kept, such as P2Y.")
    tags: Texts = Field(default=[], description="Tags of the DAGs.")
    pool: Text = Field(default="perennial_heavy", description="Airflow pool of the heavy steps.")
    retries: Integer = Field(default=2, ge=0, le=10, description="How often Airflow tries a failed task again.")

    @field_validator("retention", mode="before", json_schema_input_type=FeedRetention | str)
    @classmethod
    def _short_retention(cls, value: Any) -> Any:
        return {"rows": value} if isinstance(value, str) else value


# -------------------------------------------------------------------------------------------------------------- models


class Task(Strict):
    """What is predicted."""

    type: Literal["binary", "multiclass", "regression"] = Field(description="Kind of prediction.")
    positive: Annotated[Any, AfterValidator(_single)] = Field(
        default=1, description="The label value that is the positive class (multiclass: what fairness audits)."
    )
    classes: Annotated[list[Text | Integer], BeforeValidator(_listed)] | None = Field(
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

    path: Annotated[str, _beside(".sql", ".py")] = Field(description="features.sql or features.py, beside the spec.")
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
    window: Annotated[Literal["expanding"] | Duration, _word_or_duration("expanding")] = Field(
        default="expanding", description="All history, or the last so many days (weeks, months), such as P90D."
    )
    holdout: Duration | None = Field(
        default=None,
        description="Default: 14 days (weeks, months), one year; regression 56 of them once 112 are labelled.",
    )
    gap: Annotated[Literal["auto"] | Duration, _word_or_duration("auto")] = Field(
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


class FloorGate(Strict):
    """Absolute minimum for some metrics: a sanity check, not a proof."""

    mode: Mode = Field(default="enabled", description="dry_run: judged and recorded, without effect.")
    minimum: dict[str, Number] = Field(default={}, description="metric: minimum (or maximum, when lower is better)")


class BaselineGate(Strict):
    """Better than a simple rule?"""

    mode: Mode = Field(default="enabled", description="dry_run: judged and recorded, without effect.")
    by: Columns = Field(
        default=[], description="Segments whose training rate (or mean) is the baseline; empty: the overall one."
    )
    min_gain: Number | None = Field(default=None, description="Default 0.")
    confidence: Number = Field(default=0.9, gt=0.5, lt=1, description="One-sided.")


class ChampionGate(Strict):
    """Better than what serves now?"""

    mode: Mode = Field(default="enabled", description="dry_run: judged and recorded, without effect.")
    min_gain: Number | None = Field(default=None, description="Default 0, regression 0.01 (relative).")
    confidence: Number = Field(default=0.9, gt=0.5, lt=1, description="One-sided.")
    block: Text = Field(
        default="partition",
        description="What counts as one independent observation, here and in every other rule. Years: row.",
    )


class Cut(Strict):
    """A column whose values make groups of rows: as they are, in ranges, or under names."""

    bins: list[Number] = Field(
        default=[], description="Ranges of a number: [25, 45] makes under 25, 25 to under 45, and 45 and over."
    )
    groups: dict[Text, list[Any]] = Field(
        default={}, description="Names for values, such as {women: [2], men: [1]}; the rest is called other."
    )


class ProtectedColumn(Cut):
    """A protected attribute: of the features, or only of the entity feed."""

    column: Column = Field(description="A feature, or a column of the entity feed that need not be a feature.")


class SliceGate(Cut):
    """No slice of the rows may be harmed against the champion, or fall below a floor of its own."""

    mode: Mode = Field(default="enabled", description="dry_run: judged and recorded, without effect.")
    by: Column = Field(description="A feature, or a column of the entity feed.")
    minimum: dict[str, Number] = Field(
        default={}, description="metric: minimum (or maximum, when lower is better) in each slice"
    )
    max_harm: Number = Field(default=0.01, ge=0, lt=1, description="A loss of no more than this is let pass.")


FairnessMeasure = Literal["selection_rate", "false_positive_rate", "false_negative_rate"]


def _protected(value: Any) -> Any:
    listed = _listed(value)
    if not isinstance(listed, list):
        return listed
    return [{"column": v} if isinstance(v, str) else v for v in listed]


class FairnessGate(Strict):
    """Each group of a protected column against the rest: differences of decision rates, with corrected bounds."""

    mode: Mode = Field(default="enabled", description="dry_run: judged and recorded, without effect.")
    by: Annotated[
        list[ProtectedColumn],
        BeforeValidator(_protected, json_schema_input_type=list[str | ProtectedColumn]),
    ] = Field(default=[], description="Protected columns: of the features, or only of the entity feed.")
    measures: Annotated[
        list[FairnessMeasure], BeforeValidator(_listed, json_schema_input_type=list[FairnessMeasure])
    ] = Field(
        default=["selection_rate", "false_positive_rate", "false_negative_rate"],
        min_length=1,
        description="Rates of decisions that are compared.",
    )
    limit: Number = Field(default=0.1, gt=0, lt=1, description="Largest difference from the rest that is let pass.")
    confidence: Number = Field(default=0.95, gt=0.5, lt=1, description="One-sided, for all comparisons together.")
    min_count: Integer = Field(
        default=30, ge=30, description="A rate over fewer rows than this is shown, and decides nothing."
    )
    not_applicable: Text | None = Field(
        default=None, description="Why no group of people can be treated unfairly by this model."
    )

    @property
    def stance(self) -> Literal["audited", "not_applicable", "off", "undeclared"]:
        """What the spec has to say of fairness; ``undeclared`` is nothing."""
        if self.not_applicable is not None:
            return "not_applicable"
        if not self.by:
            return "undeclared"
        return "off" if self.mode == "disabled" else "audited"


class Gates(Strict):
    """What a candidate must pass before it becomes a version."""

    floor: FloorGate = Field(default=FloorGate(), description="Absolute minimum; metrics may stand directly below it.")
    baseline: BaselineGate = Field(default=BaselineGate(), description="Better than a simple rule?")
    champion: ChampionGate = Field(default=ChampionGate(), description="Better than what serves now?")
    slices: list[SliceGate] = Field(default=[], description="No harm to parts of the rows, such as [{by: origin}].")
    fairness: FairnessGate = Field(
        default=FairnessGate(), description="Groups of people against the rest, or why there is nothing to audit."
    )

    @field_validator("floor", mode="before", json_schema_input_type=FloorGate | dict[str, float | Mode])
    @classmethod
    def _short_floor(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        minimum = {k: v for k, v in value.items() if k not in ("mode", "minimum")}
        kept = {k: v for k, v in value.items() if k in ("mode", "minimum")}
        if minimum and isinstance(kept.get("minimum", {}), dict):
            kept["minimum"] = {**kept.get("minimum", {}), **minimum}
        return kept


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

    on: Annotated[list[Literal["drift", "performance"]], BeforeValidator(_listed, json_schema_input_type=list[str])] = (
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
