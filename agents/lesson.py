"""What a task teaches: lessons that the model names, else those that measurements show. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agents.prompt import LESSON_PHASES, LESSONS_MAX
from agents.task import Task
from base.messages import Phase, Verdict
from base.terminal import clipped
from pai.record import Record
from pai.shapes import Learned

LESSON_CHARS = 1_000
TRIGGER_CHARS = 400


def reflected(given: object) -> list[dict[str, str]]:
    """The lessons in the input of `reflect` that are whole; the others are dropped."""
    found = []
    for one in given if isinstance(given, list) else ():
        if isinstance(one, Mapping) and one.get("phase") in LESSON_PHASES:
            keys = ("phase", "lesson", "applies_when", "evidence")
            told = {key: " ".join(str(one.get(key) or "").split()) for key in keys}
            if told["lesson"] and told["applies_when"]:
                found.append(told)
    return found[:LESSONS_MAX]


def learned(task: Task) -> list[Learned]:
    """What is worth keeping of the task, at most a handful.

    Where the model named no lesson: each failed criterion that was traced to a phase and then
    passed, since cause, fix and proof are known. Nothing else was measured well enough.
    """
    outcome = "success" if task.state.passed else "failure"
    named = [one for r in task.records if r["kind"] == "reflected" for one in r.get("lessons", ())]
    return [
        Learned.model_validate(
            {
                "phase": one["phase"],
                "lesson": clipped(one["lesson"], LESSON_CHARS),
                "applies_when": clipped(one["applies_when"], TRIGGER_CHARS),
                "evidence": clipped(one["evidence"], LESSON_CHARS),
                "outcome": outcome,
            }
        )
        for one in (named or list(_measured(task)))[:LESSONS_MAX]
    ]


def _measured(task: Task) -> Iterator[dict[str, str]]:
    """One lesson for each going back that mended something which then held to the end."""
    before: dict[str, Mapping[str, Any]] = {}
    traced: Record | None = None
    held = {one.id for one in task.checked if one.verdict is Verdict.PASSED}
    for record in task.records:
        if record["kind"] == "traced":
            traced = record
        if record["kind"] != "measured":
            continue
        now = {one["id"]: one for one in record["checked"]}
        mended = [
            one
            for name, one in before.items()
            if one["verdict"] == Verdict.FAILED
            and name in held
            and now.get(name, {}).get("verdict") == Verdict.PASSED
        ]
        if traced is not None and traced["fix"].strip() and mended:
            yield _lesson(task, traced, mended, now)
        before, traced = now, None


def _lesson(
    task: Task, traced: Record, mended: list[Mapping[str, Any]], now: Mapping[str, Any]
) -> dict[str, str]:
    texts = "; ".join(one["text"] for one in mended)
    proof = "; ".join(
        f"{one['id']} failed ({one['evidence'] or 'no output'}), then passed "
        f"({now[one['id']]['evidence'] or 'no output'})"
        for one in mended
    )
    work = " ".join(task.order.instruction.split())[:200]
    return {
        "phase": Phase(traced["phase"]).value,
        "lesson": f"{traced['fix'].strip()} (what went wrong: {traced['cause'].strip()})",
        "applies_when": f"{work}; wanted: {texts}",
        "evidence": proof,
    }
