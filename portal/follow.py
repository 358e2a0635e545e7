"""The live view as server-sent events: what `/ws` pushes, for those who prefer one long answer.

A stream counts as one of its user's open sockets. To resume, a client names the last id it got
(`Last-Event-ID`, which browsers send by themselves): what it missed comes first, in order, nothing
twice. What is kept no longer is told by an event `resync`: fetch over REST.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from base.messages import Event
from portal.auth import Caller
from portal.desk import Desk
from portal.feed import Item, Listener, place

BEAT_S = 15.0
ENDED_CHECK_S = 3.0
#: What a client waits before it connects again.
RETRY_MS = 2_000
MEDIA_TYPE = "text/event-stream"


class Follow(StreamingResponse):
    """An answer that goes on until the client leaves, falls behind, its session ends, or the
    portal stops. Raises TooManyError before it begins when the user has too many open.
    """

    def __init__(self, desk: Desk, caller: Caller, cursor: str | None, root_id: str | None) -> None:
        self._desk = desk
        self._caller = caller
        self._cursor = cursor
        self._root_id = root_id
        headers = {"X-Accel-Buffering": "no"}  # or nginx keeps events back
        super().__init__(self._told(), media_type=MEDIA_TYPE, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._desk.seats.take(self._caller.user_id):
            await super().__call__(scope, receive, send)

    async def _told(self) -> AsyncIterator[str]:
        feed = self._desk.feed
        with feed.listen(self._caller.user_id) as listener:
            here = feed.position
            yield f"retry: {RETRY_MS}\nid: {self._cursor or here}\n\n"
            if self._cursor is not None:
                if not await feed.has(self._cursor):
                    yield f"event: resync\nid: {here}\ndata: {{}}\n\n"
                else:
                    async for missed in feed.between(self._cursor, here, self._caller.user_id):
                        if self._concerns(missed[1]):
                            yield _frame(missed)
            async for item in self._live(listener):
                if item is None:
                    yield ": still here\n\n"
                elif place(item[0]) > place(here) and self._concerns(item[1]):
                    yield _frame(item)

    async def _live(self, listener: Listener) -> AsyncIterator[Item | None]:
        """What comes, and None after each 15 s in which nothing did."""
        checked_s = beat_s = time.monotonic()
        while True:
            item: Item | None = None
            try:
                async with asyncio.timeout(ENDED_CHECK_S):
                    item = await listener.get()
                if item is None:
                    return
                beat_s = time.monotonic()
                yield item
            except TimeoutError:
                if time.monotonic() - beat_s >= BEAT_S:
                    beat_s = time.monotonic()
                    yield None
            if time.monotonic() - checked_s >= ENDED_CHECK_S or item is None:
                checked_s = time.monotonic()
                if await self._desk.auth.over(self._caller):
                    return

    def _concerns(self, event: Event) -> bool:
        return self._root_id is None or event.root_id == self._root_id


def _frame(item: Item) -> str:
    return f"id: {item[0]}\ndata: {item[1].model_dump_json()}\n\n"
