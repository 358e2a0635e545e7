"""The wire against a real Redis: publish, consume, ack, events, depth."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from base import streams
from base.bus import Bus, Delivery
from base.deadline import Deadline
from base.errors import BusError, InputError
from base.messages import Event, Kind, Message, Type

STREAM, GROUP = "agent:code", "agent"


def message(number: int = 0, **more: object) -> Message:
    return Message(
        source="test", target="code", type=Type.TASK, payload={"number": number, **more}
    )


async def take(bus: Bus, count: int, **options: float) -> list[Delivery]:
    """The first `count` deliveries, unacknowledged."""
    found: list[Delivery] = []
    async with contextlib.aclosing(bus.consume(STREAM, GROUP, **options)) as work:  # type: ignore[arg-type]
        async with asyncio.timeout(20):
            async for deliveries in work:
                found += deliveries
                if len(found) >= count:
                    return found
    return found


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[Bus]:
    made = await Bus.open(redis_url, "code")
    yield made
    await made.close()


async def test_what_is_published_arrives_in_order_and_once_acked_is_gone(bus: Bus) -> None:
    sent = [message(number) for number in range(250)]
    await bus.publish(STREAM, *sent)
    assert await bus.depth(STREAM) == 250
    got = await take(bus, 250)
    assert [one.message for one in got] == sent
    assert {one.count for one in got} == {1}
    await bus.ack(STREAM, GROUP, *(one.id for one in got))
    assert await bus.depth(STREAM) == 0


async def test_a_group_made_late_gets_what_was_queued_before(bus: Bus) -> None:
    await bus.publish(STREAM, message(1))
    assert (await take(bus, 1))[0].message.payload == {"number": 1}


async def test_ask_is_answered(bus: Bus) -> None:
    async def answer(payload: dict[str, object]) -> dict[str, object]:
        return {"twice": payload["n"] * 2}  # type: ignore[operator]

    task = asyncio.create_task(bus.serve("doubler", answer))
    assert await bus.ask("doubler", {"n": 4}, deadline=Deadline.after(5)) == {"twice": 8}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
