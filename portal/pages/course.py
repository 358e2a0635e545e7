"""What became of a request over time: phases of each part and its tool calls, folded from events.

Pure. Events are kept for a while only; what lies before them is known from the record, as one
stretch without phases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from base.messages import Event, Kind, Status

CALLS_MAX = 2_000
#: Between phases, and where nobody told of any.
PLAIN, WAITS = "", "waiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of one part. end None: it lasts. phase: one of the seven, "waiting", or "" ."""

    phase: str
    start: datetime
    end: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One tool call. end None: it runs, or its end was never told."""

    id: str
    task_id: str
    agent: str
    name: str
    summary: str
    start: datetime
    end: datetime | None = None
    ok: bool | None = None
    result: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """spans, by part; calls in order, the newest `CALLS_MAX`."""

    spans: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    calls: tuple[Call, ...] = ()


def apply(course: Course, event: Event) -> Course:
    """The course after `event`; those of other kinds change nothing."""
    if event.task_id is None:
        return course
    if event.kind is Kind.TOOL:
        return replace(course, calls=_called(course.calls, event))
    if event.kind is Kind.TASK and event.task_id != event.root_id:
        spans = _stretched(course.spans.get(event.task_id, ()), event)
        return replace(course, spans={**course.spans, event.task_id: spans})
    return course


def _stretched(spans: tuple[Span, ...], event: Event) -> tuple[Span, ...]:
    status, at = str(event.data.get("status") or ""), event.timestamp
    now = spans[-1] if spans and spans[-1].end is None else None
    if status in {one.value for one in Status if one.ended}:
        return (*spans[:-1], replace(now, end=at)) if now else spans
    if status == Status.IN_PROGRESS:
        phase = str(event.data.get("phase") or (now.phase if now else PLAIN))
        phase = PLAIN if phase == WAITS else phase
    elif status == Status.WAITING:
        phase = WAITS
    else:
        return spans
    if now is None:
        return (*spans, Span(phase=phase, start=at))
    if now.phase == phase:
        return spans
    return (*spans[:-1], replace(now, end=at), Span(phase=phase, start=at))


def _called(calls: tuple[Call, ...], event: Event) -> tuple[Call, ...]:
    data, task_id = event.data, str(event.task_id)
    call_id = str(data.get("call_id") or "")
    if data.get("state") == "started":
        call = Call(
            id=call_id,
            task_id=task_id,
            agent=event.agent,
            name=str(data.get("name") or ""),
            summary=str(data.get("summary") or ""),
            start=event.timestamp,
        )
        return (*calls, call)[-CALLS_MAX:]
    for at in range(len(calls) - 1, -1, -1):
        call = calls[at]
        if (call.id, call.task_id) == (call_id, task_id) and call.end is None:
            ended = replace(
                call,
                end=event.timestamp,
                ok=bool(data.get("ok")),
                result=str(data.get("summary") or ""),
            )
            return (*calls[:at], ended, *calls[at + 1 :])
    return calls
