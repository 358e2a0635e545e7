"""Who stands behind a request: the token or the cookie, asked for once, before the body is read.

A cookie comes along by itself, so it counts only when the browser says that the request was made
by a page of ours: a write needs a matching Origin, a read must not be known to come from another
site. A token in a header cannot be sent by somebody else's page and needs neither.
"""

from __future__ import annotations

import time
from typing import Annotated, cast

from fastapi import Depends, Header, Request
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from base import metrics
from base.errors import AIError, UnauthenticatedError
from portal.auth import Caller, admin_only
from portal.desk import Desk
from portal.limits import same_origin
from portal.problems import from_error

COOKIE = "ai-infra"
OPEN_PATHS = frozenset(
    {"/api/auth/login", "/api/auth/refresh", "/api/health/live", "/api/health/ready"}
)
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
UNKNOWN = "no token: send `Authorization: Bearer …`, or log in"


class Door:
    """ASGI middleware: 401 for every `/api` path that is not open to all; counts requests."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith("/api/"):
            await self.app(scope, receive, send)
            return
        started_s, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            if path not in OPEN_PATHS:
                try:
                    scope.setdefault("state", {})["caller"] = await caller_of(HTTPConnection(scope))
                except AIError as error:
                    await from_error(error, path)(scope, receive, sending)
                    return
            await self.app(scope, receive, sending)
        finally:
            # FastAPI leaves the prefix of an included router out of the route's own path.
            route = (
                "/api/" + getattr(scope.get("route"), "path", "/unknown").removeprefix("/api")[1:]
            )
            method = scope["method"]
            metrics.api_requests_total.labels(method, route, str(status)).inc()
            took_s = time.perf_counter() - started_s
            metrics.api_request_duration_seconds.labels(method, route).observe(took_s)


def secure(connection: HTTPConnection) -> bool:
    """Whether the browser reached us over https, perhaps through nginx."""
    proto = connection.headers.get("x-forwarded-proto", connection.url.scheme)
    return proto in {"https", "wss"}


def cookie_name(connection: HTTPConnection) -> str:
    """`__Host-` binds the cookie to this host; browsers allow it over https only."""
    return "__Host-" + COOKIE if secure(connection) else COOKIE


async def caller_of(connection: HTTPConnection, desk: Desk | None = None) -> Caller:
    """Raises UnauthenticatedError when nobody known is asking. `desk`: where a mounted
    application asks, which has a state of its own.
    """
    desk = desk or desk_of(connection)
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme:
        if scheme.lower() != "bearer" or not token.strip():
            raise UnauthenticatedError(UNKNOWN)
        return await desk.auth.by_token(token.strip())
    cookie = connection.cookies.get(cookie_name(connection))
    if cookie is None:
        raise UnauthenticatedError(UNKNOWN)
    method = connection.scope.get("method", "GET")
    needs_origin = method not in SAFE or connection.scope["type"] == "websocket"
    site = connection.headers.get("sec-fetch-site", "none")
    foreign = not same_origin(connection.headers) or site not in {"same-origin", "none"}
    if foreign or (needs_origin and "origin" not in connection.headers):
        raise UnauthenticatedError("a cookie counts only for requests from our own pages")
    return await desk.auth.by_cookie(cookie)


def desk_of(connection: HTTPConnection) -> Desk:
    """The open desk of the portal that serves this connection."""
    return cast("Desk", connection.app.state.desk)


async def _caller(request: Request) -> Caller:
    return cast("Caller", request.state.caller)


async def _desk(request: Request) -> Desk:
    return desk_of(request)


bearer = HTTPBearer(auto_error=False, description="An access token of /api/auth/login.")

At = Annotated[Desk, Depends(_desk)]
Asking = Annotated[Caller, Depends(_caller)]
Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255)]


async def _admin(caller: Asking) -> Caller:
    admin_only(caller)
    return caller


Admin = Annotated[Caller, Depends(_admin)]
