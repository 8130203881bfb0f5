"""The plots of a card, as inline SVG: a few shapes, no script, no font, nothing to load. Colours come from the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from perennial.training.card.importance import Feature
from perennial.training.card.measures import Calibration

_W, _H, _PAD = 420, 360, 46


def _nice(low: float, high: float, n: int = 5) -> list[float]:
    """Round numbers between two limits."""
    if not high > low:
        return [low]
    raw = (high - low) / n
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _tick(value: float) -> str:
    return f"{value:,.6g}"


def calibration(found: Calibration) -> str:
    """What was said (across) against what came (up), with intervals and the diagonal."""
    share = found.kind != "value"
    ends = [v for b in found.bins for v in (b.said, b.came, b.low, b.high) if math.isfinite(v)]
    low, high = min(ends), max(ends)
    margin = 0.06 * (high - low) or 0.05
    low, high = low - margin, high + margin
    if share:
        low, high = max(0.0, low), min(1.0, high)

    def x(v: float) -> float:
        return _PAD + (v - low) / (high - low) * (_W - _PAD - 14)

    def y(v: float) -> float:
        return _H - _PAD - (v - low) / (high - low) * (_H - _PAD - 14)

    parts = []
    for t in _nice(low, high):
        parts.append(f'<path class="g" d="M{x(t):.1f} {_H - _PAD}V14M{_PAD} {y(t):.1f}H{_W - 14}"/>')
        parts.append(f'<text x="{x(t):.1f}" y="{_H - _PAD + 18}" text-anchor="middle">{_tick(t)}</text>')
        parts.append(f'<text x="{_PAD - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{_tick(t)}</text>')
    parts.append(f'<path class="d" d="M{x(low):.1f} {y(low):.1f}L{x(high):.1f} {y(high):.1f}"/>')
    most = max(b.rows for b in found.bins)
    line = " ".join(f"{'L' if i else 'M'}{x(b.said):.1f} {y(b.came):.1f}" for i, b in enumerate(found.bins))
    parts.append(f'<path class="l" d="{line}"/>')
    for b in found.bins:
        if math.isfinite(b.low) and math.isfinite(b.high):
            parts.append(f'<path class="e" d="M{x(b.said):.1f} {y(b.low):.1f}V{y(b.high):.1f}"/>')
        r = 2.5 + 3.5 * math.sqrt(b.rows / most)
        note = f"said {b.said:.4g}, came {b.came:.4g}, {b.rows:,} rows"
        parts.append(f'<circle class="p" cx="{x(b.said):.1f}" cy="{y(b.came):.1f}" r="{r:.1f}">'
                     f"<title>{escape(note)}</title></circle>")  # fmt: skip
    across, up = {
        "probability": ("predicted probability", "observed share"),
        "confidence": ("confidence in the likeliest class", "share of them that are right"),
        "value": ("predicted value", "mean actual value"),
    }[found.kind]
    parts.append(f'<text class="a" x="{(_W + _PAD) / 2}" y="{_H - 6}" text-anchor="middle">{across}</text>')
    parts.append(
        f'<text class="a" transform="translate(12 {(_H - _PAD) / 2}) rotate(-90)" text-anchor="middle">{up}</text>'
    )
    return _svg(_W, _H, f"Calibration: {up} by {across}", parts)


def importance(features: Sequence[Feature]) -> str:
    """A bar for each feature, with the range over repeats."""
    known = [f for f in features if math.isfinite(f.loss)]
    left = 12 + 6.2 * max((min(len(f.name), 26) for f in known), default=10)
    row, width = 20, 480
    height = row * max(len(known), 1) + 34
    low = min((min(f.least, 0.0) for f in known), default=0.0)
    high = max((f.most for f in known), default=1.0)
    high = high if high > low else low + 1.0

    def x(v: float) -> float:
        return left + (v - low) / (high - low) * (width - left - 16)

    parts = []
    for t in _nice(low, high, 4):
        parts.append(f'<path class="g" d="M{x(t):.1f} {height - 26}V4"/>')
        parts.append(f'<text x="{x(t):.1f}" y="{height - 8}" text-anchor="middle">{_tick(t)}</text>')
    for i, f in enumerate(known):
        top = 6 + i * row
        name = f.name if len(f.name) <= 26 else f.name[:25] + "…"
        parts.append(f'<text class="n" x="{left - 8:.1f}" y="{top + 12}" text-anchor="end">{escape(name)}</text>')
        begin, end = sorted((x(0.0), x(f.loss)))
        note = f"{f.name}: {f.loss:.4g} ({f.least:.4g} to {f.most:.4g})"
        wide = max(end - begin, 0.5)
        parts.append(f'<rect class="b" x="{begin:.1f}" y="{top}" width="{wide:.1f}" height="{row - 7}">'
                     f"<title>{escape(note)}</title></rect>")  # fmt: skip
        middle = top + (row - 7) / 2
        parts.append(f'<path class="e" d="M{x(f.least):.1f} {middle}H{x(f.most):.1f}"/>')
    parts.append(f'<path class="z" d="M{x(0.0):.1f} {height - 26}V4"/>')
    return _svg(width, height, "Importance of features", parts)


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" style="max-width:{width}px" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
