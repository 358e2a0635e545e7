"""Tasks. REST and pages call these functions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from base import streams
from base.approvals import Approval
from base.errors import NotFoundError
from base.messages import Status, Wire
from base.outbox import storable
from portal.approvals import of_requests
from portal.auth import Caller
from portal.desk import Desk
from portal.talk import identity, pack, unpack
from portal.trail import event

LOGS_MAX = 1_000
WORDS_MAX = 20


class Task(Wire):
    """A task of the record. Roots have type `request`, parts of a plan `subtask`."""

    id: str
    root_id: str | None
    parent_task_id: str | None
    conversation_id: str | None
    message_id: str | None
    key: str | None
    title: str | None
    type: str
    assigned_agent: str
    requested_agent: str | None
    status: Status
    priority: int
    effort: str
    pai_phase: str | None
    workspace: str
    depends_on: list[str]
    input: Any
    output: Any
    error: str | None
    verification_criteria: Any
    usage: dict[str, Any]
    budget_tokens: int | None
    budget_usd: float | None
    cancel_requested: bool
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


class Note(Wire):
    """A line of a task's log."""

    task_id: str
    level: str
    message: str
    data: Any
    created_at: datetime


class Tasks(Wire):
    tasks: list[Task]
    next_cursor: str | None


class TaskWhole(Wire):
    """A task, the parts of its plan, the newest 1,000 log lines, oldest first, and the approvals
    that its parts wait for.
    """

    task: Task
    subtasks: list[Task]
    logs: list[Note]
    approvals: list[Approval] = Field(default_factory=list)


class Cancelled(Wire):
    status: Status


class Retried(Wire):
    """The new task."""

    task_id: str


class Steered(Wire):
    """Which agents were told."""

    ok: bool
    agents: list[str]


async def tasks(
    desk: Desk,
    caller: Caller,
    *,
    status: Status | None = None,
    agent: str | None = None,
    conversation_id: str | None = None,
    words: str = "",
    limit: int = 20,
    cursor: str | None = None,
) -> Tasks:
    """The caller's tasks, newest first: whole requests, or with `agent` what that agent has.
    words: all of them are in its title or in what was asked.
    """
    before, last = unpack(cursor) if cursor else (None, None)
    rows = await desk.store.fetch(
        "SELECT * FROM tasks WHERE user_id = $1 AND ($2::text IS NULL OR status = $2)"
        " AND CASE WHEN $3::text IS NULL THEN type = 'request' ELSE assigned_agent = $3 END"
        " AND ($4::uuid IS NULL OR conversation_id = $4)"
        " AND ($5::timestamptz IS NULL OR (created_at, id) < ($5, $6::uuid))"
        " AND NOT EXISTS (SELECT FROM unnest($8::text[]) AS word WHERE strpos(lower(concat_ws("
        "' ', title, input->>'content', input->>'instruction', id::text)), word) = 0)"
        " ORDER BY created_at DESC, id DESC LIMIT $7",
        *(caller.user_id, status, agent and storable(agent, "agent"), conversation_id),
        *(before, last, limit + 1, words.lower().split()[:WORDS_MAX]),
    )
    found = [Task(**row) for row in rows[:limit]]
    more = len(rows) > limit
    return Tasks(
        tasks=found, next_cursor=pack(found[-1].created_at, found[-1].id) if more else None
    )


async def conversation_titles(desk: Desk, caller: Caller, found: list[Task]) -> dict[str, str]:
    """What the caller's conversations that these tasks belong to are called."""
    rows = await desk.store.fetch(
        "SELECT id, title FROM conversations WHERE id = ANY($1) AND user_id = $2",
        *([one.conversation_id for one in found if one.conversation_id], caller.user_id),
    )
    return {row["id"]: row["title"] or "New conversation" for row in rows}


async def task(desk: Desk, caller: Caller, task_id: str) -> Task:
    """Raises NotFoundError for one that is unknown or somebody else's."""
    row = await desk.store.fetchrow(
        "SELECT * FROM tasks WHERE id = $1 AND user_id = $2",
        *(identity(task_id, "task"), caller.user_id),
    )
    if row is None:
        await desk.missing(caller, "tasks", identity(task_id, "task"))
        raise NotFoundError(f"no task {task_id}")
    return Task(**row)


async def task_whole(desk: Desk, caller: Caller, task_id: str) -> TaskWhole:
    """The task with its subtasks in the order of the plan, and the logs of all of them."""
    found = await task(desk, caller, task_id)
    parts = await desk.store.fetch(
        "SELECT * FROM tasks WHERE root_id = $1 AND id <> $1 AND user_id = $2"
        " ORDER BY created_at, id",
        *(found.id, caller.user_id),
    )
    ids = [found.id, *(part["id"] for part in parts)]
    logs = await desk.store.fetch(
        "SELECT task_id, level, message, data, created_at FROM task_logs"
        " WHERE task_id = ANY($1) ORDER BY created_at DESC LIMIT $2",
        *(ids, LOGS_MAX),
    )
    return TaskWhole(
        task=found,
        subtasks=[Task(**part) for part in parts],
        logs=[Note(**line) for line in reversed(logs)],
        approvals=await of_requests(desk, caller, [found.root_id or found.id]),
    )


async def wholes(desk: Desk, caller: Caller, root_ids: list[str]) -> list[TaskWhole]:
    """Several requests with their subtasks, without logs; unknown ones are left out."""
    rows = await desk.store.fetch(
        "SELECT * FROM tasks WHERE root_id = ANY($1) AND user_id = $2 ORDER BY created_at, id",
        *(root_ids, caller.user_id),
    )
    found = [Task(**row) for row in rows]
    roots = [task for task in found if task.id == task.root_id]
    waiting = await of_requests(desk, caller, root_ids)
    return [
        TaskWhole(
            task=root,
            subtasks=[one for one in found if one.root_id == root.id and one.id != root.id],
            logs=[],
            approvals=[one for one in waiting if one.request.root_id == root.id],
        )
        for root in roots
    ]


async def cancel(desk: Desk, caller: Caller, task_id: str) -> dict[str, Any]:
    """Ask the supervisor to stop it; safe to repeat."""
    found = await task(desk, caller, task_id)
    what = event("action", "execute", f"tasks/{found.id}/cancel", caller=caller)
    async with desk.written(what):
        return await desk.ask(streams.SERVICE_SUPERVISOR, verb="cancel", task_id=found.id)


async def retry(
    desk: Desk, caller: Caller, task_id: str, *, key: str | None = None
) -> dict[str, Any]:
    """Run an ended request again as a new task; its id is in the answer."""
    found = await task(desk, caller, task_id)

    async def ask() -> dict[str, Any]:
        what = event("action", "execute", f"tasks/{found.id}/retry", caller=caller)
        async with desk.written(what):
            return await desk.ask(streams.SERVICE_SUPERVISOR, verb="retry", task_id=found.id)

    answer: dict[str, Any] = await desk.once(caller, key, ["retry", found.id], ask)
    return answer


async def steer(
    desk: Desk, caller: Caller, task_id: str, text: str, *, key: str | None = None
) -> dict[str, Any]:
    """Tell the agents at work on it something more."""
    found = await task(desk, caller, task_id)

    async def ask() -> dict[str, Any]:
        what = event("action", "execute", f"tasks/{found.id}/steer", caller=caller)
        async with desk.written(what):
            return await desk.ask(
                streams.SERVICE_SUPERVISOR, verb="steer", task_id=found.id, text=text
            )

    answer: dict[str, Any] = await desk.once(caller, key, ["steer", found.id, text], ask)
    return answer
