"""unit.status: how a listed unit stands."""

from __future__ import annotations

from typing import Any

from base.verbs import By, UnitName
from provision import units
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(request: UnitName, box: Box) -> list[str]:
    """Raises ForbiddenError for a unit that is not listed."""
    return [f"ask systemd how {units.listed(request.unit, box)} stands"]


async def run(request: UnitName, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    """systemd's words."""
    return await units.status(request.unit, box)


VERB = Verb(
    name="unit.status",
    request=UnitName,
    approval="none",
    plan=plan,
    run=run,
    deadline_s=30.0,
    alone=False,
)
