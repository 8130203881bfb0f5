"""The main job: flights of 2013 through a model's life, every step a real Airflow run. See ``make demo``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from perennial.errors import UsageError
from perennial.local.audit import audit
from perennial.local.landing import Feed, LandingSimulator
from perennial.local.plot import plot_story
from perennial.local.stack import Stack
from perennial.local.story import Narrator, Story
from perennial.local.summary import collect, save
from perennial.settings import settings

FEEDS: tuple[Feed, ...] = ("flights", "weather", "arrivals")
MODEL, SECOND = "flight_delay", "flight_duration"
CORRUPTED = "2013-05-15"


def demo(project: Path) -> int:
    """Run the story on a fresh state, and write table, plot and ``summary.json`` to ``$PERENNIAL_HOME/demo``."""
    install = float(os.environ.get("PERENNIAL_INSTALL_SECONDS") or 0)
    here = settings()
    tell = Narrator()
    tell.chapter(f"Perennial demo: a year of real flights, state in {here.home}")
    started = 0.0

    def seconds() -> dict[str, float]:
        took = {"install": install, "start": started, "replay": tell.seconds - started, "total": install + tell.seconds}
        return {k: round(v, 1) for k, v in took.items()}

    stack = Stack(here.home, here.port, project=project)
    os.environ.update(stack.environment)  # the core, called from here, looks where the stack does
    try:
        stack.start(tell.line, prepare=lambda: forget(here.home))
        started = tell.seconds
        tell.line(f"Airflow {stack.urls['airflow']} and MLflow {stack.urls['mlflow']} are up")
        story = Story(stack.client, LandingSimulator(here.home / "landing"), tell)
        _play(story)
        tell.chapter("5. What it came to, read back from MLflow, the lake, the ledger and Airflow")
        target = here.home / "demo"
        plot_story(MODEL, target / "story.png")
        summary = collect(stack.client, [MODEL, SECOND], FEEDS, seconds())
        tell.out.write("\n" + save(summary, target) + "\n")
        tell.line(f"table, plot and figures: {target}/table.txt, story.png, summary.json")
        tell.chapter("6. What an auditor asks; and a bundle that somebody changed")
        audit(story, MODEL, here.home, at="2013-06-30", key="2013-08-07")
        sign(here.home)
        tell.chapter("Stopping")
    finally:
        stack.stop()
    took = {k: f"{v:.0f} s" for k, v in summary["seconds"].items()}
    tell.line("done: " + ", ".join(f"{k} {v}" for k, v in took.items()))
    return 0


def _play(story: Story) -> None:
    tell = story.tell

    tell.chapter("1. January and February land as history; the first model")
    story.land(FEEDS, "2013-01-01", "2013-02-28")
    story.history(dict.fromkeys(FEEDS, ("2013-01-01", "2013-02-28")))
    (run,) = story.follow([story.trigger(f"{MODEL}.train", as_of="2013-03-01")])
    tell.line(story.verdict(run))

    tell.chapter("2. March lands and is scored by a backfill; what monitoring says; a decision on April 1")
    story.land(FEEDS, "2013-03-01", "2013-03-31")
    story.history(dict.fromkeys(FEEDS, ("2013-03-01", "2013-03-31")))
    story.backfill(f"{MODEL}.score", "2013-03-01", "2013-03-31")
    (run,) = story.follow([story.trigger(f"{MODEL}.monitor", key="2013-03-31")])
    said = story.branch(run, ["quiet", "alert", "ask"])
    tell.line(f"{MODEL}.monitor: {said}: {story.client.xcom(run['dag_id'], run['dag_run_id'], said)['reason']}")
    if said == "ask":
        run = story.started_by_event(f"{MODEL}.retrain", "2013-03-31")
    else:
        run = story.trigger(f"{MODEL}.train", as_of="2013-04-01")
    (run,) = story.follow([run])
    tell.line(story.verdict(run))

    tell.chapter("3. Somebody trains by hand on a fortnight")
    (run,) = story.follow([story.trigger(f"{MODEL}.train", as_of="2013-04-01", window=14)])
    tell.line(story.verdict(run))

    tell.chapter("4. Spring and summer land, one day of May corrupted; retraining on August 1")
    story.land(("flights", "weather"), "2013-04-01", "2013-08-07")
    story.land(("arrivals",), "2013-04-01", "2013-08-09")
    story.landing.corrupt("flights", CORRUPTED, "missing_column")
    tell.line(f"the file of flights {CORRUPTED} was corrupted on its way: a column is missing")
    story.history(
        {
            "flights": ("2013-04-01", "2013-08-07"),
            "weather": ("2013-04-01", "2013-08-07"),
            "arrivals": ("2013-04-01", "2013-08-09"),
        }
    )
    runs = [
        story.trigger(f"{MODEL}.retrain", as_of="2013-08-01"),
        story.trigger(f"{SECOND}.train", as_of="2013-08-01"),
    ]
    for run in story.follow(runs):
        tell.line(story.verdict(run))
    story.backfill(f"{MODEL}.score", "2013-08-01", "2013-08-07")
    (run,) = story.follow([story.trigger(f"{MODEL}.operate", action="roll_back", reason="demo: show a rollback")])
    moved = story.client.xcom(run["dag_id"], run["dag_run_id"], "roll_back")
    tell.line(f"{MODEL}.operate: rolled back: champion is version {moved['champion']}")
    again = int(moved["previous"])
    run = story.trigger(f"{MODEL}.operate", action="promote", version=again, reason="demo: and back again")
    story.follow([run])
    tell.line(f"{MODEL}.operate: promoted again: champion is version {again}")


def sign(home: Path) -> None:
    """Remember how many decisions the story made, so that later ones are recognised as somebody's own."""
    (home / "story").write_text(_entries(home), encoding="utf-8")


def _entries(home: Path) -> str:
    return str(sum(1 for _ in (home / "ledger").rglob("*.json")))


def forget(home: Path) -> None:
    """Start from nothing: what an earlier demo or replay left is removed; keys stay.

    :raises UsageError: when the folder holds somebody's own work.
    """
    marker = home / "story"
    made_here = marker.exists() and marker.read_text(encoding="utf-8") in ("", _entries(home))
    if any((home / n).exists() for n in ("lake", "ledger")) and not made_here:
        raise UsageError(
            f"{home} holds work that no demo did, and the story needs an empty place: set PERENNIAL_HOME to another "
            "folder, or remove this one"
        )
    marker.write_text("", encoding="utf-8")
    for name in ("airflow", "mlflow", "lake", "state", "ledger", "landing", "demo", "cache", "last-good-specs", "logs"):
        shutil.rmtree(home / name, ignore_errors=True)
