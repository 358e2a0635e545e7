"""The rehearsal model: a local server that speaks the Messages API and follows a script.

No intelligence and no claim to any. Without a script it does the simplest honest thing. Nothing
is remembered but how often a fault was acted out and which prefixes were cached, both bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from base import log
from base.errors import SettingsError
from base.settings import Settings
from workers import rehearsal_script as script
from workers import rehearsal_wire as wire
from workers.rehearsal_script import Caller, Cue, Line, Script
from workers.rehearsal_turn import choose, who

RECENT = 1000
FAULTS = 10_000
BACKLOG = 256

logger = log.get("rehearsal")


class Rehearsal:
    """The server's state: counters, the faults acted out so far, cached prefixes."""

    def __init__(self) -> None:
        self._calls = 0
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self._acted: OrderedDict[str, int] = OrderedDict()
        self._cache = wire.Cache()
        self.app = Starlette(
            routes=[
                Route("/v1/messages", self.messages, methods=["POST"]),
                Route("/v1/messages/count_tokens", self.count, methods=["POST"]),
                Route("/health", self.health),
                Route("/rehearsal/calls", self.calls),
            ]
        )

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "model": "rehearsal"})

    async def calls(self, request: Request) -> Response:
        """How many model calls came in; of the last 1,000 who made them, which images and
        documents they brought, when they arrived and when their reply had ended (seconds of Unix
        time; None: it has not)."""
        return JSONResponse({"calls": self._calls, "recent": list(self._recent)})

    async def count(self, request: Request) -> Response:
        body = json.loads(await request.body())
        why = wire.refusal({**body, "max_tokens": 1} if isinstance(body, dict) else body)
        if why:
            return _error(400, "invalid_request_error", why)
        counts = wire.Cache().count(body)
        return JSONResponse({"input_tokens": sum(counts.values())})

    async def messages(self, request: Request) -> Response:
        record: dict[str, Any] = {"user_id": "", "arrived_at": time.time(), "ended_at": None}
        self._recent.append(record)
        self._calls += 1
        raw = await request.body()
        try:
            body = json.loads(raw)
            user_id = (body.get("metadata") or {}).get("user_id") or ""
        except (ValueError, AttributeError):
            return _error(400, "invalid_request_error", "the body is not a JSON object")
        record["user_id"] = user_id
        if len(raw) > wire.REQUEST_MAX_BYTES:
            return _error(413, "request_too_large", "request exceeds the maximum size")
        if why := wire.refusal(body):
            return _error(400, "invalid_request_error", why)
        record["files"] = wire.files(body)
        caller = who(user_id, body)
        choice = choose(body, caller, self._cache.count(body))
        turn, cue = choice.turn, choice.cue
        fault = self._fault(cue, caller, choice.script)
        await asyncio.sleep(cue.delay_ms / 1000)
        ended = BackgroundTask(lambda: record.update(ended_at=time.time()))
        if fault is not None and fault.fault not in script.STREAM_FAULTS:
            answer = _refused(fault)
        else:
            answer = _Reply(turn, bool(body.get("stream")), cue.chunk_ms / 1000, fault)
        answer.background = ended
        return answer

    def _fault(self, cue: Cue, caller: Caller, found: Script) -> Line | None:
        """The fault to act out now, if one of the line's is not used up for this task."""
        for number, line in cue.faults:
            told = f"{found.text}\0{number}\0{caller.name}\0{caller.task}"
            key = hashlib.sha256(told.encode()).hexdigest()
            acted = self._acted.get(key, 0)
            if acted < line.times:
                self._acted[key] = acted + 1
                self._acted.move_to_end(key)
                if len(self._acted) > FAULTS:
                    self._acted.popitem(last=False)
                return line
        return None


class _Reply(Response):
    """A reply as server-sent events or as one JSON object, perhaps with a fault in its middle."""

    def __init__(self, turn: wire.Turn, stream: bool, chunk_s: float, fault: Line | None) -> None:
        super().__init__()
        self._turn = turn
        self._stream = stream
        self._chunk_s = chunk_s
        self._fault = fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = b"text/event-stream; charset=utf-8" if self._stream else b"application/json"
        headers = [(b"content-type", kind)]
        headers += [(key.encode(), value.encode()) for key, value in _headers().items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for part in self._parts():
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if self._fault is None or self._fault.fault != "cut":
            await send({"type": "http.response.body", "body": b""})
        # A cut returns without an end; the server then closes the connection.
        if self.background is not None:
            await self.background()

    async def _parts(self) -> AsyncIterator[bytes]:
        if self._stream:
            parts = [wire.encode(name, data) for name, data in wire.events(self._turn)]
            half = _half(parts)
        else:
            whole = json.dumps(wire.message(self._turn)).encode()
            half = 1
            parts = [whole[: len(whole) // 2], whole[len(whole) // 2 :]]
        if self._fault is not None:
            kind = self._fault.fault
            if kind == "silence":
                yield b"".join(parts[:half])
                await asyncio.sleep(self._fault.seconds_s)
                parts = parts[half:]
            elif kind == "malformed":
                parts[half] = b'event: content_block_delta\ndata: {"type": "content_blo\n\n'
            elif kind == "overloaded":
                told = {"error": {"type": "overloaded_error", "message": "Overloaded"}}
                parts[half:] = [wire.encode("error", told)]
            else:
                del parts[half:]
        if not self._chunk_s:
            yield b"".join(parts)
            return
        for part in parts:
            yield part
            await asyncio.sleep(self._chunk_s)


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop`. Raises SettingsError when the port is taken."""
    port = int(settings.rehearsal_url.rpartition(":")[2])
    # With the protocol named, asyncio sends without Nagle's delay of 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        told = f"port {port} is in use; set AI_INFRA_REHEARSAL_PORT to a free one"
        raise SettingsError([told]) from error
    listener.listen(BACKLOG)
    config = uvicorn.Config(
        Rehearsal().app,
        log_config=None,
        log_level="critical",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    logger.info("started", port=port)
    await _Server(config, stop).serve(sockets=[listener])
    logger.info("stopped", port=port)


class _Server(uvicorn.Server):
    """uvicorn without its own signals and clock: the program's `stop` ends it."""

    def __init__(self, config: uvicorn.Config, stop: asyncio.Event) -> None:
        super().__init__(config)
        self._stop = stop

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self._stop.wait()


def _half(parts: list[bytes]) -> int:
    """Where a fault strikes: amid the last block's pieces, which is a tool call if there is one."""
    deltas = [at for at, part in enumerate(parts) if part.startswith(b"event: content_block_delta")]
    starts = [at for at, part in enumerate(parts) if part.startswith(b"event: content_block_start")]
    last = [at for at in deltas if at > starts[-1]] if starts else []
    return last[(len(last) + 1) // 2] if len(last) > 1 else (last[0] if last else 1)


def _refused(fault: Line) -> Response:
    asked = {} if fault.retry_after_s is None else {"retry-after": f"{fault.retry_after_s:g}"}
    if fault.fault == "spend_limit":
        code = {"error_code": "enforced_spend_limit_reached"}
        return _error(429, "rate_limit_error", "Spend limit reached (rehearsed)", asked, code)
    status = str(fault.fault)
    kind = script.STATUS[status]
    return _error(int(status), kind, f"{kind.replace('_', ' ')} (rehearsed)", asked)


def _error(
    status: int,
    kind: str,
    told: str,
    headers: dict[str, str] | None = None,
    details: dict[str, str] | None = None,
) -> Response:
    ours = _headers()
    error = {"type": kind, "message": told} | ({"details": details} if details else {})
    body = {"type": "error", "error": error, "request_id": ours["request-id"]}
    return JSONResponse(body, status_code=status, headers=ours | (headers or {}))


def _headers() -> dict[str, str]:
    return {"request-id": f"req_{uuid.uuid4().hex[:24]}"}
