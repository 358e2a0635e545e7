"""The accepted request, and the outbox that carries it to the wire: SQL over one session.

A row of the outbox is written by the transaction that makes its content true; a relay sends it
afterwards, at least once. `base/store.py` opens the transactions.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from base import branches, streams
from base.errors import ConflictError, InputError, NotFoundError
from base.messages import Effort, Message, Type, encode

if TYPE_CHECKING:
    from base.store import Row, Session, Store

KEY_MAX_CHARS = 255
KEEP_SENT_S, KEEP_KEYS_S = 86_400.0, 7 * 86_400.0
PURGE_BATCH = 1_000
HTTP_ACCEPTED = 202


class Wire(Protocol):
    """What a relay needs of the bus."""

    async def publish_raw(self, stream: str, *bodies: bytes) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a person asks for. `priority` 1 to 10, 10 first; `agent` None: the supervisor plans.

    `effort` None: the supervisor decides; until then the row says standard. `follows`: the
    message of a person that this one comes after, None for the newest one; `edits`: the one whose
    place it takes in a branch of its own. `attachments`: ids, in order.
    """

    user_id: str
    conversation_id: str
    content: str
    effort: Effort | None = None
    agent: str | None = None
    workspace: str = "main"
    priority: int = 5
    follows: str | None = None
    edits: str | None = None
    attachments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What a request became. `repeated`: its idempotency key was seen before."""

    message_id: str
    task_id: str
    conversation_id: str
    repeated: bool = False


async def accept(tx: Session, request: Request, key: str | None) -> Accepted:
    """See `Store.accept`."""
    storable(request.content, "the message")
    if not 1 <= request.priority <= 10:
        raise InputError(f"priority must be 1 to 10, not {request.priority}")
    accepted = Accepted(
        message_id=str(uuid.uuid4()),
        task_id=str(uuid.uuid4()),
        conversation_id=_conversation_id(request.conversation_id),
    )
    if key is not None:
        answer = asdict(accepted)
        before = await remember(
            tx, user_id=request.user_id, key=key, request=asdict(request), response=answer
        )
        if before is not None:
            return Accepted(**{**before, "repeated": True})
    order = Message(
        source="portal",
        target="supervisor",
        type=Type.TASK,
        priority=request.priority,
        payload={"task_id": accepted.task_id},
    )
    parent = await branches.parent(tx, request)
    fields = ("content", "effort", "agent", "workspace")
    written = await tx.fetchval(
        _ACCEPT,
        *(accepted.conversation_id, request.user_id, accepted.message_id, request.content),
        *(accepted.task_id, request.priority, {name: getattr(request, name) for name in fields}),
        *(request.effort, request.agent, request.workspace, streams.TASKS_NEW, encode(order)),
        parent,
    )
    if written is None:
        raise NotFoundError(f"no conversation {request.conversation_id}")
    await branches.attach(tx, request, accepted.message_id)
    return accepted


async def remember(
    tx: Session,
    *,
    user_id: str,
    key: str,
    request: Any,
    response: Mapping[str, Any],
    status: int = HTTP_ACCEPTED,
) -> Row | None:
    """See `Session.remember`."""
    if not 0 < len(key) <= KEY_MAX_CHARS:
        raise InputError(f"Idempotency-Key must have 1 to {KEY_MAX_CHARS} characters")
    text = json.dumps(request, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()
    claimed = await tx.execute(
        "INSERT INTO idempotency (user_id, key, request_hash, status, response)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        *(user_id, storable(key, "Idempotency-Key"), digest, status, dict(response)),
    )
    if claimed:
        return None
    before = await tx.fetchrow(
        "SELECT request_hash, response FROM idempotency WHERE user_id = $1 AND key = $2",
        *(user_id, key),
    )
    if before is None or before["request_hash"] != digest:
        raise ConflictError("this Idempotency-Key was used for another request")
    answer: Row = before["response"]
    return answer


async def relay(tx: Session, bus: Wire, limit: int) -> int:
    """See `Store.relay`."""
    rows = await tx.fetch(
        "SELECT id, stream, body FROM outbox WHERE sent_at IS NULL"
        " ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED",
        limit,
    )
    bodies: dict[str, list[bytes]] = {}
    for row in rows:
        bodies.setdefault(row["stream"], []).append(row["body"])
    for stream, batch in bodies.items():
        await bus.publish_raw(stream, *batch)
    if rows:
        ids = [row["id"] for row in rows]
        await tx.execute("UPDATE outbox SET sent_at = NOW() WHERE id = ANY($1)", ids)
    return len(rows)


async def purge(store: Store) -> int:
    """Let go of what was sent long ago, and of the answers that keys got; rows deleted."""

    async def sent() -> int:
        return await store.execute(
            "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE"
            " sent_at < NOW() - make_interval(secs => $1) LIMIT $2 FOR UPDATE SKIP LOCKED)",
            *(KEEP_SENT_S, PURGE_BATCH),
        )

    async def answers() -> int:
        sql = "SELECT idempotency_purge($1, $2)"
        return int(await store.fetchval(sql, KEEP_KEYS_S, PURGE_BATCH))

    gone = 0
    for some in (sent, answers):
        while batch := await some():
            gone += batch
            if batch < PURGE_BATCH:
                break
    return gone


def storable(text: str, what: str) -> str:
    """`text` itself when PostgreSQL can hold it. Raises InputError naming `what` and the place."""
    place = text.find("\0")
    if place >= 0:
        raise InputError(f"{what} has a NUL character at position {place}, which cannot be stored")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} has half a surrogate pair at position {error.start}: it is no valid Unicode"
        ) from error
    return text


def _conversation_id(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise NotFoundError(f"no conversation {text!r}") from error


_ACCEPT = """
WITH conversation AS (
    UPDATE conversations SET updated_at = NOW()
    WHERE id = $1 AND user_id = $2 AND status <> 'deleted' RETURNING id, user_id
), message AS (
    INSERT INTO messages (id, conversation_id, role, content, parent_message_id, created_at)
    SELECT $3, id, 'user', $4, $13, clock_timestamp() FROM conversation
), task AS (
    INSERT INTO tasks (id, root_id, conversation_id, user_id, message_id, type, assigned_agent,
                       priority, input, effort, requested_agent, workspace, created_at)
    SELECT $5, $5, id, user_id, $3, 'request', 'supervisor', $6, $7,
           COALESCE($8, 'standard'), $9, $10, clock_timestamp()
    FROM conversation
)
INSERT INTO outbox (stream, body) SELECT $11, $12 FROM conversation RETURNING id
"""
