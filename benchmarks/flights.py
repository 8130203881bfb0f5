"""The demo's flights in a lake of their own, without a server: for benchmarks of features and of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import world
from benchmarks.harness import PROJECT

MODEL, FIRST = "flight_delay", "2013-01-01"


def enter(home: str) -> Any:
    """Let this process live at ``home`` with the specs that ship; returns them."""
    world.enter(home)
    import os

    os.environ["PERENNIAL_SPECS"] = str(PROJECT / "include")
    from perennial.specs.loader import load_specs

    return load_specs(only=MODEL)


def land(home: str, last: str) -> int:
    """Put the feeds of ``FIRST`` to ``last`` into the lake; a job for ``harness.fresh``. Returns the flights."""
    specs = enter(home)
    from perennial.lake.homes import feed_table
    from perennial.lake.landing import read_landed
    from perennial.local.landing import LandingSimulator
    from perennial.specs.partitions import keys_between

    simulator, flights = LandingSimulator(Path(home) / "landing"), 0
    for name in ("flights", "weather", "arrivals"):
        feed, folder = specs.feed(name), specs.folder_of("feed", name)
        simulator.land(name, FIRST, last)
        rows = {k: read_landed(feed, folder, k).table for k in keys_between(feed, FIRST, last)}
        feed_table(feed).replace(rows)
        flights = flights or sum(t.num_rows for t in rows.values())
    return flights
