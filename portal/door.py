"""Who stands behind a request: the token or the cookie, asked for once, before the body is read;
whether they asked too often; and what is written down when they were refused.

A cookie comes along by itself, so it counts only when the browser says that the request was made
by a page of ours: a write needs a matching Origin, a read must not be known to come from another
site, unless it opens one of our pages for a person to see. A token in a header cannot be sent by
somebody else's page and needs neither.

Every route says beside itself what an API token needs there: `dependencies=[need("tasks:read")]`.
Where nothing is said, API tokens are refused.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Annotated, Any, cast

from fastapi import Depends, Header, Request
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from base import metrics
from base.errors import AIError, UnauthenticatedError
from base.settings import Settings
from portal.auth import Caller, admin_only
from portal.desk import Desk
from portal.limits import same_origin, within
from portal.peer import neighbourhood, peer_of
from portal.problems import from_error
from portal.scopes import SESSION, allow
from portal.trail import READING, event

COOKIE = "ai-infra"
OPEN_PATHS = frozenset(
    {
        "/api/auth/login",
        "/api/auth/refresh",
        "/api/auth/oauth/google",
        "/api/auth/oauth/github",
        "/api/health/live",
        "/api/health/ready",
    }
)
FREE_PATHS = frozenset({"/api/health/live", "/api/health/ready"})
OFTEN = "too many requests"
PREMIUM = frozenset({"admin", "system"})
LOGIN_PATH = "/api/auth/login"
#: Where an API token counts; pages are for people.
PROGRAMS = ("/api/", "/ws", "/mcp", "/metrics")
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


def address_of(connection: HTTPConnection, settings: Settings) -> str:
    """How the one who asks reaches the portal, unless the settings say how everybody does."""
    scheme = "https" if secure(connection) else "http"
    return settings.public_url or f"{scheme}://{connection.headers.get('host', '')}"


def cookie_name(connection: HTTPConnection, name: str = COOKIE) -> str:
    """`__Host-` binds the cookie to this host; browsers allow it over https only."""
    return "__Host-" + name if secure(connection) else name


async def caller_of(connection: HTTPConnection, desk: Desk | None = None) -> Caller:
    """Raises UnauthenticatedError when nobody known is asking. `desk`: where a mounted
    application asks, which has a state of its own.
    """
    desk = desk or desk_of(connection)
    peer = peer_of(connection, desk.settings)
    try:
        caller = await _known(connection, desk, peer)
        if caller.scopes is not None and not connection.url.path.startswith(PROGRAMS):
            raise UnauthenticatedError("an API token opens no page; log in")
    except UnauthenticatedError:
        if connection.url.path.startswith("/api/"):  # a wrong token counts by address
            await count(desk, connection, None)
        raise
    return replace(caller, peer=peer)


async def _known(connection: HTTPConnection, desk: Desk, peer: str) -> Caller:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme:
        if scheme.lower() != "bearer" or not token.strip():
            raise UnauthenticatedError(UNKNOWN)
        return await desk.auth.by_token(token.strip(), peer=peer)
    cookie = connection.cookies.get(cookie_name(connection))
    if cookie is None:
        raise UnauthenticatedError(UNKNOWN)
    method = connection.scope.get("method", "GET")
    needs_origin = method not in READING or connection.scope["type"] == "websocket"
    foreign = not same_origin(connection.headers) or not _from_us(connection)
    if foreign or (needs_origin and "origin" not in connection.headers):
        raise UnauthenticatedError("a cookie counts only for requests from our own pages")
    return await desk.auth.by_cookie(cookie, peer=peer)


def _from_us(connection: HTTPConnection) -> bool:
    """Whether the browser does not say that another site asks. A link there may open a page of
    ours, in a window of its own: that site sees nothing of it.
    """
    headers = connection.headers
    if headers.get("sec-fetch-site", "none") in {"same-origin", "none"}:
        return True
    opened = headers.get("sec-fetch-mode") == "navigate"
    page = opened and headers.get("sec-fetch-dest") == "document"
    return page and not connection.url.path.startswith("/api/")


def desk_of(connection: HTTPConnection) -> Desk:
    """The open desk of the portal that serves this connection."""
    return cast("Desk", connection.app.state.desk)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Which scope an API token needs at a route. It only says so: `declared` looks."""

    scope: str

    def __call__(self) -> None:
        """Nothing to do: a dependency is how a route carries it."""


def need(scope: str) -> Any:
    """For a route's `dependencies`: what an API token needs there, from `portal.scopes`."""
    return Depends(Need(scope=scope))


def needed(route: Any) -> str | None:
    """What the route declares; None: nothing, so no API token gets in."""
    found = [one.dependency for one in getattr(route, "dependencies", ())]
    return next((one.scope for one in reversed(found) if isinstance(one, Need)), None)


async def declared(request: Request) -> None:
    """The one place where a route's declaration is held against the caller."""
    if (caller := getattr(request.state, "caller", None)) is not None:
        allow(caller, needed(request.scope.get("route")) or SESSION)


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
