"""The wire: Redis Streams, at least once. The only file that knows Redis.

The rule of every hop: publish the output, then acknowledge the input. A crash in between gives
a duplicate, never a loss; the receiver drops duplicates by `Message.id`.

    publish, ack, emit ───────▶ one writer, one line, one pipeline for all who wait
    consume, tail, replies ───▶ a line each, because they block

Everything here survives a lost connection: readers for ever, writers for PATIENCE_S.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from hiredis import pack_command

from base import lean, live, log, metrics, streams
from base.ask import Asks, serve
from base.consume import Delivery, Reader, group_gone
from base.dead import DeadLetter, DeadLetters, letter
from base.deadline import Deadline
from base.errors import BusError
from base.live import FIELD
from base.messages import Event, Message, encode
from base.outage import Outage

# Its traces are never asked for, and every program that speaks on the bus would load them.
with lean.without("opentelemetry"):
    from redis.asyncio.connection import AbstractConnection, ConnectionPool
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError

__all__ = ["Bus", "DeadLetter", "Delivery", "Line"]

logger = log.get(__name__)

#: How long a write waits for Redis to come back before it fails.
PATIENCE_S = 10.0
#: Redis answers within this, beyond what the command itself blocks; else the line counts as lost.
SILENCE_S = 20.0
BACKOFF_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
PIPELINE_MAX = 1_000

Command = tuple[Any, ...]  # of str, bytes and int


class Line:
    """One connection and one exchange at a time; connects when used, again when lost.

    `losses` counts broken exchanges: what Redis did with such a one is unknown.
    """

    def __init__(self, pool: ConnectionPool, outage: Outage) -> None:
        self._connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        self._outage = outage
        self.losses = 0

    async def exchange(
        self, packed: bytes, count: int, *, block_s: float = 0.0, patience_s: float = math.inf
    ) -> list[Any]:
        """Send `count` packed commands until Redis has answered them: the replies, in order.

        A refused command's reply is its ResponseError. Over a lost connection they are sent
        again, so each may run twice; but one that blocks (`block_s`) counts as having found
        nothing, None, once Redis is back. Raises BusError after `patience_s`, or on wrong
        credentials.
        """
        deadline, failures = Deadline.after(patience_s), 0
        while True:
            try:
                if failures and block_s:
                    await self._once(pack_command(("PING",)), 1, SILENCE_S)
                    replies = [None] * count
                else:
                    replies = await self._once(packed, count, SILENCE_S + block_s)
            except (AuthenticationError, AuthorizationError) as error:
                raise BusError(f"redis: {error}") from error
            except (RedisError, OSError) as error:  # refusals are replies: this is the line
                self._outage.began(error)
                self.losses += 1
                if deadline.passed:
                    raise BusError(f"redis cannot be reached: {error}") from error
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1
            else:
                self._outage.ended()
                return replies

    async def one(self, *command: Any, block_s: float = 0.0) -> Any:
        """The reply to one command, however long Redis is away. BusError when refused."""
        (reply,) = await self.exchange(pack_command(command), 1, block_s=block_s)
        if isinstance(reply, ResponseError):
            raise BusError(f"redis refused: {reply}") from reply
        return reply

    async def _once(self, packed: bytes, count: int, limit_s: float) -> list[Any]:
        connection = self._connection
        replies: list[Any] = []
        try:
            async with asyncio.timeout(limit_s):
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.send_packed_command(packed)
                for _ in range(count):
                    try:
                        replies.append(await connection.read_response(timeout=math.inf))
                    except ResponseError as error:
                        replies.append(error)
        except BaseException:  # also when cancelled: replies would be left on the socket
            await connection.disconnect(nowait=True)
            raise
        return replies

    async def aclose(self) -> None:
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
        self._outage = Outage("redis")
        self._line = self.line()
        self._queue: deque[tuple[bytes, int, asyncio.Future[list[Any]]]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._closed = False
        self._in_hand: dict[tuple[str, str], set[str]] = {}
        self._errors: dict[tuple[str, str], str] = {}
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
        """Finish what is being written (unless Redis is away), then disconnect. Safe twice."""
        self._closed = True
        await self._asks.close()
        if self._writer is not None:
            if self._outage.on:
                self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        await self._line.aclose()

    def line(self) -> Line:
        """A connection of one's own, for commands that block; `aclose` it."""
        return Line(self._pool, self._outage)

    # Writing -------------------------------------------------------------------------------

    async def call(self, *commands: Command) -> list[Any]:
        """Send commands that do not block; their replies, in order.

        All callers of one moment share one pipeline. Over a lost connection it sends again, so
        a command may run twice. Raises BusError after PATIENCE_S, or when Redis refuses one.
        """
        replies = await self.post(*commands)
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise BusError(f"redis refused: {reply}") from reply
        return replies

    def post(self, *commands: Command) -> asyncio.Future[list[Any]]:
        """The same without waiting; refusals are among the replies."""
        if self._closed:
            raise BusError("the bus is closed")
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        packed = b"".join([pack_command(command) for command in commands])
        self._queue.append((packed, len(commands), future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name="bus writer")
        return future

    async def _write(self) -> None:
        waiting: list[tuple[bytes, int, asyncio.Future[list[Any]]]] = []
        fault = "the bus was closed"
        try:
            while self._queue:
                waiting, count = [], 0
                while self._queue and count < PIPELINE_MAX:
                    waiting.append(self._queue.popleft())
                    count += waiting[-1][1]
                packed = b"".join([part for part, _, _ in waiting])
                replies = await self._line.exchange(packed, count, patience_s=PATIENCE_S)
                start = 0
                for _, size, future in waiting:
                    if not future.done():
                        future.set_result(replies[start : start + size])
                    start += size
                waiting = []
        except BusError as error:
            fault = str(error)
        finally:
            for _, _, future in (*waiting, *self._queue):
                if not future.done():
                    future.set_exception(BusError(fault))
                    future.exception()  # seen: who only posted does not look
            self._queue.clear()

    async def publish(self, stream: str, *messages: Message) -> None:
        """Append in order, in one pipeline. Returns when Redis has them; raises BusError."""
        if messages:
            await self.call(*[_xadd(stream, FIELD, encode(message)) for message in messages])
            for kind, count in Counter(message.type for message in messages).items():
                _count(stream, kind.value, count)

    async def publish_raw(self, stream: str, *bodies: bytes) -> None:
        """Append messages that are already encoded (the outbox relay, a replay)."""
        if bodies:
            await self.call(*[_xadd(stream, FIELD, raw) for raw in bodies])
            _count(stream, "raw", len(bodies))

    async def emit(self, *events: Event) -> None:
        """Append to the live view, which keeps only the newest."""
        if events:
            await self.call(*[_xadd(streams.EVENTS, FIELD, encode(event)) for event in events])
            _count(streams.EVENTS, "event", len(events))

    # Work ----------------------------------------------------------------------------------

    async def consume(
        self, stream: str, group: str, *, batch: int = 100, block_s: float = 5.0,
        deliveries: int = 3, min_idle_s: float = 60.0,
    ) -> AsyncGenerator[list[Delivery], None]:  # fmt: skip
        """Yield work for ever: own unfinished first, then what others left idle, then new.

        An entry neither acked nor kept alive for `min_idle_s` comes again, also to this
        consumer. Undecodable entries and those delivered more than `deliveries` times are
        buried, never yielded. At most one consume a stream and group at a time in one process.
        Raises BusError only when Redis refuses for good.
        """
        line, block_s = self.line(), min(block_s, min_idle_s)
        work = Reader(self, line, stream, group, deliveries).consume(batch, block_s, min_idle_s)
        try:
            async with contextlib.aclosing(work):
                async for found in work:
                    yield found
        finally:
            self._in_hand.pop((stream, group), None)
            await line.aclose()

    def hold(self, stream: str, group: str) -> set[str]:
        """Ids yielded to this process and neither acked nor buried yet."""
        return self._in_hand.setdefault((stream, group), set())

    async def ack(
        self, stream: str, group: str, *ids: str, after: Sequence[Command] = ()
    ) -> None:  # fmt: skip
        """Handled: delete and acknowledge. Safe to repeat. `after`: what was to come of it, sent
        before in the same pipeline.
        """
        if ids:
            # Deleted first: a crash in between leaves a pending id without a body, dropped
            # when claimed; the other order would leave a body that nobody reads.
            await self.call(*after, ("XDEL", stream, *ids), ("XACK", stream, group, *ids))
            self.hold(stream, group).difference_update(ids)
            for entry_id in ids if self._errors else ():
                self._errors.pop((stream, entry_id), None)

    async def keepalive(self, stream: str, group: str, *ids: str) -> None:
        """Say that these are still being worked on. Does not raise their delivery count."""
        if ids:
            try:
                await self.call(("XCLAIM", stream, group, self.name, 0, *ids, "JUSTID"))
            except BusError as error:
                if not group_gone(error):  # a flushed Redis has nothing left to keep
                    raise

    def failed(self, stream: str, delivery: Delivery, error: BaseException) -> None:
        """Leave it for another delivery, and remember why for the dead letter."""
        self._errors[stream, delivery.id] = f"{type(error).__name__}: {error}"

    def last_error(self, stream: str, entry_id: str) -> str | None:
        """What `failed` was told about an entry by this process; None: nothing."""
        return self._errors.get((stream, entry_id))

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
        """`bury` for bytes that may be no message."""
        logger.warning("buried a message", stream=stream, error=str(error), attempts=attempts)
        await self.call(_xadd(streams.dlq(stream), *letter(stream, raw, error, attempts)))
        await self.ack(stream, group, entry_id)

    async def depth(self, stream: str) -> int:
        """Entries on a work stream that are not handled yet, those in progress included."""
        (length,) = await self.call(("XLEN", stream))
        metrics.redis_queue_depth.labels(stream).set(length)
        return int(length)

    # The live view -------------------------------------------------------------------------

    async def tail(
        self, stream: str, *, after: str = "$", block_s: float = 5.0
    ) -> AsyncGenerator[list[tuple[str, bytes]], None]:
        """Yield (id, body) as they come, for ever. `after`: "$" from now, "0" from the start.

        Over a reconnect nothing is lost but what was trimmed. Raises InputError when `after` is
        no id.
        """
        async with contextlib.aclosing(live.tail(self, stream, after, block_s)) as found:
            async for entries in found:
                yield entries

    async def events_after(self, cursor: str, count: int = 1000) -> list[tuple[str, Event]]:
        """Events younger than `cursor` ("0": from the oldest kept), oldest first.

        A cursor older than `oldest_event` has a gap. Raises InputError when it is no id.
        """
        return await live.events_after(self, cursor, count)

    async def newest_events(self, count: int) -> list[tuple[str, Event]]:
        """The `count` youngest events, oldest first."""
        return await live.newest_events(self, count)

    async def oldest_event(self) -> str | None:
        """The id of the oldest event kept; None when there are none."""
        return await live.oldest_event(self)

    # Asking (ask.py) and the dead letter (dead.py) -------------------------------------------

    async def ask(
        self, service: str, payload: dict[str, Any], *, deadline: Deadline
    ) -> dict[str, Any]:
        """The answer of `service`. Raises NoAnswerError at the deadline, or the AIError that the
        service raised, as its class. A service that restarts may see a request twice.
        """
        return await self._asks.ask(service, payload, deadline)

    async def serve(
        self, service: str, answer: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
        *, concurrency: int = 8,
    ) -> None:  # fmt: skip
        """Answer requests until cancelled, at most `concurrency` at a time.

        An AIError that `answer` raises travels to the asker; any other exception is logged and
        answered as an internal error. Requests past their deadline are dropped.
        """
        await serve(self, service, answer, concurrency)

    async def served(self, service: str) -> bool:
        """Whether anybody ever listened for requests to `service`; if not, no answer will come."""
        return await self._asks.served(service)

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


def _xadd(stream: str, *fields: str | bytes | int) -> Command:
    keep = streams.keep(stream)
    trim: Command = () if keep is None else ("MAXLEN", "~", keep)
    return ("XADD", stream, *trim, "*", *fields)


def _count(channel: str, kind: str, count: int) -> None:
    metrics.redis_messages_total.labels(channel, kind).inc(count)
