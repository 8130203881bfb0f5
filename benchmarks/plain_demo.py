"""What the demo does, as one plain script: no scheduler, no history of decisions, no retries, nothing atomic.

``python -m benchmarks.plain_demo LANDING WORK`` reads the files that a demo landed. It validates with Great
Expectations, builds features with DuckDB, trains with scikit-learn, tracks and registers in MLflow, compares on a
holdout by day, scores, and looks for drift with Evidently: what a careful user would write for this job alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

import duckdb
import great_expectations as gx
import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import yaml
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import mean_absolute_error, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

PROJECT = Path(__file__).resolve().parent.parent
DELAY = ["carrier", "origin", "dest", "distance", "hour", "minute", "arrival_hour", "weekday", "temp", "dewp", "humid",
         "wind_dir", "wind_speed", "precip", "pressure", "visib", "carrier_late_rate", "route_late_rate",
         "origin_late_rate"]  # fmt: skip
DURATION = ["carrier", "origin", "dest", "distance", "hour", "weekday", "temp", "wind_dir", "wind_speed", "pressure",
            "route_typical", "route_shortest"]  # fmt: skip
TEXT = ["carrier", "origin", "dest"]

#: Recent outcomes are those of the fourteen days before, whose arrivals are known at the end of the flight's day.
FEATURES = """
WITH ended AS (SELECT f.day, f.carrier, f.origin, f.dest, a.late, a.air_time FROM arrivals a JOIN flights f USING (flight_id)),
days AS (SELECT DISTINCT day FROM flights),
recent AS (SELECT d.day AS d, e.* FROM days d JOIN ended e ON e.day BETWEEN d.day - 14 AND d.day - 1),
by_carrier AS (SELECT d, carrier, avg(late) r FROM recent WHERE late IS NOT NULL GROUP BY ALL HAVING count(*) >= 20),
by_late_route AS (SELECT d, origin, dest, avg(late) r FROM recent WHERE late IS NOT NULL GROUP BY ALL HAVING count(*) >= 20),
by_origin AS (SELECT d, origin, avg(late) r FROM recent WHERE late IS NOT NULL GROUP BY ALL),
by_route AS (SELECT d, origin, dest, median(air_time) typical, min(air_time) shortest FROM recent WHERE air_time IS NOT NULL GROUP BY ALL)
SELECT f.flight_id, f.day, f.carrier, f.origin, f.dest, f.distance, f.hour, f.minute, f.sched_arr_hhmm // 100 AS arrival_hour,
  isodow(f.day) AS weekday, w.temp, w.dewp, w.humid, w.wind_dir, w.wind_speed, w.precip, w.pressure, w.visib,
  c.r AS carrier_late_rate, l.r AS route_late_rate, o.r AS origin_late_rate, t.typical AS route_typical,
  t.shortest AS route_shortest, a.late, a.air_time
FROM flights f
LEFT JOIN weather w ON w.origin = f.origin AND w.time_hour = date_trunc('hour', f.sched_dep)
LEFT JOIN by_carrier c ON (c.d, c.carrier) = (f.day, f.carrier)
LEFT JOIN by_late_route l ON (l.d, l.origin, l.dest) = (f.day, f.origin, f.dest)
LEFT JOIN by_origin o ON (o.d, o.origin) = (f.day, f.origin)
LEFT JOIN by_route t ON (t.d, t.origin, t.dest) = (f.day, f.origin, f.dest)
LEFT JOIN arrivals a USING (flight_id)
"""  # noqa: E501


def read(landing: Path, feed: str) -> pd.DataFrame:
    """All days of a feed that have their columns."""
    frames = []
    for path in sorted((landing / feed).iterdir()):
        frame = pd.read_csv(path) if path.suffix == ".csv" else pq.read_table(path).to_pandas()
        if feed == "flights" and "distance" not in frame:
            print(f"left out {path.name}: a column is missing")
            continue
        frames.append(frame.assign(day=pd.Timestamp(path.stem)))
    return pd.concat(frames, ignore_index=True)


def validate(feed: str, frame: pd.DataFrame) -> None:
    """Great Expectations, day by day as the data came."""
    rules = yaml.safe_load((PROJECT / "include" / "feeds" / feed / "expectations.yaml").read_text())
    context = gx.get_context(mode="ephemeral")
    batch = context.data_sources.add_pandas(feed).add_dataframe_asset(feed).add_batch_definition_whole_dataframe(feed)
    suite = gx.ExpectationSuite(
        name=feed,
        expectations=[
            ExpectationConfiguration(
                type=r["type"], kwargs=r["kwargs"], severity=r.get("severity", "critical")
            ).to_domain_obj()
            for r in rules
        ],
    )
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=feed, data=batch, suite=context.suites.add(suite))
    )
    bad = 0
    for _, day in frame.groupby("day"):
        bad += not definition.run(batch_parameters={"dataframe": day}).success
    print(f"{feed}: {bad} days with remarks")


def model(kind: str) -> Any:
    """The shipped models' estimators."""
    encode = make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), TEXT), remainder="passthrough"
    )
    if kind == "delay":
        return make_pipeline(encode, HistGradientBoostingClassifier(
            max_iter=100, learning_rate=0.05, max_leaf_nodes=15, min_samples_leaf=200, l2_regularization=10,
            random_state=7))  # fmt: skip
    return make_pipeline(encode, HistGradientBoostingRegressor(
        max_iter=150, learning_rate=0.08, min_samples_leaf=50, loss="absolute_error", random_state=7))  # fmt: skip


def train(rows: pd.DataFrame, kind: str, as_of: str, holdout_days: int, window: int | None, champion: Any) -> Any:
    """Fit before the holdout, judge on it by day, log, and register what wins."""
    columns, label = (DELAY, "late") if kind == "delay" else (DURATION, "air_time")
    last = pd.Timestamp(as_of) - pd.Timedelta(days=2)  # labels come a day late
    first = last - pd.Timedelta(days=holdout_days - 1)
    known = rows[rows[label].notna() & (rows["day"] <= last)]
    begin = known["day"].min() if window is None else first - pd.Timedelta(days=window + 1)
    fit = known[(known["day"] < first - pd.Timedelta(days=1)) & (known["day"] >= begin)]
    judged = known[known["day"] >= first]
    found = model(kind).fit(fit[columns], fit[label])

    def scores(m: Any) -> Any:
        return m.predict_proba(judged[columns])[:, 1] if kind == "delay" else m.predict(judged[columns])

    measure = roc_auc_score if kind == "delay" else (lambda y, s: -mean_absolute_error(y, s))
    mine = scores(found)
    value = measure(judged[label], mine)
    better = True
    if champion is not None:
        theirs = scores(champion)
        gains = []
        for day in judged["day"].unique():
            keep = (judged["day"] != day).to_numpy()
            gains.append(measure(judged[label][keep], mine[keep]) - measure(judged[label][keep], theirs[keep]))
        n = len(gains)
        se = np.sqrt((n - 1) / n * ((np.array(gains) - np.mean(gains)) ** 2).sum())
        better = value - measure(judged[label], theirs) - 1.35 * se > 0
    with mlflow.start_run(run_name=f"{kind} {as_of}"):
        mlflow.log_params({"as_of": as_of, "window": window or "all", "rows": len(fit)})
        mlflow.log_metric("holdout", value)
        signature = mlflow.models.infer_signature(fit[columns].head(100), mine[:100])
        mlflow.sklearn.log_model(found, name="model", signature=signature, serialization_format="cloudpickle",
                                 pip_requirements=["scikit-learn"],
                                 registered_model_name=kind if better else None)  # fmt: skip
    print(f"{kind} as of {as_of}: {value:.3f}, {'promoted' if better else 'rejected'}")
    return found if better else champion


def drift(rows: pd.DataFrame, reference: pd.DataFrame, work: Path) -> None:
    """Three weeks of March against the training window; a page of the last."""
    definition = DataDefinition(numerical_columns=[c for c in DELAY if c not in TEXT], categorical_columns=TEXT)
    base = Dataset.from_pandas(reference[DELAY], data_definition=definition)
    for week in ("2013-03-11", "2013-03-18", "2013-03-25"):
        begin = pd.Timestamp(week)
        current = rows[(rows["day"] >= begin) & (rows["day"] < begin + pd.Timedelta(days=7))]
        done = Report([DataDriftPreset()]).run(Dataset.from_pandas(current[DELAY], data_definition=definition), base)
    done.save_html(str(work / "drift.html"))


def main() -> None:
    """The demo's story, in its order."""
    landing, work = Path(sys.argv[1]), Path(sys.argv[2])
    os.chdir(work)
    mlflow.set_tracking_uri(f"sqlite:///{work / 'mlflow.db'}")
    mlflow.set_experiment("plain")
    feeds = {f: read(landing, f) for f in ("flights", "weather", "arrivals")}
    for feed, frame in feeds.items():
        validate(feed, frame)
    con = duckdb.connect(config={"threads": 1})
    con.execute("SET TimeZone = 'UTC'")
    feeds["flights"]["sched_dep"] = pd.to_datetime(feeds["flights"]["sched_dep"], utc=True)
    for feed, frame in feeds.items():
        frame.to_parquet(work / f"{feed}.parquet", index=False)
        con.execute(f"CREATE TABLE {feed} AS SELECT * REPLACE (day::DATE AS day) FROM '{work}/{feed}.parquet'")
    rows = con.execute(FEATURES).to_arrow_table().to_pandas()
    rows["day"] = pd.to_datetime(rows["day"])
    rows.to_parquet(work / "features.parquet", index=False)

    def publish(champion: Any, first: str, last: str) -> None:
        for day in pd.date_range(first, last):
            these = rows[rows["day"] == day]
            score = champion.predict_proba(these[DELAY])[:, 1]
            these[["flight_id"]].assign(score=score).to_parquet(work / f"scores-{day:%Y-%m-%d}.parquet")

    champion = train(rows, "delay", "2013-03-01", 14, None, None)
    publish(champion, "2013-03-01", "2013-03-31")
    drift(rows, rows[rows["day"] < "2013-02-13"], work)
    champion = train(rows, "delay", "2013-04-01", 14, None, champion)
    train(rows, "delay", "2013-04-01", 14, 14, champion)
    champion = train(rows, "delay", "2013-08-01", 14, None, champion)
    train(rows, "duration", "2013-08-01", 56, None, None)
    publish(champion, "2013-08-01", "2013-08-07")


if __name__ == "__main__":
    main()
