"""Where the owner's hooks come into a task: what each is told, and what follows from its answer.

A hook that fails is shown and changes nothing. What runs twice after a crash is what had not been
written down: PreToolUse of a call without an intent, Stop of an answer that was not accepted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agents.hands import ToolResult
from agents.task import Task
from agents.tool_shape import Need
from agents.transcript import Transcript
from base import log
from base.messages import Status
from base.settings import Settings
from pai.hooks import NOTHING, THEIR_NAMES, Event, Hooks, Verdict, told, tool_names

if TYPE_CHECKING:
    from agents.hook_run import HookHands

#: How often hooks may send an agent back to work that says it is done.
STOPS_MAX = 3
REASON_CHARS = 200
#: Claude Code's names of what a call is given.
THEIR_FIELDS = {"path": "file_path", "old": "old_string", "new": "new_string"}
FILE_TOOLS = frozenset({"read", "write", "edit"})

logger = log.get("hooks")


class Hooked:
    """One an agent process; `release` lets go of the running task's sandbox."""

    def __init__(self, settings: Settings, transcript: Transcript) -> None:
        self._settings = settings
        self._transcript = transcript
        self._hooks = Hooks(settings.config, lambda fault: transcript.line(fault, "33"))
        self._hands: HookHands | None = None

    async def started(self, task: Task) -> None:
        """SessionStart: what it prints is told to the model once a start."""
        source = "resume" if task.resumed else "startup"
        said = await self._fire(task, Event.SESSION_START, (source,), source=source)
        if said.context:
            starts = sum(record["kind"] == "resumed" for record in task.records)
            task.tell(f"hook-start-{starts}", told(Event.SESSION_START, said.context))

    async def ended(self, task: Task, status: Status) -> None:
        """SessionEnd. Nothing follows from it."""
        names = ("other", status.value)
        await self._fire(task, Event.SESSION_END, names, reason="other", status=status.value)

    async def before(self, task: Task, call: dict[str, Any], need: Need) -> Need | str:
        """PreToolUse: what the call needs now, or the words with which it is refused."""
        said = await self._fire(task, Event.PRE_TOOL_USE, **_called(task, call))
        if said.context:
            key = f"hook-before-{call['id']}"
            task.tell(key, told(Event.PRE_TOOL_USE, said.context))
        if said.block:
            return f"refused by the owner's hook\n{told(Event.PRE_TOOL_USE, said.block)}"
        if not said.ask:
            return need
        own = [one.text for one in said.ask if one.trusted]
        why = f": {own[0][:REASON_CHARS]}" if own else ""
        return replace(need, person=True, why=f"a hook of the owner's wants to be asked{why}")

    async def after(self, task: Task, call: dict[str, Any], result: ToolResult) -> None:
        """PostToolUse of a call that succeeded: what it says is told behind the result."""
        if not result.ok:
            return
        response = {"success": True, "text": result.text, "files": list(result.files)}
        given = {**_called(task, call), "tool_response": response}
        said = await self._fire(task, Event.POST_TOOL_USE, **given)
        if more := (*said.block, *said.context):
            task.tell(f"hook-after-{call['id']}", told(Event.POST_TOOL_USE, more))

    async def stop(self, task: Task, answer: str) -> bool:
        """Stop: whether the agent may end; when not, it is told why."""
        times = sum(r["kind"] == "told" and r["key"].startswith("hook-stop-") for r in task.records)
        said = await self._fire(
            task, Event.STOP, stop_hook_active=times > 0, last_assistant_message=answer
        )
        if not said.block:
            return True
        if times >= STOPS_MAX:
            self._show(f"hook Stop blocked {times + 1} times; the agent may end")
            return True
        self._show(f"hook Stop: {said.reason}")
        task.tell(
            f"hook-stop-{times + 1}",
            "[system] A hook of the owner's does not let you end yet. Go on with what it asks as "
            "far as the request covers it, then give your whole answer again.\n\n"
            + told(Event.STOP, said.block),
        )
        return False

    async def compacts(self, task: Task) -> bool:
        """PreCompact: whether old results may be shortened."""
        given = {"trigger": "auto", "custom_instructions": ""}
        said = await self._fire(task, Event.PRE_COMPACT, ("auto",), **given)
        if said.block:
            self._show(f"hook PreCompact: nothing is shortened: {said.reason}")
        return not said.block

    async def release(self) -> None:
        """End the sandbox of hooks, if there is one. Safe to call twice."""
        hands, self._hands = self._hands, None
        if hands is not None:
            await hands.close()

    async def _fire(
        self, task: Task, event: Event, names: Iterable[str] = (), **given: Any
    ) -> Verdict:
        """What the hooks of the event say. Never raises: a hook takes no task down."""
        if "tool_name" in given:
            names = tool_names(given["ai_tool_name"], given["tool_input"])
        due = self._hooks.due(event, names)
        if not due:
            return NOTHING
        from agents.hook_run import HookHands
        from pai import hook_run

        if self._hands is None:
            self._hands = HookHands(self._settings, task.workspace, task.level)
        try:
            said = await hook_run.fire(
                self._settings, due, {**_about(task), **given}, task.workspace, self._hands.run
            )
        except Exception as error:
            logger.exception("hooks failed", task_id=task.order.task_id)
            self._show(f"hooks of {event} failed: {type(error).__name__}: {error}")
            return NOTHING
        if self._hands.reached:
            task.taint(self._hands.reached)
        for notice in said.notices:
            self._show(notice)
        return said

    def _show(self, text: str) -> None:
        self._transcript.line(" ".join(text.split())[:500], "33")


def _about(task: Task) -> dict[str, Any]:
    """The fields of every event: Claude Code's, then ours."""
    order = task.order
    return {
        "session_id": order.root_id,
        "transcript_path": str(task.folder / "journal.jsonl"),
        "cwd": str(task.workspace),
        "permission_mode": "default",
        "agent_id": order.task_id,
        "agent_type": order.agent,
        "task_id": order.task_id,
        "agent": order.agent,
        "user_id": order.user_id,
        "conversation_id": order.conversation_id,
        "level": task.level.rank,
        "tainted": task.tainted,
    }


def _called(task: Task, call: dict[str, Any]) -> dict[str, Any]:
    """A tool call as Claude Code tells one, with our own names beside its."""
    name, given = call["name"], dict(call["input"])
    if name in FILE_TOOLS:
        theirs = {THEIR_FIELDS[key]: given[key] for key in THEIR_FIELDS if key in given}
        theirs["file_path"] = os.path.join(task.workspace, given["path"])
        given |= theirs
    return {
        "tool_name": THEIR_NAMES.get(name, name),
        "tool_input": given,
        "tool_use_id": call["id"],
        "ai_tool_name": name,
    }
