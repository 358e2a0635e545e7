"""EXECUTE: the tool loop. An intent is on the disk before a call runs, its result after.

A call whose intent has no result was under way when the process died. It is never run again by
itself: the model is told to look first, and at an elevated level the task stops for a person.
"""

from __future__ import annotations

import json
from typing import Any

from agents import model, peer, prompt, tools
from agents.hands import Hands, ToolResult
from agents.parts import Parts
from agents.task import Task, calls, reply_text
from base.deadline import Deadline
from base.errors import ConflictError, ModelError, SandboxError
from base.messages import Kind
from base.reply import LIMIT_REASONS
from base.terminal import short

#: The longest a tool may take, its own limit included.
TOOL_S = tools.SHELL_MAX_S + 30.0
ELEVATED_LEVEL = 2
CUTS_MAX = 3
#: Calls past the tool limit that are answered before the task fails.
PAST_LIMIT_MAX = 5
LIMIT_TOLD = "the limit of {} tool calls for a task is reached; end with your answer now"
UNKNOWN = (
    "UNKNOWN: the system was interrupted while this call ran. It may or may not have happened. "
    "Look at the present state first; repeat it only if it did not happen."
)


class Grip:
    """The task's hands, opened when first needed and again when they broke."""

    def __init__(self, parts: Parts, task: Task) -> None:
        self._parts = parts
        self._task = task
        self._hands: Hands | None = None

    async def hold(self) -> Hands:
        """Raises SandboxError when there can be no sandbox."""
        if self._hands is not None and self._hands.broken:
            await self.release()
        if self._hands is None:
            user = self._parts.settings.hands_user
            self._hands = await Hands.open(workspace=self._task.workspace, user=user)
        return self._hands

    async def call(self, name: str, given: dict[str, Any]) -> ToolResult:
        """Run a tool; a sandbox that broke under it is a failed result and is replaced."""
        hands = await self.hold()
        try:
            return await hands.call(name, given, deadline=Deadline.after(TOOL_S))
        except SandboxError as error:
            await self.release()
            return ToolResult(ok=False, text=f"{error}; what the call did is unknown")

    async def release(self) -> None:
        hands, self._hands = self._hands, None
        if hands is not None:
            await hands.close()


async def execute(parts: Parts, task: Task, grip: Grip) -> None:
    """Ask and act until the model answers without tool calls, or hands the task off."""
    purpose = "execute" if task.state.tier.frames else "minimal"
    if purpose == "execute":
        task.tell(f"execute-{task.state.round}", _begin(task))
    while True:
        reply = task.pending(purpose) or await model.ask(parts, task, purpose)
        if not calls(reply):
            if reply["stop_reason"] in LIMIT_REASONS:
                _continue(task)
            elif reply["stop_reason"] == "refusal":
                raise ModelError(f"the model refused: {reply_text(reply) or 'it gave no reason'}")
            elif not reply_text(reply).strip() and not task.told("empty"):
                task.tell("empty", "[system] Your last message was empty. Give your answer.")
            elif not parts.reins.steered(task):
                task.add("worked", sync=True)
                return
        for call in task.unanswered(reply):
            await _act(parts, task, grip, call)
            if task.handed is not None:
                return


async def _act(parts: Parts, task: Task, grip: Grip, call: dict[str, Any]) -> None:
    """Carry out one tool call, or tell the model why not."""
    call_id, name, given = call["id"], call["name"], call["input"]
    if task.intended(call_id):
        if task.order.level >= ELEVATED_LEVEL:
            raise ConflictError(
                f"{name} was interrupted and may or may not have happened; at level "
                f"{task.order.level} a person must look before the task goes on"
            )
        _result(parts, task, call, ToolResult(ok=False, text=UNKNOWN))
        return
    if (fault := _refusal(task, name, given)) is not None:
        parts.transcript.tool(name, short(str(given)))
        _result(parts, task, call, ToolResult(ok=False, text=fault))
        return
    await parts.reins.safe_point(task)
    task.add("intent", sync=True, call_id=call_id, name=name, input=given)
    summary = _summary(given)
    parts.transcript.tool(name, summary)
    parts.emit(Kind.TOOL, name=name, call_id=call_id, state="started", summary=summary, ok=None)
    if tools.TOOLS[name].where == "bus":
        result = await peer.call(parts, task, name, given)
    else:
        result = await grip.call(name, given)
    _result(parts, task, call, result)


def _result(parts: Parts, task: Task, call: dict[str, Any], result: ToolResult) -> None:
    task.add(
        "result",
        sync=True,
        call_id=call["id"],
        name=call["name"],
        ok=result.ok,
        text=result.text,
        files=list(result.files),
    )
    parts.transcript.result(result.text, ok=result.ok)
    parts.emit(
        Kind.TOOL,
        name=call["name"],
        call_id=call["id"],
        state="ended",
        summary=short(result.text),
        ok=result.ok,
    )


def _refusal(task: Task, name: str, given: object) -> str | None:
    """Why the call is not run; None when it may be."""
    if name in prompt.FORCED:
        return f"{name} is called only when the system asks for it; go on with the work"
    limit = task.state.tier.tool_steps
    if task.tool_steps() < limit:
        if name in tools.TOOLS and name not in task.spec.tools:
            return f"{name} is not one of your tools; there are: {', '.join(task.spec.tools)}"
        return tools.fault(name, given)
    told = LIMIT_TOLD.format(limit)
    past = sum(r["kind"] == "result" and r["text"] == told for r in task.records)
    if past >= PAST_LIMIT_MAX:
        raise ModelError(f"the model went on calling tools past the limit of {limit}")
    return told


def _begin(task: Task) -> str:
    """What the system says at the start of EXECUTE, in the first round and in later ones."""
    rows = "\n".join(f"- {one.id}: {one.text} ({one.probe.kind})" for one in task.criteria)
    listed = f" The criteria that the system will measure:\n{rows}" if rows else ""
    if task.state.round == 1:
        return f"[system] Phase EXECUTE. Do the work, then give your answer.{listed}"
    return (
        f"[system] Phase EXECUTE, round {task.state.round} of {task.state.tier.rounds}. Mend what "
        f"failed, then give your whole answer again.{listed}"
    )


def _continue(task: Task) -> None:
    """The reply did not fit: ask for the rest in smaller pieces, a few times."""
    cuts = sum(r["kind"] == "told" and r["key"].startswith("cut-") for r in task.records)
    if cuts >= CUTS_MAX:
        raise ModelError(f"the model's reply was too long {CUTS_MAX + 1} times")
    task.tell(
        f"cut-{cuts + 1}",
        "[system] Your reply was cut at its longest length and no tool call in it was run. "
        "Go on in smaller pieces; give the final answer whole.",
    )


def _summary(given: dict[str, Any]) -> str:
    """One line of a call's input: its main value, or all of it."""
    for key in ("command", "path", "pattern", "question", "text", "agent"):
        if isinstance(given.get(key), str):
            return short(given[key])
    return short(json.dumps(given, ensure_ascii=False))
