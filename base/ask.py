"""Request and reply over the bus, with a deadline.

A request is a Message of type query on `ask:<service>`; its payload names the asker's reply
list and the deadline in Unix milliseconds. Every Bus has one reply list and one reader of it,
so an ask that waits holds no connection. The reply is JSON: `id` of the request and `answer`,
or `error` with the class of the AIError, its message and its fields.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from base import log, streams
from base.deadline import Deadline
from base.errors import AIError, NoAnswerError
from base.messages import Message, Type, encode

if TYPE_CHECKING:
    from base.bus import Bus, Command, Delivery

logger = log.get(__name__)

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
#: Requests in work are kept alive this often, so that they are not taken for abandoned.
KEEPALIVE_S = 15.0
BLOCK_S = 10


class Asks:
    """The asking side of one Bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._reply_key = streams.REPLY_PREFIX + str(uuid.uuid4())
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._served: set[str] = set()

    async def served(self, service: str) -> bool:
        """See `Bus.served`. Redis is not asked again about one that was."""
        if service not in self._served:
            (found,) = await self._bus.post(("XINFO", "GROUPS", streams.ask(service)))
            if isinstance(found, list) and found:
                self._served.add(service)
        return service in self._served

    async def ask(
        self, service: str, payload: dict[str, Any], deadline: Deadline
    ) -> dict[str, Any]:
        late = NoAnswerError(f"{service} did not answer in time")
        if deadline.passed:
            raise late
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read(), name="bus replies")
        request = Message(
            source=self._bus.name,
            target=service,
            type=Type.QUERY,
            payload={
                "payload": payload,
                "reply": self._reply_key,
                "deadline_unix_ms": int((time.time() + deadline.left_s) * 1000),
            },
        )
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = future
        stream, place = streams.ask(service), None
        try:
            async with asyncio.timeout(deadline.left_s):
                (place,) = await self._bus.call(("XADD", stream, "*", "data", encode(request)))
                reply = await future
        except TimeoutError:
            if place is not None:  # nobody needs it now; unread requests must not pile up
                self._bus.post(("XDEL", stream, place))
            raise late from None
        finally:
            del self._waiting[request.id]
        if (fault := reply.get("error")) is not None:
            raise _error(fault)
        answer: dict[str, Any] = reply["answer"]
        return answer

    async def _read(self) -> None:
        async with contextlib.aclosing(self._bus.line()) as line:
            while True:
                found = await line.one("BLPOP", self._reply_key, BLOCK_S, block_s=BLOCK_S)
                if found is None:
                    continue
                reply = json.loads(found[1])
                future = self._waiting.get(reply["id"])
                if future is not None and not future.done():
                    future.set_result(reply)

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)


async def serve(bus: Bus, service: str, answer: Answer, concurrency: int) -> None:
    """See `Bus.serve`. On cancel, requests in work are cancelled and come again at restart."""
    stream, group = streams.ask(service), streams.GROUP_SERVICE
    free = asyncio.Semaphore(concurrency)
    running: set[asyncio.Task[None]] = set()

    async def keep() -> None:
        while True:
            await asyncio.sleep(KEEPALIVE_S)
            with contextlib.suppress(AIError):  # the bus logs its outages itself
                await bus.keepalive(stream, group, *bus.hold(stream, group))

    def ended(task: asyncio.Task[None]) -> None:
        running.remove(task)
        free.release()

    keeper = asyncio.create_task(keep(), name=f"keepalive {service}")
    try:
        async with contextlib.aclosing(bus.consume(stream, group, batch=concurrency)) as work:
            async for deliveries in work:
                for delivery in deliveries:
                    await free.acquire()
                    reply = _reply(bus, service, answer, delivery)
                    task = asyncio.create_task(reply, name=f"reply {service}")
                    running.add(task)
                    task.add_done_callback(ended)
    finally:
        for task in (keeper, *running):
            task.cancel()
        await asyncio.gather(keeper, *running, return_exceptions=True)


async def _reply(bus: Bus, service: str, answer: Answer, delivery: Delivery) -> None:
    stream, request = streams.ask(service), delivery.message
    try:
        payload: dict[str, Any] = request.payload["payload"]
        key, deadline_unix_ms = request.payload["reply"], request.payload["deadline_unix_ms"]
        told: tuple[Command, ...] = ()
        if time.time() * 1000 < deadline_unix_ms:
            reply = await _answered(service, answer, request.id, payload)
            told = ("RPUSH", key, reply), ("EXPIRE", key, streams.REPLY_TTL_S)
        await bus.ack(stream, streams.GROUP_SERVICE, delivery.id, after=told)
    except (KeyError, TypeError) as error:
        await bus.bury(stream, streams.GROUP_SERVICE, delivery, f"malformed request: {error!r}")
    except AIError as error:
        bus.hold(stream, streams.GROUP_SERVICE).discard(delivery.id)  # comes again once idle
        logger.warning("could not reply", stream=stream, error=str(error))


async def _answered(service: str, answer: Answer, id: str, payload: dict[str, Any]) -> bytes:
    """The reply to request `id`, as it goes on the wire."""
    try:
        return to_json({"id": id, "answer": await answer(payload)})
    except AIError as error:
        fields = {key: value for key, value in vars(error).items() if _plain(value)}
        fault = {"type": type(error).__name__, "message": str(error), "fields": fields}
    except Exception:
        logger.exception("answering failed", service=service)
        fault = {"type": "AIError", "message": f"internal error in {service}"}
    return to_json({"id": id, "error": fault})


def _plain(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return all(isinstance(item, str) for item in value)
    return value is None or isinstance(value, (str, int, float, bool))


def _error(fault: dict[str, Any]) -> AIError:
    """The error as its class, without running its constructor; unknown classes as AIError."""
    classes = {cls.__name__: cls for cls in _tree(AIError)}
    cls = classes.get(fault["type"], AIError)
    error = cls.__new__(cls)
    Exception.__init__(error, fault["message"])
    for key, value in fault.get("fields", {}).items():
        setattr(error, key, tuple(value) if isinstance(value, list) else value)
    return error


def _tree(root: type[AIError]) -> Iterator[type[AIError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)
