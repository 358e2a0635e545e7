"""Fixtures of the supervisor's tests: see stage.py."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from stage import World

from base.bus import Bus
from base.settings import Settings
from base.store import Store

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def rehearsal(short_tmp: Path) -> Iterator[int]:
    """Port of a rehearsal model of our own."""
    port, home = free_port(), tempfile.mkdtemp(dir=short_tmp)
    environment = {
        **os.environ,
        "AI_INFRA_HOME": home,
        "AI_INFRA_REHEARSAL_PORT": str(port),
        "PYTHONPATH": str(ROOT),
    }
    server = subprocess.Popen([sys.executable, "-m", "workers", "rehearsal"], env=environment)
    end = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 0.2):
                break
        except OSError:
            assert server.poll() is None, "the rehearsal model died"
            assert time.monotonic() < end, "the rehearsal model did not start"
            time.sleep(0.05)
    yield port
    server.terminate()
    server.wait(10)


@pytest.fixture
def settings(
    redis_url: str, postgres_dsn: str, rehearsal: int, short_tmp: Path, monkeypatch: Any
) -> Settings:
    """Short times, so that a lost lease is found within the test."""
    home = Path(tempfile.mkdtemp(dir=short_tmp))
    monkeypatch.setenv("AI_INFRA_HOME", str(home))
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    made = Settings(
        home=home,
        redis_url=redis_url,
        postgres_dsn=postgres_dsn,
        rehearsal_port=rehearsal,
        heartbeat_s=0.3,
        lease_s=1.5,
        assign_lease_s=0.8,
        sweep_s=0.2,
    )
    made.prepare()
    return made


@pytest.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    store = await Store.open(settings.postgres)
    await store.migrate()
    bus = await Bus.open(settings.redis, "portal")
    made = World(settings, store, bus)
    await made.people()
    yield made
    await made.close()
