"""Features over hourly, weekly and monthly feeds: what `$partition` is, what is visible, and that nothing leaks."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from grain_world import GrainWorld
from perennial.errors import DataError, SpecError
from perennial.features.builder import FeatureBuilder
from perennial.features.definition import load_definition
from perennial.lake.homes import feed_table
from perennial.specs.partitions import parse_key

pytestmark = pytest.mark.fast

EVERY = ["hour", "day", "week", "month"]
SPY = """
SELECT v.visit_id, v.at, typeof($partition) AS kind, typeof(v.partition) AS column_kind,
    (SELECT strftime(max(partition), '%Y-%m-%d %H') FROM outcomes) AS newest,
    (SELECT strftime(min(partition), '%Y-%m-%d %H') FROM outcomes) AS oldest,
    (SELECT count(DISTINCT partition) FROM outcomes) AS outcomes,
    (SELECT strftime(max(partition), '%Y-%m-%d %H') FROM visits) AS own
FROM visits v WHERE v.partition = $partition
"""


def builder(world: GrainWorld, name: str = "returns") -> FeatureBuilder:
    specs = world.load()
    model = specs.model("returns")
    return FeatureBuilder(name, load_definition(model, specs.folder_of("model", "returns"), specs.feeds), specs.feeds)


def built(world: GrainWorld, key: str, name: str = "returns") -> pa.Table:
    found = builder(world, name)
    found.ensure([key])
    rows = found.table.read([key])
    assert rows is not None
    return rows.drop_columns(["inputs", "digest"]).sort_by("visit_id")


@pytest.mark.parametrize(
    ("every", "delay", "behind"),
    [
        ("hour", "PT0S", 0),
        ("hour", "PT1H", 1),
        ("hour", "PT90M", 2),
        ("hour", "P1D", 24),
        ("day", "P1D", 1),
        ("week", "P0D", 0),
        ("week", "P1D", 1),
        ("week", "P8D", 2),
        ("month", "P1D", 1),
        ("month", "P35D", 2),
    ],
)
def test_a_query_sees_what_had_landed_by_the_end_of_its_partition(
    home: Path, tmp_path: Path, every: str, delay: str, behind: int
) -> None:
    """Later partitions are there, and the query is shown none of them."""
    world = GrainWorld(tmp_path, every, delay=delay, rows=3, features=SPY, zone="America/New_York")
    keys = world.keys(40)
    world.fill(keys)
    row: dict[str, Any] = built(world, keys[30]).to_pylist()[0]
    feed = world.load().feed("outcomes")

    def shown(key: str) -> str:
        return f"{dt.datetime.fromisoformat(str(parse_key(feed, key))):%Y-%m-%d %H}"

    assert row["newest"] == shown(keys[30 - behind])
    assert row["own"] == shown(keys[30])
    kind = "TIMESTAMP" if every == "hour" else "DATE"
    assert (row["kind"], row["column_kind"]) == (kind, kind)


@pytest.mark.parametrize(
    ("every", "lookback", "periods"),
    [("hour", "P1D", 24), ("day", "P5D", 5), ("week", "P5W", 5), ("month", "P5M", 5), ("month", "P1Y", 12)],
)
def test_lookback_counts_partitions(home: Path, tmp_path: Path, every: str, lookback: str, periods: int) -> None:
    world = GrainWorld(tmp_path, every, delay="P0D", rows=2, features=SPY, lookback=f", lookback: {lookback}")
    keys = world.keys(40)
    world.fill(keys)
    assert built(world, keys[35]).column("outcomes")[0].as_py() == periods + 1, "and the partition itself"
    assert built(world, keys[2]).column("outcomes")[0].as_py() == 3, "nothing before the feed"


@pytest.mark.parametrize("every", EVERY)
def test_what_lands_later_changes_nothing(home: Path, tmp_path: Path, every: str) -> None:
    world = GrainWorld(tmp_path, every, rows=5)
    keys = world.keys(8)
    world.fill(keys[:6])
    before = built(world, keys[5])
    assert len(set(before.column("sold_before").to_pylist())) > 1, "and the feature is none of nothing"
    world.fill(keys)
    found = builder(world)
    assert found.ensure([keys[5]]).built == (), "no input of it has changed"
    assert built(world, keys[5], "again").equals(before)


@pytest.mark.parametrize("every", EVERY)
def test_a_correction_inside_the_lookback_rebuilds(home: Path, tmp_path: Path, every: str) -> None:
    world = GrainWorld(tmp_path, every, rows=5)
    keys = world.keys(6)
    world.fill(keys)
    found = builder(world)
    found.ensure(keys)
    sales = world.load().feed("sales")
    rows = world.table(sales, keys[3])
    feed_table(sales).replace({keys[3]: rows.set_column(1, "sold", pa.array([9.0] * 4))})
    assert found.ensure(keys).built == tuple(keys[3:]), "its own partition's inputs, and those after it"


@pytest.mark.parametrize("every", EVERY)
def test_looking_into_the_own_partition_s_future_is_found_out(home: Path, tmp_path: Path, every: str) -> None:
    most = "(SELECT max(basket) FROM visits) AS most"
    leak = f"SELECT v.visit_id, v.at, {most} FROM visits v WHERE partition = $partition"
    world = GrainWorld(tmp_path, every, rows=9, features=leak)
    keys = world.keys(2)
    world.fill(keys)
    with pytest.raises(DataError, match=rf"sees the future: in partition {keys[0]}, most of"):
        builder(world).ensure(keys)


@pytest.mark.parametrize("every", EVERY)
def test_python_features_get_the_same_partitions(home: Path, tmp_path: Path, every: str) -> None:
    source = """
FEEDS = ["visits", "sales"]

def features(feeds, partition):
    rows = feeds["visits"][feeds["visits"]["partition"] == partition]
    return rows[["visit_id", "at", "basket"]].assign(sold=float(len(feeds["sales"])))
"""
    world = GrainWorld(tmp_path, every, rows=3)
    world.write("models/returns/features.py", source)
    spec = world.root / "models/returns/model.yaml"
    spec.write_text(spec.read_text().replace("features.sql", "features.py"))
    keys = world.keys(6)
    world.fill(keys)
    rows = builder(world)._compute([keys[3]], audit=False)[keys[3]]
    assert set(rows.column("sold").to_pylist()) == {16.0}, "four stores in each of four partitions"


def test_feeds_of_another_grain_are_refused(home: Path, tmp_path: Path) -> None:
    world = GrainWorld(tmp_path, "week")
    specs = world.load()
    feeds = specs.feeds | {"sales": specs.feeds["sales"].model_copy(update={"every": "day"})}
    definition = load_definition(specs.model("returns"), specs.folder_of("model", "returns"), feeds)
    with pytest.raises(SpecError, match="has partitions of a day, and 'visits' of a week: feeds of one model share"):
        FeatureBuilder("returns", definition, feeds)
