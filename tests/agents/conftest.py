"""Fixtures for the agent's tests: the rehearsal model once, a rig a test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import agent_rig as bench
import pytest
import pytest_asyncio


@pytest.fixture(scope="session")
def model_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = bench.free_port()
    process = bench.rehearsal(tmp_path_factory.mktemp("model"), port)
    yield port
    process.terminate()
    process.wait(10)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that the unprivileged hands can reach."""
    path = Path(tempfile.mkdtemp(prefix="ai-a-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest_asyncio.fixture
async def rig(home: Path, redis_url: str, model_port: int) -> AsyncIterator[bench.Rig]:
    one = await bench.Rig(home, redis_url, model_port).open()
    yield one
    await one.close()
