"""Specs that are written into a temporary folder, for the tests of everything that reads specs."""

from __future__ import annotations

from pathlib import Path

FLIGHTS = """version: 1
name: flights
owner: flight-ops
timezone: America/New_York
start: 2013-01-01
end: 2013-12-31
source: {path: "flights/{partition}.csv"}
columns:
  flight_id: string
  carrier: string
  hour: integer
  sched_dep: timestamp
event_time: sched_dep
key: [flight_id]
"""
ARRIVALS = """version: 1
name: arrivals
owner: flight-ops
timezone: America/New_York
start: 2013-01-01
end: 2013-12-31
delay: P1D
source: {path: "arrivals/{partition}.parquet"}
columns:
  flight_id: string
  late: integer
  arr_delay: float
key: [flight_id]
"""
MODEL = """version: 1
name: flight_delay
owner: flight-ops
task: binary
metric: roc_auc
entity: flights
features: features.sql
labels: {feed: arrivals, column: late}
estimator: {type: sklearn.ensemble.HistGradientBoostingClassifier, params: {max_iter: 100}}
training: {schedule: "0 6 1 * *"}
"""


class Folder:
    """A folder of specs."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str | bytes) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def feed(self, text: str = FLIGHTS, **changes: str) -> Path:
        return self.write(f"feeds/{_name(text)}/feed.yaml", _changed(text, changes))

    def model(self, text: str = MODEL, **changes: str) -> Path:
        return self.write(f"models/{_name(text)}/model.yaml", _changed(text, changes))


def _name(text: str) -> str:
    return next(line.split(": ")[1] for line in text.splitlines() if line.startswith("name: "))


def _changed(text: str, changes: dict[str, str]) -> str:
    """Replace (or add) whole top-level lines: ``key="value"``."""
    lines = text.splitlines()
    for key, value in changes.items():
        at = [i for i, line in enumerate(lines) if line.startswith(f"{key}:")]
        line = f"{key}: {value}"
        if at:
            lines[at[0]] = line
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"
