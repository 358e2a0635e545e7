"""Fixtures of the broker's tests: see rig.py."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from present import database

from base.bus import Bus
from base.store import Store
from tests.provision.rig import Record, Rig, made

UNITS = 'units = ["web.service", "gone.service", "sick.service"]\ncontainers = ["shop", "abc"]\n'


@pytest.fixture(scope="module")
def broker_dsn(postgres_server: Path, migrated: str) -> Iterator[str]:
    with database(postgres_server, migrated) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def rig(redis_server: str, broker_dsn: str) -> Iterator[Rig]:
    """A broker that runs: this user's processes speak for people, nobody's for agents."""
    with made(redis_server, broker_dsn) as found:
        found.rules(UNITS + '[verbs."domain.add"]\nautomatic = true\n')
        found.start()
        yield found


@pytest.fixture
def own(redis_server: str, broker_dsn: str) -> Iterator[Rig]:
    """One of the test's own, which has not been started."""
    with made(redis_server, broker_dsn) as found:
        found.rules(UNITS)
        yield found


@pytest_asyncio.fixture
async def store(broker_dsn: str) -> AsyncIterator[Store]:
    opened = await Store.open(broker_dsn, "test")
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def bus(redis_server: str) -> AsyncIterator[Bus]:
    opened = await Bus.open(redis_server, f"test-{uuid.uuid4().hex[:6]}")
    yield opened
    await opened.close()


@pytest.fixture
def record(store: Store) -> Record:
    return Record(store)
