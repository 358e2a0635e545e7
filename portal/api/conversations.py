"""Conversations and messages."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import Response

from portal import conversations as conversations_
from portal import talk, thread
from portal.api.responses import may
from portal.door import Asking, At, Key, need
from portal.shapes import Change, NewConversation, Send

router = APIRouter(prefix="/conversations", tags=["conversations"])

Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[str | None, Query(max_length=200, description="`next_cursor` of a page.")]


@router.get("", summary="List conversations", dependencies=[need("tasks:read")])
async def conversations(
    desk: At,
    caller: Asking,
    status: Literal["active", "archived"] = "active",
    q: Annotated[str, Query(max_length=200)] = "",
    limit: Limit = 20,
    cursor: Cursor = None,
) -> talk.Conversations:
    """The caller's conversations, newest activity first. `q` finds those whose title or messages
    hold it, in upper or lower case. `next_cursor` goes on.
    """
    return await talk.conversations(desk, caller, status=status, q=q, limit=limit, cursor=cursor)


@router.post(
    "",
    status_code=201,
    summary="Create a conversation",
    responses=may(409),
    dependencies=[need("tasks:write")],
)
async def create(
    desk: At, caller: Asking, body: NewConversation, key: Key = None
) -> talk.Conversation:
    """A new conversation; without a title it takes one from its first message."""
    return await talk.create(desk, caller, body.title, key=key)


@router.get(
    "/{conversation_id}",
    summary="Get a conversation",
    responses=may(404),
    dependencies=[need("tasks:read")],
)
async def conversation(desk: At, caller: Asking, conversation_id: UUID) -> talk.Whole:
    """One conversation with its newest 50 messages."""
    return await talk.whole(desk, caller, str(conversation_id))


@router.patch(
    "/{conversation_id}",
    summary="Rename or archive",
    responses=may(404),
    dependencies=[need("tasks:write")],
)
async def change(
    desk: At, caller: Asking, conversation_id: UUID, body: Change
) -> talk.Conversation:
    """Give it another title, archive it, or bring it back; what is left out stays."""
    return await talk.change(
        desk, caller, str(conversation_id), title=body.title, status=body.status
    )


@router.delete(
    "/{conversation_id}",
    status_code=204,
    summary="Archive a conversation",
    responses=may(404),
    dependencies=[need("tasks:write")],
)
async def archive(desk: At, caller: Asking, conversation_id: UUID) -> None:
    """Take it off the list. Nothing is deleted, and twice is safe."""
    await talk.archive(desk, caller, str(conversation_id))


@router.get(
    "/{conversation_id}/messages",
    summary="Get messages",
    responses=may(404),
    dependencies=[need("tasks:read")],
)
async def messages(
    desk: At,
    caller: Asking,
    conversation_id: UUID,
    limit: Limit = 50,
    before: UUID | None = None,
) -> talk.Messages:
    """The newest messages, or those before message `before`; oldest first."""
    edge = str(before) if before is not None else None
    return await talk.messages(desk, caller, str(conversation_id), limit=limit, before=edge)


@router.get(
    "/{conversation_id}/branch",
    summary="Get a branch as turns",
    responses=may(404),
    dependencies=[need("tasks:read")],
)
async def branch(
    desk: At,
    caller: Asking,
    conversation_id: UUID,
    limit: Limit = thread.LIMIT,
    at: UUID | None = None,
    before: UUID | None = None,
) -> thread.Branch:
    """The newest branch, or the newest through message `at`, as turns; oldest first."""
    return await thread.branch(
        desk,
        caller,
        str(conversation_id),
        at=str(at) if at else None,
        before=str(before) if before else None,
        limit=limit,
    )


@router.get(
    "/{conversation_id}/export",
    summary="Export a conversation",
    responses=may(404),
    response_class=Response,
    dependencies=[need("tasks:read")],
)
async def export(
    desk: At,
    caller: Asking,
    conversation_id: UUID,
    form: Annotated[Literal["markdown", "json"], Query(alias="format")] = "markdown",
) -> Response:
    """All of it as a file, every branch."""
    text = await conversations_.export(desk, caller, str(conversation_id), form)
    name = f"conversation-{str(conversation_id)[:8]}.{'md' if form == 'markdown' else 'json'}"
    kind = "text/markdown" if form == "markdown" else "application/json"
    return Response(
        text,
        media_type=f"{kind}; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@router.post(
    "/{conversation_id}/messages",
    status_code=202,
    summary="Send a message",
    responses=may(404, 409),
    dependencies=[need("tasks:write")],
)
async def send(
    desk: At, caller: Asking, conversation_id: UUID, body: Send, key: Key = None
) -> talk.Accepted:
    """Give the agents work. 202: it is recorded and will be done, whatever crashes."""
    return await talk.send(desk, caller, str(conversation_id), body, key=key)
