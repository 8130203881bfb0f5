"""When maintenance is due: after so many commits to a feed's table. So it follows ingestion, and idle stays idle."""

from __future__ import annotations

from perennial.housekeeping.places import Place
from perennial.settings import settings
from perennial.specs import FeedSpec
from perennial.storage import open_store, to_json

#: Commits after which maintenance is asked for: a week of hours, a quarter of days, a year of longer periods.
COMMITS = {"hour": 168, "day": 90, "week": 52, "month": 12, "year": 10}


def claim(feed: FeedSpec, by: str) -> str | None:
    """Whether the caller is the one who asks for maintenance now: once per so many commits of the feed.

    :param by: who asks, such as a run's id; the same one is told the same again.
    :returns: the key of the run to ask for, such as ``flights-3``; ``None``: nobody is to be asked.
    """
    turn = (Place(f"feeds/{feed.name}").table.version or 0) // COMMITS[feed.every]
    if turn == 0:
        return None
    state, key, mine = open_store(settings().state), f"maintenance/{feed.name}/{turn:08d}.json", to_json({"by": by})
    if state.put_if_absent(key, mine) or state.get(key) == mine:
        return f"{feed.name}-{turn}"
    return None
