"""The wire: Redis Streams, at least once. The only file that knows Redis.

The rule of every hop: publish the output, then acknowledge the input. A crash in between gives
a duplicate, never a loss; the receiver drops duplicates by `Message.id`.

    caller ── publish, ack, emit ──▶ one writer, one connection, one pipeline for all who wait
    consume, tail, replies ────────▶ a connection each, because they block

Everything here survives a lost connection: readers for ever, writers for PATIENCE_S.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import TimeoutError as SilentError

from base import log, metrics, streams
from base.ask import Asks, serve
from base.dead import DeadLetter, DeadLetters, letter
from base.deadline import Deadline
from base.errors import BusError, DecodeError, InputError
from base.messages import Event, Message, decode, encode

__all__ = ["Bus", "DeadLetter", "Delivery"]

logger = log.get(__name__)

#: How long a write waits for Redis to come back before it fails.
PATIENCE_S = 10.0
#: A reply takes at most this long beyond what the command itself blocks.
SILENCE_S = 20.0
BLOCK_MAX_S = 10.0
BACKOFF_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
PIPELINE_MAX = 1_000
FIELD = b"data"
CURSOR = re.compile(r"\d{1,19}(-\d{1,19})?")

Command = tuple[Any, ...]  # str, bytes or int
LOST = (LostError, SilentError, OSError)
FOR_GOOD = (AuthenticationError, AuthorizationError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message in hand. `id` is its place on the stream, `count` how often it was delivered."""

    id: str
    message: Message
    count: int
    raw: bytes = b""


class Line:
    """One connection to Redis and one exchange at a time; connects when first used."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]

    async def exchange(self, commands: Iterable[Command], limit_s: float = SILENCE_S) -> list[Any]:
        """Send all, then read all replies; a refused command's reply is its ResponseError.

        Raises one of LOST when the connection broke: whether Redis did it is then unknown.
        """
        connection, commands = self._connection, list(commands)
        replies: list[Any] = []
        try:
            async with asyncio.timeout(limit_s):
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.send_packed_command(b"".join([pack_command(c) for c in commands]))
                for _ in commands:
                    try:
                        replies.append(await connection.read_response(timeout=math.inf))
                    except ResponseError as error:
                        replies.append(error)
        except BaseException:  # a cancelled exchange leaves replies behind on the socket
            await connection.disconnect(nowait=True)
            raise
        return replies

    async def one(self, *command: str | bytes | int, block_s: float = 0.0) -> Any:
        """The reply to one command. Raises ResponseError when refused."""
        (reply,) = await self.exchange([command], SILENCE_S + block_s)
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    async def close(self) -> None:
        await self._connection.disconnect(nowait=True)


class Bus:
    """One process's end of the wire. Make it with `open`, use it from one event loop."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        try:
            self._pool = ConnectionPool.from_url(
                url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=None,
                socket_connect_timeout=5.0, socket_read_size=262_144,
            )  # fmt: skip
        except ValueError as error:
            raise BusError(f"redis url: {error}") from error
        self._line = Line(self._pool)
        self._queue: deque[tuple[list[Command], asyncio.Future[list[Any]]]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._closed = False
        self._down_at_s: float | None = None
        self._in_hand: dict[tuple[str, str], set[str]] = {}
        self._asks = Asks(self)
        self._letters = DeadLetters(self)

    @classmethod
    async def open(cls, url: str, name: str) -> Bus:
        """Connect as `name`: the consumer name in every group, so one living process a name.

        Raises BusError when Redis cannot be reached within PATIENCE_S.
        """
        bus = cls(url, name)
        await bus.call(("PING",))
        return bus

    async def close(self) -> None:
        """Finish what was being written, then drop the connections. Safe to call twice."""
        self._closed = True
        if self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)
        await self._asks.close()
        await self._line.close()

    # Writing -------------------------------------------------------------------------------

    async def call(self, *commands: Command) -> list[Any]:
        """Send commands that do not block; their replies, in order.

        All callers of one moment share one pipeline. After a lost connection it sends again, so
        a command may run twice. Raises BusError after PATIENCE_S, or when Redis refuses one.
        """
        if self._closed:
            raise BusError("the bus is closed")
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._queue.append((list(commands), future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name="bus writer")
        replies = await future
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise BusError(f"redis refused: {reply}") from reply
        return replies

    async def _write(self) -> None:
        while self._queue:
            batch = [self._queue.popleft()]
            size = len(batch[0][0])
            while self._queue and size + len(self._queue[0][0]) <= PIPELINE_MAX:
                batch.append(self._queue.popleft())
                size += len(batch[-1][0])
            commands = [command for part, _ in batch for command in part]
            try:
                replies = await self._patient(lambda c=commands: self._line.exchange(c))  # type: ignore[misc]
            except BusError as error:
                batch.extend(self._queue)
                self._queue.clear()
                for _, future in batch:
                    if not future.done():
                        future.set_exception(BusError(str(error)))
                return
            start = 0
            for part, future in batch:
                if not future.done():
                    future.set_result(replies[start : start + len(part)])
                start += len(part)

    async def _patient(self, do: Callable[[], Awaitable[list[Any]]]) -> list[Any]:
        deadline, failures = Deadline.after(PATIENCE_S), 0
        while True:
            try:
                replies = await do()
            except FOR_GOOD as error:
                raise BusError(f"redis: {error}") from error
            except LOST as error:
                self._lost(error)
                failures += 1
                if deadline.passed or self._closed:
                    raise BusError(f"redis cannot be reached: {error}") from error
                await asyncio.sleep(_backoff_s(failures))
            else:
                self._found()
                return replies

    def _lost(self, error: Exception) -> None:
        if self._down_at_s is None:
            self._down_at_s = time.monotonic()
            logger.warning("lost redis", error=str(error) or type(error).__name__)

    def _found(self) -> None:
        if self._down_at_s is not None:
            duration_ms = int((time.monotonic() - self._down_at_s) * 1000)
            self._down_at_s = None
            logger.info("reached redis again", duration_ms=duration_ms)

    async def publish(self, stream: str, *messages: Message) -> None:
        """Append in order, in one pipeline. Returns when Redis has them; raises BusError."""
        if messages:
            await self.call(*(_xadd(stream, encode(message)) for message in messages))
            for kind, count in Counter(message.type for message in messages).items():
                _count(stream, kind.value, count)

    async def publish_raw(self, stream: str, *bodies: bytes) -> None:
        """Append messages that are already encoded (the outbox relay, a replay)."""
        if bodies:
            await self.call(*(_xadd(stream, body) for body in bodies))
            _count(stream, "raw", len(bodies))

    async def emit(self, *events: Event) -> None:
        """Append to the live view, which keeps only the newest."""
        if events:
            bodies = (event.model_dump_json().encode() for event in events)
            await self.call(*(_xadd(streams.EVENTS, body) for body in bodies))
            _count(streams.EVENTS, "event", len(events))

    # Reading work --------------------------------------------------------------------------

    async def consume(
        self, stream: str, group: str, *, batch: int = 100, block_s: float = 5.0,
        deliveries: int = 3, min_idle_s: float = 60.0,
    ) -> AsyncIterator[list[Delivery]]:  # fmt: skip
        """Yield work for ever: own unfinished first, then dead consumers', then new.

        What comes again comes one by one and only then counts as delivered again, so a message
        that kills its consumer does not take its neighbours to the dead letter. An entry
        neither acked nor kept alive for `min_idle_s` comes again too, also to this consumer.
        Undecodable entries and those delivered more than `deliveries` times are buried, never
        yielded. Never ends by itself; raises BusError only when Redis refuses for good.
        """
        reader = _Reader(self, Line(self._pool), stream, group, deliveries)
        block_s, failures = min(block_s, min_idle_s, BLOCK_MAX_S), 0
        own, reclaim_at_s = True, 0.0
        try:
            while True:
                try:
                    if own or time.monotonic() >= reclaim_at_s:
                        idle_s = 0.0 if own else min_idle_s
                        async for delivery in reader.again(own=own, idle_s=idle_s):
                            yield [delivery]
                        if own:
                            own = False
                        else:
                            reclaim_at_s = time.monotonic() + min_idle_s
                        continue
                    found = await reader.new(batch, block_s)
                except LOST as error:
                    if isinstance(error, FOR_GOOD):
                        raise BusError(f"redis: {error}") from error
                    self._lost(error)
                    failures += 1
                    await asyncio.sleep(_backoff_s(failures))
                    own = True  # a reply lost on the way is ours and unseen
                except RedisError as error:
                    if not str(error).startswith(("NOGROUP", "UNBLOCKED")):
                        raise BusError(f"redis refused: {error}") from error
                    await self._make_group(stream, group)
                else:
                    self._found()
                    failures = 0
                    if found:
                        yield found
        finally:
            self._in_hand.pop((stream, group), None)
            await reader.line.close()

    async def _make_group(self, stream: str, group: str) -> None:
        with contextlib.suppress(BusError):  # BUSYGROUP: it is there; others show on reading
            await self.call(("XGROUP", "CREATE", stream, group, "0", "MKSTREAM"))

    def hold(self, stream: str, group: str) -> set[str]:
        """Ids yielded to this process and not yet acked or buried."""
        return self._in_hand.setdefault((stream, group), set())

    async def ack(self, stream: str, group: str, *ids: str) -> None:
        """Handled: delete and acknowledge. Safe to repeat."""
        if ids:
            # Deleted first: a crash in between leaves a pending id without body, found and
            # dropped later; the other order would leave a body that nobody reads.
            await self.call(("XDEL", stream, *ids), ("XACK", stream, group, *ids))
            self.hold(stream, group).difference_update(ids)

    async def keepalive(self, stream: str, group: str, *ids: str) -> None:
        """Say that these are still being worked on. Does not raise their delivery count."""
        if ids:
            try:
                await self.call(("XCLAIM", stream, group, self.name, 0, *ids, "JUSTID"))
            except BusError as error:
                if "NOGROUP" not in str(error):  # a flushed Redis: nothing left to keep
                    raise

    async def bury(
        self, stream: str, group: str, delivery: Delivery, error: str | BaseException
    ) -> None:
        """Move a message to the dead letter of its stream, with the reason."""
        raw = delivery.raw or encode(delivery.message)
        await self.bury_raw(stream, group, delivery.id, raw, error, delivery.count)

    async def bury_raw(
        self, stream: str, group: str, entry_id: str, raw: bytes,
        error: str | BaseException, attempts: int,
    ) -> None:  # fmt: skip
        fields = letter(stream, raw, error, attempts)
        logger.warning("buried a message", stream=stream, error=str(error), attempts=attempts)
        await self.call(_xadd_fields(streams.dlq(stream), fields))
        await self.ack(stream, group, entry_id)

    # Reading the live view -----------------------------------------------------------------

    async def tail(
        self, stream: str, *, after: str = "$", block_s: float = 5.0
    ) -> AsyncIterator[list[tuple[str, bytes]]]:
        """Yield (id, body) as they come, for ever. `after`: "$" from now, "0" from the start.

        Raises InputError when `after` is no id. Nothing is lost over a reconnect unless the
        stream was trimmed meanwhile.
        """
        line, failures, block_s = Line(self._pool), 0, min(block_s, BLOCK_MAX_S)
        cursor = await self._newest(stream) if after == "$" else _cursor(after)
        block_ms = max(1, int(block_s * 1000))
        try:
            while True:
                try:
                    reply = await line.one(
                        "XREAD", "COUNT", 1000, "BLOCK", block_ms, "STREAMS", stream, cursor,
                        block_s=block_s,
                    )  # fmt: skip
                except LOST as error:
                    if isinstance(error, FOR_GOOD):
                        raise BusError(f"redis: {error}") from error
                    self._lost(error)
                    failures += 1
                    await asyncio.sleep(_backoff_s(failures))
                except RedisError as error:
                    raise BusError(f"redis refused: {error}") from error
                else:
                    self._found()
                    failures = 0
                    if reply:
                        found = [(entry[0].decode(), body(entry)) for entry in reply[0][1]]
                        cursor = found[-1][0]
                        yield found
        finally:
            await line.close()

    async def _newest(self, stream: str) -> str:
        (found,) = await self.call(("XREVRANGE", stream, "+", "-", "COUNT", 1))
        return found[0][0].decode() if found else "0-0"

    async def events_after(self, cursor: str, count: int = 1000) -> list[tuple[str, Event]]:
        """Events younger than `cursor` ("0": from the oldest kept), oldest first.

        Raises InputError when `cursor` is no id. A cursor older than `oldest_event` has a gap.
        """
        (found,) = await self.call(
            ("XRANGE", streams.EVENTS, "(" + _cursor(cursor), "+", "COUNT", count)
        )
        return [(entry[0].decode(), Event.model_validate_json(body(entry))) for entry in found]

    async def oldest_event(self) -> str | None:
        """The id of the oldest event kept; None when there are none."""
        (found,) = await self.call(("XRANGE", streams.EVENTS, "-", "+", "COUNT", 1))
        return found[0][0].decode() if found else None

    async def depth(self, stream: str) -> int:
        """Entries on a work stream that are not handled yet, those in progress included."""
        (length,) = await self.call(("XLEN", stream))
        metrics.redis_queue_depth.labels(stream).set(length)
        return int(length)

    # Asking and the dead letter: see ask.py and dead.py -------------------------------------

    async def ask(
        self, service: str, payload: dict[str, Any], *, deadline: Deadline
    ) -> dict[str, Any]:
        """The answer of `service`. Raises NoAnswerError at the deadline, or the error that
        the service answered with (an AIError of the same class). May be asked twice.
        """
        return await self._asks.ask(service, payload, deadline)

    async def serve(
        self,
        service: str,
        answer: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
        *,
        concurrency: int = 8,
    ) -> None:
        """Answer requests until cancelled, at most `concurrency` at a time.

        An AIError that `answer` raises travels to the asker; any other exception is logged and
        answered as an internal error. Requests past their deadline are dropped.
        """
        await serve(self, service, answer, concurrency)

    async def pop(self, key: str) -> AsyncIterator[bytes]:
        """Take elements off the list `key` as they come, for ever."""
        line, failures = Line(self._pool), 0
        try:
            while True:
                try:
                    reply = await line.one("BLPOP", key, int(BLOCK_MAX_S), block_s=BLOCK_MAX_S)
                except LOST as error:
                    self._lost(error)
                    failures += 1
                    await asyncio.sleep(_backoff_s(failures))
                else:
                    self._found()
                    failures = 0
                    if reply:
                        yield reply[1]
        finally:
            await line.close()

    async def dead(self, stream: str | None = None) -> list[DeadLetter]:
        """The dead letters of one stream, or of all; oldest first."""
        return await self._letters.find(stream)

    async def replay(self, letter_id: str) -> DeadLetter:
        """Put the original bytes back on their stream, then remove the letter.

        Raises NotFoundError when there is no such letter.
        """
        return await self._letters.replay(letter_id)

    async def purge(
        self, stream: str | None = None, *, older_than_days: float = streams.DLQ_DAYS
    ) -> int:
        """Remove dead letters older than that (0: all); how many went."""
        return await self._letters.purge(stream, older_than_days)


class _Reader:
    """One consumer of one group, on a line of its own."""

    def __init__(self, bus: Bus, line: Line, stream: str, group: str, deliveries: int) -> None:
        self.line = line
        self._bus = bus
        self._stream = stream
        self._group = group
        self._deliveries = deliveries
        self._hold = bus.hold(stream, group)

    async def new(self, batch: int, block_s: float) -> list[Delivery]:
        block_ms = max(1, int(block_s * 1000))
        reply = await self.line.one(
            "XREADGROUP", "GROUP", self._group, self._bus.name, "COUNT", batch,
            "BLOCK", block_ms, "STREAMS", self._stream, ">", block_s=block_s,
        )  # fmt: skip
        found = [] if reply is None else [await self._open(entry, 1) for entry in reply[0][1]]
        return [delivery for delivery in found if delivery is not None]

    async def again(self, *, own: bool, idle_s: float) -> AsyncIterator[Delivery]:
        """Claim one by one what was delivered before: one's own, or anybody's gone idle."""
        start, page, idle_ms = "-", 100, int(idle_s * 1000)
        whose = (self._bus.name,) if own else ()
        idle = () if own else ("IDLE", idle_ms)
        while True:
            pending = await self.line.one(
                "XPENDING", self._stream, self._group, *idle, start, "+", page, *whose
            )
            for raw_id, consumer, _, count in pending:
                start = "(" + raw_id.decode()
                if own and raw_id.decode() in self._hold:
                    continue
                delivery = await self._claim(raw_id, consumer, count + 1, idle_ms)
                if delivery is not None:
                    yield delivery
            if len(pending) < page:
                return

    async def _claim(
        self, raw_id: bytes, consumer: bytes, count: int, idle_ms: int
    ) -> Delivery | None:
        reply = await self.line.one(
            "XCLAIM", self._stream, self._group, self._bus.name, idle_ms, raw_id
        )
        if not reply:
            return None  # acked, kept alive or claimed by another meanwhile
        if reply[0] is None:  # Redis 6.2's form of an entry whose body is gone
            await self._bus.ack(self._stream, self._group, raw_id.decode())
            return None
        if count > self._deliveries:
            error = f"delivered {count - 1} times without an end, last to {consumer.decode()}"
            await self._bury(raw_id, body(reply[0]), error, count - 1)
            return None
        return await self._open(reply[0], count)

    async def _open(self, entry: list[Any], count: int) -> Delivery | None:
        raw = body(entry)
        try:
            message = decode(raw)
        except DecodeError as error:
            await self._bury(entry[0], raw, error, count)
            return None
        entry_id = entry[0].decode()
        self._hold.add(entry_id)
        return Delivery(id=entry_id, message=message, count=count, raw=raw)

    async def _bury(self, raw_id: bytes, raw: bytes, error: str | Exception, count: int) -> None:
        await self._bus.bury_raw(self._stream, self._group, raw_id.decode(), raw, error, count)


def body(entry: list[Any]) -> bytes:
    """The body of a stream entry; of a foreign one without our field, all its parts."""
    fields: list[bytes] = entry[1] or []
    if len(fields) == 2 and fields[0] == FIELD:
        return fields[1]
    return b" ".join(fields)


def _xadd(stream: str, raw: bytes) -> Command:
    return _xadd_fields(stream, (FIELD, raw))


def _xadd_fields(stream: str, fields: Iterable[str | bytes | int]) -> Command:
    keep = streams.keep(stream)
    trim: Command = () if keep is None else ("MAXLEN", "~", keep)
    return ("XADD", stream, *trim, "*", *fields)


def _cursor(text: str) -> str:
    if not CURSOR.fullmatch(text):
        raise InputError(f"no such cursor: {text[:40]!r}; it looks like 1700000000000-0, or 0")
    return text


def _backoff_s(failures: int) -> float:
    return BACKOFF_S[min(failures, len(BACKOFF_S)) - 1]


def _count(channel: str, kind: str, count: int) -> None:
    metrics.redis_messages_total.labels(channel, kind).inc(count)
