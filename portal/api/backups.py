"""Backups, for admins: list, make, check, restore."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from portal import backups as kept
from portal.api.responses import may, response
from portal.door import Admin, At, Key, need
from portal.shapes import PlanRestore, RestoreBackup
from portal.underway import Work

BUSY: dict[int | str, dict[str, Any]] = may(403) | {
    409: response(409, "a backup is being made; wait for its end")
}
LOCAL: dict[int | str, dict[str, Any]] = may(403, 404) | {
    409: response(
        409,
        "a restore stops the portal, so in local mode it cannot be done from here; in a terminal: "
        "ai-infra backup restore 1a2b3c4d",
    )
}
Snapshot = Annotated[str, Path(pattern=r"^[0-9a-f]{8}$", description="Its id in the list.")]
router = APIRouter(prefix="/backups", tags=["backups"])


@router.get("", summary="List backups", responses=may(403, 409), dependencies=[need("admin")])
async def backups(desk: At, caller: Admin) -> kept.Backups:
    """The snapshots, newest first, where they go, when, and how the last ones went (admin)."""
    return await kept.backups(desk, caller)


@router.post(
    "", status_code=202, summary="Make a backup", responses=BUSY, dependencies=[need("admin")]
)
async def create(desk: At, caller: Admin, key: Key = None) -> Work:
    """Begin one; it goes on by itself (admin). `GET /api/backups/progress` says how far it is."""
    return await kept.create(desk, caller, key=key)


@router.get(
    "/progress", summary="See how far it is", responses=may(403), dependencies=[need("admin")]
)
async def progress(desk: At, caller: Admin) -> kept.Progress:
    """What is done now, and how the last backup, check, drill and restore went (admin). After a
    restore, which stops the portal, `restored` has its outcome.
    """
    return await kept.progress(desk, caller)


@router.post(
    "/verify",
    status_code=202,
    summary="Check the backups",
    responses=BUSY,
    dependencies=[need("admin")],
)
async def verify(
    desk: At,
    caller: Admin,
    quick: Annotated[bool, Query(description="The lists only, not every byte.")] = False,
) -> Work:
    """Begin to read the whole repository; it goes on by itself (admin)."""
    return await kept.verify(desk, caller, quick=quick)


@router.post(
    "/{snapshot}/plan",
    summary="Say what a restore would do",
    responses=may(403, 404, 409),
    dependencies=[need("admin")],
)
async def plan(desk: At, caller: Admin, snapshot: Snapshot, body: PlanRestore) -> kept.Planned:
    """The steps of restoring it; nothing is changed (admin)."""
    return await kept.planned(desk, caller, snapshot, list(body.parts))


@router.post(
    "/{snapshot}/restore",
    status_code=202,
    summary="Restore a backup",
    responses=LOCAL,
    dependencies=[need("admin")],
)
async def restore(desk: At, caller: Admin, snapshot: Snapshot, body: RestoreBackup) -> Work:
    """Put it in the place of what is there, which is kept aside (admin). Everything is stopped,
    this portal too; ask `GET /api/backups/progress` for `restored` once it answers again. Whoever
    logged in after the backup was made has to do so anew. In local mode: 409 with the command.
    """
    return await kept.restore(desk, caller, snapshot, body)
