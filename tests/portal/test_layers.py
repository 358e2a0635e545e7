"""The drawing of a plan: where its parts stand, and what became of them over time."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from base.messages import Event, Kind
from portal.pages import course, graph
from portal.pages.course import Course
from portal.pages.layers import layout
from portal.pages.view import Step

START = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("parts", "after", "layers", "edges"),
    [
        ("", {}, [], set()),
        ("a", {}, ["a"], set()),
        ("abc", {}, ["abc"], set()),
        ("abc", {"b": "a", "c": "b"}, ["a", "b", "c"], {"ab", "bc"}),
        ("abcd", {"b": "a", "c": "a", "d": "bc"}, ["a", "bc", "d"], {"ab", "ac", "bd", "cd"}),
        # A part that waits for an early and a late one stands after the late one.
        ("abc", {"b": "a", "c": "ab"}, ["a", "b", "c"], {"ab", "ac", "bc"}),
        # The order in which parts are given does not matter.
        ("cba", {"b": "a", "c": "b"}, ["a", "b", "c"], {"ab", "bc"}),
        # Unknown parts, oneself, the same twice.
        ("ab", {"a": "xa", "b": "aay"}, ["a", "b"], {"ab"}),
        # A circle: drawn without the line that closes it.
        ("ab", {"a": "b", "b": "a"}, ["b", "a"], {"ba"}),
    ],
)
def test_layers(parts: str, after: dict[str, str], layers: list[str], edges: set[str]) -> None:
    found = layout(list(parts), after)
    assert found.layers == len(layers)
    stand = [
        {part for part in parts if found.at[part][0] == number} for number in range(len(layers))
    ]
    assert stand == [set(layer) for layer in layers]
    assert {before + part for before, part in found.edges} == edges
    assert found.places == max((len(layer) for layer in layers), default=0)
    assert len(set(found.at.values())) == len(parts), "two parts stand on each other"


def test_lines_do_not_cross_where_they_need_not() -> None:
    after = {"x": "c", "y": "b", "z": "a"}
    found = layout(list("abcxyz"), after)
    place = {part: at[1] for part, at in found.at.items()}
    for (one, one_to), (two, two_to) in itertools.combinations(found.edges, 2):
        assert (place[one] < place[two]) == (place[one_to] < place[two_to])


def test_a_long_chain_is_no_deep_recursion() -> None:
    parts = [f"p{number}" for number in range(3_000)]
    after = {part: [before] for before, part in itertools.pairwise(parts)}
    assert layout(parts[::-1], after).layers == 3_000


def test_the_drawing_escapes_and_names_its_parts() -> None:
    steps = {
        "a": Step(id="a", agent="code", title="<script>x</script> \u202ee", status="completed"),
        "b": Step(id="b", agent="qa", title="b " * 60, status="in_progress", phase="VERIFY",
                  depends_on=("a",), progress=0.5),
    }  # fmt: skip
    drawn = graph.draw(steps)
    assert "<script" not in drawn
    assert "unseen" in drawn
    assert "qa · working · Verify" in drawn
    assert drawn.count('class="edge"') == 1
    assert graph.draw({}) == ""


def event(at_s: float, kind: Kind, part: str = "p", **data: Any) -> Event:
    return Event(
        kind=kind,
        agent="code",
        user_id="u",
        root_id="r",
        task_id=part,
        timestamp=START + timedelta(seconds=at_s),
        data=data,
    )


def fold(*events: Event) -> Course:
    found = Course()
    for one in events:
        found = course.apply(found, one)
    return found


def stretches(found: Course, part: str = "p") -> list[tuple[str, float, float | None]]:
    return [
        (
            span.phase,
            (span.start - START).total_seconds(),
            (span.end - START).total_seconds() if span.end else None,
        )
        for span in found.spans.get(part, ())
    ]


def test_phases_follow_each_other_and_end() -> None:
    found = fold(
        event(0, Kind.TASK, status="pending"),
        event(1, Kind.TASK, status="in_progress"),
        event(2, Kind.TASK, status="in_progress", phase="BUILD"),
        event(3, Kind.TASK, status="in_progress", phase="BUILD"),
        event(4, Kind.TASK, status="waiting"),
        event(9, Kind.TASK, status="in_progress"),
        event(10, Kind.TASK, status="in_progress", phase="VERIFY"),
        event(12, Kind.TASK, status="completed"),
        event(13, Kind.TASK, status="completed"),
    )
    assert stretches(found) == [
        ("", 1, 2), ("BUILD", 2, 4), ("waiting", 4, 9), ("", 9, 10), ("VERIFY", 10, 12),
    ]  # fmt: skip


def test_the_whole_is_no_part_and_a_part_may_begin_again() -> None:
    found = fold(
        event(0, Kind.TASK, part="r", status="in_progress", phase="PLAN"),
        event(1, Kind.TASK, status="in_progress", phase="BUILD"),
        event(2, Kind.TASK, status="failed"),
        event(5, Kind.TASK, status="in_progress", phase="OBSERVE"),
    )
    assert stretches(found, "r") == []
    assert stretches(found) == [("BUILD", 1, 2), ("OBSERVE", 5, None)]


def test_calls_end_where_they_began() -> None:
    started = {"name": "shell", "state": "started"}
    found = fold(
        event(1, Kind.TOOL, call_id="1", summary="ls", **started),
        event(2, Kind.TOOL, call_id="2", summary="make", **started),
        event(3, Kind.TOOL, call_id="1", name="shell", state="ended", ok=True, summary="a b"),
        event(4, Kind.TOOL, call_id="9", name="shell", state="ended", ok=True, summary="?"),
        event(5, Kind.TOOL, call_id="2", part="q", name="shell", state="ended", ok=True),
    )
    assert [(one.id, one.ok, one.result, one.end is None) for one in found.calls] == [
        ("1", True, "a b", False), ("2", None, "", True),
    ]  # fmt: skip
