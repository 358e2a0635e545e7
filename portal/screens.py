"""The WebSocket at `/ws/terminals/{window}`: a window of the agents, live, for admins.

A window shows whatever its agent works at, whoever asked for it, so that nobody else may look in.
Frames of bytes are what the terminal draws. Frames of text hold one JSON object: from here `size`
(columns, rows, typing) and `lost` (why it ends), from the browser `seen` (bytes drawn since) and,
only where `?typing=true` was asked for, `type` (text).
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.websockets import WebSocket, WebSocketState

from base import log, program
from base.errors import AIError, ForbiddenError, NotFoundError, TooManyError, WindowsError
from portal import ws
from portal.auth import Caller, admin_only
from portal.desk import Desk
from portal.door import desk_of
from portal.scopes import allow
from portal.terminals import Screen, Window
from portal.trail import event
from portal.ws import GONE

#: What an API token needs.
SCOPE = "admin"
CLOSE_NOT_YOURS = 4403
CLOSE_NO_WINDOW = 4404
CLOSE_WINDOW_ENDED = 4410
#: Windows that one person has open at a time.
OPEN_MAX = 16
#: So much may be on its way without having been drawn; then the terminal is not read.
UNSEEN_MAX_BYTES = 256 * 1024
TYPED_MAX_CHARS = 64 * 1024
LOOK_S = 2.0
ENDED_CHECK_S = 3.0


class Seen(BaseModel):
    """The browser has drawn so many bytes more."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    type: Literal["seen"]
    bytes: int = Field(ge=0)


class Typed(BaseModel):
    """Keys for the program in the window."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    type: Literal["type"]
    text: str = Field(max_length=TYPED_MAX_CHARS)


_FRAME: TypeAdapter[Seen | Typed] = TypeAdapter(
    Annotated[Seen | Typed, Field(discriminator="type")]
)


async def serve(websocket: WebSocket, window: str, typing: bool = False) -> None:
    """The route. It says why before it closes, since browsers show no reason of a handshake."""
    if (caller := await ws.enter(websocket)) is None:
        return
    desk = desk_of(websocket)
    try:
        allow(caller, SCOPE)
        admin_only(caller)
        with desk.screens.take(caller.user_id):
            await _Look(desk, websocket, caller, typing=typing).run(window)
    except ForbiddenError as error:
        desk.tell(
            event(
                "access",
                "read",
                websocket.url.path,
                caller=caller,
                outcome="denied",
                resource_type="endpoint",
                risk="medium",
                status=403,
            )
        )
        await _end(websocket, CLOSE_NOT_YOURS, str(error))
    except TooManyError as error:
        await _end(websocket, ws.CLOSE_OFTEN, str(error))
    except (NotFoundError, WindowsError) as error:
        await _end(websocket, CLOSE_NO_WINDOW, str(error))


class _Look:
    """One browser at one window."""

    def __init__(self, desk: Desk, websocket: WebSocket, caller: Caller, *, typing: bool) -> None:
        self._desk = desk
        self._websocket = websocket
        self._caller = caller
        self._typing = typing
        self._unseen_bytes = 0
        self._drawn = asyncio.Event()

    async def run(self, name: str) -> None:
        """Until either side ends. Raises NotFoundError, WindowsError."""
        window = await self._desk.terminals.window(name)
        if self._typing:
            path = f"windows/{window.name}"
            self._desk.tell(event("action", "execute", path, caller=self._caller, risk="medium"))
        history = await self._desk.terminals.history(window)
        screen = await self._desk.terminals.open(window, typing=self._typing)
        stop = asyncio.Event()
        try:
            await self._size(window)
            if history:
                await self._draw(history.replace(b"\n", b"\r\n") + b"\r\n" * window.rows)
            await program.watch(
                stop,
                screen_read=self._read(screen),
                screen_draw=self._show(screen),
                screen_size=self._follow(screen, window),
                screen_ended=self._until_ended(),
            )
        except GONE as error:
            log.get("portal").debug("terminal ended", reason=repr(error))
        finally:
            await screen.close()
        await _end(self._websocket, CLOSE_WINDOW_ENDED, f"the window {window.name} was closed")

    async def _show(self, screen: Screen) -> None:
        """From the terminal to the browser, no faster than it draws."""
        while drawn := await screen.read():
            await self._draw(drawn)

    async def _draw(self, drawn: bytes) -> None:
        while self._unseen_bytes >= UNSEEN_MAX_BYTES:
            self._drawn.clear()
            await self._drawn.wait()
        self._unseen_bytes += len(drawn)
        async with asyncio.timeout(ws.SEND_WAIT_S):
            await self._websocket.send_bytes(drawn)

    async def _read(self, screen: Screen) -> None:
        while True:
            received = await self._websocket.receive()
            if received["type"] == "websocket.disconnect":
                return
            try:
                frame = _FRAME.validate_json(received.get("text") or "")
            except ValidationError:
                continue  # a frame that we do not know changes nothing
            if isinstance(frame, Seen):
                self._unseen_bytes = max(0, self._unseen_bytes - frame.bytes)
                self._drawn.set()
            elif self._typing:
                with suppress(WindowsError):  # `_show` sees the end
                    await screen.write(frame.text.encode(errors="replace"))

    async def _follow(self, screen: Screen, window: Window) -> None:
        """Take on the window's size when people change it; return once the window is gone."""
        shape = (window.columns, window.rows)
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                seen = await self._desk.terminals.windows()
            except WindowsError:
                return
            now = next((one for one in seen if one.id == window.id), None)
            if now is None:
                return
            if shape != (now.columns, now.rows):
                shape = (now.columns, now.rows)
                screen.fit(now)
                await self._size(now)

    async def _until_ended(self) -> None:
        caller = self._caller
        while not await self._desk.auth.over(caller):
            left_s = caller.expires_at_s - time.time()
            await asyncio.sleep(max(0.0, min(ENDED_CHECK_S, left_s)))
        await _end(self._websocket, ws.CLOSE_ENDED, "the session has ended; log in again")

    async def _size(self, window: Window) -> None:
        frame = {"type": "size", "columns": window.columns, "rows": window.rows}
        await _say(self._websocket, frame | {"typing": self._typing, "dead": window.dead})


async def _say(websocket: WebSocket, frame: dict[str, Any]) -> None:
    async with asyncio.timeout(ws.SEND_WAIT_S):
        await websocket.send_text(json.dumps(frame))


async def _end(websocket: WebSocket, code: int, why: str) -> None:
    if websocket.application_state is not WebSocketState.CONNECTED:
        return
    try:
        async with asyncio.timeout(1.0):
            await _say(websocket, {"type": "lost", "code": code, "why": why})
            await websocket.close(code, why[:120])
    except (*GONE, AIError) as error:
        log.get("portal").debug("terminal was gone", reason=repr(error))
