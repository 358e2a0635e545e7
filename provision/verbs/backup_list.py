"""backup.list: the snapshots that there are."""

from __future__ import annotations

from typing import Any

from base.backup import create
from base.errors import NotFoundError
from base.settings import load
from base.verbs import By, Nothing
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(request: Nothing, box: Box) -> list[str]:
    """Looking needs nothing."""
    return ["ask the repository which snapshots there are"]


async def run(request: Nothing, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    """Oldest first; none when no backup was made yet."""
    try:
        found = await create.snapshots(load())
    except NotFoundError:
        found = []
    rows = [
        {"id": one.id, "at": one.at.isoformat(), "host": one.host, "version": one.version}
        for one in found
    ]
    return {"snapshots": rows}


VERB = Verb(name="backup.list", request=Nothing, approval="none", plan=plan, run=run, alone=False)
