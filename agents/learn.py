"""LEARN and the end: what was measured is written down, and the outcome says it honestly."""

from __future__ import annotations

import asyncio
from typing import Any

from agents import frame, lesson, model, verify
from agents.parts import Parts
from agents.task import Task
from base import log, streams
from base.errors import AIError, BusError, ModelError
from base.messages import Outcome, Status, Verdict
from base.plural import counted
from pai.client import told
from pai.shapes import Learned, Told

logger = log.get("learn")
AGAIN_S = 1.0
NOTHING_MEASURED = "Nothing was measured: the task had no criteria."


async def reflect(parts: Parts, task: Task) -> None:
    """The model's own look back. Its failure does not change how the task ended."""
    task.tell(
        "reflect",
        f"[system] Phase LEARN. Measured:\n{verify.report(task.checked)}\nCall `reflect`.",
    )
    given: dict[str, Any] = {}
    try:
        reply = task.pending("reflect") or await model.ask(parts, task, "reflect", force="reflect")
        given = frame.forced(task, reply, "reflect")
        await frame.settle(parts, task, reply, "reflect", "Noted.")
    except ModelError as error:
        given = {"went_badly": f"no reflection: {error}"}
    lessons = lesson.reflected(given.pop("lessons", None))
    answers = {key: str(value) for key, value in given.items()}
    task.add("reflected", answers=answers, lessons=lessons)


async def learn(parts: Parts, task: Task) -> None:
    """Write the facts that were measured and the model's answers beside them, and tell memory
    what the task taught: first into the journal, so that it is told once more, never otherwise.
    """
    taught = next((r["learned"] for r in task.records if r["kind"] == "taught"), None)
    if taught is None:
        taught = [one.model_dump(mode="json") for one in lesson.learned(task)]
        task.add("taught", sync=True, learned=taught)
    if taught:
        await _tell(parts, task, taught)
    verdicts = [one.verdict for one in task.checked]
    failed_tools = sum(r["kind"] == "result" and not r["ok"] for r in task.records)
    lines = [
        f"{verdicts.count(Verdict.PASSED)} of {len(verdicts)} criteria passed in round "
        f"{task.state.round}",
        f"{counted(task.tool_steps(), 'tool call')}, {failed_tools} failed",
        f"{counted(task.spent.model_calls, 'model call')}, {counted(task.spent.tokens, 'token')}, "
        f"${task.spent.cost_usd:.4f}",
    ]
    lines += [
        f"round {number} went back to {record['phase']}: {record['cause']}"
        for number, record in enumerate((r for r in task.records if r["kind"] == "traced"), 1)
    ]
    for record in task.records:
        if record["kind"] == "reflected":
            lines += [f"{key}: {value}" for key, value in record["answers"].items()]
    task.add("learned", lines=lines)


async def _tell(parts: Parts, task: Task, taught: list[dict[str, Any]]) -> None:
    """Publish the lessons; the keeper makes their ids from the task's, so twice is once."""
    order = task.order
    learned = tuple(Learned.model_validate(one) for one in taught)
    what = Told(
        verb="learned",
        user_id=order.user_id,
        agent=order.agent,
        task_id=order.task_id,
        root_id=order.root_id,
        conversation_id=order.conversation_id,
        tainted=task.tainted,
        learned=learned,
    )
    while True:
        try:
            await parts.bus.publish(streams.MEMORY, told(parts.spec.name, what))
            break
        except BusError as error:
            logger.warning("redis did not take it; again", error=str(error))
            await parts.reins.safe_point(task)
            await asyncio.sleep(AGAIN_S)
    for one in learned:
        parts.transcript.line(f"✎ {one.phase}: {one.lesson} (when {one.applies_when})", "34")


def end(task: Task) -> None:
    """The outcome, from what was measured."""
    if task.handed is not None:
        _close(task, Status.WAITING, handoff_to=task.handed["to"], notes=task.handed["notes"])
        return
    answer = task.answer()
    if task.state.passed:
        measured = bool(task.checked)
        if not measured and task.state.tier.frames:
            answer = f"{answer}\n\n({NOTHING_MEASURED})".strip()
        _close(task, Status.COMPLETED, answer=answer, notes="" if measured else NOTHING_MEASURED)
        return
    missing = f"after {task.state.round} of {task.state.tier.rounds} rounds not everything passed"
    missed = verify.report(task.checked)
    _close(
        task,
        Status.FAILED,
        answer=f"Not done: {missing}.\n{missed}\n\nThe agent's own account:\n{answer}".strip(),
        error=f"{missing}: {missed.splitlines()[0].removeprefix('- ')}",
    )


def fail(task: Task, error: AIError) -> None:
    """The task cannot go on for a reason that is not the work's; what was measured is kept."""
    answer = task.answer()
    if task.checked:
        answer = f"Not done: {error}.\n{verify.report(task.checked)}\n\n{answer}".strip()
    _close(task, Status.FAILED, answer=answer, error=str(error))


def cancel(task: Task, *, final: bool) -> Outcome:
    """Somebody stopped it. `final`: the task itself is over, not only this agent's part."""
    if final:
        return _close(task, Status.CANCELLED, error="cancelled")
    task.add("stopped")
    return _outcome(task, Status.CANCELLED, error="cancelled")


def _close(task: Task, status: Status, **fields: Any) -> Outcome:
    outcome = _outcome(task, status, **fields)
    task.add("end", sync=True, outcome=outcome.model_dump(mode="json"))
    task.write_prd("complete" if status is Status.COMPLETED else status.value)
    return outcome


def _outcome(task: Task, status: Status, **fields: Any) -> Outcome:
    order = task.order
    return Outcome(
        task_id=order.task_id,
        root_id=order.root_id,
        epoch=order.epoch,
        agent=order.agent,
        status=status,
        criteria=tuple(task.checked),
        files=tuple(task.files),
        usage=task.spent,
        rounds=task.state.round,
        tainted=task.tainted,
        **fields,
    )
