"""docker.restart: a listed container is started anew."""

from __future__ import annotations

from typing import Any

from base.verbs import By, ContainerName
from provision import containers
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(request: ContainerName, box: Box) -> list[str]:
    """Raises ForbiddenError for a container that is not listed."""
    now = await containers.look(request.container, box)
    return [
        f"{request.container} is {now}",
        f"stop and start {request.container}: within {containers.STOP_S} s, else it is killed",
    ]


async def run(request: ContainerName, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    """Its status afterwards."""
    await tell(f"restarting {request.container}")
    return {
        "container": request.container,
        "status": await containers.restart(request.container, box),
    }


VERB = Verb(name="docker.restart", request=ContainerName, approval="admin", plan=plan, run=run)
