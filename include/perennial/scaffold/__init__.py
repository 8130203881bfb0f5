"""Skeletons of feeds and models: every line explained, every blank marked ``<fill in: ...>``."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Literal

from perennial.errors import UsageError
from perennial.specs.source import shown

_FILES = {
    "feed": ("feed.yaml", "expectations.yaml"),
    "model": ("model.yaml", "features.sql", "README.md"),
}

_README = """# @NAME@

**Intended use.** <fill in: who uses the scores, and for what>

**Limits.** <fill in: where it must not be used, and what it does not know>
"""


def create(kind: Literal["feed", "model"], name: str, folder: Path) -> list[Path]:
    """Write the skeleton of a feed or a model into a folder of specs, and return its files.

    :raises UsageError: the name does not do, or something lies there already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name):
        raise UsageError(f"{name!r} is not a name: write lower-case letters, digits and _, a letter first, 63 at most")
    home = folder / f"{kind}s" / name
    if home.exists():
        raise UsageError(f"{shown(home.absolute())} exists already: choose another name, or delete it first")
    home.mkdir(parents=True)
    written = []
    for file in _FILES[kind]:
        packaged = resources.files(__package__).joinpath(kind, file)
        template = _README if file == "README.md" else packaged.read_text("utf-8")
        path = home / file
        path.write_text(template.replace("@NAME@", name), encoding="utf-8")
        written.append(path.absolute())
    return written
