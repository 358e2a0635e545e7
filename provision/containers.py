"""Docker's containers that the rules list. The package `docker` has its one owner here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import docker
from docker.errors import DockerException
from docker.errors import NotFound as Missing

from base.errors import ConflictError, ForbiddenError, NotFoundError
from base.redact import redact
from base.terminal import neutral
from provision.box import Box

T = TypeVar("T")
ANSWER_S = 60
STOP_S = 20
LOG_CHARS = 500_000


def listed(name: str, box: Box) -> str:
    """`name` itself. Raises ForbiddenError for one that the rules do not list."""
    if name not in box.containers:
        there = ", ".join(box.containers) or "none"
        raise ForbiddenError(f"{name} is not one of the containers of the broker's rules: {there}")
    return name


async def every(box: Box) -> list[dict[str, Any]]:
    """Every container of this machine, running or not; `listed` ones may be asked for."""

    def look(engine: docker.DockerClient) -> list[dict[str, Any]]:
        return [
            {
                "name": one.name,
                "image": str(one.attrs["Config"]["Image"]),
                "status": one.status,
                "started_at": str(one.attrs["State"].get("StartedAt", "")),
                "listed": one.name in box.containers,
            }
            for one in engine.containers.list(all=True, ignore_removed=True)
        ]

    return sorted(await _asked(box, look), key=lambda one: str(one["name"]))


async def logs(name: str, lines: int, box: Box) -> str:
    """The newest lines that a listed container wrote, secrets taken out."""
    listed(name, box)

    def look(engine: docker.DockerClient) -> str:
        raw: bytes = _named(engine, name).logs(tail=lines, timestamps=True)
        return raw.decode("utf-8", "replace")

    return neutral(redact((await _asked(box, look))[-LOG_CHARS:]))


async def restart(name: str, box: Box) -> str:
    """Start a listed container anew; its status then."""
    listed(name, box)

    def do(engine: docker.DockerClient) -> str:
        found = _named(engine, name)
        found.restart(timeout=STOP_S)
        found.reload()
        return str(found.status)

    return await _asked(box, do)


async def look(name: str, box: Box) -> str:
    """The status of a listed container."""
    listed(name, box)
    return await _asked(box, lambda engine: str(_named(engine, name).status))


def _named(engine: docker.DockerClient, name: str) -> Any:
    """The container of exactly that name: Docker also finds one by the start of its id."""
    found = engine.containers.get(name)
    if found.name != name:
        raise NotFoundError(f"there is no container {name} on this machine")
    return found


async def _asked(box: Box, ask: Callable[[docker.DockerClient], T]) -> T:
    """What the engine answers. Raises ConflictError when there is none, or it refuses."""

    def there() -> T:
        try:
            engine = docker.DockerClient(base_url=box.docker, timeout=ANSWER_S)
        except DockerException as error:
            raise ConflictError(f"Docker does not run on this machine: {error}") from error
        try:
            return ask(engine)
        except Missing as error:
            raise NotFoundError(f"Docker: {error.explanation}") from error
        except (DockerException, OSError) as error:
            raise ConflictError(f"Docker: {error}") from error
        finally:
            engine.close()

    return await asyncio.to_thread(there)
