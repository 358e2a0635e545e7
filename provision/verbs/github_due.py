"""github.due: the repository whose time has come; the timer asks for this."""

from __future__ import annotations

from typing import Any

from base.verbs import By
from base.verbs_outside import All
from provision.box import Box
from provision.github_jobs import Jobs, told
from provision.verb import Tell, Verb


async def plan(_asked: All, box: Box) -> list[str]:
    first, *later = Jobs(box).due() or [""]
    if not first:
        return ["nothing: none is due"]
    return [f"run {first}", *(f"leave {name} for the next time" for name in later)]


async def run(_asked: All, box: Box, _by: By, tell: Tell) -> dict[str, Any]:
    """One at a time, so that other verbs get their turn between. later: what is due besides."""
    jobs = Jobs(box)
    due = jobs.due()
    if not due:
        return {"ran": None, "later": []}
    await tell(f"running {due[0]}")
    return {"ran": due[0], "later": due[1:], **told(await jobs.run(due[0], tell))}


VERB = Verb(name="github.due", request=All, approval="admin", plan=plan, run=run, deadline_s=900)
