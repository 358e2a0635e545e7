"""Rate limits: the shipped numbers, the owner's, windows that move, and Redis that is away."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from base.errors import BusError, SettingsError, TooManyError
from base.limit import Limiter, Rates
from base.settings import Settings
from tests.conftest import need, wait_for

#: The seed plan's table.
SEED = {
    "api.anonymous": (10, 60),
    "api.authenticated": (100, 60),
    "api.premium": (1000, 60),
    "websocket.messages": (30, 60),
    "agents.inter_agent_messages": (100, 60),
    "agents.tool_calls": (50, 60),
    "agents.escalations": (5, 60),
    "auth.login_attempts": (5, 900),
    "auth.password_reset": (3, 3600),
}


def home(folder: Path, text: str = "") -> Settings:
    (folder / "config").mkdir(parents=True)
    if text:
        (folder / "config" / "limits.toml").write_text(text)
    return Settings(home=folder, redis_url=None)


@pytest_asyncio.fixture
async def limiter(redis_url: str) -> AsyncIterator[Limiter]:
    opened = Limiter(redis_url, Rates.load())
    yield opened
    await opened.close()


@pytest.mark.parametrize("what", SEED)
async def test_the_shipped_rates_are_the_plans(limiter: Limiter, what: str) -> None:
    count, window_s = SEED[what]
    key = uuid.uuid4().hex
    allowed = await asyncio.gather(*(limiter.hit(what, key) for _ in range(count)))
    assert allowed == [0.0] * count
    left_s = await limiter.hit(what, key)
    assert window_s - 30 < left_s <= window_s
    assert await limiter.hit(what, key + "2") == 0.0


async def test_racers_of_many_processes_get_exactly_the_count(redis_url: str) -> None:
    several = [Limiter(redis_url, Rates.load()) for _ in range(3)]
    found = await asyncio.gather(
        *(one.hit("agents.tool_calls", "code") for one in several for _ in range(40))
    )
    assert found.count(0.0) == 50
    for one in several:
        await one.close()


async def test_the_window_moves_and_a_refusal_does_not_count(
    redis_url: str, tmp_path: Path
) -> None:
    rates = Rates.load(home(tmp_path / "h", '[agents]\ntool_calls = "3/2 seconds"\n'))
    limiter = Limiter(redis_url, rates)
    assert [await limiter.hit("agents.tool_calls", "a") for _ in range(3)] == [0.0] * 3
    for _ in range(20):
        assert 0 < await limiter.hit("agents.tool_calls", "a") <= 2
    await asyncio.sleep(await limiter.hit("agents.tool_calls", "a") + 0.05)
    assert await limiter.hit("agents.tool_calls", "a") == 0.0
    await limiter.close()


async def test_what_is_given_back_is_free_again(limiter: Limiter) -> None:
    for _ in range(12):
        assert await limiter.hit("auth.login_attempts", "1.2.3.4") == 0.0
        await limiter.give_back("auth.login_attempts", "1.2.3.4")
    for _ in range(5):
        await limiter.take("auth.login_attempts", "1.2.3.4", "too many attempts")
    with pytest.raises(TooManyError, match="too many attempts; try again in 15 min") as refused:
        await limiter.take("auth.login_attempts", "1.2.3.4", "too many attempts")
    assert refused.value.retry_after_s > 800


async def test_the_owners_file_is_laid_over_key_by_key(tmp_path: Path, redis_url: str) -> None:
    text = '[api]\nanonymous = "unlimited"\n[websocket]\nconnections = 0\n'
    rates = Rates.load(home(tmp_path / "h", text))
    assert rates.api.anonymous == "unlimited"
    assert rates.api.premium == Rates.load().api.premium
    assert rates.websocket.connections == 0
    limiter = Limiter(redis_url, rates)
    assert [await limiter.hit("api.anonymous", "x") for _ in range(50)] == [0.0] * 50
    await limiter.give_back("api.anonymous", "x")
    with pytest.raises(KeyError):
        await limiter.hit("websocket.connections", "x")


def test_every_fault_of_the_file_is_named(tmp_path: Path) -> None:
    text = '[api]\nanonymous = "10 a minute"\npremium = 5\n[agents]\nchat = "1/minute"\n'
    with pytest.raises(SettingsError) as wrong:
        Rates.load(home(tmp_path / "h", text))
    for name in ("api.anonymous", "api.premium", "agents.chat"):
        assert name in str(wrong.value)
    assert len(wrong.value.faults) == 3
    with pytest.raises(SettingsError, match=r"limits\.toml"):
        Rates.load(home(tmp_path / "i", "[api"))


async def test_redis_away_is_said_at_once_and_forgotten_when_it_is_back() -> None:
    folder = Path(tempfile.mkdtemp(prefix="ai-l-", dir="/tmp"))
    path = folder / "redis.sock"
    line = [need("redis-server"), "--port", "0", "--unixsocket", str(path), "--save", ""]

    def start() -> subprocess.Popen[bytes]:
        server = subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL)
        wait_for("redis", path.exists)
        return server

    server = start()
    limiter = Limiter(f"unix://{path}", Rates.load())
    try:
        assert await asyncio.gather(*(limiter.hit("agents.tool_calls", "a") for _ in range(20)))
        server.terminate()
        server.wait(10)
        started = time.monotonic()
        with pytest.raises(BusError, match="rate limits"):
            await limiter.hit("agents.tool_calls", "a")
        assert time.monotonic() - started < 5
        server = start()
        again = await asyncio.gather(*(limiter.hit("agents.tool_calls", "a") for _ in range(20)))
        assert again == [0.0] * 20  # no line that broke meanwhile is used again
    finally:
        await limiter.close()
        server.terminate()
        server.wait(10)


def test_nothing_is_imported_before_the_first_hit() -> None:
    script = "import sys, base.limit; print('limits' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "False"
