"""What every request passes first: size, origin, security headers, counting."""

from __future__ import annotations

import time
from collections import deque
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from base.errors import TooManyError
from portal.problems import problem

BODY_MAX_BYTES = 1_000_000
TOO_LARGE = f"The request body is larger than {BODY_MAX_BYTES:,} bytes."

#: NiceGUI compiles Vue templates in the browser and writes inline scripts and styles into its
#: page, which forces 'unsafe-eval' and 'unsafe-inline'; no host but this one is allowed.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)


class Limits:
    """ASGI middleware: 413 over the limit (also for bodies without a length), headers on all
    answers, and no WebSocket from a page of another origin.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and not same_origin(Headers(scope=scope)):
            await send({"type": "websocket.close", "code": 4403, "reason": "another origin"})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                _secure(MutableHeaders(scope=message), scope["path"])
            await send(message)

        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length) > BODY_MAX_BYTES:
            await problem(413, TOO_LARGE, scope["path"])(scope, receive, sending)
            return
        got_bytes = 0

        async def receiving() -> Message:
            nonlocal got_bytes
            message = await receive()
            got_bytes += len(message.get("body", b""))
            if got_bytes > BODY_MAX_BYTES:
                raise HTTPException(413, TOO_LARGE)
            return message

        await self.app(scope, receiving, sending)


def same_origin(headers: Headers) -> bool:
    """False when a browser says that a page of another host asks. No Origin: no browser."""
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def _secure(headers: MutableHeaders, path: str) -> None:
    headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("X-Frame-Options", "DENY")
    headers.setdefault("Referrer-Policy", "same-origin")
    if path.startswith(("/api/", "/login")):
        headers.setdefault("Cache-Control", "no-store")


class Attempts:
    """At most `count` attempts a key within `window_s`; in this process, at most 10,000 keys."""

    def __init__(self, count: int, window_s: float, *, keys: int = 10_000) -> None:
        self._count = count
        self._window_s = window_s
        self._keys = keys
        self._seen: dict[str, deque[float]] = {}

    def take(self, key: str) -> None:
        """Count one attempt. Raises TooManyError when the window is full."""
        now = time.monotonic()
        seen = self._seen.pop(key, None) or deque()
        self._seen[key] = seen
        while seen and seen[0] <= now - self._window_s:
            seen.popleft()
        if len(seen) >= self._count:
            left_s = seen[0] + self._window_s - now
            raise TooManyError(f"too many attempts; try again in {left_s / 60:.0f} min", left_s)
        seen.append(now)
        while len(self._seen) > self._keys:
            del self._seen[next(iter(self._seen))]

    def forget(self, key: str) -> None:
        """The attempts of `key` succeeded: start afresh."""
        self._seen.pop(key, None)
