"""The dead letter: messages that nobody could handle, kept with their bytes and the reason."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from base import streams
from base.errors import NotFoundError
from base.live import CURSOR

if TYPE_CHECKING:
    from base.bus import Bus


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """`id` is `<stream>/<place>`; `original_message` the bytes as they came off the wire."""

    id: str
    original_message: bytes
    source_queue: str
    error_type: str
    error_message: str
    attempts: int
    failed_at: datetime


def letter(
    stream: str, raw: bytes, error: str | BaseException, attempts: int
) -> tuple[str | bytes | int, ...]:
    """The fields of the entry on `ai:dlq:<stream>`."""
    kind = "AIError" if isinstance(error, str) else type(error).__name__
    return (
        "id", str(uuid.uuid4()), "original_message", raw, "source_queue", stream,
        "error_type", kind, "error_message", str(error), "attempts", attempts,
        "failed_at", datetime.now(UTC).isoformat(),
    )  # fmt: skip


class DeadLetters:
    """Listing, replaying and purging, for `Bus`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def find(self, stream: str | None) -> list[DeadLetter]:
        found = []
        for name in await self._streams(stream):
            (entries,) = await self._bus.call(("XRANGE", streams.dlq(name), "-", "+"))
            found += [_read(name, entry) for entry in entries]
        return sorted(found, key=lambda one: one.failed_at)

    async def replay(self, letter_id: str) -> DeadLetter:
        stream, _, place = letter_id.rpartition("/")
        if not CURSOR.fullmatch(place):
            raise NotFoundError(f"no dead letter {letter_id!r}; it looks like results/1700-0")
        (entries,) = await self._bus.call(("XRANGE", streams.dlq(stream), place, place))
        if not entries:
            raise NotFoundError(f"no dead letter {letter_id!r}")
        found = _read(stream, entries[0])
        await self._bus.publish_raw(found.source_queue, found.original_message)
        await self._bus.call(("XDEL", streams.dlq(stream), place))
        return found

    async def purge(self, stream: str | None, older_than_days: float) -> int:
        oldest_ms = int((time.time() - older_than_days * 86_400) * 1000)
        gone = 0
        for name in await self._streams(stream):
            trim = ("MAXLEN", 0) if older_than_days <= 0 else ("MINID", oldest_ms)
            (count,) = await self._bus.call(("XTRIM", streams.dlq(name), *trim))
            gone += count
        return gone

    async def _streams(self, stream: str | None) -> list[str]:
        if stream is not None:
            return [stream]
        found: set[str] = set()
        cursor = b"0"
        while True:
            pattern = streams.DLQ_PREFIX + "*"
            ((cursor, keys),) = await self._bus.call(
                ("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            )
            found |= {key.decode().removeprefix(streams.DLQ_PREFIX) for key in keys}
            if cursor == b"0":
                return sorted(found)


def _read(stream: str, entry: list[Any]) -> DeadLetter:
    parts: list[bytes] = entry[1]
    fields = {key.decode(): value for key, value in zip(parts[::2], parts[1::2], strict=True)}
    return DeadLetter(
        id=f"{stream}/{entry[0].decode()}",
        original_message=fields["original_message"],
        source_queue=fields["source_queue"].decode(),
        error_type=fields["error_type"].decode(),
        error_message=fields["error_message"].decode(),
        attempts=int(fields["attempts"]),
        failed_at=datetime.fromisoformat(fields["failed_at"].decode()),
    )
