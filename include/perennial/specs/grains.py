"""Grains: the lengths that a partition may have, from an hour to a year, and how their keys are written.

Every period of a grain has a number; the first is the one that begins with the year 1 (a Monday, so weeks are ISO
weeks). All arithmetic on partitions is arithmetic on these numbers. Times here are naive: the wall clock of a feed's
own zone. Which instants they are is :mod:`perennial.specs.partitions`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Every = Literal["hour", "day", "week", "month", "year"]

_DAWN = dt.datetime(1, 1, 1)
_DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"


@dataclass(frozen=True, slots=True)
class Grain:
    """One length of partitions.

    :param every: its name.
    :param example: how a key looks.
    :param cron: the ticks that end its periods.
    :param nominal: what a duration counts as one period; ``shortest``: no period is shorter (a February).
    :param number: the number of the period that a time lies in; ``begin``: when the period of a number begins.
    """

    every: Every
    example: str
    cron: str
    nominal: dt.timedelta
    shortest: dt.timedelta
    letter: str
    number: Callable[[dt.datetime], int]
    begin: Callable[[int], dt.datetime]
    _pattern: str
    _read: Callable[[str], dt.datetime]
    _write: Callable[[dt.datetime], str]

    def parse(self, key: str) -> int:
        """The number of the period that a key names.

        :raises ValueError: it is not a key of this grain, or not in the calendar.
        """
        if re.fullmatch(self._pattern, key) is None:
            raise ValueError(f"{key!r} is not written like {self.example}")
        return self.number(self._read(key))

    def format(self, number: int) -> str:
        """The key of the period with this number.

        :raises OverflowError, ValueError: it lies outside the calendar.
        """
        return self._write(self.begin(number))

    def count(self, duration: dt.timedelta) -> int | None:
        """How many periods a duration is, or ``None`` when it is no whole number of them.

        A month counts as 30 days and a year as 365, as durations do: ``P1Y`` and ``P12M`` are twelve months.
        """
        if self.every in ("month", "year"):
            years, rest = divmod(duration, dt.timedelta(days=365))
            if self.every == "year":
                return None if rest else years
            for whole, part in ((years, rest), (0, duration)):
                if not part % self.nominal:
                    return 12 * whole + part // self.nominal
            return None
        return None if duration % self.nominal else duration // self.nominal

    def whole(self, duration: dt.timedelta) -> int:
        """How many periods a duration is, for one that was checked when the spec was read.

        :raises ValueError: it is no whole number of them.
        """
        found = self.count(duration)
        if found is None:
            raise ValueError(f"{duration} is no whole number of {self.every}s")
        return found

    def at_least(self, duration: dt.timedelta) -> int:
        """The smallest number of periods that is never shorter than a duration."""
        return -(-duration // self.shortest)

    def duration(self, n: int) -> str:
        """How a spec writes ``n`` periods: ``P14D``."""
        return f"P{'T' * (self.every == 'hour')}{n}{self.letter}"

    def words(self, n: int) -> str:
        """``14 days``."""
        return f"{n} {self.every}{'s' * (n != 1)}"

    @property
    def one(self) -> str:
        """``a day``, ``an hour``."""
        return f"{'an' if self.every == 'hour' else 'a'} {self.every}"

    @property
    def block(self) -> Grain:
        """The unit that counts as one independent observation: the partition; of an hourly feed its day.

        Neighbouring hours are far too alike (DECISIONS: days already have autocorrelations up to .3).
        """
        return GRAINS["day"] if self.every == "hour" else self

    @property
    def per_block(self) -> int:
        """Partitions in a block."""
        return 24 if self.every == "hour" else 1


def _fixed(every: Every, length: dt.timedelta, example: str, cron: str, letter: str, pattern: str,
           read: Callable[[str], dt.datetime], write: Callable[[dt.datetime], str]) -> Grain:  # fmt: skip
    return Grain(
        every, example, cron, length, length, letter, lambda t: (t - _DAWN) // length, lambda n: _DAWN + n * length,
        pattern, read, write,
    )  # fmt: skip


def _monday(key: str) -> dt.datetime:
    """``strptime`` cannot read an ISO week without its day."""
    return dt.datetime.fromisocalendar(int(key[:4]), int(key[6:]), 1)


def _week(begin: dt.datetime) -> str:
    year, week, _ = begin.isocalendar()
    return f"{year:04d}-W{week:02d}"


GRAINS: dict[str, Grain] = {
    g.every: g
    for g in (
        _fixed("hour", dt.timedelta(hours=1), "2013-01-01T05", "0 * * * *", "H", rf"{_DATE}T[0-9]{{2}}",
               lambda k: dt.datetime.fromisoformat(f"{k}:00"), lambda t: t.isoformat()[:13]),
        _fixed("day", dt.timedelta(days=1), "2013-01-01", "0 0 * * *", "D", _DATE,
               dt.datetime.fromisoformat, lambda t: t.isoformat()[:10]),
        _fixed("week", dt.timedelta(weeks=1), "2013-W01", "0 0 * * 1", "W", "[0-9]{4}-W[0-9]{2}", _monday, _week),
        Grain("month", "2013-01", "0 0 1 * *", dt.timedelta(days=30), dt.timedelta(days=28), "M",
              lambda t: 12 * (t.year - 1) + t.month - 1, lambda n: dt.datetime(n // 12 + 1, n % 12 + 1, 1),
              "[0-9]{4}-[0-9]{2}", lambda k: dt.datetime.fromisoformat(f"{k}-01"), lambda t: t.isoformat()[:7]),
        Grain("year", "2013", "0 0 1 1 *", dt.timedelta(days=365), dt.timedelta(days=365), "Y",
              lambda t: t.year - 1, lambda n: dt.datetime(n + 1, 1, 1),
              "[0-9]{4}", lambda k: dt.datetime(int(k), 1, 1), lambda t: t.isoformat()[:4]),
    )
}  # fmt: skip
