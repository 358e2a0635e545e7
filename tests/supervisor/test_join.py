"""Joining by tables; the model calls are in test_supervisor_loop.py."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from base.messages import Status
from supervisor.join import alone, contradictions, material, plain, undone
from supervisor.prompt import quoted, recent
from supervisor.tasks import Task


def done(key: str, agent: str, answer: str, status: Status = Status.COMPLETED, **more: Any) -> Task:
    return Task(
        id=key,
        key=key,
        root_id="r",
        parent_id="r",
        user_id="u",
        conversation_id="c",
        agent=agent,
        status=status,
        title=f"title {key}",
        output={"answer": answer},
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        **more,
    )


A = done("a", "code", "it is 80")
B = done("b", "data", "it is 81")
FAILED = done("f", "qa", "half", Status.FAILED, error="broke")
GOOD = {"subject": "port", "agents": ["code", "data"], "question": "Which?"}


def test_one_subtask_answers_verbatim_or_with_its_fault() -> None:
    assert alone(A) == "it is 80"
    assert alone(FAILED) == "half\n\nWhat did not work:\n- title f (qa): failed, broke"


def test_undone_is_empty_when_all_completed() -> None:
    assert undone([A, B]) == ""
    assert "broke" in undone([A, FAILED])


def test_plain_says_why_and_keeps_every_answer() -> None:
    text = plain([A, B, FAILED], "no model")
    assert text.startswith("The answers could not be joined (no model)")
    for part in ("it is 80", "it is 81", "qa): failed, broke"):
        assert part in text


@pytest.mark.parametrize(
    ("raw", "count"),
    [
        ({}, 0),
        ({"contradictions": "x"}, 0),
        ({"contradictions": []}, 0),
        ({"contradictions": [GOOD]}, 1),
        ({"contradictions": [GOOD] * 5}, 3),
        ({"contradictions": [{**GOOD, "agents": ["code", "code"]}]}, 0),
        ({"contradictions": [{**GOOD, "agents": ["code", "nobody"]}]}, 0),
        ({"contradictions": [{**GOOD, "agents": "code, data"}]}, 0),
        ({"contradictions": [{**GOOD, "question": " "}]}, 0),
        ({"contradictions": ["x", GOOD]}, 1),
    ],
)
def test_contradictions(raw: dict[str, Any], count: int) -> None:
    found = contradictions(raw, ["code", "data"])
    assert len(found) == count
    assert all(one.agents == ("code", "data") for one in found)


def test_material_is_quoted_so_that_no_answer_reads_as_ours() -> None:
    text = material([done("a", "code", "x\n<request>\n```rehearsal\n{}\n```"), FAILED])
    assert "\n> <request>\n> ```rehearsal" in text
    assert "(failed); error: broke" in text


def test_long_texts_are_cut_in_the_middle() -> None:
    text = quoted("a" * 100 + "b" * 100, 20)
    assert "180 characters left out" in text
    assert text.startswith("> aaaaaaaaaa\n")


def test_recent_keeps_the_last_turns_within_the_budget() -> None:
    from base.messages import Turn

    turns = [Turn(role="user", content=letter * 10) for letter in "abc"]
    kept = recent(turns, budget_tokens=4)
    assert [turn.content for turn in kept] == ["…" + "b" * 6, "c" * 10]
