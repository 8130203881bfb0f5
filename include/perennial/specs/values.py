"""Kinds of values that specs are made of: names, days, durations, sizes, and what is said when they are none."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic import Strict as Exactly

from perennial.specs.durations import parse_duration

Mode = Literal["enabled", "dry_run", "disabled"]

ONE_DAY = dt.timedelta(days=1)
NINETY_DAYS = dt.timedelta(days=90)


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", value):
        raise ValueError(
            f"{value!r} is not a name: lower-case letters, digits and _, a letter first, at most 63 characters"
        )
    return value


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("this must not be empty")
    return value


def _column(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", value):
        raise ValueError(f"{value!r} is not a column name: letters, digits and _, no digit first")
    return value


def _date(value: Any) -> Any:
    if isinstance(value, dt.datetime) or not isinstance(value, (dt.date, str)):
        raise ValueError(f"{value!r} is not a day: write it like 2013-01-31")
    if isinstance(value, str):
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
            raise ValueError(f"{value!r} is not a day: write it like 2013-01-31")
        try:
            value = dt.date.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value} is not in the calendar") from None
    if not 1900 <= value.year <= 2200:
        raise ValueError(f"{value} is not between 1900 and 2200")
    return value


def beside(*endings: str) -> AfterValidator:
    """A file in the spec's own folder."""

    def check(value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or not value.strip():
            raise ValueError(f"{value!r} must be a file in the spec's own folder")
        if not value.endswith(endings):
            raise ValueError(f"{value!r} must end with {' or '.join(endings)}")
        return value

    return AfterValidator(check)


def word_or_duration(word: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        return value if value == word else _duration_or(value, word)

    return BeforeValidator(check, json_schema_input_type=str)


def _duration_or(value: Any, word: str) -> dt.timedelta:
    try:
        return parse_duration(value)
    except ValueError:
        raise ValueError(f"{value!r} is neither {word} nor a duration such as P14D") from None


def single(value: Any) -> Any:
    if not isinstance(value, (bool, int, float, str)):
        raise ValueError("write one value, such as 1")
    return value


def listed(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(f"write a list: [{value}]")
    return value


def _size(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(r"[1-9][0-9]{0,8}[kmgt]", value):
        raise ValueError(f"{value!r} is not a size: write 512m or 2g")
    return value


Size = Annotated[str, BeforeValidator(_size, json_schema_input_type=str)]
Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": "^[a-z][a-z0-9_]{0,62}$"})]
Text = Annotated[str, AfterValidator(_text), Field(json_schema_extra={"minLength": 1})]
Column = Annotated[str, AfterValidator(_column)]
Columns = Annotated[list[Column], BeforeValidator(listed, json_schema_input_type=list[str])]
Texts = Annotated[list[Text], BeforeValidator(listed, json_schema_input_type=list[str])]
Integer = Annotated[int, Exactly()]
Number = Annotated[float, Exactly()]
Date = Annotated[dt.date, BeforeValidator(_date, json_schema_input_type=dt.date)]
Prefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{0,100}$")]


class Strict(BaseModel):
    """Unknown keys are errors, values are not coerced in surprising ways, objects do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @classmethod
    def stored(cls, value: Any) -> Self:
        """Read a copy that was valid when it was stored: in a version's bundle, or by a run's first task.

        Such a copy outlives the spec language: a key that it has and that no longer exists is left out, and what was
        added since has its default.
        """
        return cls.model_validate(value, extra="ignore")
