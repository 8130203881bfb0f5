"""The whole year 2013, month by month: every day is ingested and scored, and every month ends with a decision."""

from __future__ import annotations

import calendar
import datetime as dt
import os
from pathlib import Path

from perennial.local.demo import FEEDS, MODEL, forget, sign
from perennial.local.landing import LandingSimulator
from perennial.local.plot import plot_months, plot_story
from perennial.local.stack import Stack
from perennial.local.story import Narrator, Story
from perennial.local.summary import collect, save
from perennial.settings import settings


def replay(project: Path) -> int:
    """Play the year on a fresh state; table, plots and ``summary.json`` go to ``$PERENNIAL_HOME/replay``."""
    here = settings()
    tell = Narrator()
    tell.chapter(f"Perennial replay: all of 2013, state in {here.home}")
    stack = Stack(here.home, here.port, project=project)
    os.environ.update(stack.environment)
    try:
        stack.start(tell.line, prepare=lambda: forget(here.home))
        started = tell.seconds
        story = Story(stack.client, LandingSimulator(here.home / "landing"), tell)
        for month in range(1, 13):
            _month(story, month)
        tell.chapter("What it came to")
        seconds = {"install": 0.0, "start": round(started, 1), "replay": round(tell.seconds - started, 1)}
        summary = collect(stack.client, [MODEL], FEEDS, seconds | {"total": round(tell.seconds, 1)})
        target = here.home / "replay"
        summary["by_month"] = plot_months(MODEL, target / "months.png")
        plot_story(MODEL, target / "story.png")
        tell.out.write("\n" + save(summary, target) + "\n")
        tell.line(f"table, plots and figures: {target}")
        sign(here.home)
        tell.chapter("Stopping")
    finally:
        stack.stop()
    return 0


def _month(story: Story, month: int) -> None:
    """Land and ingest a month; from March on score its days; then decide as of the first of the next month."""
    tell = story.tell
    days = calendar.monthrange(2013, month)[1]
    first, last = f"2013-{month:02d}-01", f"2013-{month:02d}-{days:02d}"
    tell.chapter(f"{calendar.month_name[month]} 2013")
    story.land(FEEDS, first, last)
    story.history(dict.fromkeys(FEEDS, (first, last)))
    if month >= 3:
        scored = last
        if month == 12:
            # The weather of Dec 30 is partial and passes or is refused by its rules; that of Dec 31 never came.
            scored = "2013-12-29"
            for key in ("2013-12-30", "2013-12-31"):
                run = story.settle(story.trigger(f"{MODEL}.score", key=key), give_up_when_deferred=True)
                tell.line(f"{MODEL}.score {key}: {run['state']}: {story.note(run)}")
        story.backfill(f"{MODEL}.score", first, scored)
        (run,) = story.follow([story.trigger(f"{MODEL}.monitor", key=scored)])
        said = story.branch(run, ["quiet", "alert", "ask"])
        tell.line(
            f"{MODEL}.monitor {scored}: {said}: {story.client.xcom(run['dag_id'], run['dag_run_id'], said)['reason']}"
        )
        if said == "ask":
            story.follow([story.started_by_event(f"{MODEL}.retrain", scored)])
            tell.line(story.verdict(story.started_by_event(f"{MODEL}.retrain", scored)))
            return
    if month >= 2:
        as_of = (dt.date(2013, month, days) + dt.timedelta(days=1)).isoformat()
        (run,) = story.follow([story.trigger(f"{MODEL}.train", as_of=as_of)])
        tell.line(story.verdict(run))
