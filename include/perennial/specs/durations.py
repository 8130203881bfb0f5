"""ISO 8601 durations as the specs write them: ``P14D``, ``PT6H``, ``P2W``, ``PT30M``, ``P2Y``.

Years and months have no fixed length; they are accepted only where an estimate is harmless (timeouts) and
count as 365 and 30 days.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_PATTERN = re.compile(
    r"^P(?:(?P<years>\d+)Y)?(?:(?P<months>\d+)M)?(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)S)?)?$"
)


def parse_duration(value: Any) -> dt.timedelta:
    """Turn ``"P14D"`` into a ``timedelta``.

    :raises ValueError: with one sentence that shows what a duration looks like.
    """
    if isinstance(value, dt.timedelta):
        return value
    match = _PATTERN.match(value) if isinstance(value, str) else None
    if match is None or value in ("P", "PT") or value.endswith("T"):
        raise ValueError(f"{value!r} is not a duration: write P14D for 14 days, PT6H for six hours, P2W for two weeks")
    part = {k: int(v or 0) if len(v or "") < 10 else 10**9 for k, v in match.groupdict().items()}
    if 365 * part["years"] + 30 * part["months"] + 7 * part["weeks"] + part["days"] > 36_525 or part["hours"] > 876_600:
        raise ValueError(f"{value!r} is longer than a hundred years")
    return dt.timedelta(
        days=365 * part["years"] + 30 * part["months"] + 7 * part["weeks"] + part["days"],
        hours=part["hours"],
        minutes=part["minutes"],
        seconds=part["seconds"],
    )


def format_duration(value: dt.timedelta) -> str:
    """Turn a ``timedelta`` back into its shortest ISO 8601 form."""
    days, rest = value.days, value.seconds
    hours, minutes, seconds = rest // 3600, rest % 3600 // 60, rest % 60
    date = f"{days}D" if days or not rest else ""
    time = "".join(f"{n}{u}" for n, u in ((hours, "H"), (minutes, "M"), (seconds, "S")) if n)
    return f"P{date}" + (f"T{time}" if time else "")


Duration = Annotated[
    dt.timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^P", "examples": ["P14D", "PT6H"]}),
]
