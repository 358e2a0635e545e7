"""What the end of a request tells memory: what was said, how it ended, that it ended.

Written into the outbox by the transaction that ends it, so that it is told exactly when it is
true, and safe to tell twice: every id follows from the request's.
"""

from __future__ import annotations

import uuid
from typing import Literal

from base import streams
from base.messages import Message, Status
from base.store import Row, Session
from pai.client import told
from pai.shapes import TEXT_CHARS, Collection, Memory, Signal, SignalKind, Told, memory_id
from supervisor.parts import NAME, storable
from supervisor.tasks import Task

ENDS = {
    Status.COMPLETED: SignalKind.TASK_SUCCESS,
    Status.FAILED: SignalKind.TASK_FAILURE,
    Status.CANCELLED: SignalKind.TASK_ABANDON,
}
SAID = """
SELECT m.id, m.role, m.content, m.agent, m.created_at, m.metadata,
       COALESCE(NULLIF(u.display_name, ''), split_part(u.email, '@', 1)) AS person,
       (SELECT COUNT(*) FROM messages AS before WHERE before.conversation_id = m.conversation_id
        AND (before.created_at, before.id) < (m.created_at, m.id)) AS seq
FROM messages AS m
JOIN conversations AS c ON c.id = m.conversation_id
JOIN users AS u ON u.id = c.user_id
WHERE m.id = ANY($1::uuid[]) ORDER BY m.created_at, m.id
"""


async def end(tx: Session, root: Task, status: Status, *, answer_id: str | None = None) -> None:
    """Tell that `root` ended so. `answer_id`: the message that answers it and is worth keeping;
    None when nobody worked on an answer.
    """
    if not root.user_id:
        return
    asked = [one for one in (root.message_id, answer_id) if one is not None]
    rows = await tx.fetch(SAID, asked)
    said = tuple(memory for row in rows for memory in _memories(root, row))
    signal = _signal(root, ENDS[status], root.id)
    what = (
        *((_told(root, "remember", memories=said),) if said else ()),
        _told(root, "signal", signal=signal),
        _told(root, "ended", status=status.value),
    )
    await tx.publish(streams.MEMORY, *what)


async def retried(tx: Session, root: Task, new_id: str) -> None:
    """Tell that `root`'s answer was not good enough: its message is tried again as `new_id`."""
    if not root.user_id:
        return
    signal = _signal(root, SignalKind.TASK_RETRY, new_id)
    await tx.publish(streams.MEMORY, _told(root, "signal", signal=signal))


def _signal(root: Task, kind: SignalKind, once: str) -> Signal:
    """`once`: what there can be but one such signal of."""
    signal_id = str(uuid.uuid5(uuid.UUID(once), kind.value))
    return Signal(id=signal_id, kind=kind, user_id=root.user_id, root_id=root.id)


def _memories(root: Task, row: Row) -> list[Memory]:
    """The message as memories: one, unless it is longer than a memory may be."""
    answer = row["role"] == "assistant"
    text = storable(row["content"])
    pieces = [text[at : at + TEXT_CHARS] for at in range(0, len(text), TEXT_CHARS)]
    return [
        Memory(
            id=memory_id("message", row["id"], *([str(index)] if index else [])),
            collection=Collection.CONVERSATIONS,
            user_id=root.user_id,
            text=piece,
            kind="answer" if answer else "message",
            agent=(row["agent"] or "") if answer else "",
            speaker=(row["agent"] or NAME) if answer else row["person"],
            task_id=root.id,
            conversation_id=root.conversation_id,
            seq=row["seq"],
            tainted=answer and bool((row["metadata"] or {}).get("tainted")),
            created_at=row["created_at"],
        )
        for index, piece in enumerate(pieces)
        if piece.strip()
    ]


def _told(
    root: Task,
    verb: Literal["remember", "signal", "ended"],
    *,
    memories: tuple[Memory, ...] = (),
    signal: Signal | None = None,
    status: str = "",
) -> Message:
    what = Told(
        verb=verb,
        user_id=root.user_id,
        root_id=root.id,
        conversation_id=root.conversation_id,
        status=status,
        memories=memories,
        signal=signal,
    )
    return told(NAME, what)
