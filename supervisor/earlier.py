"""What came before a request in its branch of the conversation: words, files, and their taint."""

from __future__ import annotations

from base import attachments, branches
from base.messages import Attached, Turn
from supervisor.record import Reads
from supervisor.tasks import Task

#: How many of the person's earlier messages a request is told.
DEPTH = 20


async def history(reads: Reads, root: Task) -> list[Turn]:
    """The person's last `DEPTH` messages before the request's, each with its newest answer,
    oldest first. What stands in other branches is not among them.
    """
    rows = await reads.fetch(
        branches.SAID + "SELECT role, content FROM said ORDER BY created_at, id",
        *(root.message_id, DEPTH),
    )
    return [Turn(role=row["role"], content=row["content"]) for row in rows]


async def attached(reads: Reads, root: Task) -> tuple[Attached, ...]:
    """The files of the request's message, and of those before it that still fit beside them."""
    if root.message_id is None:
        return ()
    return attachments.fitting(await branches.attached(reads, root.message_id, DEPTH))


async def tainted(reads: Reads, root: Task) -> bool:
    """Whether an earlier answer that the request is told stands on text from outside."""
    found = await reads.fetch(
        branches.SAID + "SELECT FROM said WHERE metadata->>'tainted' = 'true' LIMIT 1",
        *(root.message_id, DEPTH),
    )
    return bool(found)
