"""The live view as server-sent events: resumed, kept alive, and ended with the session."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from base.bus import Bus
from base.errors import TooManyError
from base.messages import Event, Kind
from base.store import Store
from portal import follow
from portal.auth import Caller
from portal.feed import Feed
from portal.limits import Seats
from tests.portal.conftest import Portal, Stage, asked, person
from tests.portal.test_api import problem

LIVE = {"Accept": "text/event-stream"}


class Stream:
    """What a browser's EventSource does with the lines."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.last_id = ""
        self._lines = answer.aiter_lines()

    async def next(self, kind: str = "message") -> dict[str, Any]:
        """The next event of that kind with data."""
        async with asyncio.timeout(20):
            while True:
                name, data = "message", ""
                async for line in self._lines:
                    if not line:
                        break
                    field, _, value = line.partition(": ")
                    if field == "id":
                        self.last_id = value
                    elif field == "data":
                        data = value
                    elif field == "event":
                        name = value
                else:
                    raise EOFError
                if data and name == kind:
                    found: dict[str, Any] = json.loads(data)
                    return found


@asynccontextmanager
async def following(
    portal: Portal, token: str, path: str = "/api/events", **headers: str
) -> AsyncIterator[Stream]:
    ours = {"Authorization": f"Bearer {token}", **LIVE, **headers}
    async with (
        httpx.AsyncClient(base_url=portal.url, verify=False, timeout=30) as client,
        client.stream("GET", path, headers=ours) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Stream(answer)


async def test_a_dropped_stream_goes_on_where_it_was(
    portal: Portal, store: Store, stage: Stage
) -> None:
    somebody = await person(portal, store)
    _, sent = await asked(portal, somebody.token)
    _, other = await asked(portal, somebody.token)
    task_id = sent["task_id"]
    path = f"/api/events?root_id={task_id}"
    async with following(portal, somebody.token, path) as stream:
        for seq in range(3):
            await stage.chunk(task_id, seq, f"c{seq}")
            await stage.chunk(other["task_id"], seq, "another request")
        seen = [(await stream.next())["data"]["content"] for _ in range(3)]
        last = stream.last_id
    for seq in range(3, 6):
        await stage.chunk(task_id, seq, f"c{seq}")
    async with following(portal, somebody.token, path, **{"Last-Event-ID": last}) as stream:
        await stage.chunk(task_id, 6, "c6")
        seen += [(await stream.next())["data"]["content"] for _ in range(4)]
    assert seen == [f"c{seq}" for seq in range(7)]


async def test_what_is_gone_is_told(portal: Portal, store: Store, stage: Stage) -> None:
    somebody = await person(portal, store)
    _, sent = await asked(portal, somebody.token)
    await stage.chunk(sent["task_id"], 0, "kept")
    async with following(portal, somebody.token, **{"Last-Event-ID": "1-0"}) as stream:
        assert await stream.next("resync") == {}
        await stage.chunk(sent["task_id"], 1, "new")
        assert (await stream.next())["data"]["content"] == "new"
    with portal.client(somebody.token) as client:
        problem(client.get("/api/events", headers={"Last-Event-ID": "never"}), 422)
        problem(client.get("/api/events", params={"after": f"{2**64}-0"}), 422)


async def test_it_ends_with_the_session(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    async with following(portal, somebody.token) as stream:
        with portal.client(somebody.token) as client:
            client.post("/api/auth/logout")
        ended_s = time.monotonic()
        with pytest.raises(EOFError):
            await stream.next()
        assert time.monotonic() - ended_s < 5 + 2


async def test_it_counts_as_an_open_socket() -> None:
    seats = Seats(1)
    desk: Any = type("Desk", (), {"seats": seats})()
    caller = Caller(user_id="me", email="", role="user", session_id=None, expires_at_s=0)
    one: Any = follow.Follow(desk, caller, None, None)
    with seats.take("me"), pytest.raises(TooManyError, match="connections"):
        await one({}, None, None)


async def test_a_quiet_stream_is_kept_alive(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy ends what says nothing; here the quiet second is shorter."""
    monkeypatch.setattr(follow, "BEAT_S", 0.2)
    monkeypatch.setattr(follow, "ENDED_CHECK_S", 0.1)
    bus = await Bus.open(redis_url, "test")
    feed = Feed(bus)
    user = str(uuid.uuid4())

    class Doors:
        over_now = False

        async def over(self, _: Caller) -> bool:
            return self.over_now

    doors = Doors()
    desk: Any = type("Desk", (), {"feed": feed, "auth": doors})()
    caller = Caller(user_id=user, email="", role="user", session_id=None, expires_at_s=0)
    told = follow.Follow(desk, caller, None, None).body_iterator
    reading = asyncio.create_task(feed.run(), name="feed")
    try:
        assert str(await anext(told)).startswith("retry: ")
        assert await anext(told) == ": still here\n\n"
        await bus.emit(Event(kind=Kind.TEXT, agent="code", user_id=user, data={"content": "hi"}))
        assert '"hi"' in str(await anext(told))
        assert await anext(told) == ": still here\n\n"
        doors.over_now = True
        async with asyncio.timeout(5):
            assert all([one == ": still here\n\n" async for one in told])
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await bus.close()
