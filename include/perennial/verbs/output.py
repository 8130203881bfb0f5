"""What verbs share: lines to standard output, with colour only on a terminal."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

_COLOURS = {"green": "32", "red": "31", "yellow": "33", "bold": "1"}


def say(text: str = "") -> None:
    """One line to standard output."""
    sys.stdout.write(f"{text}\n")


def say_json(value: Any) -> None:
    """A value as JSON, for programs."""
    say(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def paint(text: str, colour: str) -> str:
    """The text in a colour when people read it on a terminal, else as it is."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"
