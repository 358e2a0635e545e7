"""Telling the live view without ever waiting for it."""

from __future__ import annotations

import asyncio

from base import log
from base.bus import Bus
from base.errors import BusError
from base.messages import Event

WAITING_MAX = 1_000

logger = log.get("broker")


class Live:
    """Events in order, from a queue; what does not fit while Redis is away is dropped: the record
    is the audit log. `run` for as long as the broker lives.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._queue: asyncio.Queue[Event] = asyncio.Queue(WAITING_MAX)

    def tell(self, event: Event) -> None:
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            logger.warning("live view missed an event", kind=event.kind)

    async def run(self) -> None:
        while True:
            event = await self._queue.get()
            try:
                await self._bus.emit(event)
            except BusError as error:
                logger.warning("live view missed an event", error=str(error))
