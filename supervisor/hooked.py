"""The owner's hooks around a request: before anything is made of it, and as its parts end.

What UserPromptSubmit added is kept in the request's own row, so that a crash does not ask again and
every agent that works on it is told the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import ValidationError

from base import log
from base.messages import Aside, Outcome
from pai import hooks
from pai.hooks import NOTHING, Event, Hook, Verdict
from supervisor import record
from supervisor.parts import Parts, storable
from supervisor.tasks import Task

KEY = "hooked"
LAST = 0  # behind planning and joining
SHOWN_CHARS = 500

logger = log.get(__name__)


def prompts(parts: Parts) -> bool:
    """Whether there are hooks that want to see a request."""
    return bool(parts.hooks.due(Event.USER_PROMPT_SUBMIT))


async def submitted(parts: Parts, root: Task) -> tuple[Task, str | None]:
    """UserPromptSubmit, once a request: the request with what is added, and why it is refused."""
    if _kept(root) is not None:
        return root, None
    due = parts.hooks.due(Event.USER_PROMPT_SUBMIT)
    said = await _fire(parts, root, due, {"prompt": root.instruction})
    if said.block:
        return root, f"a hook of the owner's refused it: {said.reason}"
    added = [one.model_dump() for one in said.context]
    given = {KEY: storable({"root": root.id, "asides": added})}
    await parts.store.execute(
        "UPDATE tasks SET input = input || $2::jsonb WHERE id = $1 AND status = 'pending'",
        *(root.id, given),
    )
    return replace(root, input={**root.input, **given}), None


def asides(root: Task) -> tuple[Aside, ...]:
    """What hooks added to a request."""
    kept = _kept(root) or {}
    try:
        return tuple(Aside.model_validate(one) for one in kept.get("asides", ()))
    except ValidationError:  # the row is the record's, and may be older than this program
        return ()


def told(root: Task) -> str:
    """The same for a model; "" for nothing."""
    return hooks.told(Event.USER_PROMPT_SUBMIT, asides(root))


def stopped(parts: Parts, task: Task, outcome: Outcome) -> None:
    """SubagentStop, beside the loop. The part has ended: nothing that is said changes that."""
    due = parts.hooks.due(Event.SUBAGENT_STOP, (outcome.agent,))
    if due:
        work = partial(_stopped, parts, task, outcome, due)
        parts.slots.add(f"hook {task.id} {outcome.epoch}", LAST, work)


async def _stopped(parts: Parts, task: Task, outcome: Outcome, due: tuple[Hook, ...]) -> None:
    given = {
        "agent_id": task.id,
        "agent_type": outcome.agent,
        "stop_hook_active": False,
        "last_assistant_message": outcome.answer,
        "status": outcome.status.value,
        "error": outcome.error,
        "cost_usd": outcome.usage.cost_usd,
        "agent": outcome.agent,
        "tainted": outcome.tainted,
    }
    await _fire(parts, task, due, given)


async def _fire(
    parts: Parts, task: Task, due: tuple[Hook, ...], given: Mapping[str, Any]
) -> Verdict:
    """What they say; what people should see of it goes to the window and the task's log."""
    if not due:
        return NOTHING
    from pai import hook_run

    settings = parts.settings
    workspace = settings.workspace(task.user_id, task.workspace)
    about = {
        "session_id": task.root_id,
        "cwd": str(workspace),
        "permission_mode": "default",
        "task_id": task.id,
        "user_id": task.user_id,
        "conversation_id": task.conversation_id,
    }
    box = hook_run.elsewhere(settings, workspace)
    try:
        said = await hook_run.fire(settings, due, {**about, **given}, workspace, box)
    except Exception as error:
        logger.exception("hooks failed", task_id=task.id)
        parts.tell(f"{task.root_id[:8]} hooks of {due[0].event} failed: {error}")
        return NOTHING
    for notice in said.notices:
        line = storable(" ".join(notice.split())[:SHOWN_CHARS])
        parts.tell(f"{task.root_id[:8]} {line}")
        await record.log(parts.store, task.id, line, level="warning")
    return said


def _kept(root: Task) -> dict[str, Any] | None:
    """What was kept of this very request: a retry takes over the row of another."""
    kept = root.input.get(KEY)
    return kept if isinstance(kept, dict) and kept.get("root") == root.id else None
