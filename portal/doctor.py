"""The doctor as admins see it: the last round that was recorded, and a new one on request."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from pydantic import AwareDatetime

from base.backup import record, rules
from base.backup.command import run
from base.errors import AIError, ConflictError, NotRunningError
from base.messages import Wire
from portal.auth import Caller, admin_only
from portal.checks import report
from portal.checks.report import Row
from portal.desk import Desk
from portal.trail import event

ROOT = Path(__file__).resolve().parent.parent
ROUND_S = 90.0
_one = asyncio.Lock()


class Kept(Wire):
    """Where backups go, and the last one. problem: why there is none to be trusted now."""

    place: str
    at: AwareDatetime | None
    snapshot: str | None
    problem: str | None


class Health(Wire):
    """The last recorded round of `ai-infra doctor`; `at` None: none was recorded yet. Faults
    come first, then what is well, then what has nothing to look at here.
    """

    at: AwareDatetime | None
    ok: bool | None
    checks: list[Row]
    backup: Kept


async def last(desk: Desk, caller: Caller) -> Health:
    """Raises ForbiddenError for who is no admin."""
    admin_only(caller)
    found = await asyncio.to_thread(report.last, desk.settings)
    checks = sorted(found.checks, key=lambda row: (row.ok, row.skipped)) if found else []
    return Health(
        at=found.at if found else None,
        ok=found.ok if found else None,
        checks=checks,
        backup=await asyncio.to_thread(_backup, desk),
    )


async def look(desk: Desk, caller: Caller) -> Health:
    """A round now, by a process of its own. Raises ForbiddenError; ConflictError on the appliance,
    whose portal may not look at all of it; NotRunningError when it does not end.
    """
    admin_only(caller)
    if desk.settings.broker is not None:
        raise ConflictError(
            "the doctor looks each quarter of an hour, by ai-doctor.timer; on the server itself: "
            "ai-infra doctor --record"
        )
    async with _one:
        line = [sys.executable, "-m", "portal.cli", "doctor", "--record", "--json"]
        own = {**os.environ, "AI_INFRA_HOME": str(desk.settings.home)}
        try:
            done = await run(line, deadline_s=ROUND_S, environment=own, cwd=ROOT)
        except AIError as error:
            raise NotRunningError(f"the doctor did not end: {error}") from error
        if done.code not in {0, 1}:
            raise NotRunningError(f"the doctor failed: {done.words}")
    desk.tell(event("action", "execute", "doctor", caller=caller))
    return await last(desk, caller)


def _backup(desk: Desk) -> Kept:
    found = record.last(desk.settings)
    try:
        place = rules.load(desk.settings).place(desk.settings)
    except (AIError, OSError) as error:
        if desk.settings.broker is None:
            return Kept(place="", at=None, snapshot=None, problem=str(error))
        place = found.place if found else ""  # the file is root's alone, who says what is wrong
    return Kept(
        place=place,
        at=found.at if found else None,
        snapshot=found.snapshot if found else None,
        problem=found.problem if found else None,
    )
