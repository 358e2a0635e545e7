"""The feed's queues and cursors, and the fold from events to what the page shows."""

from __future__ import annotations

from typing import Any

import pytest

from base.bus import Bus
from base.messages import Event, Kind
from portal.feed import QUEUE_EVENTS, Feed, Listener, place
from portal.pages import draw
from portal.pages.view import Run, apply

ME, OTHER = "me", "other"


def event(kind: Kind = Kind.TASK, task: str | None = None, **data: Any) -> Event:
    return Event(kind=kind, agent="code", user_id=ME, root_id="r", task_id=task or "r", data=data)


def test_cursors_sort_as_numbers() -> None:
    assert place("9-0") < place("10-0") < place("10-2") < place("10-11")
    assert place("10") == place("10-0")
    for bad in ("", "x", "-1", "1-x", "1-2-3", "$", "+", "١-0"):
        with pytest.raises(ValueError):
            place(bad)


async def test_a_listener_hears_its_own_and_is_cut_off_when_full() -> None:
    listener = Listener(ME)
    listener.put(("1-0", event().model_copy(update={"user_id": OTHER})))
    listener.put(("1-1", event().model_copy(update={"user_id": None})))
    agent = Event(kind=Kind.AGENT, agent="qa", data={})
    listener.put(("1-2", agent))
    assert listener.waiting() == [("1-2", agent)]
    for at in range(QUEUE_EVENTS + 5):
        listener.put((f"2-{at}", event()))
    assert listener.lost
    heard = 0
    while (await listener.get()) is not None:
        heard += 1
    assert heard == QUEUE_EVENTS


async def test_between_pages_and_stops_at_its_end(redis_url: str) -> None:
    bus = await Bus.open(redis_url, "feed")
    feed = Feed(bus)
    assert await feed.has("0-0")
    await bus.emit(*(event(n=at) for at in range(2500)))
    found = await bus.events_after("0", 3000)
    first, middle, last = found[0][0], found[1700][0], found[-1][0]
    assert await feed.has(first)
    assert not await feed.has("1-0")
    heard = [item async for item in feed.between(first, middle, ME)]
    assert [one.data["n"] for _, one in heard] == list(range(1, 1701))
    assert [item async for item in feed.between(last, last, ME)] == []
    assert [item async for item in feed.between("0-0", last, OTHER)] == []
    await bus.close()


def fold(*events: Event) -> Run:
    run = Run(root_id="r")
    for one in events:
        run = apply(run, one)
    return run


PLAN = event(
    Kind.PLAN,
    subtasks=[
        {"id": "a", "agent": "code", "title": "build", "criteria": [{"id": "ISC-1", "text": "ok"}]},
        {"id": "b", "agent": "qa", "instruction": "test", "depends_on": ["a"]},
    ],
)


def test_a_plan_and_its_steps() -> None:
    run = fold(
        PLAN,
        event(status="in_progress"),
        event(Kind.TASK, "a", status="in_progress", phase="BUILD", progress=0.5),
        event(Kind.TOOL, "a", name="shell", state="started", summary="ls"),
    )
    assert run.status == "in_progress"
    assert list(run.steps) == ["a", "b"]
    assert (run.steps["a"].tool, run.steps["a"].tools) == ("shell ls", 1)
    assert run.steps["b"].title == "test"
    run = apply(run, event(Kind.TOOL, "a", name="shell", state="ended", ok=True))
    assert run.steps["a"].tool == ""
    run = apply(run, event(Kind.CRITERION, "a", id="ISC-1", text="ok", verdict="passed"))
    run = apply(run, event(Kind.CRITERION, "a", id="ISC-2", text="new", verdict="failed"))
    assert [one.verdict for one in run.steps["a"].checks] == ["passed", "failed"]
    run = apply(run, event(Kind.TASK, "a", status="completed"))
    assert run.steps["a"].progress == 1.0


def test_events_before_the_plan_are_not_lost_by_it() -> None:
    run = fold(event(Kind.TASK, "a", status="in_progress", phase="THINK"), PLAN)
    assert run.steps["a"].phase == "THINK"
    assert run.steps["a"].title == "build"


def test_a_higher_attempt_starts_anew_and_a_late_chunk_changes_nothing() -> None:
    run = fold(
        event(Kind.CHUNK, attempt=1, seq=1, content="bad"),
        event(Kind.CHUNK, attempt=2, seq=1, content="go"),
        event(Kind.CHUNK, attempt=1, seq=2, content="late"),
        event(Kind.CHUNK, attempt=2, seq=2, content="od"),
    )
    assert run.answer == "good"
    run = apply(run, event(Kind.MESSAGE, role="assistant", content="good!"))
    run = apply(run, event(Kind.CHUNK, attempt=3, seq=1, content="after"))
    assert (run.answer, run.whole) == ("good!", True)


def test_a_chunk_that_comes_twice_counts_once() -> None:
    chunks = [event(Kind.CHUNK, attempt=1, seq=at, content=f"{at} ") for at in range(4)]
    assert fold(*chunks[:3], *chunks[1:], chunks[0]).answer == "0 1 2 3 "


def test_unknown_fields_change_nothing() -> None:
    run = fold(
        event(status="levitating", progress="x"),
        event(Kind.PLAN),
        event(Kind.TASK, "a", status=None, phase=None),
        event(Kind.CRITERION, "a"),
        event(Kind.TEXT, "a"),
    )
    assert run.status == "pending"
    assert draw.panel(run)


def test_what_people_and_models_wrote_is_escaped() -> None:
    evil = '<img src=x onerror="alert(1)">'
    run = fold(
        event(Kind.PLAN, subtasks=[{"id": "a", "agent": evil, "title": evil}]),
        event(Kind.TASK, "a", status="in_progress", title=evil, error=evil, phase=evil),
        event(Kind.TOOL, "a", name=evil, state="started", summary=evil),
        event(Kind.CRITERION, "a", id=evil, text=evil, verdict=evil, evidence=evil),
        event(
            Kind.CHUNK,
            attempt=1,
            content=f"{evil}\n\n[x](javascript:alert(1))\n\n```{evil}\n{evil}",
        ),
    )
    for html in (draw.panel(run), draw.answer(run), draw.user_text(evil)):
        assert "<img" not in html
        assert 'href="javascript' not in html
    ended = apply(run, event(status="failed", error=evil))
    assert "<img" not in draw.panel(ended)


def test_how_a_run_ends() -> None:
    done = fold(PLAN, event(Kind.TASK, "a", status="completed"), event(status="completed"))
    assert "1 of 2 steps done" in draw.panel(done)
    stopped = fold(event(status="cancelled"))
    assert "Stopped." in draw.panel(stopped)
    broken = fold(event(status="failed", error="the model refused"))
    assert "the model refused" in draw.panel(broken)
