"""unit.restart: a listed unit is started anew."""

from __future__ import annotations

from typing import Any

from base.verbs import By, UnitName
from provision import units
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(request: UnitName, box: Box) -> list[str]:
    """Raises ForbiddenError for a unit that is not listed."""
    now = await units.status(request.unit, box)
    return [
        f"{request.unit} is {now['active']} ({now['sub']})",
        f"stop and start {request.unit}; whoever uses it waits meanwhile",
        "look whether it runs again",
    ]


async def run(request: UnitName, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    """Its state afterwards. Raises ConflictError when it did not come up."""
    await tell(f"restarting {request.unit}")
    return await units.restart(request.unit, box)


VERB = Verb(name="unit.restart", request=UnitName, approval="admin", plan=plan, run=run)
