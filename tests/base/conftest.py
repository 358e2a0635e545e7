"""What most tests of the floor open: a migrated database, a bus, settings of a home."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from base.bus import Bus
from base.settings import Settings
from base.store import Store


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[Store]:
    made = await Store.open(postgres_dsn)
    await made.migrate()
    yield made
    await made.close()


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[Bus]:
    made = await Bus.open(redis_url, "supervisor")
    yield made
    await made.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(home=tmp_path / "home")
    made.prepare()
    return made
