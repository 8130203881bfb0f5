"""Is this a cron expression? Five fields as Airflow's timetables take them, or a preset such as ``@daily``."""

from __future__ import annotations

import re

PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_PART = re.compile(r"(\*|[0-9a-z]+)(?:-([0-9a-z]+))?(?:/([0-9]+))?")


def problem_with(expression: str) -> str | None:
    """One sentence about what is wrong with the expression, or None.

    >>> problem_with("0 6 1 * *")
    >>> problem_with("0 25 * * *")
    "'25' in '0 25 * * *' is not a cron hour (0 to 23)"
    """
    if expression in PRESETS:
        return None
    fields = expression.lower().split()
    if len(fields) != 5:
        return (
            f"{expression!r} is not a cron expression: write minute, hour, day of the month, month, day of the week, "
            'such as "0 6 1 * *" for 06:00 on the first of each month'
        )
    values = []
    for text, (label, low, high, names) in zip(fields, _FIELDS, strict=True):
        numbers = [_expand(part, low, high, names) for part in text.split(",")]
        if not all(numbers):
            return f"{text!r} in {expression!r} is not a cron {label} ({low} to {high})"
        values.append(set().union(*numbers))
    if fields[4] == "*" and min(values[2]) > max(_LONGEST[month - 1] for month in values[3]):
        return f"{expression!r} never comes: no such month has a day {min(values[2])}"
    return None


def _expand(part: str, low: int, high: int, names: tuple[str, ...]) -> set[int]:
    """The numbers that one part of a field means; none when it means nothing."""
    match = _PART.fullmatch(part)
    if match is None:
        return set()
    first, last, step = match.groups()
    if first == "*":
        start, end = (low, high) if last is None else (None, None)
    else:
        start = _number(first, low, names)
        end = _number(last, low, names) if last is not None else high if step else start
    if start is None or end is None or not low <= start <= end <= high or (step is not None and not int(step[:4])):
        return set()
    return set(range(start, end + 1, int(step[:4]) if step else 1))


def _number(word: str, low: int, names: tuple[str, ...]) -> int | None:
    if word in names:
        return names.index(word) + low
    return int(word) if word.isdecimal() and word.isascii() and len(word) < 4 else None
