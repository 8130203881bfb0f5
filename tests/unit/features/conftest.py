"""A lake with the first weeks of the real flights, copied for every test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from features_world import World

from perennial.lake.homes import feed_table
from perennial.lake.landing import read_landed
from perennial.local.landing import FEEDS, LandingSimulator
from perennial.specs import load_specs
from perennial.specs.partitions import keys_between

PROJECT = Path(__file__).resolve().parents[3]
SPANS = [("2013-01-01", "2013-01-20"), ("2013-03-07", "2013-03-11")]


@pytest.fixture(scope="session")
def _flights_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written once; every test gets a copy."""
    folder = tmp_path_factory.mktemp("flights")
    with pytest.MonkeyPatch.context() as m:
        m.setenv("PERENNIAL_HOME", str(folder))
        specs = load_specs([PROJECT / "include"])
        simulator = LandingSimulator(folder / "landing")
        for name in FEEDS:
            feed, where = specs.feed(name), specs.folder_of("feed", name)
            tables = {}
            for first, last in SPANS:
                simulator.land(name, first, last)
                tables |= {k: read_landed(feed, where, k).table for k in keys_between(feed, first, last)}
            feed_table(feed).replace(tables)
    return folder / "lake"


@pytest.fixture
def world(home: Path, _flights_lake: Path) -> World:
    shutil.copytree(_flights_lake, home / "lake")
    return World(load_specs())
