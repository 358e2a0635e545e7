"""The keeper as a process: one post, a store that is gone or torn is made anew, a clean end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path

from keeper_world import memory, world

from base import program, streams
from base.bus import Bus
from base.deadline import Deadline
from pai.client import MemoryClient, told
from pai.shapes import Query, Told
from workers.vectors_cache import Cache


async def start(home: Path, dsn: str, redis_url: str) -> asyncio.subprocess.Process:
    environment = {
        **os.environ,
        "AI_INFRA_HOME": str(home),
        "AI_INFRA_POSTGRES_DSN": dsn,
        "AI_INFRA_REDIS_URL": redis_url,
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pai", env=environment, stdout=asyncio.subprocess.PIPE
    )


async def test_one_keeper_at_a_time_and_a_clean_end(
    tmp_path: Path, postgres_dsn: str, redis_url: str
) -> None:
    home = tmp_path / "home"
    first = await start(home, postgres_dsn, redis_url)
    bus = await Bus.open(redis_url, "asker")
    try:
        query = Query(text="first keeper", user_id="ann")
        await MemoryClient(bus).search(query, Deadline.after(90))  # it has started
        one = memory("what the first keeper knows")
        await MemoryClient(bus).remember(one)
        second = await start(home, postgres_dsn, redis_url)
        told, _ = await asyncio.wait_for(second.communicate(), 60)
        assert second.returncode == program.EXIT_POST_TAKEN
        assert b"another keeper" in told
        found = await MemoryClient(bus).search(query, Deadline.after(30))
        assert [item.memory.id for item in found.items] == [one.id]
        assert not found.dense  # no worker runs
    finally:
        await bus.close()
        first.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(first.wait(), 30) == 0


async def test_a_warm_store_that_is_gone_or_torn_is_made_anew(
    tmp_path: Path, postgres_dsn: str, redis_url: str
) -> None:
    home, many = tmp_path / "home", [memory(f"fact {word}") for word in ("one", "two", "three")]
    async with world(home, postgres_dsn, redis_url) as made:
        await made.client.remember(*many)
        await made.pass_()
    folder = home / "data" / "qdrant"

    async def known() -> int:
        async with world(home, postgres_dsn, redis_url) as made:
            await made.pass_()
            found = await made.client.search(Query(text="fact", user_id="ann"))
            assert found.dense
            return len(found.items)

    shutil.rmtree(folder)
    assert await known() == 3
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in {".json", ".dat", ".bin"}:
            path.write_bytes(b"torn")
    assert await known() == 3


async def test_one_point_that_is_missing_is_found_out(
    tmp_path: Path, postgres_dsn: str, redis_url: str
) -> None:
    home, many = tmp_path / "home", [memory(f"fact {word}") for word in ("one", "two", "three")]
    async with world(home, postgres_dsn, redis_url) as made:
        await made.client.remember(*many)
        await made.pass_()
        await made.stores.warm.remove("memories", [many[1].id])
    async with world(home, postgres_dsn, redis_url) as made:
        assert (await made.pass_())["placed"] == 1
        assert len(await made.stores.warm.get("memories", [one.id for one in many])) == 3


async def test_the_cache_key_that_forget_removes_is_the_workers(redis_url: str) -> None:
    bus = await Bus.open(redis_url, "cache-test")
    try:
        assert Cache(bus, "m", 4).key("ein Text") == streams.embedding("m", "ein Text")
    finally:
        await bus.close()


async def test_what_came_while_the_keeper_was_away_waits(
    tmp_path: Path, postgres_dsn: str, redis_url: str
) -> None:
    """The stream holds it; a restart in between takes nothing twice."""
    bus = await Bus.open(redis_url, "teller")
    one = memory("said while nobody listened", collection="conversations")
    await bus.publish(
        streams.MEMORY, told("supervisor", Told(verb="remember", user_id="ann", memories=(one,)))
    )
    for _ in range(2):
        async with world(tmp_path / "home", postgres_dsn, redis_url) as made:
            while await bus.depth(streams.MEMORY):
                await asyncio.sleep(0.02)
            count = await made.stores.store.fetchval("SELECT COUNT(*) FROM memory")
            assert count == 1
    await bus.close()
