"""Tasks: what became of a message."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from base.messages import Status
from portal import recalled, work
from portal.api.conversations import Cursor
from portal.api.responses import may
from portal.door import Asking, At, Key, need
from portal.shapes import Steer

router = APIRouter(prefix="/tasks", tags=["tasks"])


@router.get("", summary="List tasks", dependencies=[need("tasks:read")])
async def tasks(
    desk: At,
    caller: Asking,
    status: Status | None = None,
    agent: Annotated[str | None, Query(max_length=50)] = None,
    conversation_id: UUID | None = None,
    words: Annotated[str, Query(max_length=200, pattern=r"^[^\x00]*$")] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    cursor: Cursor = None,
) -> work.Tasks:
    """The caller's requests, newest first; with `agent` what that agent was given."""
    return await work.tasks(
        desk,
        caller,
        status=status,
        agent=agent,
        conversation_id=str(conversation_id) if conversation_id else None,
        words=words,
        limit=limit,
        cursor=cursor,
    )


@router.get(
    "/{task_id}", summary="Get a task", responses=may(404), dependencies=[need("tasks:read")]
)
async def task(desk: At, caller: Asking, task_id: UUID) -> work.TaskWhole:
    """A task with the parts of its plan, its newest log lines and what it waits for."""
    return await work.task_whole(desk, caller, str(task_id))


@router.get(
    "/{task_id}/memories",
    summary="List a task's memories",
    responses=may(404),
    dependencies=[need("memory:read")],
)
async def memories(desk: At, caller: Asking, task_id: UUID) -> recalled.GivenAll:
    """Which memories the task, or the parts of the request, were given, and why."""
    return await recalled.given(desk, caller, str(task_id))


@router.post(
    "/{task_id}/cancel",
    summary="Cancel a task",
    responses=may(404, 409),
    dependencies=[need("tasks:write")],
)
async def cancel(desk: At, caller: Asking, task_id: UUID) -> work.Cancelled:
    """Stop it, with everything that its agents do for it. Safe to repeat."""
    return work.Cancelled(**await work.cancel(desk, caller, str(task_id)))


@router.post(
    "/{task_id}/retry",
    status_code=202,
    summary="Retry a task",
    responses=may(404, 409),
    dependencies=[need("tasks:write")],
)
async def retry(desk: At, caller: Asking, task_id: UUID, key: Key = None) -> work.Retried:
    """Run an ended request again, as a new task."""
    return work.Retried(**await work.retry(desk, caller, str(task_id), key=key))


@router.post(
    "/{task_id}/steer",
    status_code=202,
    summary="Steer a task",
    responses=may(404, 409),
    dependencies=[need("tasks:write")],
)
async def steer(
    desk: At, caller: Asking, task_id: UUID, body: Steer, key: Key = None
) -> work.Steered:
    """Say something to the agents while they work on it."""
    return work.Steered(**await work.steer(desk, caller, str(task_id), body.text, key=key))
