"""Steps that the tests of the audit log share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from base import audit_chain, audit_heads, audit_verify
from base.audit import AuditEvent
from base.audit_verify import Report
from base.audit_writer import Writer
from base.bus import Bus
from base.settings import Settings
from base.store import Store


def event(number: int = 0, **fields: Any) -> AuditEvent:
    return AuditEvent(
        **{
            "event_type": "action",
            "actor_type": "agent",
            "actor_id": "code",
            "actor_ip": "127.0.0.1",
            "resource_type": "command",
            "resource_path": f"/work/{number}",
            "action": "execute",
            "outcome": "success",
            "details": {"task_id": "t", "number": number, "share": number / 7, "word": "größe 🦊"},
            **fields,
        }
    )


def events(count: int, start: int = 0) -> list[AuditEvent]:
    return [event(number) for number in range(start, start + count)]


@contextlib.asynccontextmanager
async def running(writer: Writer) -> AsyncIterator[None]:
    """The writer at work, as in the supervisor; stopped at the end."""
    task = asyncio.create_task(writer.run(), name="audit writer")
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def written(settings: Settings, store: Store, bus: Bus, count: int, **options: Any) -> None:
    """A log of one start row and `count` events, signed at its end."""
    before = await store.fetchval("SELECT count(*) FROM audit_logs")
    writer = Writer(settings, store, bus, **options)
    async with running(writer):
        await until_rows(store, before + 1)
        await writer.write(events(count))


async def until_rows(store: Store, count: int, seconds_s: float = 20.0) -> None:
    async with asyncio.timeout(seconds_s):
        while await store.fetchval("SELECT count(*) FROM audit_logs") < count:
            await asyncio.sleep(0.02)


async def verdict(settings: Settings, store: Store, **options: Any) -> Report:
    return await audit_verify.verify(settings, store, **options)


async def rewrite(store: Store, **changes: Any) -> None:
    """The whole log again with `changes` in row 3, every hash recomputed: a careful forger."""
    rows = await store.fetch("SELECT * FROM audit_logs ORDER BY seq")
    rows[2].update(changes)
    async with store.transaction() as tx:
        for row in audit_chain.link(rows, 0, audit_chain.GENESIS):
            await tx.execute(
                "UPDATE audit_logs SET actor_id = $2, prev_hash = $3, hash = $4 WHERE id = $1",
                *(row["id"], row["actor_id"], row["prev_hash"], row["hash"]),
            )
            await tx.execute(
                "UPDATE audit_chain SET hash = $2 WHERE id = $1", row["id"], row["hash"]
            )


def heads_file(settings: Settings) -> Path:
    return audit_heads.heads_path(settings)
