"""The WebSocket at `/ws`: the seed plan's protocol, resumable.

A socket has one listener on the feed and any number of subscriptions; an event goes out once,
whichever of them it concerns. To resume, a subscription names `last_event_id`: what is queued
goes out first, then what it missed up to there, then live events, so nothing is lost or doubled.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from base import log, program
from base.errors import AIError, InputError, TooManyError, UnauthenticatedError
from base.messages import Event, Kind
from portal import talk
from portal.auth import Caller
from portal.desk import Desk
from portal.door import caller_of, count, desk_of, refused
from portal.feed import Item, Listener, place
from portal.peer import peer_of
from portal.problems import code_of, status_of
from portal.scopes import allow
from portal.shapes import Send

CLOSE_ENDED = 4401
CLOSE_OFTEN = 4429
CLOSE_SLOW = 1013
CLOSE_RESTART = 1012
CLOSE_BROKEN = 1011
#: What sending to a socket that went away raises.
GONE = (WebSocketDisconnect, TimeoutError, RuntimeError)
FRAME_MAX_CHARS = 1_000_000
SEND_WAIT_S = 20.0
ENDED_CHECK_S = 3.0

#: What an API token needs, by channel and for sending.
READS = {"conversation": "tasks:read", "tasks": "tasks:read", "agents": "agents:read"}
SENDS = "tasks:write"

TYPES = {Kind.CHUNK: "message_chunk", Kind.AGENT: "agent_status"}


class Frame(BaseModel):
    """What a client sends. `id` comes back in the answer."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    type: Literal["subscribe", "unsubscribe", "send_message", "ping"]
    payload: dict[str, Any] = Field(default_factory=dict)
    id: str | None = Field(None, max_length=200)


class Channel(BaseModel):
    """Payload of subscribe and unsubscribe; only `conversation` takes a conversation_id."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    channel: Literal["conversation", "agents", "tasks"]
    conversation_id: str | None = None
    last_event_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Delivers every event that `concerns` it and lies after `since`."""

    channel: str
    conversation_id: str | None
    since: tuple[int, int]

    def concerns(self, event: Event) -> bool:
        if self.channel == "agents":
            return event.kind is Kind.AGENT
        if self.channel == "tasks":
            return event.kind not in {Kind.AGENT, Kind.MESSAGE, Kind.CHUNK}
        return event.kind is not Kind.AGENT and event.conversation_id == self.conversation_id


def frame_of(cursor: str, event: Event) -> dict[str, Any]:
    """The server message that tells an event."""
    data = dict(event.data)
    kind = TYPES.get(event.kind, "task_update")
    if event.kind is Kind.MESSAGE:
        kind = "message" if data.get("role") == "user" else "message_complete"
    payload: dict[str, Any] = {"conversation_id": event.conversation_id, "agent": event.agent}
    if event.kind in {Kind.MESSAGE, Kind.CHUNK}:
        whole = event.kind is Kind.MESSAGE
        payload |= {"role": "assistant", "is_complete": whole, "root_id": event.root_id} | data
    elif event.kind is Kind.AGENT:
        payload = {"agent": event.agent} | data
    else:
        payload |= {"kind": event.kind.value, "task_id": event.task_id or event.root_id}
        payload |= {"root_id": event.root_id} | data
    return {
        "type": kind,
        "payload": payload,
        "timestamp": event.timestamp.isoformat(),
        "event_id": cursor,
    }


class Socket:
    """One accepted connection of one caller."""

    def __init__(self, desk: Desk, websocket: WebSocket, caller: Caller) -> None:
        self._desk = desk
        self._websocket = websocket
        self._caller = caller
        self._turn = asyncio.Lock()
        self._subscriptions: dict[tuple[str, str | None], Subscription] = {}

    async def run(self) -> None:
        """Serve until either side closes. Never raises for what the client did."""
        try:
            with self._desk.seats.take(self._caller.user_id):
                await self._serve()
        except TooManyError as error:
            with suppress(*GONE):
                await self._error(code_of(status_of(error)), str(error), None, **_more(error))
            await self._close(CLOSE_OFTEN, str(error))

    async def _serve(self) -> None:
        with self._desk.feed.listen(self._caller.user_id) as listener:
            greeting = {"user_id": self._caller.user_id, "event_id": self._desk.feed.position}
            stop = asyncio.Event()
            try:
                await self._say("connected", greeting)
                await program.watch(
                    stop,
                    ws_read=self._read(listener),
                    ws_push=self._push(listener),
                    ws_ended=self._until_ended(),
                )
            except GONE as error:
                log.get("portal").debug("socket ended", reason=repr(error))
        if listener.closed:
            await self._close(CLOSE_RESTART, "the portal is stopping; resume with last_event_id")
        else:
            await self._close(CLOSE_SLOW, "too slow; resume with last_event_id")

    async def _read(self, listener: Listener) -> None:
        while True:
            received = await self._websocket.receive()
            if received["type"] == "websocket.disconnect":
                return
            text = received.get("text")
            frame_id = None
            try:
                frame = _frame(text)
                frame_id = frame.id
                await self._answer(frame, listener)
            except AIError as error:
                await self._error(code_of(status_of(error)), str(error), frame_id, **_more(error))
            except GONE:
                raise
            except Exception:
                log.get("portal").exception("frame failed")
                await self._error(code_of(500), "the portal failed at this frame", frame_id)

    async def _answer(self, frame: Frame, listener: Listener) -> None:
        if frame.type == "ping":
            await self._say("pong", {}, frame.id)
        elif frame.type == "send_message":
            await self._send_message(frame)
        else:
            wanted = _parse(Channel, frame.payload)
            if wanted.channel != "conversation":
                wanted = wanted.model_copy(update={"conversation_id": None})
            elif wanted.conversation_id is None:
                raise InputError("payload.conversation_id: this channel needs one")
            if frame.type == "subscribe":
                await self._subscribe(wanted, listener, frame.id)
            else:
                self._subscriptions.pop((wanted.channel, wanted.conversation_id), None)
                answer = {"channel": wanted.channel, "conversation_id": wanted.conversation_id}
                await self._say("unsubscribed", answer, frame.id)

    async def _send_message(self, frame: Frame) -> None:
        payload = dict(frame.payload)
        conversation_id = payload.pop("conversation_id", None)
        key = payload.pop("idempotency_key", None)
        if not isinstance(conversation_id, str):
            raise InputError("payload.conversation_id: which conversation to send to")
        if key is not None and not isinstance(key, str):
            raise InputError("payload.idempotency_key: has to be a string")
        allow(self._caller, SENDS)
        send = _parse(Send, payload)
        await talk.spoke(self._desk, self._caller)
        accepted = await talk.send(self._desk, self._caller, conversation_id, send, key=key)
        await self._say("accepted", accepted.model_dump(mode="json"), frame.id)

    async def _subscribe(self, wanted: Channel, listener: Listener, frame_id: str | None) -> None:
        allow(self._caller, READS[wanted.channel])
        feed = self._desk.feed
        if wanted.conversation_id is not None:
            await talk.conversation(self._desk, self._caller, wanted.conversation_id)
        cursor = wanted.last_event_id
        try:
            whole = cursor is None or await feed.has(cursor)
            since = place(cursor) if cursor is not None and whole else None
        except ValueError as error:
            raise InputError(f"payload.last_event_id: {error}") from error
        key = (wanted.channel, wanted.conversation_id)
        async with self._turn:
            queued, here = listener.waiting(), feed.position
            for item in queued:
                await self._deliver(item)
            if cursor is not None and since is None:
                said = "events after that id are gone; fetch over REST and subscribe afresh"
                await self._error("resync", said, frame_id, event_id=here)
            answer = {"channel": key[0], "conversation_id": key[1], "event_id": here}
            await self._say("subscribed", answer, frame_id)
            fresh = Subscription(channel=key[0], conversation_id=key[1], since=since or place(here))
            others = [one for at, one in self._subscriptions.items() if at != key]
            if since is not None and cursor is not None:
                async for missed, event in feed.between(cursor, here, self._caller.user_id):
                    told = any(o.concerns(event) and place(missed) > o.since for o in others)
                    if fresh.concerns(event) and not told:
                        await self._send(frame_of(missed, event))
            self._subscriptions[key] = fresh

    async def _push(self, listener: Listener) -> None:
        while (item := await listener.get()) is not None:
            async with self._turn:
                await self._deliver(item)

    async def _deliver(self, item: Item) -> None:
        cursor, event = item
        at = place(cursor)
        if any(one.concerns(event) and at > one.since for one in self._subscriptions.values()):
            await self._send(frame_of(cursor, event))

    async def _until_ended(self) -> None:
        """Return once the caller's token or session is over, having closed the socket."""
        caller = self._caller
        while not await self._desk.auth.over(caller):
            left_s = caller.expires_at_s - time.time()
            await asyncio.sleep(max(0.0, min(ENDED_CHECK_S, left_s)))
        await self._close(CLOSE_ENDED, "the session has ended; log in again")

    async def _say(self, kind: str, payload: dict[str, Any], frame_id: str | None = None) -> None:
        now = datetime.now(UTC).isoformat()
        message = {"type": kind, "payload": payload, "timestamp": now}
        await self._send(message if frame_id is None else message | {"id": frame_id})

    async def _error(self, code: str, message: str, frame_id: str | None, **details: Any) -> None:
        payload = {"code": code, "message": message} | ({"details": details} if details else {})
        await self._say("error", payload, frame_id)

    async def _send(self, message: dict[str, Any]) -> None:
        async with asyncio.timeout(SEND_WAIT_S):
            await self._websocket.send_text(json.dumps(message, ensure_ascii=False))

    async def _close(self, code: int, reason: str) -> None:
        if self._websocket.application_state is WebSocketState.CONNECTED:
            try:
                async with asyncio.timeout(1.0):
                    await self._websocket.close(code, reason)
            except GONE as error:
                log.get("portal").debug("socket was gone", reason=repr(error))


async def serve(websocket: WebSocket) -> None:
    """The route."""
    if (caller := await enter(websocket)) is not None:
        await Socket(desk_of(websocket), websocket, caller).run()


async def enter(websocket: WebSocket) -> Caller | None:
    """Let in who can show a token or our cookie, and accept the socket; None: it was told 4401,
    or 4429, and closed.

    The token comes as a header, as `?token=`, or as the second of two subprotocols after
    `bearer` (browsers can set no header).
    """
    offered = [
        part.strip() for part in websocket.headers.get("sec-websocket-protocol", "").split(",")
    ]
    desk = desk_of(websocket)
    peer = peer_of(websocket, desk.settings)
    try:
        try:
            if len(offered) == 2 and offered[0] == "bearer":
                caller = replace(await desk.auth.by_token(offered[1], peer=peer), peer=peer)
            elif token := websocket.query_params.get("token"):
                caller = replace(await desk.auth.by_token(token, peer=peer), peer=peer)
            else:
                caller = await caller_of(websocket)
        except UnauthenticatedError:
            await count(desk, websocket, None)
            refused(websocket, None, 401)
            raise
    except AIError as error:
        # Accepted first: a browser shows no reason for a handshake that was refused.
        await websocket.accept()
        codes = {UnauthenticatedError: CLOSE_ENDED, TooManyError: CLOSE_OFTEN}
        await websocket.close(codes.get(type(error), CLOSE_BROKEN), str(error)[:120])
        return None
    await websocket.accept("bearer" if offered[0] == "bearer" else None)
    return caller


def _more(error: AIError) -> dict[str, Any]:
    """What a program wants to know of an error beyond its words."""
    return {"retry_after_s": error.retry_after_s} if isinstance(error, TooManyError) else {}


def _frame(text: str | None) -> Frame:
    if text is None:
        raise InputError("a frame has to be text, holding one JSON object")
    if len(text) > FRAME_MAX_CHARS:
        raise InputError(f"a frame is at most {FRAME_MAX_CHARS:,} characters")
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the frame is no JSON: {error}") from error
    frame: Frame = _parse(Frame, raw)
    return frame


def _parse(shape: Any, raw: Any) -> Any:
    """`raw` as `shape`; an InputError that names every fault."""
    try:
        return shape.model_validate(raw)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'frame'}: "
            f"{fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise InputError(faults) from error
