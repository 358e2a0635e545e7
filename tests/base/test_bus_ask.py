"""Asking over the bus: answers, errors that travel, deadlines, services that die."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from bus_steps import message, until

from base import streams
from base.bus import Bus
from base.deadline import Deadline
from base.errors import (
    AIError,
    BusError,
    NoAnswerError,
    PlanError,
    StaleLeaseError,
    UnknownAgentError,
)

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
STREAM = streams.ask("clerk")


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[Bus]:
    made = await Bus.open(redis_url, "asker")
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def serving(url: str, answer: Answer, **options: int) -> AsyncIterator[Bus]:
    bus = await Bus.open(url, "clerk")
    task = asyncio.create_task(bus.serve("clerk", answer, **options))
    try:
        yield bus
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await bus.close()


async def echo(payload: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(payload.get("sleep_s", 0))
    return {"said": payload}


async def test_an_answer_comes_back_and_nothing_is_left_behind(bus: Bus, redis_url: str) -> None:
    async with serving(redis_url, echo):
        for n in range(3):
            assert await bus.ask("clerk", {"n": n}, deadline=Deadline.after(10)) == {
                "said": {"n": n}
            }

        async def empty() -> bool:
            return await bus.depth(STREAM) == 0

        await until("the acks", empty)


async def test_whether_a_service_was_ever_there_is_asked_until_it_was(
    bus: Bus, redis_url: str
) -> None:
    async def lookups() -> int:
        (found,) = await bus.call(("INFO", "commandstats"))
        return sum(
            int(line.partition(b"calls=")[2].partition(b",")[0])
            for line in found.splitlines()
            if line.startswith(b"cmdstat_xinfo")
        )

    assert not await bus.served("clerk")
    async with serving(redis_url, echo):
        await until("the service", lambda: bus.served("clerk"))
    before = await lookups()
    assert await bus.served("clerk")
    assert not await bus.served("cook")
    assert await lookups() == before + 1


async def test_many_waiting_asks_starve_nobody(bus: Bus, redis_url: str) -> None:
    async with serving(redis_url, echo, concurrency=400):
        slow = [
            asyncio.create_task(
                bus.ask("clerk", {"n": n, "sleep_s": 1.5}, deadline=Deadline.after(30))
            )
            for n in range(300)
        ]
        await asyncio.sleep(0.3)
        async with asyncio.timeout(1.0):
            await bus.publish("agent:code", message())
            await bus.ask("clerk", {}, deadline=Deadline.after(10))
        assert not any(task.done() for task in slow)
        answers = await asyncio.gather(*slow)
        assert [answer["said"]["n"] for answer in answers] == list(range(300))


async def test_a_service_answers_at_most_so_many_at_a_time(bus: Bus, redis_url: str) -> None:
    now, most = 0, 0

    async def count(_: dict[str, Any]) -> dict[str, Any]:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        return {}

    async with serving(redis_url, count, concurrency=4):
        asks = [bus.ask("clerk", {}, deadline=Deadline.after(20)) for _ in range(40)]
        await asyncio.gather(*asks)
    assert most == 4


@pytest.mark.parametrize(
    "error",
    [
        StaleLeaseError("epoch 3 is over"),
        UnknownAgentError("cook", ["code", "data"]),
        PlanError(["a cycle", "no agent"]),
        NoAnswerError("I asked in vain myself"),
    ],
)
async def test_an_error_of_ours_travels_as_itself(bus: Bus, redis_url: str, error: AIError) -> None:
    async def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise error

    async with serving(redis_url, refuse):
        with pytest.raises(type(error)) as caught:
            await bus.ask("clerk", {}, deadline=Deadline.after(10))
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    assert vars(caught.value) == vars(error)


async def test_a_bug_is_logged_answered_and_survived(
    bus: Bus, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def trip(payload: dict[str, Any]) -> dict[str, Any]:
        if payload["how"] == "raise":
            raise ZeroDivisionError("secret detail")
        if payload["how"] == "unserialisable":
            return {"object": object()}
        return {"fine": True}

    caplog.set_level(logging.ERROR)
    async with serving(redis_url, trip):
        for how in ("raise", "unserialisable"):
            with pytest.raises(AIError, match="internal error in clerk") as caught:
                await bus.ask("clerk", {"how": how}, deadline=Deadline.after(10))
            assert "secret" not in str(caught.value)
        assert await bus.ask("clerk", {"how": "well"}, deadline=Deadline.after(10)) == {
            "fine": True
        }


async def test_nobody_answers_at_the_deadline_and_the_request_is_taken_back(bus: Bus) -> None:
    start_s = time.monotonic()
    with pytest.raises(NoAnswerError, match="nobody-here"):
        await bus.ask("nobody-here", {}, deadline=Deadline.after(0.3))
    assert 0.25 < time.monotonic() - start_s < 5
    assert await bus.depth(streams.ask("nobody-here")) == 0
    with pytest.raises(NoAnswerError):
        await bus.ask("nobody-here", {}, deadline=Deadline.after(-1))


async def test_a_request_past_its_deadline_is_dropped_unanswered(bus: Bus, redis_url: str) -> None:
    answered = []

    async def note(payload: dict[str, Any]) -> dict[str, Any]:
        answered.append(payload["n"])
        return {}

    request = {"payload": {"n": 1}, "reply": "reply:x", "deadline_unix_ms": time.time() * 1000 - 1}
    await bus.publish(STREAM, message().model_copy(update={"payload": request}))
    async with serving(redis_url, note):
        await bus.ask("clerk", {"n": 2}, deadline=Deadline.after(10))
    assert answered == [2]
    assert (await bus.call(("EXISTS", "reply:x")))[0] == 0


async def test_a_request_that_is_none_is_buried(bus: Bus, redis_url: str) -> None:
    for payload in ({}, {"payload": {}, "reply": None, "deadline_unix_ms": 1e18}, {"reply": 1}):
        await bus.publish(STREAM, message().model_copy(update={"payload": payload}))
    await bus.publish_raw(STREAM, b"no json")
    async with serving(redis_url, echo):
        assert await bus.ask("clerk", {}, deadline=Deadline.after(10)) == {"said": {}}

        async def buried() -> bool:
            return len(await bus.dead(STREAM)) == 4

        await until("the burial of all four", buried)


async def test_a_service_started_late_answers_what_still_waits(bus: Bus, redis_url: str) -> None:
    asking = asyncio.create_task(bus.ask("clerk", {"n": 1}, deadline=Deadline.after(20)))
    await asyncio.sleep(0.3)
    async with serving(redis_url, echo):
        assert await asking == {"said": {"n": 1}}


async def test_a_service_that_stopped_in_the_middle_answers_after_its_restart(
    bus: Bus, redis_url: str
) -> None:
    started = asyncio.Event()

    async def stall(_: dict[str, Any]) -> dict[str, Any]:
        started.set()
        await asyncio.sleep(60)
        return {}

    asking = asyncio.create_task(bus.ask("clerk", {"n": 1}, deadline=Deadline.after(20)))
    async with serving(redis_url, stall):
        await asyncio.wait_for(started.wait(), 10)
    async with serving(redis_url, echo):
        assert await asking == {"said": {"n": 1}}


async def test_a_long_answer_is_not_taken_for_abandoned(
    bus: Bus, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("base.ask.KEEPALIVE_S", 0.05)
    async with serving(redis_url, echo, concurrency=1):
        asks = [  # the second waits, read but not begun
            asyncio.create_task(bus.ask("clerk", {"sleep_s": 60}, deadline=Deadline.after(20)))
            for _ in range(2)
        ]

        async def pending() -> list[list[Any]]:
            (found,) = await bus.call(("XPENDING", STREAM, streams.GROUP_SERVICE, "-", "+", 10))
            return list(found)

        async def taken() -> bool:
            with contextlib.suppress(BusError):  # no group yet
                return len(await pending()) == 2
            return False

        await until("both requests", taken)
        for entry_id, *_ in await pending():
            idle = ("IDLE", 3_600_000, "JUSTID")
            await bus.call(("XCLAIM", STREAM, "service", "clerk", 0, entry_id, *idle))

        async def kept_alive() -> bool:
            return all(idle_ms < 60_000 for _, _, idle_ms, _ in await pending())

        await until("the keepalive", kept_alive)
        for asking in asks:
            asking.cancel()
        await asyncio.gather(*asks, return_exceptions=True)


async def test_a_reply_list_of_an_asker_that_died_expires(bus: Bus, redis_url: str) -> None:
    request = {"payload": {}, "reply": "reply:gone", "deadline_unix_ms": time.time() * 1000 + 9e3}
    await bus.publish(STREAM, message().model_copy(update={"payload": request}))
    async with serving(redis_url, echo):

        async def expires() -> bool:
            return 0 < (await bus.call(("TTL", "reply:gone")))[0] <= streams.REPLY_TTL_S

        await until("the reply with an expiry", expires)


async def test_asking_without_redis_is_an_error_by_the_deadline(short_tmp: object) -> None:
    bus = Bus(f"unix://{short_tmp}/nobody.sock", "asker")
    with pytest.raises(BusError):
        await bus.ask("clerk", {}, deadline=Deadline.after(0.3))
    await bus.close()
