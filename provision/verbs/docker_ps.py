"""docker.ps: the containers of this machine."""

from __future__ import annotations

from typing import Any

from base.verbs import By, Nothing
from provision import containers
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(request: Nothing, box: Box) -> list[str]:
    """Looking needs nothing."""
    return ["ask Docker which containers there are"]


async def run(request: Nothing, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    """Each with its name, image and status."""
    return {"containers": await containers.every(box)}


VERB = Verb(
    name="docker.ps",
    request=Nothing,
    approval="none",
    plan=plan,
    run=run,
    deadline_s=90.0,
    alone=False,
)
