"""From windows to a question: k of the last n disjoint, complete windows (after Databricks' mlops-stacks).

Windows are aligned to the calendar and disjoint: sliding them daily would protect against nothing (78 % of models with
a false ask in five months). Weeks are ISO weeks; longer whole weeks are counted from the first Monday of the feed;
other lengths from its first day; windows of a monthly or yearly feed are months or years, counted from its first.
Partial windows are not judged.

A window whose data failed is neither flagged nor quiet: as the newest one it alerts, and it never asks. One ask per
reference: the latch and its re-arming on promotion derive from the ledger, not from here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from perennial.specs.grains import GRAINS, Every, Grain

State = Literal["quiet", "flagged", "failed"]
Outcome = Literal["quiet", "alert", "ask"]


class Window(NamedTuple):
    """First and last day of a window, both inclusive."""

    start: dt.date
    end: dt.date

    @property
    def key(self) -> str:
        """The ISO week (``2013-W05``) of a week, else ``start/end``, both days."""
        if (self.end - self.start).days == 6 and self.start.isoweekday() == 1:
            year, week, _ = self.start.isocalendar()
            return f"{year}-W{week:02d}"
        return f"{self.start}/{self.end}"


def windows(first_day: dt.date, last_day: dt.date, window: dt.timedelta, every: Every = "day") -> list[Window]:
    """All complete windows of a feed, oldest first.

    :param first_day: the feed's first day, which fixes the phase; not the first day of interest.
    :param last_day: the last complete day (inclusive).
    :param every: grain of the feed; months and years have no fixed number of days.
    """
    if every in ("month", "year"):
        return _periods(first_day, last_day, GRAINS[every], window)
    days = window.days
    if days < 1 or window != dt.timedelta(days=days):
        raise ValueError(f"a monitoring window is a whole number of days, not {window}")
    start = first_day
    if days % 7 == 0:
        start += dt.timedelta(days=-first_day.weekday() % 7)
    out = []
    while (end := start + dt.timedelta(days=days - 1)) <= last_day:
        out.append(Window(start, end))
        start = end + dt.timedelta(days=1)
    return out


def _periods(first_day: dt.date, last_day: dt.date, grain: Grain, window: dt.timedelta) -> list[Window]:
    n = grain.whole(window)
    number = grain.number(dt.datetime.combine(first_day, dt.time()))
    out = []
    while (end := grain.begin(number + n).date() - dt.timedelta(days=1)) <= last_day:
        out.append(Window(grain.begin(number).date(), end))
        number += n
    return out


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the last windows say together."""

    outcome: Outcome
    reason: str
    flagged: int
    failed: int
    considered: int


def judge(states: Sequence[State], *, k: int, n: int) -> Ruling:
    """Judge the last ``n`` windows; ``states`` are oldest first.

    Ask when at least ``k`` of them are flagged and the newest one did not fail; alert when the newest one is flagged
    or failed; else quiet.
    """
    if not 1 <= k <= n:
        raise ValueError(f"k of n windows needs 1 <= k <= n, not {k} of {n}")
    last = list(states)[-n:]
    if not last:
        return Ruling("quiet", "no complete window yet", 0, 0, 0)
    flagged, failed = last.count("flagged"), last.count("failed")
    said = f"{flagged} of the last {len(last)} windows flagged, {k} of {n} ask"
    if failed:
        said += f", {failed} with failed data"
    outcome: Outcome = "quiet"
    if last[-1] == "failed":
        outcome = "alert"
    elif flagged >= k:
        outcome = "ask"
    elif last[-1] == "flagged":
        outcome = "alert"
    return Ruling(outcome, said, flagged, failed, len(last))
