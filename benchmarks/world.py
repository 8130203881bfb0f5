"""A small world of synthetic events with one model, for benchmarks that need a size the demo's data does not have.

18 features (15 numbers, 3 texts), a binary label, 200 trees of up to 31 leaves, seeded. No server: MLflow is a SQLite
file, and the steps of training are called as the DAGs' tasks call them.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

NUMBERS, TEXTS = [f"x{i}" for i in range(15)], [f"c{i}" for i in range(3)]
WORDS = [f"{a}{b}" for a in "abcdefgh" for b in "xyz"]
MODEL, DAYS, ROWS = "clicks", 45, 3000
FEED = """
version: 1
name: {name}
owner: bench
start: 2013-01-01
end: 2013-12-31
source: {{path: "{name}/{{partition}}.parquet"}}
columns: {{{columns}}}
key: [id]
{more}
"""
SPEC = """
version: 1
name: clicks
owner: bench
task: binary
metric: roc_auc
entity: events
features: {path: features.sql, lookback: P1D}
labels: {feed: outcomes, column: y}
estimator:
  type: sklearn.ensemble.HistGradientBoostingClassifier
  params: {max_iter: 200, max_leaf_nodes: 31, early_stopping: false}
gates: {floor: {roc_auc: 0.5}, baseline: {mode: disabled}}
training: {schedule: "0 6 1 * *"}
scoring: {runtime: sklearn}
"""


def enter(home: str) -> None:
    """Let this process live in the world at ``home``."""
    path = Path(home)
    path.mkdir(parents=True, exist_ok=True)
    for name in [n for n in os.environ if n.startswith("PERENNIAL_")]:
        del os.environ[name]
    from perennial.settings import TELEMETRY_OFF

    os.environ.update(TELEMETRY_OFF)
    os.environ.update(
        PERENNIAL_HOME=home, PERENNIAL_SPECS=str(path / "specs"), MLFLOW_TRACKING_URI=f"sqlite:///{path / 'mlflow.db'}"
    )
    os.chdir(path)  # artifacts go to ./mlruns


def write_specs(home: Path, runtime: str) -> None:
    """Two feeds and the model, which scores with ``runtime``."""
    columns = ", ".join(
        ["id: string", "happened: timestamp", *(f"{c}: float" for c in NUMBERS), *(f"{c}: string" for c in TEXTS)]
    )
    features = f"SELECT id, happened, {', '.join(NUMBERS + TEXTS)} FROM events WHERE partition = $partition\n"
    for path, text in {
        "feeds/events/feed.yaml": FEED.format(name="events", columns=columns, more="event_time: happened"),
        "feeds/outcomes/feed.yaml": FEED.format(name="outcomes", columns="id: string, y: integer", more="delay: P1D"),
        "models/clicks/model.yaml": SPEC.replace("sklearn}", runtime + "}"),
        "models/clicks/features.sql": features,
    }.items():
        (home / "specs" / path).parent.mkdir(parents=True, exist_ok=True)
        (home / "specs" / path).write_text(text)


def batch(seed: int, day: dt.date, first: int, rows: int) -> Any:
    """Events of a day as an Arrow table, numbered from ``first``; the label is ``y``."""
    import pyarrow as pa

    rng = np.random.default_rng([seed, first])
    numbers = rng.normal(size=(rows, len(NUMBERS)))
    codes = rng.integers(0, len(WORDS), (rows, len(TEXTS)))
    risk = numbers[:, 0] + numbers[:, 1] * numbers[:, 2] + 0.1 * codes[:, 0] + rng.normal(size=rows)
    noon = dt.datetime(day.year, day.month, day.day, 12, tzinfo=dt.UTC)
    columns: dict[str, Any] = {
        "id": pa.array([f"{day}-{i:010d}" for i in range(first, first + rows)]),
        "happened": pa.repeat(pa.scalar(noon, pa.timestamp("us", "UTC")), rows),
        **{c: pa.array(numbers[:, i]) for i, c in enumerate(NUMBERS)},
        **{c: pa.array(np.array(WORDS, dtype=object)[codes[:, i]], pa.string()) for i, c in enumerate(TEXTS)},
        "y": pa.array((risk > 2).astype(np.int64)),
    }
    return pa.table(columns)


def days(n: int, first: dt.date = dt.date(2013, 1, 1)) -> Iterator[dt.date]:
    """The first days of the year."""
    yield from (first + dt.timedelta(days=i) for i in range(n))


def make(home: str, runtime: str = "sklearn") -> dict[str, str]:
    """Land, train, register and promote, without Airflow; a job for ``harness.fresh``.

    :returns: the arm that scores.
    """
    write_specs(Path(home), runtime)
    enter(home)
    from perennial.lake.homes import feed_table
    from perennial.trust.keys import new_pair

    new_pair(Path(home) / "keys")
    from perennial.ledger import Ledger
    from perennial.registry import versions
    from perennial.runs import Actor
    from perennial.specs.loader import load_specs
    from perennial.training.data import snapshot_rows
    from perennial.training.fit import fit
    from perennial.training.plan import make_plan

    specs = load_specs(only=MODEL)
    spec, feeds = specs.model(MODEL), specs.feeds
    rows = {day.isoformat(): batch(1, day, 0, ROWS) for day in days(DAYS)}
    feed_table(feeds["events"]).replace({k: t.drop_columns(["y"]) for k, t in rows.items()})
    feed_table(feeds["outcomes"]).replace({k: t.select(["id", "y"]) for k, t in rows.items()})
    as_of = dt.datetime(2013, 2, 16, tzinfo=dt.UTC)
    plan = make_plan(spec, feeds, specs.folder_of("model", MODEL), as_of=as_of)
    plan.builder().ensure([*plan.train_keys, *plan.holdout_keys])
    train, holdout = (snapshot_rows(spec, plan.feeds, plan.definition, k) for k in (plan.train_keys, plan.holdout_keys))
    actor = Actor(f"{MODEL}.train", "bench", "fit")
    done = fit(plan, train, holdout, actor)
    version = versions.register(MODEL, done.run_id, done.model_id, {"verdict": "pass"})
    versions.promote(
        MODEL, version.version, expected=None, reason="benchmark", as_of=as_of, actor=actor, ledger=Ledger()
    )
    return {
        "name": "champion",
        "version": version.version,
        "model_id": done.model_id,
        "run_id": done.run_id,
    }


def give_features(home: str, key: str, rows: int, step: int = 100_000) -> None:
    """Put one large partition of events, and its features, into the lake; a job for ``harness.fresh``."""
    enter(home)
    import pyarrow.parquet as pq

    from perennial.features.builder import FeatureBuilder
    from perennial.features.definition import load_definition
    from perennial.lake.content import combined_digest
    from perennial.lake.homes import feed_table
    from perennial.lake.rows import ParquetRows
    from perennial.specs.loader import load_specs

    specs = load_specs(only=MODEL)
    spec, day, path = specs.model(MODEL), dt.date.fromisoformat(key), Path(home) / "large.parquet"
    writer = None
    for first in range(0, rows, step):
        part = batch(2, day, first, min(step, rows - first)).drop_columns(["y"])
        writer = writer or pq.ParquetWriter(path, part.schema)
        writer.write_table(part)
    assert writer is not None
    writer.close()
    feed_table(specs.feed("events")).replace({key: ParquetRows(path)})
    definition = load_definition(spec, specs.folder_of("model", MODEL), specs.feeds)
    builder = FeatureBuilder(MODEL, definition, specs.feeds)
    label = combined_digest(list(builder.inputs(key).items()))
    builder.table.replace({key: ParquetRows(path)}, labels={key: {"inputs": label}})
