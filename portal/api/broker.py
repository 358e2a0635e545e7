"""The root broker's verbs, for admins: what there is, and any of them by its own shape."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query

from portal import broker as root
from portal.api.responses import may, response
from portal.door import Admin, At, need

LOCAL: dict[int | str, dict[str, Any]] = {409: response(409, root.REASON)}
router = APIRouter(prefix="/broker", tags=["broker"])


@router.get(
    "", summary="List the broker's verbs", responses=may(403) | LOCAL, dependencies=[need("admin")]
)
async def offered(desk: At, caller: Admin) -> root.Offered:
    """What root does here for an admin, and on what (admin). `interrupted` are verbs that were
    under way when the broker ended.
    """
    return await root.offered(desk, caller)


@router.post(
    "/{verb}",
    summary="Have a verb done",
    responses=may(403, 404) | LOCAL,
    dependencies=[need("admin")],
)
async def do(
    desk: At,
    caller: Admin,
    verb: str,
    body: Annotated[dict[str, Any], Body()],
    dry_run: Annotated[bool, Query(description="Only say what would be done.")] = False,
) -> root.Answer:
    """One typed verb, such as `unit.status` with `{"unit": "nginx.service"}`; nothing takes a
    command line (admin). With `dry_run` nothing is changed and `plan` says what would be.
    """
    return await root.do(desk, caller, verb, body, dry_run=dry_run)
