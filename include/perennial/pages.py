"""One plain look for every page that the core writes: self-contained, offline, readable on a phone and in print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
:root{color-scheme:light dark;--fg:#1c2430;--soft:#5b6675;--line:#dde2e8;--bg:#fff;--card:#f6f8fa;
--good:#1a7f4b;--bad:#b3261e;--wait:#8a6100}
@media(prefers-color-scheme:dark){:root{--fg:#e6e9ee;--soft:#9aa5b4;--line:#333c48;--bg:#14181e;--card:#1c222a;
--good:#4cc38a;--bad:#ff8a80;--wait:#e2b04a}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}
main{max-width:1000px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:24px;margin:0 0 4px}h2{font-size:17px;margin:32px 0 8px}
p.lead{color:var(--soft);margin:0 0 16px}.wrap{overflow-x:auto}
table{border-collapse:collapse;min-width:50%;
font-size:14px}
th,td{text-align:left;padding:6px 10px;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--soft);font-weight:600}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.pass,.commit,.quiet,.steady{color:var(--good);font-weight:600}
.fail,.quarantine_batch,.ask,.flagged,.drifted{color:var(--bad);font-weight:600}
.hold,.quarantine_rows,.alert,.missing,.warning,
.failed{color:var(--wait);font-weight:600}
@media print{main{padding:0}body{font-size:12px}}
"""


def page(title: str, lead: str, *sections: str, style: str = "") -> bytes:
    """A whole HTML page. ``title`` and ``lead`` are text; ``sections`` are HTML, ``style`` adds to the style sheet."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{escape(title)}</title>'
        f'<style>{_STYLE}{style}</style><main><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>'
        f"{''.join(sections)}</main></html>"
    ).encode()


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, state: int | None = None) -> str:
    """An HTML table. Numbers are right-aligned; column ``state`` gets its text as a class, which colours it."""

    rows = list(rows)
    numeric = {i for i in range(len(header)) if rows and all(_is_number(r[i]) for r in rows)}

    def cell(i: int, value: object) -> str:
        if i == state:
            return f'<td class="{escape(str(value))}">{escape(str(value).replace("_", " "))}</td>'
        if isinstance(value, float):
            return f'<td class="n">{value:,.4g}</td>'
        if _is_number(value):
            return f'<td class="n">{value:,}</td>'
        return f"<td>{escape('' if value is None else str(value))}</td>"

    head = "".join(f"<th{' class=n' * (i in numeric)}>{escape(h)}</th>" for i, h in enumerate(header))
    body = "".join("<tr>" + "".join(cell(i, v) for i, v in enumerate(r)) + "</tr>" for r in rows)
    return f'<div class="wrap"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def section(heading: str, *content: str) -> str:
    """A heading with HTML below it."""
    return f"<h2>{escape(heading)}</h2>{''.join(content)}"
