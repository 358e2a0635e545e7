"""The audit log as an admin reads it: rows by filter, the check of its chain, the export."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from base.audit import OutcomeWord, Risk
from base.messages import Wire
from base.settings import Settings
from base.store import Store
from portal.auth import Caller, admin_only
from portal.desk import Desk
from portal.talk import pack, unpack
from portal.trail import event

if TYPE_CHECKING:
    from base.audit_verify import Report


class AuditRow(Wire):
    """A row. `hash` covers all the rest; `prev_hash` is that of row `seq` - 1."""

    seq: int | None
    id: str
    timestamp: datetime
    event_type: str
    actor_type: str
    actor_id: str
    actor_ip: str | None
    resource_type: str | None
    resource_path: str | None
    action: str
    outcome: str
    details: Any
    risk_level: str | None
    prev_hash: str | None
    hash: str | None


class AuditRows(Wire):
    rows: list[AuditRow]
    next_cursor: str | None


async def rows(
    desk: Desk,
    caller: Caller,
    *,
    event_type: str | None = None,
    actor: str | None = None,
    risk: Risk | None = None,
    outcome: OutcomeWord | None = None,
    task: str | None = None,
    words: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> AuditRows:
    """What happened, newest first. words: text that stands in who, where, what or the details, in
    any case; actor: an id, or how a user logs in. Raises ForbiddenError unless an admin asks,
    InputError for a cursor that is none.
    """
    admin_only(caller)
    before, last = unpack(cursor) if cursor else (None, None)
    found = await desk.store.fetch(
        f"SELECT {', '.join(AuditRow.model_fields)} FROM audit_logs"
        " WHERE ($1::text IS NULL OR event_type = $1) AND ($2::text IS NULL OR actor_id = $2"
        " OR actor_id = (SELECT id::text FROM users WHERE email = lower($2)))"
        " AND ($3::text IS NULL OR risk_level = $3) AND ($4::text IS NULL OR outcome = $4)"
        " AND ($5::text IS NULL OR details ->> 'task_id' = $5)"
        " AND ($6::text IS NULL OR strpos(lower(concat_ws(' ', actor_type, actor_id, action,"
        " resource_type, resource_path, details::text)), lower($6)) > 0)"
        " AND ($7::timestamptz IS NULL OR timestamp >= $7)"
        " AND ($8::timestamptz IS NULL OR timestamp < $8)"
        " AND ($9::timestamptz IS NULL OR (timestamp, id) < ($9, $10::uuid))"
        " ORDER BY timestamp DESC, id DESC LIMIT $11",
        *(event_type, actor, risk, outcome, task, words or None, since, until, before, last),
        limit + 1,
    )
    kept = [AuditRow(**row) for row in found[:limit]]
    more = len(found) > limit
    return AuditRows(rows=kept, next_cursor=pack(kept[-1].timestamp, kept[-1].id) if more else None)


async def names(desk: Desk, found: list[AuditRow]) -> dict[str, str]:
    """By the ids of the users among the actors, how they log in."""
    ids = list({row.actor_id for row in found if row.actor_type == "user"})
    rows = await desk.store.fetch("SELECT id, email FROM users WHERE id::text = ANY($1)", ids)
    return {row["id"]: row["email"] for row in rows}


async def count(desk: Desk) -> int:
    """About how many rows a check has to read."""
    return int(await desk.store.fetchval("SELECT COALESCE(max(seq), 0) FROM audit_chain"))


async def verify(
    desk: Desk, caller: Caller, progress: Callable[[int], None] | None = None
) -> Report:
    """What `ai-infra audit verify` finds, by the same code, in a thread with a connection of its
    own: pages stay quick meanwhile. `progress` hears from there how many rows were checked.
    """
    admin_only(caller)
    what = event("action", "execute", "audit/verify", caller=caller)
    async with desk.written(what) as details:
        found = await asyncio.to_thread(_verify, desk.settings, progress)
        details |= {"rows": found.rows, "faults": found.fault_count}
        return found


def _verify(settings: Settings, progress: Callable[[int], None] | None) -> Report:
    from base import audit_verify

    async def check() -> Report:
        store = await Store.open(settings.postgres, "portal audit")
        try:
            copies = audit_verify.journal(settings)
            return await audit_verify.verify(settings, store, copies=copies, progress=progress)
        finally:
            await store.close()

    return asyncio.run(check())


async def export(
    desk: Desk, caller: Caller, since: datetime | None, until: datetime | None
) -> AsyncIterator[bytes]:
    """The lines that `ai-infra audit export` writes; the first is there when this returns, so
    that what goes wrong is told before anything is sent. Raises NotFoundError for an empty log.
    """
    from base.audit_export import export as lines

    admin_only(caller)
    found = lines(desk.settings, desk.store, since, until)
    first = await anext(found)
    desk.tell(event("access", "read", "audit/export", caller=caller, risk="medium"))

    async def all_lines() -> AsyncIterator[bytes]:
        yield first
        async for line in found:
            yield line

    return all_lines()
