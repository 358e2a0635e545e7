"""OBSERVE to BUILD: the forced framing calls, the criteria gate, and the freeze."""

from __future__ import annotations

from typing import Any

from agents import model, prompt, recollect, tool_audit
from agents.parts import Parts
from agents.task import Task, calls
from pai import criteria
from pai.phases import Step
from pai.record import Record


async def frame(parts: Parts, task: Task, step: Step) -> None:
    """One framing call. After the last, the gate's faults are kept for one more asking."""
    await open_task(parts, task)
    again = task.state.gate_faults if step.again else ()
    text = prompt.framing(step.phases, again)
    if task.state.frozen:
        text += " The criteria are frozen and stay as they are; leave `criteria` empty."
    key = f"frame-{task.state.round}-{step.phases[0]}{'-again' if step.again else ''}"
    task.tell(key, text)
    reply = task.pending("frame") or await model.ask(parts, task, "frame", force="frame")
    given = forced(task, reply, "frame")
    raw = given.get("criteria") if not task.state.frozen else ()
    last = step.again or task.state.framed == len(task.state.tier.frames) - 1
    gate = criteria.gate(
        task.order.criteria,
        task.criteria,
        raw if isinstance(raw, list) else (),
        floor=task.state.tier.floor if last else 0,
        workspace=task.workspace,
    )
    faults = gate.faults if last and not task.state.frozen else ()
    notes = [line for one in gate.criteria for line in criteria.advice(one)]
    await settle(parts, task, reply, "frame", _told(task, gate, notes))
    task.add(
        "framed",
        phases=step.phases,
        frame={key: value for key, value in given.items() if key != "criteria"},
        criteria=[one.model_dump(mode="json") for one in gate.criteria],
        gate_faults=faults,
    )
    for fault in gate.faults:
        parts.transcript.line(f"! {fault}", "33")


async def freeze(parts: Parts, task: Task) -> None:
    """From here on the criteria stand. What was unusable is said aloud."""
    await open_task(parts, task)
    task.add("frozen", criteria=[one.model_dump(mode="json") for one in task.criteria])
    for one in task.criteria:
        parts.transcript.line(f"□ {one.id} {one.text}  [{one.probe.kind}]")
    if task.state.gate_faults:
        parts.transcript.line("going on with the criteria that are usable", "33")


async def open_task(parts: Parts, task: Task) -> None:
    """Say what was asked and what memory knows about it, once."""
    if task.told("opening"):
        return
    await recollect.recollect(parts, task)
    user_id = task.order.user_id
    if parts.notes.tainted(user_id):
        task.taint("a broadcast")
    opening = prompt.opening(task.order, parts.notes.of(user_id), task.recalled)
    task.tell("opening", opening, task.order.attachments)


def forced(task: Task, reply: Record, name: str) -> dict[str, Any]:
    """The input of the forced call; {} when the model did not make it."""
    return next((call["input"] for call in calls(reply) if call["name"] == name), {})


async def settle(parts: Parts, task: Task, reply: Record, name: str, text: str) -> None:
    """Answer the calls of a forced reply: the first of `name` with `text`, others with a no."""
    first = True
    for call in calls(reply):
        wanted = call["name"] == name and first
        first = first and not wanted
        if call in task.unanswered(reply):
            refusal = f"not run: only {name} could be called here"
            if call["name"] not in prompt.FORCED:
                await tool_audit.ended(parts, task, call, "denied", refusal)
            task.add(
                "result",
                call_id=call["id"],
                name=call["name"],
                ok=wanted,
                text=text if wanted else refusal,
                files=[],
            )


def _told(task: Task, gate: criteria.Gate, notes: list[str]) -> str:
    rows = [f"{one.id}: {one.text} ({one.probe.kind})" for one in gate.criteria]
    if task.state.frozen:
        return "Noted. The frozen criteria:\n" + "\n".join(rows)
    lines = ["Noted. The criteria as they stand:", *rows]
    if gate.faults:
        lines += ["Not usable:", *gate.faults]
    return "\n".join(lines + (["Wording:", *notes] if notes else []))
