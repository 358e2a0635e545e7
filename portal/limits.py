"""What every request passes first: size, origin, security headers, counting."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from base.errors import BusError, TooManyError
from base.limit import Limiter
from base.sound import LARGEST_BYTES
from portal.problems import problem

BODY_MAX_BYTES = 1_000_000
#: When somebody with too many connections may try again.
SEAT_S = 5.0
TOO_LARGE = "The request body is larger than {:,} bytes."
#: Where more may come in one request. Of a file for a message `limits.toml` says what is taken.
LARGER_BYTES = {
    ("POST", "/api/attachments"): 50_000_000,
    ("POST", "/api/voice/transcriptions"): LARGEST_BYTES,
}
#: A file that a page takes, with the form around it; a page that takes none has no such address.
PAGE_UPLOAD = re.compile(r"/_nicegui/client/[^/]+/upload/\d+")
PAGE_FILE_BYTES = 5_000_000
FORM_BYTES = 10_000
#: The files of a site.
DEPLOY = re.compile(r"/api/domains/[0-9a-fA-F-]{32,36}/deploy")
DEPLOY_MAX_BYTES = 200_000_000

#: NiceGUI compiles Vue templates in the browser and writes inline scripts and styles into its
#: page, which forces 'unsafe-eval' and 'unsafe-inline'; no host but this one is allowed.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)

#: Nothing of the device is for any page but ours, and of that only the microphone.
PERMISSIONS_POLICY = (
    "microphone=(self), camera=(), geolocation=(), display-capture=(), payment=(), usb=()"
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

        most_bytes = _most_bytes(scope["method"], scope["path"])
        too_large = TOO_LARGE.format(most_bytes)
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length) > most_bytes:
            await problem(413, too_large, scope["path"])(scope, receive, sending)
            return
        got_bytes = 0

        async def receiving() -> Message:
            nonlocal got_bytes
            message = await receive()
            got_bytes += len(message.get("body", b""))
            if got_bytes > most_bytes:
                raise HTTPException(413, too_large)
            return message

        with suppress(ClientDisconnect):  # who left in the middle of a body gets no answer
            await self.app(scope, receiving, sending)


def _most_bytes(method: str, path: str) -> int:
    """Of the body of such a request."""
    if method == "POST" and PAGE_UPLOAD.fullmatch(path):
        return PAGE_FILE_BYTES + FORM_BYTES
    if method == "POST" and DEPLOY.fullmatch(path):
        return DEPLOY_MAX_BYTES
    return LARGER_BYTES.get((method, path), BODY_MAX_BYTES)


def same_origin(headers: Headers) -> bool:
    """False when a browser says that a page of another host asks. No Origin: no browser."""
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def _secure(headers: MutableHeaders, path: str) -> None:
    headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    headers.setdefault("Permissions-Policy", PERMISSIONS_POLICY)
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("X-Frame-Options", "DENY")
    headers.setdefault("Referrer-Policy", "same-origin")
    if path.startswith(("/api/", "/login", "/welcome")):
        headers.setdefault("Cache-Control", "no-store")


class Seats:
    """How many sockets each user has open, in this process; `most` 0: any number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()

    @contextmanager
    def take(self, user_id: str) -> Iterator[None]:
        """One seat while the block runs. Raises TooManyError when the user has `most`."""
        if self._most and self._taken[user_id] >= self._most:
            raise TooManyError(
                f"you have {self._most} connections open, which is the limit; close one", SEAT_S
            )
        self._taken[user_id] += 1
        try:
            yield
        finally:
            self._taken[user_id] -= 1
            if not self._taken[user_id]:
                del self._taken[user_id]


async def within(limiter: Limiter, what: str, key: str, said: str) -> None:
    """Raises TooManyError beyond the limit. When Redis cannot count, everything is allowed: the
    work itself waits in PostgreSQL meanwhile, and the outage is logged once.
    """
    with suppress(BusError):
        await limiter.take(what, key, said)
