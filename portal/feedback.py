"""What a person says of an answer, on its way to the memories that it was made with."""

from __future__ import annotations

import uuid
from typing import Any

from base import streams
from base.errors import ConflictError, NotFoundError
from base.messages import Wire
from pai.client import told
from pai.shapes import Signal, SignalKind, Told
from portal.auth import Caller
from portal.desk import Desk
from portal.shapes import Feedback
from portal.talk import identity
from portal.trail import SOURCE

KINDS = {
    "correction": SignalKind.USER_CORRECTION,
    "acceptance": SignalKind.USER_ACCEPTANCE,
    "edit": SignalKind.RESPONSE_EDIT,
}
MIDDLE, SPAN = 3, 2


class Heard(Wire):
    """The signal that was made of it; the same words again make the same one."""

    signal_id: str
    kind: SignalKind
    task_id: str


async def give(desk: Desk, caller: Caller, message_id: str, said: Feedback) -> Heard:
    """Note it for good. Raises NotFoundError for somebody else's message, ConflictError for one
    that is about no task.
    """
    row = await desk.store.fetchrow(
        "SELECT COALESCE(m.metadata->>'task_id', (SELECT t.id::text FROM tasks AS t"
        " WHERE t.message_id = m.id AND t.type = 'request' ORDER BY t.created_at DESC LIMIT 1))"
        " AS root_id FROM messages AS m JOIN conversations AS c ON c.id = m.conversation_id"
        " WHERE m.id = $1 AND c.user_id = $2",
        *(identity(message_id, "message"), caller.user_id),
    )
    if row is None:
        raise NotFoundError(f"no message {message_id}")
    if row["root_id"] is None:
        raise ConflictError("this message is about no task, so there is nothing to learn from it")
    signal = _signal(caller, message_id, row["root_id"], said)
    what = Told(verb="signal", user_id=caller.user_id, root_id=row["root_id"], signal=signal)
    async with desk.store.transaction() as tx:
        await tx.publish(streams.MEMORY, told(SOURCE, what))
    return Heard(signal_id=signal.id, kind=signal.kind, task_id=row["root_id"])


async def ratings(desk: Desk, caller: Caller, root_ids: list[str]) -> dict[str, int]:
    """The caller's last ratings of the answers to those requests, as far as memory has them."""
    rows = await desk.store.fetch(
        "SELECT DISTINCT ON (root_id) root_id, rating FROM memory_signal"
        " WHERE user_id = $1 AND root_id = ANY($2) AND rating IS NOT NULL"
        " ORDER BY root_id, at DESC",
        *(caller.user_id, root_ids),
    )
    return {row["root_id"]: row["rating"] for row in rows}


def _signal(caller: Caller, message_id: str, root_id: str, said: Feedback) -> Signal:
    words = f"{said.rating} {said.kind} {said.comment}"
    given: dict[str, Any] = {"kind": KINDS[said.kind]} if said.kind else {
        "kind": SignalKind.USER_RATING,
        "rating": said.rating,
        "weight": ((said.rating or MIDDLE) - MIDDLE) / SPAN,
    }  # fmt: skip
    return Signal(
        id=str(uuid.uuid5(uuid.UUID(message_id), words)),
        user_id=caller.user_id,
        root_id=root_id,
        comment=said.comment,
        **given,
    )
