"""What a task teaches: from the model's reflection or from what was measured, told once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from agent_rig import Rig, order, script

from agents import lesson
from base import streams
from base.messages import Budget, Effort, Status, decode
from pai.shapes import Told

FRAME = {
    "frame": {
        "context": "c",
        "criteria": [
            {
                "text": "The file a.txt holds hello",
                "probe": {"kind": "command", "command": "grep -q hello a.txt"},
            }
        ],
    }
}
WRITE = {"tool": "write", "input": {"path": "a.txt", "content": "hello"}}
WRONG = {"tool": "write", "input": {"path": "b.txt", "content": "hello"}}
TRACE = {"trace": {"phase": "PLAN", "cause": "The name was guessed.", "fix": "Read the order."}}
LESSON = {
    "phase": "VERIFY", "lesson": "Grep for the word.", "applies_when": "a file must hold a word",
    "evidence": "ISC-1 passed",
}  # fmt: skip


def reflection(*lessons: Any) -> dict[str, Any]:
    four = {"went_well": "w", "went_badly": "b", "differently": "d", "lesson": "l"}
    return {"reflect": {**four, "lessons": list(lessons)}}


async def heard(rig: Rig) -> list[Told]:
    """What was told to memory so far."""
    rows = await rig.bus.call(("XRANGE", streams.MEMORY, "-", "+"))
    return [Told.model_validate(decode(fields[1]).payload) for _, fields in rows[0]]


async def test_the_models_lessons_are_told_with_the_outcome(rig: Rig) -> None:
    rig.start()
    told = await rig.send(
        order(
            script(FRAME, WRITE, {"say": "Done."}, reflection(LESSON, {"phase": "NONSENSE"})),
            effort=Effort.EXTENDED,
            budget=Budget(tokens=5_000_000, usd=20),
        )
    )
    assert (await rig.ended(told)).status is Status.COMPLETED
    (what,) = await heard(rig)
    assert (what.verb, what.user_id, what.agent) == ("learned", "u1", "code")
    assert (what.task_id, what.root_id, what.tainted) == (told.task_id, told.root_id, False)
    (one,) = what.learned
    assert one.model_dump() == {**LESSON, "outcome": "success"}
    assert "✎ VERIFY: Grep for the word. (when a file must hold a word)" in rig.screen()


async def test_at_standard_effort_what_was_mended_is_the_lesson(rig: Rig) -> None:
    rig.start()
    told = await rig.send(
        order(
            script(FRAME, WRONG, {"say": "x"}, TRACE, FRAME, WRITE, {"say": "Done."}),
            instruction="Write hello into a.txt",
        )
    )
    assert (await rig.ended(told)).status is Status.COMPLETED
    assert "reflect" not in rig.prompts(told)
    (what,) = await heard(rig)
    (one,) = what.learned
    assert (one.phase, one.outcome) == ("PLAN", "success")
    assert one.lesson == "Read the order. (what went wrong: The name was guessed.)"
    assert one.applies_when == "Write hello into a.txt; wanted: The file a.txt holds hello"
    assert one.evidence.startswith("ISC-1 failed (")
    assert "then passed (" in one.evidence


async def test_what_went_well_at_once_or_never_teaches_nothing(rig: Rig) -> None:
    rig.start()
    fine = await rig.send(order(script(FRAME, WRITE, {"say": "Done."})))
    assert (await rig.ended(fine)).status is Status.COMPLETED
    asked = await rig.send(order(script({"say": "42"}), effort=Effort.MINIMAL))
    await rig.ended(asked)
    bad = await rig.send(order(script(FRAME, {"say": "x"}, TRACE), workspace="other"))
    assert (await rig.ended(bad)).status is Status.FAILED
    assert await heard(rig) == []


async def test_killed_before_it_was_told_it_tells_the_same_and_only_that(rig: Rig) -> None:
    rig.start()
    told = await rig.send(
        order(
            script(FRAME, WRITE, {"say": "Done."}, reflection(LESSON)),
            effort=Effort.EXTENDED,
            budget=Budget(tokens=5_000_000, usd=20),
            tainted=True,
        )
    )
    await rig.ended(told)
    rig.kill()
    path = rig.folder(told) / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    cut = next(n for n, line in enumerate(lines) if json.loads(line)["kind"] == "taught")
    path.write_text("".join(lines[: cut + 1]))  # it died before it said so
    rig.start()
    await rig.send(told.model_copy(update={"epoch": 2}))
    await rig.ended(told, 2)
    first, second = await heard(rig)
    assert first == second, "the keeper makes the same ids of it"
    assert first.tainted, "what a tainted task learned is tainted"
    assert rig.prompts(told).count("reflect") == 1
    assert rig.kinds(told).count("taught") == 1


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, 0), ("x", 0), ([], 0), ([LESSON], 1), ([LESSON] * 9, 5), ([{}], 0), (["x"], 0),
        ([{**LESSON, "phase": "plan"}], 0), ([{**LESSON, "phase": "ALGORITHM"}], 1),
        ([{**LESSON, "applies_when": " "}], 0), ([{**LESSON, "lesson": ""}], 0),
        ([{**LESSON, "evidence": None}], 1), ([{**LESSON, "lesson": ["a\nb"]}], 1),
    ],
)  # fmt: skip
def test_only_whole_lessons_are_kept(given: object, kept: int) -> None:
    found = lesson.reflected(given)
    assert len(found) == kept
    assert all("\n" not in value for one in found for value in one.values())
