"""A chart of stacked bars as HTML with an inline SVG. Pure: figures in, text out.

Places are percentages of the drawing, so that it fits any width; all text is HTML around it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from html import escape
from math import floor, log10

#: How many colours the style sheet has; the last one is for all the rest.
COLOURS = 7
REST = "others"
LABELS_MAX = 7


def chart(
    days: Sequence[date],
    series: Mapping[str, Sequence[float]],
    *,
    label: str,
    said: Callable[[float], str],
) -> str:
    """`series`: by name a figure for each day. `said` writes a figure for people."""
    shown = top(series)
    totals = [sum(values[at] for values in shown.values()) for at in range(len(days))]
    high = ceiling(max(totals, default=0.0))
    slot = 100 / max(1, len(days))
    parts = []
    for at, day in enumerate(days):
        below = 0.0
        for place, (name, values) in enumerate(shown.items()):
            height = 100 * values[at] / high
            if height <= 0:
                continue
            below += height
            told = escape(f"{day:%a %d %b}: {name} {said(values[at])}")
            parts.append(
                f'<rect class="c{place}" x="{at * slot + slot * 0.12:.3f}%" y="{100 - below:.3f}%"'
                f' width="{slot * 0.76:.3f}%" height="{height:.3f}%"><title>{told}</title></rect>'
            )
    lines = "".join(
        f'<line x1="0" x2="100%" y1="{y}%" y2="{y}%"></line>' for y in (0.4, 33.3, 66.6, 99.6)
    )
    steps = "".join(f"<span>{escape(said(high * part))}</span>" for part in (1, 2 / 3, 1 / 3, 0))
    names = "".join(
        f'<span><i class="c{place}"></i>{escape(name)}</span>' for place, name in enumerate(shown)
    )
    return (
        f'<figure class="chart"><div class="steps" aria-hidden="true">{steps}</div>'
        f'<svg role="img" aria-label="{escape(label, quote=True)}" width="100%" height="200">'
        f'<g class="lines">{lines}</g>{"".join(parts)}</svg>'
        f'<div class="days" aria-hidden="true">{_days(days)}</div>'
        f'<figcaption class="legend">{names}</figcaption></figure>'
    )


def top(series: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """The largest first; beyond the colours, the others together."""
    ranked = sorted(series.items(), key=lambda one: (-sum(one[1]), one[0]))
    if len(ranked) <= COLOURS:
        return dict(ranked)
    kept, rest = ranked[: COLOURS - 1], ranked[COLOURS - 1 :]
    return {**dict(kept), REST: [sum(values) for values in zip(*(v for _, v in rest), strict=True)]}


def ceiling(high: float) -> float:
    """The next round figure, so that thirds of it are easy to read; 1 for nothing."""
    if high <= 0:
        return 1.0
    unit = 10.0 ** floor(log10(high))
    return float(next(step * unit for step in (1.2, 1.5, 3, 6, 9, 12) if step * unit >= high))


def _days(days: Sequence[date]) -> str:
    every = -(-len(days) // LABELS_MAX)
    found = []
    for at, day in enumerate(days):
        if (len(days) - 1 - at) % every == 0:
            left = 100 * (at + 0.5) / len(days)
            found.append(f'<span style="left:{left:.2f}%">{day:%d %b}</span>')
    return "".join(found)
