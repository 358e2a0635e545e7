"""A connection to one MCP server. The one file that knows the `mcp` package, which is large:
import it only when an agent has servers, and in a thread.

What a server asks for itself (a model's answer, a person's input, folders) is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio
import httpx2
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp import Client, MCPError, types
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from pydantic import TypeAdapter, ValidationError

from agents.mcp_answer import Answer
from agents.mcp_offer import Listed, clean
from base.deadline import Deadline
from base.errors import McpError

#: The longest message of a server that is taken in.
MESSAGE_MAX_BYTES = 4_000_000
#: Pages of a listing, each with as many tools as the server likes.
PAGES_MAX = 10
LISTED_MAX = 1_000
CLOSE_S = 5.0
CONNECT_S = 10.0
REASON_CHARS = 300
ENDED = "the connection has ended"
#: What the package says when a listening server forgot the session, or went away.
SESSION_LOST = frozenset({"Session terminated", "Connection closed"})
TOO_LONG = f"its answer had over {MESSAGE_MAX_BYTES:,} bytes; ask for less"
LATE = "it did not answer in time"

#: The package logs what servers send, addresses and texts included.
for name in ("client", "mcp", "mcp_types"):
    logging.getLogger(name).setLevel(logging.CRITICAL)


class Pipes(Protocol):
    """A server's two ends; `stdout` takes lines of up to MESSAGE_MAX_BYTES."""

    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader


class Connection:
    """Open it, call, close it; all from any task. After `gone` every call raises McpError."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._over = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self.gone = False

    @classmethod
    async def start(cls, process: Pipes, deadline: Deadline) -> Connection:
        """Speak with a started server; its process is the caller's to end."""
        one = cls()
        return await one._open(_pipes(process, one._lose), deadline)

    @classmethod
    async def reach(cls, url: str, headers: Mapping[str, str], deadline: Deadline) -> Connection:
        """Speak with a listening server. Only that address: no proxy, no other host."""
        return await cls()._open(_http(url, headers), deadline)

    async def list(self, deadline: Deadline) -> tuple[Listed, ...]:
        """All tools of the server, as it tells of them now. McpError."""
        found: list[Listed] = []
        cursor: str | None = None
        for _ in range(PAGES_MAX):
            params = types.PaginatedRequestParams(cursor=cursor) if cursor else None
            page = await self._in_time(self._session().list_tools(params=params), deadline)
            found += [
                Listed(name=one.name, description=one.description or "", input_schema=dict(schema))
                for one in page.tools
                if isinstance(schema := one.input_schema, dict)
            ]
            cursor = page.next_cursor
            if not cursor or len(found) > LISTED_MAX:
                break
        return tuple(found[:LISTED_MAX])

    async def call(self, tool: str, given: dict[str, Any], deadline: Deadline) -> Answer:
        """One tool call. What the tool itself says went wrong is an answer; else McpError.

        The answer is not held against the tool's output schema: nobody here relies on its shape.
        """
        request = types.CallToolRequest(
            params=types.CallToolRequestParams(name=tool, arguments=given)
        )
        said = await self._in_time(self._session().send_request(request, _ANSWER), deadline)
        if isinstance(said, types.InputRequiredResult):
            return Answer(ok=False, parts=("the server asked for more input, which is refused",))
        parts = tuple(_told(block) for block in said.content)
        if not any(part.strip() for part in parts) and said.structured_content is not None:
            parts = (json.dumps(said.structured_content, ensure_ascii=False),)
        return Answer(ok=not said.is_error, parts=parts)

    async def close(self) -> None:
        """Safe to call twice. What hangs is cancelled."""
        self._over.set()
        runner, self._runner = self._runner, None
        if runner is not None:
            done, _ = await asyncio.wait({runner}, timeout=CLOSE_S)
            if not done:
                runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)

    def _lose(self) -> None:
        self.gone = True

    async def _open(self, streams: Any, deadline: Deadline) -> Connection:
        self._runner = asyncio.create_task(self._run(streams), name="mcp-connection")
        try:
            async with asyncio.timeout(deadline.left_s):
                self._client = await asyncio.shield(self._ready)
        except TimeoutError as error:
            self._runner.cancel()
            await self.close()
            raise McpError(LATE) from error
        except BaseException:
            await self.close()
            raise
        return self

    async def _run(self, streams: Any) -> None:
        """Owns the client from its opening to its end: both must happen in one task."""
        reason: BaseException | None = None
        try:
            async with Client(streams, cache=None, client_info=_WHO) as client:
                self._ready.set_result(client)
                await self._over.wait()
        except Exception as error:
            reason = error
        finally:
            self.gone = True
            if not self._ready.done():
                fault = McpError(_reason(reason) if reason else "it ended")
                fault.__cause__ = reason
                self._ready.set_exception(fault)
                self._ready.exception()

    def _session(self) -> Any:
        if self._client is None or self.gone:
            raise McpError(ENDED)
        return self._client.session

    async def _in_time(self, asked: Coroutine[Any, Any, Any], deadline: Deadline) -> Any:
        """The answer before the deadline, or McpError at the latest when the connection ends."""
        answer = asyncio.create_task(asked, name="mcp-answer")
        runner = self._runner
        try:
            both = {answer} if runner is None else {answer, runner}
            await asyncio.wait(both, timeout=deadline.left_s, return_when=asyncio.FIRST_COMPLETED)
            ended, late = self.gone and not answer.done(), not answer.done()
        finally:
            if not answer.done():
                answer.cancel()
                await asyncio.wait({answer}, timeout=CLOSE_S)
        if ended:
            raise McpError(ENDED)
        if late:
            raise McpError(LATE)
        try:
            return answer.result()
        except MCPError as error:
            if self.gone or error.message in SESSION_LOST:
                self.gone = True
                raise McpError(ENDED) from error
            raise McpError(_reason(error)) from error
        except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError) as error:
            self.gone = True
            raise McpError(ENDED) from error
        except (ValidationError, RuntimeError, ValueError) as error:
            raise McpError(f"its answer is no MCP: {_reason(error)}") from error


async def _read(
    process: Pipes,
    out: MemoryObjectSendStream[SessionMessage | Exception],
    open_ids: set[Any],
    lost: Callable[[], None],
) -> None:
    """The server's messages, a line each. One that is too long answers all that was asked."""
    async with out:
        while True:
            try:
                line = await process.stdout.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                lost()
                return
            except asyncio.LimitOverrunError as error:
                await _skip(process.stdout, error.consumed)
                for number in sorted(open_ids, key=str):
                    await out.send(_fault(number, TOO_LONG))
                open_ids.clear()
                continue
            try:
                message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError:
                continue  # a server that prints to stdout: the noise is passed over
            if isinstance(message, types.JSONRPCResponse | types.JSONRPCError):
                open_ids.discard(message.id)
            await out.send(SessionMessage(message))


async def _skip(stdout: asyncio.StreamReader, size_bytes: int) -> None:
    """Pass over the rest of a line."""
    while True:
        await stdout.readexactly(size_bytes)
        try:
            await stdout.readuntil(b"\n")
            return
        except asyncio.LimitOverrunError as error:
            size_bytes = error.consumed


async def _write(
    process: Pipes, source: MemoryObjectReceiveStream[SessionMessage], open_ids: set[Any]
) -> None:
    async with source:
        async for one in source:
            if isinstance(one.message, types.JSONRPCRequest):
                open_ids.add(one.message.id)
            data = one.message.model_dump_json(by_alias=True, exclude_unset=True)
            process.stdin.write(data.encode() + b"\n")
            await process.stdin.drain()


@asynccontextmanager
async def _pipes(process: Pipes, lost: Callable[[], None]) -> AsyncGenerator[Any]:
    """The client's two streams over a process's pipes; `lost` is called when it ended."""
    to_client, from_server = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_server, from_client = anyio.create_memory_object_stream[SessionMessage](0)
    open_ids: set[Any] = set()

    async def write() -> None:
        with contextlib.suppress(OSError, anyio.ClosedResourceError):
            await _write(process, from_client, open_ids)
        await to_client.aclose()

    async def read() -> None:
        quiet = (asyncio.IncompleteReadError, OSError, anyio.ClosedResourceError)
        with contextlib.suppress(*quiet, anyio.BrokenResourceError):
            await _read(process, to_client, open_ids, lost)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        group.start_soon(write)
        try:
            yield from_server, to_server
        finally:
            group.cancel_scope.cancel()
            for stream in (to_client, from_server, to_server, from_client):
                stream.close()


@asynccontextmanager
async def _http(url: str, headers: Mapping[str, str]) -> AsyncGenerator[Any]:
    """The client's two streams over streamable HTTP. Redirects within the origin are followed."""
    limits_s = httpx2.Timeout(CONNECT_S, read=None)
    transport = _Capped(httpx2.AsyncHTTPTransport(trust_env=False))
    async with (
        httpx2.AsyncClient(
            transport=transport, trust_env=False, headers=dict(headers), timeout=limits_s
        ) as client,
        streamable_http_client(
            url, http_client=client, max_sse_event_size=MESSAGE_MAX_BYTES
        ) as streams,
    ):
        yield streams


class _Capped(httpx2.AsyncBaseTransport):
    """Takes in no answer longer than MESSAGE_MAX_BYTES; a stream of events may go on."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        kind = response.headers.get("content-type", "").lower()
        if not kind.startswith("text/event-stream"):
            response.stream = _Counted(response.stream)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size_bytes = 0
        async for piece in self._inner:
            size_bytes += len(piece)
            if size_bytes > MESSAGE_MAX_BYTES:
                raise httpx2.StreamError(TOO_LONG)
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


def _fault(number: Any, text: str) -> SessionMessage:
    error = types.ErrorData(code=types.INTERNAL_ERROR, message=text)
    return SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=number, error=error))


def _told(block: types.ContentBlock) -> str:
    """A part of an answer as text; what is no text is described."""
    match block:
        case types.TextContent():
            return block.text
        case types.ImageContent() | types.AudioContent():
            return (
                f"[{block.type} {block.mime_type}, {len(block.data) * 3 // 4:,} bytes: not shown]"
            )
        case types.ResourceLink():
            return f"[resource {block.name}: {block.uri}, not read]"
        case types.EmbeddedResource():
            held = block.resource
            if isinstance(held, types.TextResourceContents):
                return f"[resource {held.uri}]\n{held.text}"
            return f"[resource {held.uri} {held.mime_type or ''}, binary: not shown]"


def _reason(error: BaseException) -> str:
    """One line; of a group, the first that is no cancellation."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    line = " ".join(clean(str(error)).split())[:REASON_CHARS]
    return line or type(error).__name__


_ANSWER: TypeAdapter[types.CallToolResult | types.InputRequiredResult] = TypeAdapter(
    types.CallToolResult | types.InputRequiredResult
)
_WHO = types.Implementation(name="ai-infrastructure", version="1")
