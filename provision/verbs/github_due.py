"""github.due: run every repository whose time has come; the timer asks for this."""

from __future__ import annotations

from typing import Any

from base.errors import AIError, ConflictError
from base.verbs import By
from base.verbs_outside import All
from provision.box import Box
from provision.github_jobs import Jobs, told
from provision.verb import Tell, Verb


async def plan(_asked: All, box: Box) -> list[str]:
    return [f"run {name}" for name in Jobs(box).due()] or ["nothing: none is due"]


async def run(_asked: All, box: Box, _by: By, tell: Tell) -> dict[str, Any]:
    """One that fails holds up no other; that it failed is said in the end."""
    jobs = Jobs(box)
    ran: dict[str, Any] = {}
    failed = []
    for name in jobs.due():
        try:
            ran[name] = told(await jobs.run(name, tell))
        except AIError as error:
            failed.append(f"{name}: {error}")
            await tell(failed[-1])
    if failed:
        raise ConflictError("; ".join(failed))
    return {"ran": ran}


VERB = Verb(name="github.due", request=All, approval="admin", plan=plan, run=run, deadline_s=3_600)
