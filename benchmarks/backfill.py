"""A backfill of 60 daily partitions of ``score`` on two cores, with the model's monitoring off and on."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.harness import Result, result
from benchmarks.live import stack

from perennial.local.landing import Feed, LandingSimulator
from perennial.local.story import Narrator, Story

FEEDS: tuple[Feed, ...] = ("flights", "weather", "arrivals")
MODEL = "flight_delay"


def run(folder: Path, *, quick: bool) -> list[Result]:
    """A model trained on January and February; the days after that are scored by Airflow's backfill."""
    spans = [("2013-03-01", "2013-03-05"), ("2013-03-06", "2013-03-10")] if quick else [
        ("2013-03-01", "2013-04-29"), ("2013-04-30", "2013-06-28")
    ]  # fmt: skip
    with stack(folder / "home") as live:
        story = Story(live.client, LandingSimulator(folder / "home" / "landing"), Narrator(), patience=3600)
        story.land(FEEDS, "2013-01-01", spans[-1][1])
        story.history(dict.fromkeys(FEEDS, ("2013-01-01", spans[-1][1])))
        story.follow([story.trigger(f"{MODEL}.train", as_of="2013-03-01")])
        live.client.request("PATCH", f"dags/{MODEL}.monitor", json={"is_paused": True})
        off = _per_minute(story, *spans[0])
        live.client.request("PATCH", f"dags/{MODEL}.monitor", json={"is_paused": False})
        on = _per_minute(story, *spans[1])
    goal = 365 / 12
    return [
        result("backfilled partitions a minute, monitoring off", [off], unit="/min", at_least=round(goal, 1),
               note="Four tasks per partition: inputs, score, check, publish; features are built on the way."),
        result("what 365 partitions would take, monitoring off", [365 / off], unit="min", at_most=12),
        result("backfilled partitions a minute, monitoring on", [on], unit="/min",
               note="A run of monitor per partition besides, which sees that a backfill published and skips."),
    ]  # fmt: skip


def _per_minute(story: Story, first: str, last: str) -> float:
    began = time.monotonic()
    runs = story.backfill(f"{MODEL}.score", first, last)
    return 60 * len(runs) / (time.monotonic() - began)
