"""What a feed may say."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from perennial.specs.durations import Duration
from perennial.specs.grains import Every
from perennial.specs.values import (
    NINETY_DAYS,
    Column,
    Columns,
    Date,
    Integer,
    Name,
    Number,
    Strict,
    Text,
    Texts,
    beside,
)

ColumnType = Literal["string", "integer", "float", "boolean", "timestamp", "date"]
RESERVED_COLUMNS = frozenset({"partition", "digest", "inputs"})  # the lake adds these itself


def _landing(value: str) -> str:
    if value.count("{partition}") != 1 or re.search(r"[{}]", value.replace("{partition}", "")):
        raise ValueError(f'{value!r} must hold {{partition}} exactly once, as in "arrivals/{{partition}}.parquet"')
    if value.startswith("/") or "://" in value or ".." in PurePosixPath(value).parts:
        raise ValueError(f"{value!r} must lie below the landing area: no scheme, no leading /, no ..")
    if not value.endswith((".csv", ".csv.gz", ".parquet")):
        raise ValueError(f"{value!r} must end with .csv, .csv.gz or .parquet")
    return value


def _timezone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{value!r} is not a time zone: write a name such as UTC or America/New_York") from None
    return value


class FilesSource(Strict):
    """Files that an upstream system lands, one per partition."""

    kind: Literal["files", "sql", "derived"] = Field(default="files", description="Where the data comes from.")
    path: Annotated[str, AfterValidator(_landing)] = Field(
        description="Path below the landing area, with {partition} for the key. .csv, .csv.gz or .parquet."
    )
    late_after: Duration = Field(default=dt.timedelta(hours=6), description="How long ingestion waits for a late file.")


class Contract(Strict):
    """What a partition must be before it is committed."""

    expectations: Annotated[str, beside(".yaml", ".yml")] = Field(
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
