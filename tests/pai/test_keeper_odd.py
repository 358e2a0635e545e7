"""What nobody should send to the keeper: it says so once, and goes on."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from keeper_world import World, memory

from base import streams
from base.errors import InputError
from pai import keeper, maintain
from pai.client import told
from pai.shapes import Query, Signal, SignalKind, Told

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Each passed every check once, became a card, and ended the keeper whenever it was placed.
POISON: tuple[dict[str, Any], ...] = (
    {"created_at": "9999-12-31T23:59:59-12:00"},
    {"created_at": "0001-01-01T00:00:00+14:00"},
    {"extra": {"deep": [{"number": 10**400}]}},
    {"extra": {"many": ["x"] * 5_000}},
    {"seq": 2**31},
    {"tags": ["a"] * 10_000},
    {"agent": "a" * 100_000},
)


@pytest.mark.parametrize("odd", POISON, ids=lambda odd: next(iter(odd)))
async def test_no_memory_is_kept_that_no_store_takes(made: World, odd: dict[str, Any]) -> None:
    given = {"verb": "remember", "memories": [{"user_id": "ann", "text": "hello", **odd}]}
    with pytest.raises(InputError):
        await keeper.ask(made.stores, given)
    await made.pass_()
    assert await made.stores.store.fetchval("SELECT COUNT(*) FROM memory") == 0


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
@pytest.mark.parametrize(
    "field", ["text", "kind", "agent", "phase", "domain", "task_id", "conversation_id", "tags"]
)
async def test_no_text_is_kept_that_is_none(made: World, field: str, text: str) -> None:
    value: object = [text] if field == "tags" else text
    given = {"user_id": "ann", "text": "hello", field: value}
    with pytest.raises(InputError, match=field):
        await keeper.ask(made.stores, {"verb": "remember", "memories": [given]})


@pytest.mark.parametrize(
    "payload",
    [
        {"verb": "remember", "memories": 5},
        {"verb": "forget", "user_id": "ann", "ids": None},
        {"verb": "search", "query": {"text": "a", "user_id": "ann", "since": "0001-01-01T00:00Z"}},
    ],
    ids=["memories", "ids", "since"],
)  # fmt: skip
async def test_a_wrong_payload_is_the_askers_fault(made: World, payload: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        await keeper.ask(made.stores, payload)


async def test_maintenance_goes_on_after_what_nobody_foresaw(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, a store that trips over one memory: recall must not end with it."""
    times = 0

    async def full(*_: object, **__: object) -> dict[str, int]:
        nonlocal times
        times += 1
        made.stores.wake.set()
        raise OSError(28, "No space left on device") if times == 1 else OverflowError("odd")

    monkeypatch.setattr(maintain, "once", full)
    task = asyncio.create_task(maintain.run(made.stores), name="maintenance")
    async with asyncio.timeout(20):
        while times < 3 and not task.done():
            await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_message_that_trips_the_keeper_is_buried(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def trip(*_: object) -> None:
        raise ZeroDivisionError("nobody foresaw it")

    monkeypatch.setitem(keeper.TOLD, "ended", trip)
    await made.bus.publish(streams.MEMORY, told("test", Told(verb="ended", user_id="ann")))
    good = memory("The keeper still listens.")
    more = Told(verb="remember", user_id="ann", memories=(good,))
    await made.bus.publish(streams.MEMORY, told("test", more))
    async with asyncio.timeout(20):
        while await made.card(good.id) is None:
            await asyncio.sleep(0.05)
    (letter,) = await made.bus.dead(streams.MEMORY)
    assert "nobody foresaw it" in letter.error_message


async def test_a_full_disk_loses_no_signal(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be filed now comes again, instead of ending the keeper."""
    signal = Signal(kind=SignalKind.USER_RATING, user_id="ann", rating=5)
    calls = 0

    async def full(*_: object) -> None:
        nonlocal calls
        calls += 1
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(keeper.TOLD, "signal", full)
    what = Told(verb="signal", user_id="ann", signal=signal)
    await made.bus.publish(streams.MEMORY, told("test", what))
    async with asyncio.timeout(20):
        while not calls:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0)
    assert await made.bus.dead(streams.MEMORY) == []
    found = await made.client.search(Query(text="anything", user_id="ann"))
    assert found.items == ()
