"""Conversations and their messages. REST, WebSocket and pages all call these functions."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from datetime import datetime
from typing import Any, Literal

from base import log, outbox, roster, streams
from base.errors import BusError, InputError, NotFoundError
from base.messages import Event, Kind, Wire, answer_id
from base.outbox import Request
from base.plural import counted
from base.store import Row
from portal import trail
from portal.auth import Caller
from portal.desk import Desk
from portal.limits import within
from portal.shapes import Send

TITLE_CHARS = 60
RELAY_S = 2.0


class Conversation(Wire):
    id: str
    title: str | None
    status: Literal["active", "archived", "deleted"]
    created_at: datetime
    updated_at: datetime


class File(Wire):
    """A file that came with a message; `GET /api/attachments/{id}` gives it."""

    id: str
    name: str
    kind: Literal["image", "pdf", "text"]
    media_type: str
    size_bytes: int


class Said(Wire):
    """A message of the record. `task_id` is the root task that it started or answers;
    `parent_message_id` the person's message that it follows or answers.
    """

    id: str
    conversation_id: str
    role: Literal["user", "assistant", "system", "tool"]
    content: str
    agent: str | None
    task_id: str | None
    parent_message_id: str | None
    created_at: datetime


class Conversations(Wire):
    conversations: list[Conversation]
    next_cursor: str | None


class Messages(Wire):
    """Oldest first. `more`: there are older ones; ask with `before` = the first one's id."""

    messages: list[Said]
    more: bool


class Whole(Wire):
    """A conversation with its newest messages."""

    conversation: Conversation
    messages: list[Said]
    more: bool


class Accepted(Wire):
    """A message that is recorded and will be worked on; the answer comes under its id."""

    message_id: str
    task_id: str
    answer_message_id: str
    conversation_id: str


async def conversations(
    desk: Desk,
    caller: Caller,
    *,
    status: str = "active",
    q: str = "",
    limit: int = 20,
    cursor: str | None = None,
) -> Conversations:
    """Newest activity first; with `q` those whose title or messages hold it, in any case.

    Raises InputError for a cursor that is none.
    """
    before, last = unpack(cursor) if cursor else (None, None)
    rows = await desk.store.fetch(
        "SELECT * FROM conversations AS c WHERE user_id = $1 AND status = $2"
        " AND ($3::timestamptz IS NULL OR (updated_at, id) < ($3, $4::uuid))"
        " AND (cardinality($6::text[]) = 0 OR EXISTS (SELECT FROM unnest($6::text[]) AS w"
        " WHERE strpos(lower(c.title), lower(w)) > 0 OR EXISTS (SELECT FROM messages AS m"
        " WHERE m.conversation_id = c.id AND strpos(lower(m.content), lower(w)) > 0)))"
        " ORDER BY updated_at DESC, id DESC LIMIT $5",
        *(caller.user_id, status, before, last, limit + 1, _spellings(q)),
    )
    found = [Conversation(**row) for row in rows[:limit]]
    more = len(rows) > limit
    return Conversations(
        conversations=found,
        next_cursor=pack(found[-1].updated_at, found[-1].id) if more else None,
    )


async def create(
    desk: Desk, caller: Caller, title: str | None, *, key: str | None = None
) -> Conversation:
    """A new empty conversation; the same `key` gives the first one again."""
    conversation_id = str(uuid.uuid4())
    async with desk.store.transaction() as tx:
        if key is not None:
            before = await tx.remember(
                user_id=caller.user_id,
                key=key,
                request=["conversation", title],
                status=201,
                response={"id": conversation_id},
            )
            conversation_id = before["id"] if before is not None else conversation_id
        await tx.execute(
            "INSERT INTO conversations (id, user_id, title) VALUES ($1, $2, $3)"
            " ON CONFLICT DO NOTHING",
            *(conversation_id, caller.user_id, title),
        )
    return await conversation(desk, caller, conversation_id)


async def conversation(desk: Desk, caller: Caller, conversation_id: str) -> Conversation:
    """Raises NotFoundError for one that is unknown, deleted or somebody else's."""
    row = await desk.store.fetchrow(
        "SELECT * FROM conversations WHERE id = $1 AND user_id = $2 AND status <> 'deleted'",
        *(identity(conversation_id, "conversation"), caller.user_id),
    )
    if row is None:
        await desk.missing(caller, "conversations", identity(conversation_id, "conversation"))
        raise NotFoundError(f"no conversation {conversation_id}")
    return Conversation(**row)


async def archive(desk: Desk, caller: Caller, conversation_id: str) -> None:
    """Take it off the list. Nothing is deleted; twice is safe."""
    await change(desk, caller, conversation_id, status="archived")


async def change(
    desk: Desk,
    caller: Caller,
    conversation_id: str,
    *,
    title: str | None = None,
    status: Literal["active", "archived"] | None = None,
) -> Conversation:
    """Rename it, archive it or bring it back; None leaves things as they are. Its place in the
    list stays.
    """
    found = await conversation(desk, caller, conversation_id)
    await desk.store.execute(
        "UPDATE conversations SET title = COALESCE($2, title), status = COALESCE($3, status)"
        " WHERE id = $1",
        *(found.id, title, status),
    )
    return await conversation(desk, caller, conversation_id)


async def messages(
    desk: Desk, caller: Caller, conversation_id: str, *, limit: int = 50, before: str | None = None
) -> Messages:
    """The newest `limit` messages, or those before the message `before`."""
    found = await conversation(desk, caller, conversation_id)
    edge: Row | None = None
    if before is not None:
        edge = await desk.store.fetchrow(
            "SELECT created_at, id FROM messages WHERE id = $1 AND conversation_id = $2",
            *(identity(before, "message"), found.id),
        )
        if edge is None:
            raise NotFoundError(f"no message {before} in this conversation")
    rows = await desk.store.fetch(
        "SELECT m.*, COALESCE(m.metadata->>'task_id', (SELECT t.id::text FROM tasks t"
        " WHERE t.message_id = m.id AND t.type = 'request'"
        " ORDER BY t.created_at DESC LIMIT 1)) AS task_id FROM messages m"
        " WHERE m.conversation_id = $1"
        " AND ($2::timestamptz IS NULL OR (m.created_at, m.id) < ($2, $3::uuid))"
        " ORDER BY m.created_at DESC, m.id DESC LIMIT $4",
        *(found.id, edge and edge["created_at"], edge and edge["id"], limit + 1),
    )
    return Messages(
        messages=[Said(**row) for row in reversed(rows[:limit])], more=len(rows) > limit
    )


async def files_of(desk: Desk, message_ids: list[str]) -> dict[str, list[File]]:
    """The files of messages that the caller is known to own, by message, in order."""
    rows = await desk.store.fetch(
        "SELECT message_id, id, filename AS name, kind, mime_type AS media_type, size_bytes"
        " FROM attachments WHERE message_id = ANY($1::uuid[]) ORDER BY place, id",
        message_ids,
    )
    found: dict[str, list[File]] = {}
    for row in rows:
        found.setdefault(row.pop("message_id"), []).append(File(**row))
    return found


async def whole(desk: Desk, caller: Caller, conversation_id: str, *, limit: int = 50) -> Whole:
    """The conversation and its newest messages."""
    found = await conversation(desk, caller, conversation_id)
    page = await messages(desk, caller, conversation_id, limit=limit)
    return Whole(conversation=found, messages=page.messages, more=page.more)


async def send(
    desk: Desk, caller: Caller, conversation_id: str, send: Send, *, key: str | None = None
) -> Accepted:
    """Record a message and its task; once this returns, neither can be lost.

    The same `key` with the same message returns the first result.
    """
    await _countable(desk, caller, send)
    if send.agent is not None:
        roster.load(desk.settings).get(send.agent)
    request = Request(
        user_id=caller.user_id,
        conversation_id=identity(conversation_id, "conversation"),
        content=send.content,
        effort=send.effort,
        agent=send.agent,
        workspace=send.workspace,
        priority=send.priority,
        follows=str(send.follows) if send.follows else None,
        edits=str(send.edits) if send.edits else None,
        attachments=tuple(map(str, send.attachments)),
    )
    recorded = await _accept(desk, caller, request, key)
    accepted = Accepted(
        message_id=recorded.message_id,
        task_id=recorded.task_id,
        answer_message_id=answer_id(recorded.task_id),
        conversation_id=recorded.conversation_id,
    )
    if not recorded.repeated:
        await _tell(desk, caller, accepted, send)
    return accepted


async def _countable(desk: Desk, caller: Caller, send: Send) -> None:
    """Raises InputError for more or larger files than one message may bring."""
    limits, ids = desk.limiter.rates.uploads, list(map(str, send.attachments))
    if len(ids) > limits.message_files:
        raise InputError(
            f"a message may bring {counted(limits.message_files, 'file')}, not {len(ids)}"
        )
    if ids:
        size_bytes = await desk.store.fetchval(
            "SELECT COALESCE(SUM(size_bytes), 0) FROM attachments"
            " WHERE id = ANY($1::uuid[]) AND user_id = $2",
            *(ids, caller.user_id),
        )
        if int(size_bytes) > limits.message_bytes:
            raise InputError(
                f"the files have {int(size_bytes):,} bytes together; a message may bring"
                f" {limits.message_bytes:,}"
            )


async def spoke(desk: Desk, caller: Caller) -> None:
    """One message of the caller's over a socket: /ws or the chat page. Raises TooManyError."""
    await within(desk.limiter, "websocket.messages", caller.user_id, "too many messages")


async def _accept(desk: Desk, caller: Caller, request: Request, key: str | None) -> outbox.Accepted:
    """`store.accept`, with what is written down of it in the same transaction."""
    try:
        async with desk.store.transaction() as tx:
            made = await outbox.accept(tx, request, key)
            if not made.repeated:
                task = f"tasks/{made.task_id}"
                details: dict[str, Any] = {
                    "conversation_id": made.conversation_id,
                    "effort": request.effort,
                    "agent": request.agent,
                    "workspace": request.workspace,
                    "priority": request.priority,
                }
                created = trail.event("action", "write", task, caller=caller, **details)
                await tx.publish(streams.AUDIT, trail.recorded(created))
            return made
    except NotFoundError:
        await desk.missing(caller, "conversations", request.conversation_id)
        raise


async def _tell(desk: Desk, caller: Caller, accepted: Accepted, send: Send) -> None:
    """Hand the recorded message on. The record holds it: a wire that is down only delays it."""
    said = Event(
        kind=Kind.MESSAGE,
        agent="user",
        user_id=caller.user_id,
        conversation_id=accepted.conversation_id,
        root_id=accepted.task_id,
        data={"message_id": accepted.message_id, "role": "user", "content": send.content},
    )
    try:
        async with asyncio.timeout(RELAY_S):
            await asyncio.gather(desk.store.relay(desk.bus), desk.bus.emit(said))
    except (BusError, TimeoutError) as error:
        log.get("portal").warning("relay put off", task_id=accepted.task_id, error=repr(error))
    await desk.store.execute(
        "UPDATE conversations SET title = $2 WHERE id = $1 AND title IS NULL",
        *(accepted.conversation_id, _title(send.content)),
    )


def pack(at: datetime, row_id: str) -> str:
    """A place in a list, newest first, as an opaque cursor."""
    return base64.urlsafe_b64encode(json.dumps([at.isoformat(), row_id]).encode()).decode()


def unpack(cursor: str) -> tuple[datetime, str]:
    try:
        at, row_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        return datetime.fromisoformat(at), str(uuid.UUID(row_id))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError("cursor: not one that this list gave") from error


def identity(text: str, what: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise NotFoundError(f"no {what} {text!r}") from error


def _spellings(q: str) -> list[str]:
    """What is looked for, as it may be written: the database knows the case of a to z alone."""
    text = outbox.storable(q.strip(), "q")
    found = {text, text.lower(), text.upper(), text.capitalize(), text.title()}
    return sorted(found - {""})


def _title(content: str) -> str:
    line = content.strip().splitlines()[0].strip(" #*`>-") or content.strip()
    return line if len(line) <= TITLE_CHARS else line[: TITLE_CHARS - 1].rstrip() + "…"
