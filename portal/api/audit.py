"""The audit log, for admins."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from base.audit import Risk
from base.messages import Wire
from base.outbox import storable
from portal.api.conversations import Cursor
from portal.api.responses import may
from portal.door import Admin, At, need
from portal.talk import pack, unpack

router = APIRouter(tags=["audit"])
#: The events' words, and those of the rows about the log itself.
TYPES = "^(auth|access|action|escalation|error|audit)$"


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


@router.get(
    "/audit", summary="Read the audit log", responses=may(403), dependencies=[need("admin")]
)
async def audit(
    desk: At,
    _: Admin,
    event_type: Annotated[str | None, Query(alias="type", pattern=TYPES)] = None,
    actor: Annotated[str | None, Query(max_length=100)] = None,
    risk: Risk | None = None,
    task: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Cursor = None,
) -> AuditRows:
    """What happened, newest first; by event type, actor, risk or task (admin)."""
    before, last = unpack(cursor) if cursor else (None, None)
    rows = await desk.store.fetch(
        f"SELECT {', '.join(AuditRow.model_fields)} FROM audit_logs"
        " WHERE ($1::text IS NULL OR event_type = $1) AND ($2::text IS NULL OR actor_id = $2)"
        " AND ($3::text IS NULL OR risk_level = $3)"
        " AND ($4::text IS NULL OR details ->> 'task_id' = $4)"
        " AND ($5::timestamptz IS NULL OR (timestamp, id) < ($5, $6::uuid))"
        " ORDER BY timestamp DESC, id DESC LIMIT $7",
        *(event_type, actor and storable(actor, "actor"), risk, task and storable(task, "task")),
        *(before, last, limit + 1),
    )
    found = [AuditRow(**row) for row in rows[:limit]]
    more = len(rows) > limit
    return AuditRows(
        rows=found, next_cursor=pack(found[-1].timestamp, found[-1].id) if more else None
    )
