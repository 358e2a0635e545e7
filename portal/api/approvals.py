"""Approvals: what agents ask leave for, and the answer."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from base.approvals import Approval
from portal import approvals as asked
from portal.api.responses import may
from portal.door import Asking, At, Key, need
from portal.shapes import Decision

router = APIRouter(prefix="/approvals", tags=["approvals"])


@router.get("", summary="List approvals", dependencies=[need("tasks:read")])
async def approvals(
    desk: At,
    caller: Asking,
    every: Annotated[bool, Query(alias="all")] = False,
    prefix: Annotated[str, Query(pattern=r"^[0-9a-fA-F-]{0,36}$")] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> asked.Approvals:
    """What waits for an answer, newest first; with `all` what was answered too."""
    return await asked.approvals(desk, caller, every=every, prefix=prefix, limit=limit)


@router.get(
    "/{approval_id}",
    summary="Get an approval",
    responses=may(404),
    dependencies=[need("tasks:read")],
)
async def approval(desk: At, caller: Asking, approval_id: UUID) -> Approval:
    """One approval, with the exact request."""
    return await asked.approval(desk, caller, str(approval_id))


@router.post(
    "/{approval_id}/decision",
    summary="Decide an approval",
    responses=may(403, 404, 409),
    dependencies=[need("approvals:write")],
)
async def decide(
    desk: At, caller: Asking, approval_id: UUID, body: Decision, key: Key = None
) -> Approval:
    """Approve or deny it: an admin, or the one whose task it is up to their own level."""
    return await asked.decide(desk, caller, str(approval_id), body.approve, body.reason, key=key)
