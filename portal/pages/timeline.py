"""Bars over time: each part of a request with its phases, and its tool calls as marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape

from portal.pages.course import WAITS, Call, Course, Span
from portal.pages.marks import shown
from portal.pages.rows import long
from portal.pages.view import PHASES, Step
from portal.work import Task

MARKS_MAX = 200


def draw(
    steps: Mapping[str, Step], tasks: Mapping[str, Task], course: Course, now: datetime
) -> str:
    """One line for each part that has begun; "" before the first has."""
    spans = {
        step_id: found
        for step_id in steps
        if (found := course.spans.get(step_id) or _recorded(tasks.get(step_id)))
    }
    if not spans:
        return ""
    start = min(span.start for found in spans.values() for span in found)
    end = max(span.end or now for found in spans.values() for span in found)
    whole_s = max((end - start).total_seconds(), 0.001)
    lines = "".join(
        _row(steps[step_id], found, course.calls, start, whole_s, now)
        for step_id, found in spans.items()
    )
    marks = "".join(f"<span>{long(whole_s * part / 4)}</span>" for part in range(5))
    seen = {span.phase for found in spans.values() for span in found}
    legend = "".join(
        f'<span><i class="phase-{phase.lower()}"></i>{phase.title()}</span>'
        for phase in (*PHASES, WAITS)
        if phase in seen
    )
    return shown(
        f'<div class="timeline">{lines}<div class="axis"><span></span><div>{marks}</div></div>'
        f'<div class="legend">{legend}</div></div>'
    )


def _row(
    step: Step,
    spans: Sequence[Span],
    calls: Sequence[Call],
    start: datetime,
    whole_s: float,
    now: datetime,
) -> str:
    bars = ""
    for span in spans:
        left = (span.start - start).total_seconds() / whole_s * 100
        took_s = ((span.end or now) - span.start).total_seconds()
        name = span.phase.title() or "at work"
        bars += (
            f'<i class="phase-{span.phase.lower() or "plain"}{"" if span.end else " open"}"'
            f' style="left:{left:.2f}%;width:{max(took_s / whole_s * 100, 0.4):.2f}%"'
            f' title="{escape(name)}: {long(took_s)}"></i>'
        )
    own = [call for call in calls if call.task_id == step.id][-MARKS_MAX:]
    marks = "".join(
        f'<u class="{"bad" if call.ok is False else ""}"'
        f' style="left:{(call.start - start).total_seconds() / whole_s * 100:.2f}%"'
        f' title="{escape(call.name, quote=True)}"></u>'
        for call in own
        if call.start >= start
    )
    title = escape(" ".join((step.title or step.key).split()))
    return (
        f'<div class="track"><span title="{title}">{title}<em>{escape(step.agent)}</em></span>'
        f"<div>{bars}{marks}</div></div>"
    )


def _recorded(task: Task | None) -> tuple[Span, ...]:
    """What the record alone knows of a part: when it began and ended."""
    if task is None or task.started_at is None:
        return ()
    return (Span(phase="", start=task.started_at, end=task.completed_at),)
