"""One branch of a conversation as turns: a message of a person, its files, and its answers."""

from __future__ import annotations

import uuid
from typing import Any

from pydantic import Field

from base.errors import NotFoundError
from base.messages import Wire
from portal.auth import Caller
from portal.desk import Desk
from portal.talk import File, Said, conversation, files_of, identity

LIMIT = 20

#: From the newest message of a person below $1, itself included, upwards.
_DOWN = """
WITH RECURSIVE below AS (
    SELECT id, created_at FROM messages WHERE id = $1 AND conversation_id = $2 AND role = 'user'
    UNION ALL
    SELECT m.id, m.created_at FROM below JOIN messages AS m ON m.parent_message_id = below.id
    WHERE m.role = 'user'
) SELECT id FROM below ORDER BY created_at DESC, id DESC LIMIT 1
"""
_UP = """
WITH RECURSIVE line AS (
    SELECT m.*, 1 AS depth FROM messages AS m WHERE m.id = $1
    UNION ALL
    SELECT m.*, line.depth + 1 FROM line JOIN messages AS m ON m.id = line.parent_message_id
    WHERE line.depth < $2
) SELECT * FROM line ORDER BY depth
"""


class Turn(Wire):
    """`answers`: oldest first, several when it was tried again. `roots`: the requests that were
    made of it, oldest first. `versions`: the messages that stand in this place, itself among
    them, oldest first; each begins a branch.
    """

    message: Said
    files: list[File] = Field(default_factory=list)
    answers: list[Said] = Field(default_factory=list)
    roots: list[str] = Field(default_factory=list)
    versions: list[str] = Field(default_factory=list)


class Branch(Wire):
    """Oldest first. `more`: there are older ones, before the first. `tip`: the newest message of
    the person in it, None where nothing was said; `newest`: no branch has a newer one.
    """

    turns: list[Turn]
    more: bool
    tip: str | None
    newest: bool


async def branch(
    desk: Desk,
    caller: Caller,
    conversation_id: str,
    *,
    at: str | None = None,
    before: str | None = None,
    limit: int = LIMIT,
) -> Branch:
    """The newest branch, or the newest through the message `at`: its last `limit` turns, or
    those before the message `before`. Raises NotFoundError.
    """
    found = await conversation(desk, caller, conversation_id)
    newest: str | None = await desk.store.fetchval(
        "SELECT id FROM messages WHERE conversation_id = $1 AND role = 'user'"
        " ORDER BY created_at DESC, id DESC LIMIT 1",
        found.id,
    )
    tip = newest
    if at is not None:
        tip = await desk.store.fetchval(_DOWN, identity(at, "message"), found.id)
        if tip is None:
            raise NotFoundError(f"no message {at} in this conversation")
    start = tip
    if before is not None:
        row = await desk.store.fetchrow(
            "SELECT parent_message_id FROM messages WHERE id = $1 AND conversation_id = $2",
            *(identity(before, "message"), found.id),
        )
        if row is None:
            raise NotFoundError(f"no message {before} in this conversation")
        start = row["parent_message_id"]
    rows = await desk.store.fetch(_UP, start, limit + 1) if start is not None else []
    turns = await _turns(desk, found.id, list(reversed(rows[:limit])))
    return Branch(turns=turns, more=len(rows) > limit, tip=tip, newest=tip == newest)


async def turns(desk: Desk, caller: Caller, message_ids: list[str]) -> list[Turn]:
    """Those messages of the caller's as turns, oldest first; unknown ones are left out."""
    rows = await desk.store.fetch(
        "SELECT m.* FROM messages AS m JOIN conversations AS c ON c.id = m.conversation_id"
        " WHERE m.id = ANY($1::uuid[]) AND m.role = 'user' AND c.user_id = $2"
        " ORDER BY m.created_at, m.id",
        *([identity(one, "message") for one in message_ids], caller.user_id),
    )
    return await _turns(desk, rows[0]["conversation_id"], rows) if rows else []


async def _turns(desk: Desk, conversation_id: str, rows: list[dict[str, Any]]) -> list[Turn]:
    ids = [row["id"] for row in rows]
    if not ids:
        return []
    answers = await desk.store.fetch(
        "SELECT *, metadata->>'task_id' AS task_id FROM messages"
        " WHERE parent_message_id = ANY($1::uuid[]) AND role <> 'user' ORDER BY created_at, id",
        ids,
    )
    roots = await desk.store.fetch(
        "SELECT id, message_id FROM tasks WHERE message_id = ANY($1::uuid[])"
        " AND type = 'request' ORDER BY created_at, id",
        ids,
    )
    places = await desk.store.fetch(
        "SELECT id, parent_message_id FROM messages WHERE conversation_id = $1 AND role = 'user'"
        " AND (parent_message_id = ANY($2::uuid[]) OR ($3 AND parent_message_id IS NULL))"
        " ORDER BY created_at, id",
        *(conversation_id, [row["parent_message_id"] for row in rows if row["parent_message_id"]]),
        any(row["parent_message_id"] is None for row in rows),
    )
    files = await files_of(desk, ids)
    made = []
    for row in rows:
        mine = [one["id"] for one in roots if one["message_id"] == row["id"]]
        made.append(
            Turn(
                message=Said(**{**row, "task_id": mine[-1] if mine else None}),
                files=files.get(row["id"], []),
                answers=[Said(**one) for one in answers if one["parent_message_id"] == row["id"]],
                roots=mine,
                versions=[
                    one["id"]
                    for one in places
                    if one["parent_message_id"] == row["parent_message_id"]
                ],
            )
        )
    return made


def own_root(message_id: str) -> str:
    """A name for the run of a message that no request was made of; never that of a task."""
    return str(uuid.uuid5(uuid.UUID(message_id), "no request"))
