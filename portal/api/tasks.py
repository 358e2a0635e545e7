"""Tasks: what became of a message."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query

from base.messages import Status
from portal import recalled, work
from portal.door import Asking, At, Key, need
from portal.shapes import Steer

router = APIRouter(prefix="/tasks", tags=["tasks"])


@router.get("", dependencies=[need("tasks:read")])
async def tasks(
    desk: At,
    caller: Asking,
    status: Status | None = None,
    agent: Annotated[str | None, Query(max_length=50)] = None,
    conversation_id: UUID | None = None,
    words: Annotated[str, Query(max_length=200, pattern=r"^[^\x00]*$")] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    cursor: str | None = None,
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


@router.get("/{task_id}", dependencies=[need("tasks:read")])
async def task(desk: At, caller: Asking, task_id: UUID) -> work.TaskWhole:
    """A task with its subtasks and logs."""
    return await work.task_whole(desk, caller, str(task_id))


@router.get("/{task_id}/memories", dependencies=[need("memory:read")])
async def memories(desk: At, caller: Asking, task_id: UUID) -> recalled.GivenAll:
    """Which memories the task, or the parts of the request, were given, and why."""
    return await recalled.given(desk, caller, str(task_id))


@router.post("/{task_id}/cancel", dependencies=[need("tasks:write")])
async def cancel(desk: At, caller: Asking, task_id: UUID) -> dict[str, Any]:
    """Stop it; safe to repeat."""
    return await work.cancel(desk, caller, str(task_id))


@router.post("/{task_id}/retry", status_code=202, dependencies=[need("tasks:write")])
async def retry(desk: At, caller: Asking, task_id: UUID, key: Key = None) -> dict[str, Any]:
    """Run an ended request again, as a new task."""
    return await work.retry(desk, caller, str(task_id), key=key)


@router.post("/{task_id}/steer", status_code=202, dependencies=[need("tasks:write")])
async def steer(
    desk: At, caller: Asking, task_id: UUID, body: Steer, key: Key = None
) -> dict[str, Any]:
    """Say something to the agents while they work on it."""
    return await work.steer(desk, caller, str(task_id), body.text, key=key)
