"""A card as one HTML page: nothing to load, readable on a screen, on a phone and on paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from perennial import pages
from perennial.training.card.parts import Card, Facts, Part, Plot, Prose, Section, Table, Text, cell, words
from perennial.training.card.prose import to_html

_STYLE = """
:root{--accent:#2b6cb0;--tint:#2b6cb01f}
@media(prefers-color-scheme:dark){:root{--accent:#7db4ec;--tint:#7db4ec26}}
h1{overflow-wrap:anywhere;line-height:1.25}h2{border-top:1px solid var(--line);padding-top:18px;scroll-margin-top:8px}
p{margin:0 0 10px;max-width:76ch;overflow-wrap:anywhere}.soft{color:var(--soft)}
.links,.toc{font-size:14px;margin:0 0 14px}.links a,.toc a{margin-right:14px;display:inline-block}a{color:var(--accent)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(180px,1fr));gap:12px;margin:0 0 18px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 14px}
.tile span{display:block;color:var(--soft);font-size:13px;overflow-wrap:anywhere}.tile b{display:block;font-size:22px}
dl{display:grid;grid-template-columns:minmax(150px,230px) 1fr;gap:0;margin:0 0 14px;font-size:14px}
dt{color:var(--soft);padding:5px 12px 5px 0;border-bottom:1px solid var(--line)}
dd{margin:0;padding:5px 0;border-bottom:1px solid var(--line);overflow-wrap:anywhere}
.wrap{margin:0 0 14px}.wrap table{min-width:min(100%,520px)}td{max-width:56ch;overflow-wrap:break-word}
td.long{overflow-wrap:anywhere;min-width:24ch;font-size:12.5px}td.text{min-width:28ch}td.span{white-space:nowrap}
caption{text-align:left;color:var(--soft);font-size:13px;padding:0 0 4px}
.met,.signed,.promote{color:var(--good);font-weight:600}.not_met,.refused{color:var(--bad);font-weight:600}
.waived{color:var(--wait);font-weight:600}.not_applicable{color:var(--soft)}
.side{display:flex;flex-wrap:wrap;gap:0 28px;align-items:flex-start}
.side figure{flex:1 1 420px;max-width:640px}.side .wrap{flex:1 1 300px;max-width:100%}.side .wrap table{min-width:0}
figure{margin:0 0 14px;min-width:0}figcaption{color:var(--soft);font-size:13px}
svg{width:100%;height:auto;display:block;font:11px system-ui,sans-serif}
svg text{fill:var(--soft)}svg text.n,svg text.a{fill:var(--fg)}
svg .g{stroke:var(--line);fill:none}svg .d{stroke:var(--soft);stroke-dasharray:4 4;fill:none}
svg .l{stroke:var(--accent);stroke-width:1.5;fill:none}svg .e{stroke:var(--fg);stroke-width:1.2;fill:none}
svg .p{fill:var(--accent)}svg .b{fill:var(--accent);opacity:.75}svg .z{stroke:var(--fg);fill:none}
.readme{border-left:3px solid var(--accent);background:var(--tint);padding:8px 16px;border-radius:0 8px 8px 0}
.readme h3,.readme h4,.readme h5,.readme h6{margin:10px 0 4px;font-size:15px}.readme pre{overflow-x:auto}
.readme table{margin:0 0 10px;display:block;overflow-x:auto}.readme li{max-width:74ch}
@media(max-width:560px){main{padding:16px 12px 48px}dl{grid-template-columns:1fr}dt{border:0;padding:8px 0 0}
.tiles{grid-template-columns:1fr 1fr}.tile b{font-size:18px}.toc{display:none}td{max-width:40ch}}
@media print{@page{size:A4;margin:14mm}:root{color-scheme:light;--fg:#000;--soft:#444;--line:#ccc;--bg:#fff;--card:#fff;
--accent:#2b6cb0;--tint:#fff;--good:#1a7f4b;--bad:#b3261e;--wait:#8a6100}
main{max-width:none}.toc,.links{display:none}.side{display:block}h2{break-after:avoid;margin-top:18px}
h2+p{break-after:avoid}.tile,figure,tr,dt,dd,p,li{break-inside:avoid}
.wrap{overflow:visible}table{width:100%;font-size:10px}th,td{padding:3px 5px;overflow-wrap:break-word;max-width:none}
td.long{font-size:8.5px;min-width:0;overflow-wrap:anywhere}td.text{min-width:0}thead{display:table-header-group}dl{font-size:11px}svg{max-height:110mm}
.tiles{grid-template-columns:repeat(4,1fr)}.tile b{font-size:15px}a{color:inherit;text-decoration:none}}
"""


def to_page(card: Card) -> bytes:
    """The whole page."""
    tiles = "".join(
        f'<div class="tile"><span>{escape(t.what)}</span><b class="{_word(t.state)}">{escape(t.value)}</b>'
        f"<span>{escape(t.note)}</span></div>"
        for t in card.tiles
    )
    links = "".join(f'<a href="{escape(url)}">{escape(name)}</a>' for name, url in card.links if _safe(url))
    toc = "".join(f'<a href="#{_anchor(s.title)}">{escape(s.title)}</a>' for s in card.sections)
    head = (
        f'<div class="tiles">{tiles}</div>'
        + (f'<p class="links">{links}</p>' if links else "")
        + f'<p class="toc">{toc}</p>'
    )
    return pages.page(card.title, card.lead, head, *(_section(s) for s in card.sections), style=_STYLE)


def _section(section: Section) -> str:
    content = "".join(_parts(section.parts)) or f"<p>{escape(words(None))}</p>"
    return f'<h2 id="{_anchor(section.title)}">{escape(section.title)}</h2>{content}'


def _parts(parts: tuple[Part, ...]) -> Iterator[str]:
    """Each part; a plot and the table of its figures stand side by side where there is room."""
    for i, part in enumerate(parts):
        after = isinstance(part, Table) and i > 0 and isinstance(parts[i - 1], Plot)
        before = isinstance(part, Plot) and i + 1 < len(parts) and isinstance(parts[i + 1], Table)
        yield f"{'<div class=side>' * before}{_part(part)}{'</div>' * after}"


def _part(part: Part) -> str:
    match part:
        case Text(text, soft):
            return f"<p{' class=soft' * soft}>{escape(text)}</p>"
        case Facts(items):
            return f"<dl>{''.join(f'<dt>{escape(k)}</dt><dd>{escape(words(v))}</dd>' for k, v in items)}</dl>"
        case Table():
            return _table(part)
        case Plot(svg, caption):
            return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
        case Prose(markdown):
            return f'<div class="readme">{to_html(markdown)}</div>'


def _table(table: Table) -> str:
    if not table.rows:
        return f'<p class="soft">{escape(table.none)}</p>'
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    numeric = {i for i in range(len(table.header)) if all(_is_number(r[i]) for r in table.rows)}
    head = "".join(f"<th{' class=n' * (i in numeric)}>{escape(h)}</th>" for i, h in enumerate(table.header))
    body = "".join(
        f"<tr>{''.join(_cell(v, i == table.state, i in numeric) for i, v in enumerate(row))}</tr>" for row in table.rows
    )
    return f'<div class="wrap"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: object, state: bool, numeric: bool) -> str:
    text = cell(value)
    if state:
        return f'<td class="{_word(str(value))}">{escape(text.replace("_", " "))}</td>'
    if numeric:
        return f'<td class="n">{escape(text)}</td>'
    if any(len(part) > 30 for part in text.split()):  # a digest or a URI, which must be broken somewhere
        return f'<td class="long">{escape(text)}</td>'
    if re.fullmatch(r"[-+.,\d]+ to [-+.,\d]+", text):
        return f'<td class="span">{escape(text)}</td>'
    return f"<td{' class=text' * (len(text) > 40)}>{escape(text)}</td>"


def _is_number(value: object) -> bool:
    if isinstance(value, int | float):
        return not isinstance(value, bool)
    text = str(value).replace(",", "").removeprefix("+")
    try:
        float(text)
    except ValueError:
        return False
    return True


def _word(state: str) -> str:
    """A class of the style sheet, and nothing else."""
    return escape("".join(c for c in state if c.isalnum() or c == "_"))


def _anchor(title: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in title.lower())


def _safe(url: str) -> bool:
    return url.startswith(("http://", "https://"))
