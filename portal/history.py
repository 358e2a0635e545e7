"""The events of one request that are still kept, and its PRD.md."""

from __future__ import annotations

import asyncio
from pathlib import Path

from base.messages import Event
from base.redact import redact
from portal.auth import Caller
from portal.desk import Desk
from portal.feed import place
from portal.work import Task

#: Beyond so many events of everybody, the earliest of the request are what is read.
READ_MAX = 20_000
MARGIN_MS = 2_000
PRD = "PRD.md"
PRD_MAX_BYTES = 200_000


async def events(desk: Desk, caller: Caller, root: Task) -> list[Event]:
    """What was told of the caller's request, oldest first; empty once nothing of it is kept."""
    cursor = f"{int(root.created_at.timestamp() * 1000) - MARGIN_MS}-0"
    last_ms = None
    if root.completed_at is not None:
        last_ms = int(root.completed_at.timestamp() * 1000) + MARGIN_MS
    found: list[Event] = []
    read = 0
    while read < READ_MAX and (page := await desk.bus.events_after(cursor)):
        read += len(page)
        cursor = page[-1][0]
        found += [
            event
            for _, event in page
            if event.root_id == root.id and event.user_id == caller.user_id
        ]
        if last_ms is not None and place(cursor)[0] > last_ms:
            break
    return found


async def prd(desk: Desk, task: Task) -> str | None:
    """The PRD.md of a part that `work.task_whole` gave; None when it has none (minimal effort), or
    its folder was archived.
    """
    return await asyncio.to_thread(_read, desk.settings.work / task.id / PRD)


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return redact(file.read(PRD_MAX_BYTES).decode(errors="replace"))
    except OSError:
        return None
