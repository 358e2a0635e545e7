"""The plan of a request as a drawing: SVG, written here, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from base.plural import counted
from portal.pages.layers import Layout, layout
from portal.pages.marks import shown
from portal.pages.view import Step

WIDTH, HEIGHT, GAP_X, GAP_Y, EDGE = 208, 66, 58, 20, 4
LINE_CHARS, LINES = 26, 2
WORDS = {"in_progress": "working", "assigned": "starting", "pending": "pending"}


def draw(steps: Mapping[str, Step]) -> str:
    """All steps with what they wait for; "" for none."""
    if not steps:
        return ""
    found = layout(list(steps), {step.id: step.depends_on for step in steps.values()})
    width = found.layers * (WIDTH + GAP_X) - GAP_X + 2 * EDGE
    height = found.places * (HEIGHT + GAP_Y) - GAP_Y + 2 * EDGE
    lines = "".join(_line(found, before, part) for before, part in found.edges)
    boxes = "".join(_box(found, step) for step in steps.values())
    said = f"{counted(len(steps), 'step')}; " + "; ".join(
        f"{_short(step)}: {WORDS.get(step.status, step.status)}" for step in steps.values()
    )
    return shown(
        f'<svg class="graph" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        f' role="img" aria-label="{escape(said, quote=True)}">{lines}{boxes}</svg>'
    )


def _corner(found: Layout, part: str) -> tuple[float, float]:
    number, place = found.at[part]
    return EDGE + number * (WIDTH + GAP_X), EDGE + place * (HEIGHT + GAP_Y)


def _line(found: Layout, before: str, part: str) -> str:
    (left, upper), (right, lower) = _corner(found, before), _corner(found, part)
    x1, y1, x2, y2 = left + WIDTH, upper + HEIGHT / 2, right, lower + HEIGHT / 2
    bend = (x2 - x1) / 2
    return (
        f'<path class="edge" d="M{x1:g} {y1:g} C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g}'
        f' {x2 - 7:g} {y2:g}"/><path class="tip" d="M{x2 - 8:g} {y2 - 4:g} L{x2:g} {y2:g}'
        f' L{x2 - 8:g} {y2 + 4:g} Z"/>'
    )


def _box(found: Layout, step: Step) -> str:
    x, y = _corner(found, step.id)
    lines = "".join(
        f'<text class="name" x="{x + 12:g}" y="{y + 20 + 16 * number:g}">{escape(line)}</text>'
        for number, line in enumerate(_wrapped(step.title or step.key))
    )
    state = WORDS.get(step.status, step.status)
    if step.phase and not step.ended:
        state = f"{state} · {step.phase.title()}"
    progress = WIDTH if step.status == "completed" else WIDTH * min(max(step.progress, 0.0), 1.0)
    bar = ""
    if step.status != "pending":
        bar = (
            f'<rect class="done" x="{x + 1:g}" y="{y + HEIGHT - 4:g}" rx="1.5"'
            f' width="{max(progress - 2, 0):g}" height="3"/>'
        )
    return (
        f'<g class="step-box {escape(step.status)}"><title>{escape(step.title)}</title>'
        f'<rect class="box" x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="10"/>'
        f'{lines}<text class="who" x="{x + 12:g}" y="{y + HEIGHT - 10:g}">'
        f"{escape(step.agent)} · {escape(state)}</text>{bar}</g>"
    )


def _wrapped(text: str) -> list[str]:
    """`text` in at most `LINES` lines; the last ends with … when there is more."""
    lines, words = [""], text.split()
    for at, word in enumerate(words):
        longer = f"{lines[-1]} {word}".strip()
        if len(longer) <= LINE_CHARS:
            lines[-1] = longer
            continue
        if len(lines) == LINES or not lines[-1]:
            lines[-1] = longer[: LINE_CHARS - 1].rstrip() + "…"
            if len(lines) == LINES or at + 1 == len(words):
                return lines
        lines.append(word if len(word) <= LINE_CHARS else word[: LINE_CHARS - 1] + "…")
    return lines


def _short(step: Step) -> str:
    return " ".join((step.title or step.key).split())[:60]
