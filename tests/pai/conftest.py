"""One keeper for all tests of a module; each begins with nothing remembered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from keeper_world import World, world
from present import database


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_world(
    tmp_path_factory: object, postgres_server: Path, migrated: str, redis_server: str
) -> AsyncIterator[World]:
    home = tmp_path_factory.mktemp("keeper")  # type: ignore[attr-defined]
    with database(postgres_server, migrated) as dsn:
        async with world(home, dsn, redis_server) as running:
            yield running


@pytest_asyncio.fixture(loop_scope="module")
async def made(shared_world: World) -> World:
    """A running keeper with its worker. The module is marked `asyncio(loop_scope="module")`."""
    await shared_world.empty()
    return shared_world
