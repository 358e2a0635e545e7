"""The live view: one reader of the events stream, many listeners.

A listener gets the events its caller may see, in order, through a bounded queue; one that falls
behind is cut off and resumes from its cursor. A cursor is an event's stream id.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from base import log, metrics, streams
from base.bus import Bus
from base.messages import Event, Kind
from portal.activity import Activity
from portal.counts import Counts

QUEUE_EVENTS = 1_000
#: Redis keeps both halves of an id in 64 bits.
PLACE_MAX = 2**64 - 1
#: So many of the newest events tell a portal that starts what the agents are at.
LOOK_BACK = 2_000
Item = tuple[str, Event]


def place(cursor: str) -> tuple[int, int]:
    """A cursor as something that sorts. Raises ValueError for what is no cursor."""
    ms, _, seq = cursor.partition("-")
    if not (ms.isascii() and ms.isdecimal() and (not seq or (seq.isdecimal() and seq.isascii()))):
        raise ValueError(f"{cursor!r} is no event id")
    found = int(ms), int(seq or 0)
    if max(found) > PLACE_MAX:
        raise ValueError(f"{cursor!r} is no event id")
    return found


def visible(event: Event, user_id: str) -> bool:
    """A user's own events, and the agents' states, which are everybody's."""
    return event.kind is Kind.AGENT or event.user_id == user_id


class Listener:
    """One reader's queue. `lost`: it fell behind, got no more, and must resume. `closed`: the
    portal is stopping.
    """

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.lost = False
        self.closed = False
        self._queue: asyncio.Queue[Item | None] = asyncio.Queue(QUEUE_EVENTS + 1)

    def put(self, item: Item) -> None:
        if self.lost or not visible(item[1], self.user_id):
            return
        if self._queue.qsize() >= QUEUE_EVENTS:
            self.lost = True
            self._queue.put_nowait(None)
            return
        self._queue.put_nowait(item)

    async def get(self) -> Item | None:
        """The next event; None once the listener is lost or the portal stops."""
        return await self._queue.get()

    def waiting(self) -> list[Item]:
        """Take everything that is queued now, without waiting."""
        items: list[Item] = []
        while not self._queue.empty():
            item = self._queue.get_nowait()
            if item is None:
                self._queue.put_nowait(None)
                break
            items.append(item)
        return items

    def close(self) -> None:
        """End the reading side: `get` returns None after what is queued."""
        self.closed = True
        if not self.lost:
            self.lost = True
            self._queue.put_nowait(None)


class Feed:
    """`run` for as long as the portal lives. `position` is the last event handed out. `taps` get
    every event first; they neither wait nor raise.
    """

    def __init__(self, bus: Bus, *taps: Callable[[Event], None]) -> None:
        self._bus = bus
        self._taps = taps
        self.activity = Activity(bus)
        self._listeners: set[Listener] = set()
        self._counts = Counts()
        self.position = f"{int(time.time() * 1000) - 1000}-0"

    async def run(self) -> None:
        """Tail the stream and hand each event to the listeners it concerns."""
        logger = log.get("portal")
        for cursor, event in await self._bus.newest_events(LOOK_BACK):
            if place(cursor) <= place(self.position):
                self.activity.take(event)
        async for batch in self._bus.tail(streams.EVENTS, after=self.position):
            for cursor, raw in batch:
                try:
                    event = Event.model_validate_json(raw)
                except ValidationError as error:
                    logger.warning("undecodable event skipped", cursor=cursor, error=str(error))
                    continue
                self._counts.take(event)
                for tap in self._taps:
                    tap(event)
                self.activity.take(event)
                for listener in self._listeners:
                    listener.put((cursor, event))
                self.position = cursor
            await asyncio.sleep(0)

    @contextmanager
    def listen(self, user_id: str) -> Iterator[Listener]:
        """A queue of everything from now on that `user_id` may see."""
        listener = Listener(user_id)
        self._listeners.add(listener)
        metrics.portal_listeners.set(len(self._listeners))
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            metrics.portal_listeners.set(len(self._listeners))

    def close(self) -> None:
        """End every listener, so that sockets and pages close before the server does."""
        for listener in self._listeners:
            listener.close()

    async def has(self, cursor: str) -> bool:
        """Whether everything after `cursor` is still kept. "0-0" asks for whatever is kept."""
        if place(cursor) == (0, 0):
            return True
        oldest = await self._bus.oldest_event()
        if oldest is None:
            return place(cursor) >= place(self.position)
        return place(oldest) <= place(cursor)

    async def between(self, cursor: str, end: str, user_id: str) -> AsyncIterator[Item]:
        """What `user_id` may see of the events after `cursor` up to and including `end`."""
        last = place(end)
        while place(cursor) < last:
            page = await self._bus.events_after(cursor)
            for at, event in page:
                if place(at) > last:
                    return
                if visible(event, user_id):
                    yield at, event
            if not page:
                return
            cursor = page[-1][0]
