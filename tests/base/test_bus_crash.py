"""What the wire promises when somebody dies: consumers, messages that kill, Redis itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from bus_steps import (
    GROUP,
    STREAM,
    OwnRedis,
    look_dead,
    message,
    nothing_comes,
    take,
    until,
    work,
)

from base import streams
from base.bus import Bus
from base.messages import decode, encode

#: Publishes on `results` for each message, acks; dies by SIGKILL between the two for number 3.
DIES = """
import asyncio, os, signal, sys
from base.bus import Bus

async def main():
    bus = await Bus.open(sys.argv[1], "code")
    async for deliveries in bus.consume("agent:code", "agent"):
        for one in deliveries:
            await bus.publish("results", one.message)
            if one.message.payload["number"] == 3 and sys.argv[2] == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            await bus.ack("agent:code", "agent", one.id)
        if await bus.depth("agent:code") == 0:
            return

asyncio.run(main())
"""


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[Bus]:
    made = await Bus.open(redis_url, "code")
    yield made
    await made.close()


@pytest.fixture
def own_redis(short_tmp: Path) -> Iterator[OwnRedis]:
    redis = OwnRedis(Path(tempfile.mkdtemp(dir=short_tmp)))
    yield redis
    redis.kill()


def consumer(url: str, how: str) -> int:
    command = [sys.executable, "-c", DIES, url, how]
    return subprocess.run(command, check=False, timeout=60).returncode


async def test_killed_between_publish_and_ack_gives_a_duplicate_never_a_loss(
    bus: Bus, redis_url: str
) -> None:
    sent = [message(number) for number in range(6)]
    await bus.publish(STREAM, *sent)
    assert await asyncio.to_thread(consumer, redis_url, "dies") == -9
    assert await bus.depth(STREAM) == 3
    assert await asyncio.to_thread(consumer, redis_url, "lives") == 0
    (entries,) = await bus.call(("XRANGE", streams.RESULTS, "-", "+"))
    got = [decode(fields[1]).payload["number"] for _, fields in entries]
    assert got == [0, 1, 2, 3, 3, 4, 5]


async def test_a_restart_under_the_same_name_gets_its_unfinished_first(
    bus: Bus, redis_url: str
) -> None:
    await bus.publish(STREAM, message(1), message(2))
    first = await take(bus, 2)
    await bus.publish(STREAM, message(3))
    again = await Bus.open(redis_url, "code")
    got = await take(again, 3)
    assert [one.id for one in got[:2]] == [one.id for one in first]
    assert [one.count for one in got] == [2, 2, 1]
    await again.close()


async def test_what_a_dead_consumer_left_goes_to_another_once_idle(
    bus: Bus, redis_url: str
) -> None:
    await bus.publish(STREAM, message(1))
    (left,) = await take(bus, 1)
    other = await Bus.open(redis_url, "other")
    assert await nothing_comes(other, min_idle_s=60)
    await look_dead(bus, left, "code")
    (got,) = await take(other, 1, min_idle_s=60)
    assert (got.id, got.count) == (left.id, 2)
    await other.close()


async def test_many_left_behind_are_all_found(bus: Bus, redis_url: str) -> None:
    await bus.publish(STREAM, *[message(number) for number in range(350)])
    left = await take(bus, 350)
    for one in left:
        await look_dead(bus, one, "code")
    other = await Bus.open(redis_url, "other")
    assert [one.id for one in await take(other, 350)] == [one.id for one in left]
    await other.close()


async def test_keepalive_keeps_a_long_step_from_being_taken(bus: Bus, redis_url: str) -> None:
    await bus.publish(STREAM, message(1))
    (mine,) = await take(bus, 1)
    other = await Bus.open(redis_url, "other")
    await look_dead(bus, mine, "code")
    await bus.keepalive(STREAM, GROUP, mine.id)
    assert await nothing_comes(other, min_idle_s=60)
    (pending,) = await bus.call(("XPENDING", STREAM, GROUP, "-", "+", 10))
    assert pending[0][1] == b"code"
    assert pending[0][3] == 1  # the delivery count did not rise
    await other.close()


async def test_keepalive_after_everything_is_gone_is_no_error(bus: Bus) -> None:
    await bus.keepalive(STREAM, GROUP, "1-1")


async def test_poison_is_buried_after_three_and_its_neighbours_are_not(
    bus: Bus, redis_url: str
) -> None:
    await bus.publish(STREAM, *[message(number) for number in range(5)])
    seen = []
    for _ in range(6):  # each life handles what it gets until number 2 kills it
        life = await Bus.open(redis_url, "code")
        try:
            async with asyncio.timeout(1), contextlib.aclosing(work(life)) as deliveries:
                async for one in deliveries:
                    seen.append((one.message.payload["number"], one.count))
                    if one.message.payload["number"] == 2:
                        break
                    await life.ack(STREAM, GROUP, one.id)
        except TimeoutError:
            break
        finally:
            await life.close()
    assert seen == [(0, 1), (1, 1), (2, 1), (2, 2), (2, 3), (3, 2), (4, 2)]
    (letter,) = await bus.dead(STREAM)
    assert decode(letter.original_message).payload["number"] == 2
    assert letter.attempts == 3
    assert "3 times" in letter.error_message
    assert await bus.depth(STREAM) == 0


async def test_the_dead_letter_tells_the_last_known_error(bus: Bus) -> None:
    await bus.publish(STREAM, message(1))
    for _ in range(3):
        (one,) = await take(bus, 1)
        bus.failed(STREAM, one, ValueError("cannot divide by cheese"))
    assert await nothing_comes(bus)
    (letter,) = await bus.dead(STREAM)
    assert letter.error_message == "ValueError: cannot divide by cheese"


@pytest.mark.parametrize("raw", [b"no json", b"{}", b"\xff\x00", b'{"schema": 99}', b""])
async def test_undecodable_is_buried_with_its_bytes_and_work_goes_on(bus: Bus, raw: bytes) -> None:
    await bus.publish_raw(STREAM, raw)
    await bus.publish(STREAM, message(1))
    (one,) = await take(bus, 1)
    assert one.message.payload["number"] == 1
    (letter,) = await bus.dead()
    assert letter.original_message == raw
    assert letter.source_queue == STREAM
    assert letter.error_type == "DecodeError"


async def test_another_schema_number_is_not_read(bus: Bus) -> None:
    raw = encode(message(1)).replace(b'"schema":1', b'"schema":2')
    await bus.publish_raw(STREAM, raw)
    assert await nothing_comes(bus)
    (letter,) = await bus.dead()
    assert "schema 2" in letter.error_message
    assert letter.original_message == raw


async def test_a_foreign_entry_is_buried(bus: Bus) -> None:
    await bus.call(("XADD", STREAM, "*", "a", "1", "b", "2"))
    assert await nothing_comes(bus)
    (letter,) = await bus.dead()
    assert letter.original_message == b"a 1 b 2"


async def test_the_same_message_fifty_times_is_recognised_by_id(bus: Bus) -> None:
    one = message(1)
    await bus.publish(STREAM, *[one] * 50)
    handled: set[str] = set()
    effects = 0
    for delivery in await take(bus, 50):
        effects += delivery.message.id not in handled
        handled.add(delivery.message.id)
        await bus.ack(STREAM, GROUP, delivery.id)
    assert effects == 1
    assert await bus.depth(STREAM) == 0


async def test_an_entry_deleted_while_pending_is_dropped(bus: Bus) -> None:
    await bus.publish(STREAM, message(1))
    (one,) = await take(bus, 1)
    await bus.call(("XDEL", STREAM, one.id))
    assert await nothing_comes(bus)
    assert await bus.dead() == []
    (pending,) = await bus.call(("XPENDING", STREAM, GROUP))
    assert pending[0] == 0


async def test_flushall_in_mid_consume_recovers(bus: Bus) -> None:
    got: list[int] = []

    async def consume() -> None:
        async for one in work(bus):
            got.append(one.message.payload["number"])
            await bus.ack(STREAM, GROUP, one.id)

    consuming = asyncio.create_task(consume())
    for number in range(3):
        await bus.publish(STREAM, message(number))
        await until(f"message {number}", lambda number=number: number in got)
        await bus.call(("FLUSHALL",))
    await bus.publish(STREAM, message(3))
    await until("the message after FLUSHALL", lambda: 3 in got)
    assert not consuming.done()
    consuming.cancel()
    await asyncio.gather(consuming, return_exceptions=True)


async def test_redis_killed_and_restarted_everybody_reconnects(
    own_redis: OwnRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bus = await Bus.open(own_redis.url, "code")
    got: list[int] = []
    tailed: list[bytes] = []

    async def consume() -> None:
        async for one in work(bus):
            got.append(one.message.payload["number"])
            await bus.ack(STREAM, GROUP, one.id)

    async def tail() -> None:
        async for entries in bus.tail(streams.BROADCAST):
            tailed.extend(raw for _, raw in entries)

    running = [asyncio.create_task(consume()), asyncio.create_task(tail())]
    await bus.publish(STREAM, message(1))
    await until("the first message", lambda: got == [1])
    own_redis.kill()
    publishing = asyncio.create_task(bus.publish(STREAM, message(2)))
    await asyncio.sleep(0.3)
    assert not publishing.done()
    own_redis.start()
    await publishing
    await until("the message of the outage", lambda: 2 in got)
    await bus.publish(streams.BROADCAST, message(3))
    await until("the tail's message", lambda: len(tailed) == 1)
    assert not any(task.done() for task in running)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await bus.close()


async def test_after_a_loss_only_what_was_never_seen_comes_again(bus: Bus, redis_url: str) -> None:
    await bus.publish(STREAM, message(1))
    got: list[int] = []

    async def consume() -> None:
        async for one in work(bus, block_s=60):
            got.append(one.message.payload["number"])

    consuming = asyncio.create_task(consume())
    await until("the first message", lambda: got == [1])
    other = await Bus.open(redis_url, "other")
    # In one step: give an entry to "code" unseen, and cut every connection but this one.
    script = (
        "redis.call('XADD', KEYS[1], '*', 'data', ARGV[1])"
        "redis.call('XREADGROUP', 'GROUP', ARGV[2], 'code', 'STREAMS', KEYS[1], '>')"
    )
    await other.call(("EVAL", script, 1, STREAM, encode(message(2)), GROUP))
    assert got == [1]
    await other.call(("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
    await until("the unseen message", lambda: len(got) > 1)
    await bus.publish(STREAM, message(3))
    await until("the next message", lambda: 3 in got)
    assert got == [1, 2, 3]  # 1 is still in hand: not given twice
    consuming.cancel()
    await asyncio.gather(consuming, return_exceptions=True)
    await other.close()
