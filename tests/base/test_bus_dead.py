"""The dead letter: listing, replaying the original bytes, purging by age or all."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
from bus_steps import GROUP, STREAM, message, nothing_comes, take

from base import streams
from base.bus import Bus
from base.dead import letter
from base.errors import ModelError, NotFoundError
from base.messages import encode

DAY_MS = 86_400_000


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[Bus]:
    made = await Bus.open(redis_url, "code")
    yield made
    await made.close()


async def bury_one(bus: Bus, number: int = 1) -> None:
    await bus.publish(STREAM, message(number))
    (one,) = await take(bus, 1)
    await bus.bury(STREAM, GROUP, one, ModelError("no more retries"))


async def test_a_buried_message_keeps_its_bytes_and_the_reason(bus: Bus) -> None:
    sent = message(1)
    await bus.publish(STREAM, sent)
    (one,) = await take(bus, 1)
    await bus.bury(STREAM, GROUP, one, ModelError("no more retries"))
    (found,) = await bus.dead(STREAM)
    assert found.original_message == encode(sent)
    assert (found.error_type, found.error_message) == ("ModelError", "no more retries")
    assert (found.source_queue, found.attempts) == (STREAM, 1)
    assert await bus.depth(STREAM) == 0
    assert await nothing_comes(bus)


async def test_letters_of_all_streams_are_listed_oldest_first(bus: Bus) -> None:
    await bury_one(bus, 1)
    await bus.publish_raw(streams.RESULTS, b"no json")
    async for _ in _one_batch(bus):
        pass
    assert [one.source_queue for one in await bus.dead()] == [STREAM, streams.RESULTS]
    assert await bus.dead("agent:nobody") == []


async def _one_batch(bus: Bus) -> AsyncIterator[None]:
    await bus.publish(streams.RESULTS, message())
    async for _ in bus.consume(streams.RESULTS, GROUP):
        break
    yield None


async def test_replay_puts_the_original_back_and_removes_the_letter(bus: Bus) -> None:
    await bury_one(bus)
    (found,) = await bus.dead()
    replayed = await bus.replay(found.id)
    assert replayed == found
    assert await bus.dead() == []
    (one,) = await take(bus, 1)
    assert one.raw == found.original_message
    assert one.count == 1
    with pytest.raises(NotFoundError):
        await bus.replay(found.id)


@pytest.mark.parametrize(
    "wrong", ["", "x", "/", "agent:code/", "agent:code/x", "a/1-1", "a/-", "a/+"]
)
async def test_replaying_what_is_not_there_says_so(bus: Bus, wrong: str) -> None:
    await bury_one(bus)
    with pytest.raises(NotFoundError):
        await bus.replay(wrong)
    assert len(await bus.dead()) == 1


async def test_purge_removes_what_is_older_than_seven_days_or_all(bus: Bus) -> None:
    now_ms = int(time.time() * 1000)
    for age_days in (8, 7.01, 6.9, 0):
        place = f"{now_ms - int(age_days * DAY_MS)}-0"
        fields = letter(STREAM, b"raw", "some error", 3)
        await bus.call(("XADD", streams.dlq(STREAM), place, *fields))
    assert await bus.purge() == 2
    assert len(await bus.dead()) == 2
    assert await bus.purge("agent:nobody") == 0
    assert await bus.purge(STREAM, older_than_days=0) == 2
    assert await bus.dead() == []
