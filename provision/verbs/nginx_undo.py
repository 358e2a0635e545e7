"""nginx.undo: bring a site to what it was before a change."""

from __future__ import annotations

from typing import Any

from base.verbs import By, NginxUndo
from provision.box import Box
from provision.changes import shown
from provision.sites import Sites
from provision.verb import Tell, Verb, named


async def plan(request: NginxUndo, box: Box) -> list[str]:
    sites = Sites(box)
    change = sites.undoable(request.change)
    said = f"undo {change.verb} of {change.domain} by {change.who} at {change.at:%F %T} UTC"
    return [f"{said} ({change.id})", *await sites.plan(change.domain, change.before)]


async def run(request: NginxUndo, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    change = await Sites(box, who=named(by), tell=tell).undo(request.change)
    return {"change": shown(change)}


VERB = Verb(
    name="nginx.undo",
    request=NginxUndo,
    approval="admin",
    plan=plan,
    run=run,
    deadline_s=120.0,
)
