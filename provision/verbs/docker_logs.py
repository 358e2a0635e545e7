"""docker.logs: what a listed container wrote."""

from __future__ import annotations

from typing import Any

from base.plural import counted
from base.verbs import By, DockerLogs
from provision import containers
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(request: DockerLogs, box: Box) -> list[str]:
    """Raises ForbiddenError for a container that is not listed."""
    return [
        f"read the last {counted(request.lines, 'line')} of "
        + containers.listed(request.container, box)
    ]


async def run(request: DockerLogs, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    """Its newest lines as one text."""
    return {"logs": await containers.logs(request.container, request.lines, box)}


VERB = Verb(
    name="docker.logs",
    request=DockerLogs,
    approval="none",
    plan=plan,
    run=run,
    deadline_s=90.0,
    alone=False,
)
