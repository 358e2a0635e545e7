"""Taking work off a stream as one consumer of a group, for `Bus.consume`.

Order: one's own unfinished entries, then what others left idle, then new ones. Entries come
again one by one, and each counts as delivered again only when its turn comes: so a message that
kills its consumer is buried alone, without the neighbours of its batch. That is why they are
found with XPENDING and claimed singly; XAUTOCLAIM would raise the count of a whole page.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from base.errors import BusError, DecodeError
from base.live import body
from base.messages import Message, decode

if TYPE_CHECKING:
    from base.bus import Bus, Line

PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message in hand. `id` is its place on the stream, `count` how often it was delivered,
    `raw` its bytes as they came (empty: encode `message`).
    """

    id: str
    message: Message
    count: int
    raw: bytes = b""


def group_gone(error: BusError) -> bool:
    """Whether Redis refused because the stream or its group is not there (FLUSHALL)."""
    return "NOGROUP" in str(error) or "UNBLOCKED" in str(error)


class Reader:
    """One consumer of one group, on a line of its own."""

    def __init__(self, bus: Bus, line: Line, stream: str, group: str, deliveries: int) -> None:
        self._bus = bus
        self._line = line
        self._stream = stream
        self._group = group
        self._deliveries = deliveries
        self._hold = bus.hold(stream, group)

    async def consume(
        self, batch: int, block_s: float, min_idle_s: float
    ) -> AsyncGenerator[list[Delivery], None]:
        """See `Bus.consume`."""
        losses, reclaim_at_s = -1, 0.0
        while True:
            try:
                if losses != self._line.losses:  # at first, and when a reply may have been lost
                    losses = self._line.losses
                    async for delivery in self._again(own=True, idle_s=0.0):
                        yield [delivery]
                if time.monotonic() >= reclaim_at_s:
                    async for delivery in self._again(own=False, idle_s=min_idle_s):
                        yield [delivery]
                    reclaim_at_s = time.monotonic() + min_idle_s
                found = await self._new(batch, block_s)
            except BusError as error:
                if not group_gone(error):
                    raise
                await self._make_group()
                continue
            if found:
                yield found

    async def _make_group(self) -> None:
        # From 0: what was queued before counts too. BUSYGROUP means somebody else made it;
        # any other refusal shows again on the next read.
        with contextlib.suppress(BusError):
            await self._bus.call(("XGROUP", "CREATE", self._stream, self._group, "0", "MKSTREAM"))

    async def _new(self, batch: int, block_s: float) -> list[Delivery]:
        reply = await self._line.one(
            "XREADGROUP", "GROUP", self._group, self._bus.name, "COUNT", batch,
            "BLOCK", max(1, int(block_s * 1000)), "STREAMS", self._stream, ">", block_s=block_s,
        )  # fmt: skip
        if reply is None:
            return []
        found = []
        for entry in reply[0][1]:
            try:
                found.append(self._open(entry, 1))
            except DecodeError as error:
                await self._bury(entry[0], error.raw, error, 1)
        return found

    async def _again(self, *, own: bool, idle_s: float) -> AsyncGenerator[Delivery, None]:
        start, idle_ms = "-", int(idle_s * 1000)
        idle = () if own else ("IDLE", idle_ms)
        whose = (self._bus.name,) if own else ()
        while True:
            pending = await self._line.one(
                "XPENDING", self._stream, self._group, *idle, start, "+", PAGE, *whose
            )
            for raw_id, consumer, _, count in pending:
                start = "(" + raw_id.decode()
                if own and raw_id.decode() in self._hold:
                    continue
                delivery = await self._claim(raw_id, consumer.decode(), count + 1, idle_ms)
                if delivery is not None:
                    yield delivery
            if len(pending) < PAGE:
                return

    async def _claim(
        self, raw_id: bytes, consumer: str, count: int, idle_ms: int
    ) -> Delivery | None:
        """None when somebody acked, kept alive or claimed it meanwhile, or it is buried now."""
        reply = await self._line.one(
            "XCLAIM", self._stream, self._group, self._bus.name, idle_ms, raw_id
        )
        if not reply:
            return None
        if reply[0] is None:  # Redis 6.2's form of an entry whose body is gone
            await self._bus.ack(self._stream, self._group, raw_id.decode())
            return None
        if count > self._deliveries:
            error = self._bus.last_error(self._stream, raw_id.decode()) or (
                f"delivered {count - 1} times without an end, last to {consumer}"
            )
            await self._bury(raw_id, body(reply[0]), error, count - 1)
            return None
        try:
            return self._open(reply[0], count)
        except DecodeError as error:
            await self._bury(raw_id, error.raw, error, count)
            return None

    def _open(self, entry: list[Any], count: int) -> Delivery:
        """Raises DecodeError."""
        raw = body(entry)
        message, entry_id = decode(raw), entry[0].decode()
        self._hold.add(entry_id)
        return Delivery(id=entry_id, message=message, count=count, raw=raw)

    async def _bury(self, raw_id: bytes, raw: bytes, error: str | Exception, count: int) -> None:
        await self._bus.bury_raw(self._stream, self._group, raw_id.decode(), raw, error, count)
