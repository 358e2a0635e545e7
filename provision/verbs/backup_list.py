"""backup.list: the snapshots that there are, where they are, and when the next one is made."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from base.backup import create, rules, schedule
from base.errors import NotFoundError
from base.settings import load
from base.verbs import By, Nothing
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(request: Nothing, box: Box) -> list[str]:
    """Looking needs nothing."""
    return ["ask the repository which snapshots there are"]


async def run(request: Nothing, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    """Oldest first; none when no backup was made yet. busy: a backup or restore is at work."""
    settings = load()
    found = rules.load(settings)
    try:
        known = await create.snapshots(settings)
    except NotFoundError:
        known = []
    rows = [
        {
            **asdict(one),
            "at": one.at.isoformat(),
        }
        for one in known
    ]
    return {
        "snapshots": rows,
        "place": found.place(settings),
        "key": str(found.key(settings)),
        "keep": found.keep.model_dump(),
        "workspaces": found.workspaces,
        "timers": [one.model_dump(mode="json") for one in await schedule.timers()],
        "busy": create.busy(settings),
    }


VERB = Verb(name="backup.list", request=Nothing, approval="none", plan=plan, run=run, alone=False)
