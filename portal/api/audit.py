"""The audit log, for admins."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from base.audit import OutcomeWord, Risk
from portal import ledger
from portal.api.conversations import Cursor
from portal.api.responses import may
from portal.door import Admin, At, need
from portal.shapes import Instant, Text

router = APIRouter(tags=["audit"])
#: The events' words, and those of the rows about the log itself.
TYPES = "^(auth|access|action|escalation|error|audit)$"


@router.get(
    "/audit", summary="Read the audit log", responses=may(403), dependencies=[need("admin")]
)
async def audit(
    desk: At,
    caller: Admin,
    event_type: Annotated[str | None, Query(alias="type", pattern=TYPES)] = None,
    actor: Annotated[Text | None, Query(max_length=100)] = None,
    risk: Risk | None = None,
    outcome: OutcomeWord | None = None,
    task: Annotated[Text | None, Query(max_length=100)] = None,
    words: Annotated[Text | None, Query(max_length=200)] = None,
    since: Instant | None = None,
    until: Instant | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Cursor = None,
) -> ledger.AuditRows:
    """What happened, newest first; by type, actor, risk, outcome, task, words or time (admin)."""
    return await ledger.rows(
        desk, caller, event_type=event_type, actor=actor, risk=risk, outcome=outcome, task=task,
        words=words, since=since, until=until, limit=limit, cursor=cursor,
    )  # fmt: skip


@router.get(
    "/audit/export",
    summary="Export the audit log",
    response_class=StreamingResponse,
    responses=may(403, 404),
    dependencies=[need("admin")],
)
async def export(
    desk: At,
    caller: Admin,
    since: Instant | None = None,
    until: Instant | None = None,
) -> StreamingResponse:
    """The log as JSON Lines with hashes, signed heads and public key (admin); check the file
    anywhere by `ai-infra audit verify --file`.
    """
    name = f"audit-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl"
    return StreamingResponse(
        await ledger.export(desk, caller, since, until),
        media_type="application/jsonl",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
