"""The live view of what the agent does: events for the portal, gathered for 40 ms each.

Nobody's work depends on these; when Redis is away they are dropped with one line in the log.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from base import log
from base.bus import Bus
from base.errors import BusError
from base.messages import Event, Kind

GATHER_S = 0.04
logger = log.get("feed")


@dataclass(kw_only=True)  # mutable: what waits to be sent
class Feed:
    """`put` never waits; `run` sends; `flush` waits until all that was put is sent."""

    bus: Bus
    _waiting: list[Event] = field(default_factory=list)
    _more: asyncio.Event = field(default_factory=asyncio.Event)
    _sending: asyncio.Lock = field(default_factory=asyncio.Lock)
    _streamed: tuple[object, int] = (None, 0)

    def put(self, event: Event) -> None:
        """Queue an event; text that continues the last one joins it."""
        last = self._waiting[-1] if self._waiting else None
        if last is not None and _continues(last, event):
            joined = {**last.data, "content": last.data["content"] + event.data["content"]}
            self._waiting[-1] = last.model_copy(update={"data": joined})
        else:
            self._waiting.append(event)
        self._more.set()

    async def run(self) -> None:
        """Send what was put, until cancelled."""
        while True:
            await self._more.wait()
            await self.flush()
            await asyncio.sleep(GATHER_S)

    async def flush(self) -> None:
        async with self._sending:
            events, self._waiting = [self._numbered(one) for one in self._waiting], []
            self._more.clear()
            try:
                await self.bus.emit(*events)
            except BusError as error:
                logger.warning("events dropped", count=len(events), error=str(error))

    def _numbered(self, event: Event) -> Event:
        """A chunk gets its `seq`: 0 for the first of an attempt, then one more each."""
        if event.kind is not Kind.CHUNK:
            return event
        stream = (event.data["message_id"], event.data["attempt"])
        seq = self._streamed[1] + 1 if self._streamed[0] == stream else 0
        self._streamed = (stream, seq)
        return event.model_copy(update={"data": {**event.data, "seq": seq}})


def _continues(last: Event, event: Event) -> bool:
    """Whether `event` is more text of the same stream as `last`."""
    return (
        event.kind in {Kind.TEXT, Kind.CHUNK}
        and (last.kind, last.task_id) == (event.kind, event.task_id)
        and last.data.get("message_id") == event.data.get("message_id")
        and last.data.get("attempt") == event.data.get("attempt")
    )
