"""Steps that the tests of the bus share."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from present import need, wait_for

from base.bus import Bus, Delivery
from base.messages import Message, Type

STREAM, GROUP = "agent:code", "agent"


def message(number: int = 0, body: str = "") -> Message:
    payload = {"number": number, "body": body}
    return Message(source="test", target="code", type=Type.TASK, payload=payload)


async def take(bus: Bus, count: int, **options: Any) -> list[Delivery]:
    """The first `count` deliveries, not acknowledged."""
    found: list[Delivery] = []
    async with asyncio.timeout(20), contextlib.aclosing(work(bus, **options)) as deliveries:
        async for delivery in deliveries:
            found.append(delivery)
            if len(found) == count:
                break
    return found


async def work(bus: Bus, **options: Any) -> AsyncIterator[Delivery]:
    async with contextlib.aclosing(bus.consume(STREAM, GROUP, **options)) as batches:
        async for deliveries in batches:
            for delivery in deliveries:
                yield delivery


async def nothing_comes(bus: Bus, seconds_s: float = 0.4, **options: Any) -> bool:
    """Whether a consumer of that name gets nothing for so long."""
    options.setdefault("block_s", 0.1)
    try:
        async with asyncio.timeout(seconds_s):
            await take(bus, 1, **options)
    except TimeoutError:
        return True
    return False


async def until(what: str, true: Any, seconds_s: float = 15.0) -> None:
    """Poll `true()` (plain or async) until it holds."""
    try:
        async with asyncio.timeout(seconds_s):
            while True:
                found = true()
                if (await found) if asyncio.iscoroutine(found) else found:
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what} did not happen within {seconds_s} s") from None


async def look_dead(bus: Bus, delivery: Delivery, owner: str) -> None:
    """Make an entry of `owner` look idle for an hour, without touching a clock."""
    command = ("XCLAIM", STREAM, GROUP, owner, 0, delivery.id, "IDLE", 3_600_000, "JUSTID")
    await bus.call(command)


class OwnRedis:
    """A redis-server of one's own that keeps its data, to be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.start()

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self.server = subprocess.Popen(
            [need("redis-server"), "--port", "0", "--unixsocket", str(self.socket),
             "--appendonly", "yes", "--appendfsync", "always"],
            cwd=self.folder, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for("redis-server's socket", self.socket.exists)

    def kill(self) -> None:
        self.server.kill()
        self.server.wait(10)
