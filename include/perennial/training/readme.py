"""The README.md of a model's folder: intended use and limits, in its owner's words. It travels with the version."""

from __future__ import annotations

from pathlib import Path

README = "README.md"
#: More is no description of a model any more.
LONGEST = 100_000


def read_readme(folder: Path) -> str | None:
    """The text, or ``None`` when there is none worth the name."""
    try:
        text = (folder / README).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    if len(text) > LONGEST:
        text = text[:LONGEST] + "\n\n(cut here)\n"
    return text if text.strip() else None
