"""A card as Markdown, with front matter: for a repository, a wiki, or the next tool."""

from __future__ import annotations

import re
from typing import Any

import yaml

from perennial.training.card.parts import Card, Facts, Part, Plot, Prose, Table, Text, cell, words
from perennial.training.card.prose import to_markdown


def to_text(card: Card) -> str:
    """The whole card."""
    meta = yaml.safe_dump(card.meta, sort_keys=False, allow_unicode=True, width=1000)
    parts = [f"---\n{meta}---", f"# {plain(card.title)}", plain(card.lead)]
    parts.append(_table(("in short", "value", "note"), [(t.what, t.value, t.note) for t in card.tiles]))
    links = [f"[{plain(name)}]({url})" for name, url in card.links if re.fullmatch(r"https?://[^\s()<>]+", url)]
    if links:
        parts.append(" · ".join(links))
    for section in card.sections:
        parts.append(f"## {plain(section.title)}")
        parts += [_part(p) for p in section.parts if not isinstance(p, Plot)] or [words(None)]
    return "\n\n".join(parts) + "\n"


def _part(part: Part) -> str:
    match part:
        case Text(text, _):
            return plain(text)
        case Facts(items):
            return "\n".join(f"- **{plain(k)}:** {plain(words(v))}" for k, v in items)
        case Table() if not part.rows:
            return plain(part.none)
        case Table():
            caption = f"{plain(part.caption)}\n\n" if part.caption else ""
            return caption + _table(part.header, part.rows, part.state)
        case Prose(text):
            return to_markdown(text)
        case _:
            return ""


def _table(header: tuple[str, ...], rows: Any, state: int | None = None) -> str:
    def said(i: int, value: object) -> str:
        text = cell(value)
        return plain(text.replace("_", " ") if i == state else text)

    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(h if n == 1 else said(i, h) for i, h in enumerate(line)) + " |"
        for n, line in enumerate(lines)
    )


def plain(text: str) -> str:
    """Text that Markdown takes for nothing else."""
    text = re.sub(r"\s+", " ", text).strip().replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*\[\]|])", r"\\\1", text)
