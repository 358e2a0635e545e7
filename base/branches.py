"""A conversation's branches: SQL over one session.

A person's message names, as its parent, the person's message that it follows; an answer names
the message that it answers. A branch is one such line of messages with their answers. Two
messages with one parent begin two branches: the second was made by editing the first.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Protocol

from base.errors import InputError, NotFoundError
from base.messages import Attached

if TYPE_CHECKING:
    from base.outbox import Request
    from base.store import Row, Session

#: The person's messages before $1, newest first, at most $2 of them.
EARLIER = """
WITH RECURSIVE line AS (
    SELECT before.id, before.parent_message_id, 1 AS depth
    FROM messages AS asked JOIN messages AS before ON before.id = asked.parent_message_id
    WHERE asked.id = $1
    UNION ALL
    SELECT before.id, before.parent_message_id, line.depth + 1
    FROM line JOIN messages AS before ON before.id = line.parent_message_id
    WHERE line.depth < $2
)
"""
#: They and their answers from before $1 was asked. Of several answers to one, the newest counts.
SAID = (
    EARLIER
    + """, said AS (
    SELECT m.* FROM line JOIN messages AS m ON m.id = line.id
    UNION ALL
    (SELECT DISTINCT ON (answer.parent_message_id) answer.*
    FROM line JOIN messages AS answer ON answer.parent_message_id = line.id
    JOIN messages AS asked ON asked.id = $1
    WHERE answer.role = 'assistant' AND answer.created_at < asked.created_at
    ORDER BY answer.parent_message_id, answer.created_at DESC, answer.id DESC)
)
"""
)


class Reads(Protocol):
    """A store or a session."""

    async def fetch(self, sql: str, *values: Any) -> list[Row]: ...


async def parent(tx: Session, request: Request) -> str | None:
    """The parent of a new message of a person; None: it begins the conversation.

    Holds the conversation's row, so that of two messages at once the second follows the first.
    Raises NotFoundError for `follows` or `edits` of another conversation.
    """
    conversation_id = _known(request.conversation_id)
    await tx.execute("SELECT FROM conversations WHERE id = $1 FOR UPDATE", conversation_id)
    if request.edits is not None and request.follows is not None:
        raise InputError("a message either follows another or takes its place; name one")
    named = request.edits or request.follows
    if named is None:
        newest: str | None = await tx.fetchval(
            "SELECT id FROM messages WHERE conversation_id = $1 AND role = 'user'"
            " ORDER BY created_at DESC, id DESC LIMIT 1",
            conversation_id,
        )
        return newest
    row = await tx.fetchrow(
        "SELECT id, parent_message_id FROM messages"
        " WHERE id = $1 AND conversation_id = $2 AND role = 'user'",
        *(_known(named), conversation_id),
    )
    if row is None:
        raise NotFoundError(f"no message {named} of a person in this conversation")
    found: str | None = row["parent_message_id"] if request.edits else row["id"]
    return found


async def attach(tx: Session, request: Request, message_id: str) -> None:
    """Give the message its files; one that another message has already is shared, not moved.

    Raises NotFoundError for one that is not the person's.
    """
    ids = [_known(one) for one in request.attachments]
    if not ids:
        return
    if len(set(ids)) != len(ids):
        raise InputError("attachments: a file is named twice")
    rows = await tx.fetch(
        "SELECT * FROM attachments WHERE id = ANY($1::uuid[]) AND user_id = $2 FOR UPDATE",
        *(ids, request.user_id),
    )
    known = {row["id"]: row for row in rows}
    for at, attachment_id in enumerate(ids):
        if (row := known.get(attachment_id)) is None:
            raise NotFoundError(f"no attachment {attachment_id}")
        if row["message_id"] is None:
            await tx.execute(
                "UPDATE attachments SET message_id = $2, place = $3 WHERE id = $1",
                *(attachment_id, message_id, at),
            )
        else:
            await tx.execute(
                "INSERT INTO attachments (id, message_id, user_id, filename, mime_type, kind,"
                " size_bytes, sha256, storage_path, place)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                *(str(uuid.uuid4()), message_id, row["user_id"], row["filename"]),
                *(row["mime_type"], row["kind"], row["size_bytes"], row["sha256"]),
                *(row["storage_path"], at),
            )


async def attached(reads: Reads, message_id: str, depth: int) -> list[Attached]:
    """The files of a message and of the `depth` messages of a person before it in its branch,
    oldest first.
    """
    rows = await reads.fetch(
        EARLIER + "SELECT a.id, a.filename, a.kind, a.mime_type, a.size_bytes, a.storage_path"
        " FROM attachments AS a JOIN messages AS m ON m.id = a.message_id"
        " WHERE a.message_id = $1 OR a.message_id IN (SELECT id FROM line)"
        " ORDER BY m.created_at, m.id, a.place, a.id",
        *(message_id, depth),
    )
    return [
        Attached(
            id=row["id"],
            name=row["filename"],
            kind=row["kind"],
            media_type=row["mime_type"],
            size_bytes=row["size_bytes"],
            path=row["storage_path"],
        )
        for row in rows
    ]


def _known(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise NotFoundError(f"no such thing as {text!r}") from error
