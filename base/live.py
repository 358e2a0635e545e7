"""The live view: streams that many follow and nobody acknowledges, for `Bus`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from base import log, streams
from base.errors import BusError, InputError
from base.messages import Event

if TYPE_CHECKING:
    from base.bus import Bus

logger = log.get(__name__)

#: The one field of an entry on every stream but the dead letter.
FIELD = b"data"
TAIL_MAX = 1_000
#: Two numbers of 64 bits, as Redis takes them; the second may be left out.
CURSOR = re.compile(r"[0-9]{1,19}(-[0-9]{1,19})?")


def body(entry: list[Any]) -> bytes:
    """The body of a stream entry; of a foreign one without our field, all its parts."""
    fields: list[bytes] = entry[1] or []
    if len(fields) == 2 and fields[0] == FIELD:
        return fields[1]
    return b" ".join(fields)


async def tail(
    bus: Bus, stream: str, after: str, block_s: float
) -> AsyncGenerator[list[tuple[str, bytes]], None]:
    """See `Bus.tail`."""
    cursor = await _newest(bus, stream) if after == "$" else _cursor(after)
    block_ms = max(1, int(block_s * 1000))
    command = ("XREAD", "COUNT", TAIL_MAX, "BLOCK", block_ms, "STREAMS", stream)
    async with contextlib.aclosing(bus.line()) as line:
        while True:
            try:
                reply = await line.one(*command, cursor, block_s=block_s)
            except BusError as error:
                if "UNBLOCKED" not in str(error):  # the stream went away; it will come again
                    raise
                continue
            if reply:
                found = [(entry[0].decode(), body(entry)) for entry in reply[0][1]]
                cursor = found[-1][0]
                yield found


async def events_after(bus: Bus, cursor: str, count: int) -> list[tuple[str, Event]]:
    """See `Bus.events_after`. An entry that is no event is logged and left out."""
    command = ("XRANGE", streams.EVENTS, "(" + _cursor(cursor), "+", "COUNT", count)
    return _events((await bus.call(command))[0])


async def newest_events(bus: Bus, count: int) -> list[tuple[str, Event]]:
    """See `Bus.newest_events`."""
    command = ("XREVRANGE", streams.EVENTS, "+", "-", "COUNT", count)
    return _events(reversed((await bus.call(command))[0]))


def _events(entries: Iterable[list[Any]]) -> list[tuple[str, Event]]:
    found = []
    for entry in entries:
        try:
            found.append((entry[0].decode(), Event.model_validate_json(body(entry))))
        except ValidationError as error:
            logger.warning("skipped an event", stream=streams.EVENTS, faults=error.error_count())
    return found


async def oldest_event(bus: Bus) -> str | None:
    """See `Bus.oldest_event`."""
    (found,) = await bus.call(("XRANGE", streams.EVENTS, "-", "+", "COUNT", 1))
    return found[0][0].decode() if found else None


async def _newest(bus: Bus, stream: str) -> str:
    (found,) = await bus.call(("XREVRANGE", stream, "+", "-", "COUNT", 1))
    return found[0][0].decode() if found else "0-0"


def _cursor(text: str) -> str:
    if not CURSOR.fullmatch(text):
        raise InputError(f"no such cursor: {text[:40]!r}; it looks like 1700000000000-0, or 0")
    return text
