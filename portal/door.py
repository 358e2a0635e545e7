"""Who stands behind a request: the token or the cookie, asked for once, before the body is read;
whether they asked too often; and what is written down when they were refused.

A cookie comes along by itself, so it counts only when the browser says that the request was made
by a page of ours: a write needs a matching Origin, a read must not be known to come from another
site. A token in a header cannot be sent by somebody else's page and needs neither.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated, cast

from fastapi import Depends, Header, Request
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from base import metrics
from base.errors import AIError, UnauthenticatedError
from portal.auth import Caller, admin_only
from portal.desk import Desk
from portal.limits import same_origin, within
from portal.peer import neighbourhood, peer_of
from portal.problems import from_error
from portal.trail import READING, event

COOKIE = "ai-infra"
OPEN_PATHS = frozenset(
    {"/api/auth/login", "/api/auth/refresh", "/api/health/live", "/api/health/ready"}
)
FREE_PATHS = frozenset({"/api/health/live", "/api/health/ready"})
OFTEN = "too many requests"
PREMIUM = frozenset({"admin", "system"})
LOGIN_PATH = "/api/auth/login"
UNKNOWN = "no token: send `Authorization: Bearer …`, or log in"


class Door:
    """ASGI middleware: 401 for every `/api` path that is not open to all, 429 beyond the limits."""

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

        connection, caller = HTTPConnection(scope), None
        try:
            try:
                if path not in OPEN_PATHS:
                    caller = await caller_of(connection)
                    scope.setdefault("state", {})["caller"] = caller
                if path not in FREE_PATHS:
                    await count(desk_of(connection), connection, caller)
            except AIError as error:
                await from_error(error, path)(scope, receive, sending)
                return
            await self.app(scope, receive, sending)
        finally:
            if status in {401, 403} and path != LOGIN_PATH:  # a login tells more of itself
                refused(connection, caller, status)
            # FastAPI leaves the prefix of an included router out of the route's own path.
            route = (
                "/api/" + getattr(scope.get("route"), "path", "/unknown").removeprefix("/api")[1:]
            )
            method = scope["method"]
            metrics.api_requests_total.labels(method, route, str(status)).inc()
            took_s = time.perf_counter() - started_s
            metrics.api_request_duration_seconds.labels(method, route).observe(took_s)


async def count(desk: Desk, connection: HTTPConnection, caller: Caller | None) -> None:
    """One request of `caller`, or of an address. Raises TooManyError."""
    if caller is None:
        peer = peer_of(connection, desk.settings)
        await within(desk.limiter, "api.anonymous", neighbourhood(peer), OFTEN)
    else:
        what = "api.premium" if caller.role in PREMIUM else "api.authenticated"
        await within(desk.limiter, what, caller.user_id, OFTEN)


def refused(connection: HTTPConnection, caller: Caller | None, status: int) -> None:
    """Have it written down that somebody was turned away."""
    desk, method = desk_of(connection), connection.scope.get("method", "GET")
    desk.tell(
        event(
            "access",
            "read" if method in READING else "write",
            connection.url.path,
            caller=caller,
            peer=peer_of(connection, desk.settings),
            outcome="denied",
            resource_type="endpoint",
            risk="medium" if status == 403 else "low",
            method=method,
            status=status,
        )
    )


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
    try:
        caller = await _known(connection, desk)
    except UnauthenticatedError:
        if connection.url.path.startswith("/api/"):  # a wrong token counts by address
            await count(desk, connection, None)
        raise
    return replace(caller, peer=peer_of(connection, desk.settings))


async def _known(connection: HTTPConnection, desk: Desk) -> Caller:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme:
        if scheme.lower() != "bearer" or not token.strip():
            raise UnauthenticatedError(UNKNOWN)
        return await desk.auth.by_token(token.strip())
    cookie = connection.cookies.get(cookie_name(connection))
    if cookie is None:
        raise UnauthenticatedError(UNKNOWN)
    method = connection.scope.get("method", "GET")
    needs_origin = method not in READING or connection.scope["type"] == "websocket"
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
