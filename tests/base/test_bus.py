"""The wire against a real Redis: publish, consume, ack, events, depth."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from bus_steps import GROUP, STREAM, message, nothing_comes, take

from base import metrics, streams
from base.bus import Bus
from base.errors import BusError, InputError
from base.messages import Event, Kind


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
    await bus.ack(STREAM, GROUP, *(one.id for one in got))
    assert await bus.depth(STREAM) == 0
    assert await nothing_comes(bus)


async def test_a_group_made_late_gets_what_was_queued_before(bus: Bus) -> None:
    await bus.publish(STREAM, message(1))
    assert (await take(bus, 1))[0].message.payload["number"] == 1


async def test_two_consumers_share_the_work(bus: Bus, redis_url: str) -> None:
    other = await Bus.open(redis_url, "other")
    await bus.publish(STREAM, *[message(number) for number in range(20)])
    first, second = await take(bus, 10, batch=10), await take(other, 10, batch=10)
    assert {one.id for one in first}.isdisjoint(one.id for one in second)
    await other.close()


async def test_publishes_of_one_moment_all_arrive(bus: Bus) -> None:
    sent = [message(number) for number in range(500)]
    await asyncio.gather(*(bus.publish(STREAM, one) for one in sent))
    assert {one.message.id for one in await take(bus, 500)} == {one.id for one in sent}


async def test_a_work_stream_is_never_trimmed_and_a_live_view_is(bus: Bus) -> None:
    for _ in range(4):
        await bus.publish(STREAM, *[message()] * 1000)
        await bus.publish(streams.control("code"), *[message()] * 1000)
    assert await bus.depth(STREAM) == 4000
    assert await bus.depth(streams.control("code")) < 400  # trimmed to 200, by whole nodes


async def test_raw_bytes_are_published_as_they_are(bus: Bus) -> None:
    raw = message(3).model_dump_json(by_alias=True).encode()
    await bus.publish_raw(STREAM, raw)
    assert (await take(bus, 1))[0].raw == raw


async def test_a_refused_command_fails_its_caller_alone(bus: Bus) -> None:
    await bus.call(("SET", "a-string", "1"))
    refused, passed = await asyncio.gather(
        bus.publish("a-string", message()), bus.publish(STREAM, message()), return_exceptions=True
    )
    assert isinstance(refused, BusError)
    assert "WRONGTYPE" in str(refused)
    assert passed is None


async def test_a_caller_with_a_wrong_type_harms_nobody_else(bus: Bus) -> None:
    wrong = bus.call(("SET", "key", object()))
    good = bus.publish(STREAM, message())
    found = await asyncio.gather(wrong, good, return_exceptions=True)
    assert isinstance(found[0], TypeError)
    assert found[1] is None


async def test_consuming_what_is_no_stream_says_so(bus: Bus) -> None:
    await bus.call(("SET", STREAM, "1"))
    with pytest.raises(BusError, match="WRONGTYPE"):
        await take(bus, 1)


async def test_opening_without_redis_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, short_tmp: object
) -> None:
    monkeypatch.setattr("base.bus.PATIENCE_S", 0.2)
    with pytest.raises(BusError, match="cannot be reached"):
        await Bus.open(f"unix://{short_tmp}/nobody.sock", "code")
    with pytest.raises(BusError, match="redis url"):
        await Bus.open("mysql://here", "code")


async def test_a_closed_bus_says_so(redis_url: str) -> None:
    bus = await Bus.open(redis_url, "code")
    publishing = asyncio.create_task(bus.publish(STREAM, message()))
    await asyncio.sleep(0)
    await bus.close()
    await bus.close()
    await publishing  # what was under way was finished
    with pytest.raises(BusError, match="closed"):
        await bus.publish(STREAM, message())


async def test_events_resume_from_a_cursor_and_show_a_gap(bus: Bus) -> None:
    assert await bus.oldest_event() is None
    assert await bus.events_after("0") == []
    await bus.emit(*[Event(kind=Kind.TEXT, agent="code", data={"n": n}) for n in range(10)])
    found = await bus.events_after("0", count=4)
    assert [event.data["n"] for _, event in found] == [0, 1, 2, 3]
    later = await bus.events_after(found[-1][0])
    assert [event.data["n"] for _, event in later] == [4, 5, 6, 7, 8, 9]
    assert await bus.oldest_event() == found[0][0]
    await bus.call(("XTRIM", streams.EVENTS, "MINID", later[0][0]))
    oldest = await bus.oldest_event()
    assert oldest == later[0][0]
    assert oldest > found[0][0]  # a reader at found[0] has missed some


@pytest.mark.parametrize("cursor", ["", "x", "$", "1-", "1-2-3", "+", "9" * 40, "٣"])
async def test_a_cursor_that_is_none_is_refused(bus: Bus, cursor: str) -> None:
    with pytest.raises(InputError):
        await bus.events_after(cursor)
    if cursor != "$":
        with pytest.raises(InputError):
            await anext(bus.tail(streams.EVENTS, after=cursor))


async def test_an_entry_that_is_no_event_is_left_out(bus: Bus) -> None:
    await bus.call(("XADD", streams.EVENTS, "*", "data", "no json"))
    await bus.emit(Event(kind=Kind.TEXT, agent="code"))
    assert [event.agent for _, event in await bus.events_after("0")] == ["code"]


async def test_text_that_json_cannot_say_is_one_clear_error(bus: Bus) -> None:
    with pytest.raises(InputError):
        await bus.emit(Event(kind=Kind.TEXT, agent="code", data={"content": "half \ud83d"}))
    with pytest.raises(InputError):
        await bus.publish(STREAM, message(1, "half \ud83d"))


async def test_tail_follows_from_now_or_from_the_start(bus: Bus) -> None:
    control = streams.control("code")
    await bus.publish(control, message(1))
    from_start = bus.tail(control, after="0")
    assert len(await anext(from_start)) == 1
    from_now = bus.tail(control, block_s=0.1)
    following = asyncio.ensure_future(anext(from_now))
    await asyncio.sleep(0.3)
    assert not following.done()
    await bus.publish(control, message(2))
    async with asyncio.timeout(10):
        ((_, raw),) = await following
        assert b'"number":2' in raw
        assert await anext(from_start) == await anext(bus.tail(control, after=_before(following)))
    for generator in (from_start, from_now):
        with contextlib.suppress(StopAsyncIteration):
            await generator.aclose()


def _before(following: asyncio.Future[list[tuple[str, bytes]]]) -> str:
    first, second = following.result()[0][0].split("-")
    return f"{int(first) - 1}-{second}"


async def test_published_messages_are_counted(bus: Bus) -> None:
    await bus.publish("agent:counted", message(), message())
    await bus.depth("agent:counted")
    text = metrics.render().decode()
    assert 'redis_messages_total{channel="agent:counted",message_type="task"} 2.0' in text
    assert 'redis_queue_depth{queue="agent:counted"} 2.0' in text
