"""A small synthetic model over feeds of any grain: visits to stores, what came of them, and how busy each store was.

A visit's outcome follows from what was sold in its store in the period before, so a model has something to learn, and
a query that looked at a later period would show.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from perennial.specs import FeedSpec
from perennial.specs.loader import SpecSet, load_specs
from perennial.specs.partitions import first_key, keys_between, period, shift

STORES = ("north", "east", "south", "west")

_FEED = """version: 1
name: {name}
owner: shop
every: {every}
timezone: {zone}
start: {start}
delay: {delay}
source: {{path: "{name}/{{partition}}.csv"}}
columns: {{{columns}}}
key: [{key}]
{more}"""

_MODEL = """version: 1
name: returns
owner: shop
task: binary
metric: roc_auc
entity: visits
features: {{path: features.sql{lookback}}}
labels: {{feed: outcomes, column: returned}}
estimator: {{type: sklearn.linear_model.LogisticRegression, params: {{max_iter: 200}}}}
{more}"""

FEATURES = """
WITH before AS (SELECT store, avg(sold) AS sold FROM sales WHERE partition < $partition GROUP BY store)
SELECT v.visit_id, v.at, v.basket, coalesce(b.sold, 0) AS sold_before
FROM visits v LEFT JOIN before b USING (store)
WHERE v.partition = $partition
"""

_COUNTS = "- {type: expect_table_row_count_to_be_between, kwargs: {min_value: 1}}\n"
_VALUES = (
    "- {type: expect_column_values_to_be_in_set, kwargs: {column: store, value_set: [north, east, south, west]}}\n"
)


class GrainWorld:
    """The specs of one grain in a folder, and files for their partitions.

    :param every: grain of all feeds. ``delay``: of the outcomes. ``rows``: visits per partition.
    """

    def __init__(
        self,
        root: Path,
        every: str,
        *,
        start: str = "2013-01-07",
        delay: str = "P1D",
        rows: int = 40,
        zone: str = "America/New_York",
        features: str = FEATURES,
        lookback: str = "",
        more: str = "",
    ) -> None:
        self.root, self.every, self.rows = root / "specs", every, rows
        common = {"every": every, "zone": "UTC" if every == "hour" else zone, "start": start}
        self._feed("visits", "visit_id: string, store: string, basket: float, at: timestamp", "visit_id",
                   more="event_time: at\n", **common)  # fmt: skip
        self._feed("sales", "store: string, sold: float, until: timestamp", "store", more="event_time: until\n",
                   **common)  # fmt: skip
        self._feed("outcomes", "visit_id: string, store: string, returned: integer", "visit_id", delay=delay, **common)
        self.write("models/returns/model.yaml", _MODEL.format(lookback=lookback, more=more))
        self.write("models/returns/features.sql", features)

    def _feed(self, name: str, columns: str, key: str, *, delay: str = "P0D", more: str = "", **said: str) -> None:
        text = _FEED.format(name=name, columns=columns, key=key, delay=delay, more=more, **said)
        self.write(f"feeds/{name}/feed.yaml", text)
        self.write(f"feeds/{name}/expectations.yaml", _COUNTS + _VALUES)

    def write(self, path: str, text: str) -> None:
        """Put a file into the folder of specs."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def load(self) -> SpecSet:
        """The specs, all good."""
        specs = load_specs([self.root])
        assert not specs.errors, specs.errors[0].message
        return specs

    def keys(self, n: int) -> list[str]:
        """The first ``n`` partitions."""
        feed = self.load().feed("visits")
        return keys_between(feed, first_key(feed), shift(feed, first_key(feed), n - 1))

    def table(self, feed: FeedSpec, key: str) -> pa.Table:
        """The rows of a partition; the same whenever they are asked for."""
        begin, end = period(feed, key)
        sold = self._sold(key)
        if feed.name == "sales":
            # as a till reports it: at the end of its period
            last = [end - dt.timedelta(seconds=1)] * len(STORES)
            return pa.table({"store": list(STORES), "sold": sold, "until": pa.array(last, pa.timestamp("us", "UTC"))})
        rng = self._rng(key, 1)
        store = rng.integers(0, len(STORES), self.rows)
        basket = rng.normal(size=self.rows)
        before = self._sold(shift(feed, key, -1))
        chance = 1 / (1 + np.exp(-(1.5 * basket + 1.5 * before[store] - 0.5)))
        returned = (rng.random(self.rows) < chance).astype(int)
        ids = [f"{key}-{i:03d}" for i in range(self.rows)]
        names = [STORES[s] for s in store]
        if feed.name == "outcomes":
            return pa.table({"visit_id": ids, "store": names, "returned": returned})
        at = [begin + (end - begin) * ((i + 0.5) / self.rows) for i in range(self.rows)]
        return pa.table(
            {"visit_id": ids, "store": names, "basket": basket, "at": pa.array(at, pa.timestamp("us", "UTC"))}
        )

    def _rng(self, key: str, salt: int) -> np.random.Generator:
        return np.random.default_rng([salt, *key.encode()])

    def _sold(self, key: str) -> np.ndarray:
        return self._rng(key, 0).normal(size=len(STORES))

    def land(self, landing: Path, keys: list[str]) -> None:
        """The files of all feeds, as upstream systems deliver them."""
        for name, feed in self.load().feeds.items():
            for key in keys:
                file = landing / name / f"{key}.csv"
                file.parent.mkdir(parents=True, exist_ok=True)
                pyarrow.csv.write_csv(self.table(feed, key), file)

    def fill(self, keys: list[str]) -> None:
        """The same rows in the lake, without the ceremony of a contract."""
        from perennial.lake.homes import feed_table

        for feed in self.load().feeds.values():
            feed_table(feed).replace({k: self.table(feed, k) for k in keys})
