"""A small world with a story: two feeds, one model, and a relation that turns round half way, so that there is
something to monitor, to retrain and to promote. Days of it are made in milliseconds, always the same.
"""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FIRST_DAY = dt.date(2024, 1, 1)  # a Monday
TURN = dt.date(2024, 2, 19)
ROWS = 90
#: One day on which a few rows cannot be true, and one that is delivered without a column.
BAD_ROWS, REFUSED = dt.date(2024, 1, 10), dt.date(2024, 1, 3)

MODEL = "buys"
FEEDS = ("visits", "outcomes")

_FILES = {
    "feeds/visits/feed.yaml": """
version: 1
name: visits
owner: tests
start: 2024-01-01
end: 2024-06-30
source: {path: "visits/{partition}.parquet"}
columns: {id: string, at: timestamp, x1: float, x2: float}
event_time: at
key: [id]
contract: {max_quarantined: 0.1}
retries: 3
""",
    "feeds/visits/expectations.yaml": """
- {type: expect_table_row_count_to_be_between, kwargs: {min_value: 10}}
- {type: expect_column_values_to_be_between, kwargs: {column: x1, min_value: -10, max_value: 10}}
""",
    "feeds/outcomes/feed.yaml": """
version: 1
name: outcomes
owner: tests
start: 2024-01-01
end: 2024-06-30
delay: P1D
source: {path: "outcomes/{partition}.parquet"}
columns: {id: string, bought: integer}
key: [id]
retries: 3
""",
    "feeds/outcomes/expectations.yaml": """
- {type: expect_table_row_count_to_be_between, kwargs: {min_value: 10}}
- {type: expect_column_values_to_be_in_set, kwargs: {column: bought, value_set: [0, 1]}}
""",
    "models/buys/model.yaml": """
version: 1
name: buys
owner: tests
description: Does a visit end with a purchase?
task: binary
metric: roc_auc
entity: visits
features: {path: features.sql, lookback: P2D}
labels: {feed: outcomes, column: bought}
estimator: {type: sklearn.linear_model.LogisticRegression}
training: {window: P28D}
gates:
  floor: {roc_auc: 0.6}
  fairness: {not_applicable: Visits that nobody made.}
monitoring:
  rule: {k: 1, n: 1}
retraining: {min_new_labels: 100}
retries: 3
""",
    "models/buys/features.sql": """
SELECT v.id, v.at, v.x1, v.x2, v.x1 * v.x2 AS both
FROM visits v
WHERE v.partition = $partition
""",
    "models/buys/README.md": "# buys\n",
}


def write_specs(folder: Path) -> Path:
    """The world's specs, in a folder for ``PERENNIAL_SPECS``."""
    for path, text in _FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text.lstrip(), "utf-8")
    return folder


def land(landing: Path, feed: str, first: dt.date, last: dt.date) -> None:
    """Deliver days of a feed, whole or not at all."""
    for n in range((last - first).days + 1):
        day = first + dt.timedelta(days=n)
        target = landing / feed / f"{day}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        outside = landing.parent / "upstream" / f"{feed}-{day}.parquet"
        outside.parent.mkdir(exist_ok=True)
        pq.write_table(_day(feed, day), outside)
        shutil.move(outside, target)


def _day(feed: str, day: dt.date) -> pa.Table:
    rng = np.random.default_rng(day.toordinal())
    x1, x2 = rng.normal(size=ROWS), rng.normal(size=ROWS)
    slope = 1.6 if day < TURN else -1.6
    bought = rng.random(ROWS) < 1 / (1 + np.exp(-slope * x1 - 0.4 * x2))
    ids = [f"{day}-{i:03d}" for i in range(ROWS)]
    if feed == "outcomes":
        return pa.table({"id": ids, "bought": pa.array(bought.astype("int64"))})
    midnight = dt.datetime.combine(day, dt.time(), dt.UTC)
    at = pa.array([midnight + dt.timedelta(minutes=10 * i) for i in range(ROWS)], pa.timestamp("us", "UTC"))
    if day == BAD_ROWS:
        x1[:4] = 99.0
    table = pa.table({"id": ids, "at": at, "x1": x1, "x2": x2})
    return table.drop_columns(["x1"]) if day == REFUSED else table
