"""Markdown that somebody else wrote, made safe: no raw HTML, no images, no addresses but web pages and mail."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

#: The card's own headings are h1 and h2.
_DOWN = 2


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    made = MarkdownIt("commonmark", {"html": False}).enable("table")
    made.validateLink = _is_link  # type: ignore[method-assign]
    return made


def _is_link(url: str) -> bool:
    return re.match(r"(https?://|mailto:|#)", url.strip(), re.IGNORECASE) is not None


def to_html(markdown: str) -> str:
    """HTML of a README: its first heading is left out, the others go down two levels. Images become their words."""
    parser = _parser()
    tokens = parser.parse(_without_title(markdown))
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + _DOWN)}"
        for child in token.children or ():
            if child.type == "image":
                child.type, child.tag, child.nesting, child.content = "text", "", 0, f"(image: {child.content})"
    return str(parser.renderer.render(tokens, parser.options, {}))


def to_markdown(markdown: str) -> str:
    """The same for a Markdown page: raw HTML is shown as text, headings go down two levels, images become links."""
    lines, fence = [], ""
    for line in _without_title(markdown).splitlines():
        mark = re.match(r"\s{0,3}(```+|~~~+)", line)
        if mark and (not fence or line.strip().startswith(fence)):
            fence = "" if fence else mark.group(1)
        elif not fence:
            line = re.sub(r"^#{1,4}(?=\s)", lambda m: m.group() + "#" * _DOWN, line)
            line = line.replace("<", "&lt;").replace("![", "\\![")
            line = re.sub(r"\]\(\s*(?!https?://|mailto:|#)[^)]*\)", "]", line, flags=re.IGNORECASE)
        lines.append(line)
    if fence:
        lines.append(fence)
    return "\n".join(lines).strip()


def _without_title(markdown: str) -> str:
    return re.sub(r"\A\s*#\s[^\n]*\n?", "", markdown)
