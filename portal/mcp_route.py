"""`/mcp`: the Model Context Protocol over streamable HTTP, for clients such as Claude Code.

Only a token in the `Authorization` header gets in: what a browser sends by itself does not, and a
page of another origin is refused before anything else. The server behind it is loaded at the first
request that may come in, since it is large and most installations never ask.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from fastapi import FastAPI
from starlette.requests import HTTPConnection
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from base.errors import AIError, ForbiddenError, UnauthenticatedError
from portal.auth import Caller
from portal.door import UNKNOWN, caller_of, count, desk_of, refused
from portal.limits import same_origin
from portal.problems import from_error, problem, status_of

PATH = "/mcp"


class Sessions(Protocol):
    """The package's server: `run` is entered once, requests come meanwhile."""

    def run(self) -> AbstractAsyncContextManager[None]: ...

    async def handle_request(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class Mcp:
    """The route. `run` for as long as the portal lives."""

    def __init__(self) -> None:
        self._wanted = asyncio.Event()
        self._sessions: asyncio.Future[Sessions] | None = None

    async def run(self) -> None:
        """Load the server once it is wanted, and keep it going."""
        self._sessions = asyncio.get_running_loop().create_future()
        try:
            await self._wanted.wait()
            sessions = await asyncio.to_thread(_load)
            async with sessions.run():
                self._sessions.set_result(sessions)
                await asyncio.Event().wait()
        finally:
            self._sessions.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises nothing: what is refused is a problem document."""
        connection = HTTPConnection(scope)
        caller: Caller | None = None
        try:
            caller = await _known(connection)
            await count(desk_of(connection), connection, caller)
        except AIError as error:
            if (status := status_of(error)) in {401, 403}:
                refused(connection, caller, status)
            await from_error(error, scope["path"])(scope, receive, send)
            return
        if scope["method"] != "POST":  # nothing is pushed outside of an answer
            said = "MCP is spoken by POST here."
            answer = problem(405, said, scope["path"], headers={"Allow": "POST"})
            await answer(scope, receive, send)
            return
        if self._sessions is None:
            raise RuntimeError("the portal is not running")
        self._wanted.set()
        sessions = await asyncio.shield(self._sessions)
        scope.setdefault("state", {})["caller"] = caller
        await sessions.handle_request(scope, receive, send)


def install(app: FastAPI, mcp: Mcp) -> None:
    """Put the route on `app`, ahead of the pages."""
    app.router.routes.append(Route(PATH, mcp, include_in_schema=False))


async def _known(connection: HTTPConnection) -> Caller:
    if not same_origin(connection.headers):
        raise ForbiddenError("a page of another origin may not ask here")
    if "authorization" not in connection.headers:
        await count(desk_of(connection), connection, None)
        raise UnauthenticatedError(UNKNOWN)
    try:
        return await caller_of(connection)
    except UnauthenticatedError:
        await count(desk_of(connection), connection, None)
        raise


def _load() -> Sessions:
    from portal.mcp_tools import sessions

    return sessions()
