"""The WebSocket: what it says, what it refuses, and that a dropped one loses nothing."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from base import streams
from base.bus import Bus
from base.messages import Event, Kind
from base.store import Store
from portal import auth
from portal.auth import ADMIN_ID
from tests.portal.conftest import Portal, Stage, asked, person


class Client:
    """A socket that speaks frames."""

    def __init__(self, raw: ClientConnection) -> None:
        self.raw = raw

    async def hear(self, wait_s: float = 15.0) -> dict[str, Any]:
        async with asyncio.timeout(wait_s):
            found: dict[str, Any] = json.loads(await self.raw.recv())
            return found

    async def until(self, kind: str) -> dict[str, Any]:
        while (frame := await self.hear())["type"] != kind:
            pass
        return frame

    async def say(self, kind: str, **payload: Any) -> dict[str, Any]:
        frame_id = uuid.uuid4().hex
        await self.raw.send(json.dumps({"type": kind, "payload": payload, "id": frame_id}))
        while True:
            frame = await self.hear()
            if frame.get("id") == frame_id:
                return frame

    async def quiet(self, wait_s: float = 0.4) -> bool:
        try:
            await self.hear(wait_s)
        except TimeoutError:
            return True
        return False


@asynccontextmanager
async def socket(portal: Portal, token: str | None = None, **options: Any) -> AsyncIterator[Client]:
    token = token or auth.local_token(portal.settings)
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(portal.ws, additional_headers=headers, **options) as raw:
        client = Client(raw)
        assert (await client.hear())["type"] == "connected"
        yield client


def admin_token(portal: Portal) -> str:
    return auth.local_token(portal.settings)


async def close_code(raw: ClientConnection, wait_s: float = 10.0) -> int:
    async with asyncio.timeout(wait_s):
        try:
            while True:
                await raw.recv()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd is not None else 1006


async def test_four_ways_in_and_no_other(portal: Portal) -> None:
    token = admin_token(portal)
    async with connect(f"{portal.ws}?token={token}") as raw:
        first = json.loads(await raw.recv())
        assert first["type"] == "connected"
        assert first["payload"]["user_id"] == ADMIN_ID
    async with connect(portal.ws, subprotocols=["bearer", token]) as raw:  # type: ignore[list-item]
        assert raw.subprotocol == "bearer"
        assert json.loads(await raw.recv())["type"] == "connected"
    with portal.admin() as admin, portal.client() as page:
        page.get(admin.post("/api/auth/links").json()["path"])
        cookie = {"Cookie": f"ai-infra={page.cookies['ai-infra']}"}
    async with connect(portal.ws, additional_headers=cookie, origin=portal.url) as raw:  # type: ignore[arg-type]
        assert json.loads(await raw.recv())["type"] == "connected"
    async with connect(portal.ws, additional_headers=cookie) as raw:
        assert await close_code(raw) == 4401
    with pytest.raises(InvalidStatus):
        async with connect(portal.ws, additional_headers=cookie, origin="http://evil"):  # type: ignore[arg-type]
            pass
    async with connect(portal.ws) as raw:
        assert await close_code(raw) == 4401
    claims = {"sub": ADMIN_ID, "exp": int(time.time()) - 1, "local": True}
    old = jwt.encode(claims, auth.secret(portal.settings), "HS256")
    async with connect(f"{portal.ws}?token={old}") as raw:
        assert await close_code(raw) == 4401


async def test_every_bad_frame_gets_an_error_and_nothing_else_stops(portal: Portal) -> None:
    async with socket(portal) as client:
        bad: list[Any] = [
            "no json",
            "[1]",
            "null",
            '"text"',
            "{}",
            '{"type": "explode"}',
            '{"type": "subscribe"}',
            '{"type": "subscribe", "payload": {"channel": "moon"}}',
            '{"type": "subscribe", "payload": {"channel": "conversation"}}',
            '{"type": "subscribe", "payload": {"channel": "conversation", "conversation_id": "x"}}',
            '{"type": "subscribe", "payload": {"channel": "tasks", "last_event_id": "soon"}}',
            '{"type": "subscribe", "payload": []}',
            '{"type": "send_message", "payload": {"content": "x"}}',
            '{"type": "send_message", "payload": {"conversation_id": "x", "content": "x"}}',
            '{"type": "ping", "id": 5}',
            "[" * 50_000,
            b"\x00\x01",
        ]
        for frame in bad:
            await client.raw.send(frame)
            answer = await client.hear()
            assert answer["type"] == "error", frame
            assert answer["payload"]["message"]
            assert answer["payload"]["code"] != "internal-server-error", frame
        assert (await client.say("ping"))["type"] == "pong"


async def test_send_message_is_the_same_path_as_post(portal: Portal, store: Store) -> None:
    with portal.admin() as admin:
        made = admin.post("/api/conversations", json={}).json()["id"]
    async with socket(portal) as client:
        key = uuid.uuid4().hex
        sent = [
            await client.say(
                "send_message", conversation_id=made, content="over the socket", idempotency_key=key
            )
            for _ in range(2)
        ]
        assert sent[0]["type"] == "accepted"
        assert sent[0]["payload"] == sent[1]["payload"]
        long = await client.say("send_message", conversation_id=made, content="x" * 50_001)
        assert "50,001" in long["payload"]["message"]
        agent = await client.say("send_message", conversation_id=made, content="x", agent="nobody")
        assert "research" in agent["payload"]["message"]
    row = await store.fetchrow(
        "SELECT content FROM messages WHERE id = $1", sent[0]["payload"]["message_id"]
    )
    assert row == {"content": "over the socket"}


async def test_a_conversation_streams_in_the_plans_words(portal: Portal, stage: Stage) -> None:
    conversation_id, sent = await asked(portal, admin_token(portal))
    root = sent["task_id"]
    async with socket(portal) as client:
        answer = await client.say(
            "subscribe", channel="conversation", conversation_id=conversation_id
        )
        assert answer["type"] == "subscribed"
        assert answer["payload"]["event_id"]
        await stage.tell(root, Kind.TASK, status="in_progress", progress=0.5, phase="BUILD")
        await stage.chunk(root, 1, "Hi ")
        await stage.chunk(root, 2, "there")
        await stage.end(root, "Hi there")
        update = await client.hear()
        assert update["type"] == "task_update"
        assert update["payload"]["task_id"] == root
        assert update["payload"]["status"] == "in_progress"
        first, second = await client.hear(), await client.hear()
        assert [first["type"], second["type"]] == ["message_chunk"] * 2
        assert first["payload"]["content"] + second["payload"]["content"] == "Hi there"
        assert first["payload"]["is_complete"] is False
        whole = await client.hear()
        assert whole["type"] == "message_complete"
        assert whole["payload"]["message_id"] == sent["answer_message_id"]
        assert whole["payload"]["is_complete"] is True
        assert {"timestamp", "event_id"} <= set(whole)
        gone = await client.say(
            "unsubscribe", channel="conversation", conversation_id=conversation_id
        )
        assert gone["type"] == "unsubscribed"
        await stage.chunk(root, 3, "unheard")
        assert await client.quiet()


async def test_only_ones_own_and_the_agents(portal: Portal, stage: Stage, store: Store) -> None:
    conversation_id, sent = await asked(portal, admin_token(portal))
    somebody = await person(portal, store)
    async with socket(portal, somebody.token) as client:
        refused = await client.say(
            "subscribe", channel="conversation", conversation_id=conversation_id
        )
        assert refused["payload"]["code"] == "not-found"
        await client.say("subscribe", channel="tasks")
        await client.say("subscribe", channel="agents")
        await stage.tell(sent["task_id"], Kind.TASK, status="in_progress", progress=0.1)
        data = {"status": "busy", "paused": False, "task_id": sent["task_id"]}
        await stage.bus.emit(Event(kind=Kind.AGENT, agent="code", data=data))
        heard = await client.hear()
        assert heard["type"] == "agent_status"
        assert heard["payload"]["agent"] == "code"
        assert heard["payload"]["status"] == "busy"
        assert await client.quiet()


async def test_a_drop_in_the_middle_of_the_chunks_loses_and_doubles_nothing(
    portal: Portal, stage: Stage
) -> None:
    conversation_id, sent = await asked(portal, admin_token(portal))
    root, pieces = sent["task_id"], [f"{n} " for n in range(400)]
    where = {"channel": "conversation", "conversation_id": conversation_id}

    async def speak() -> None:
        for at, piece in enumerate(pieces):
            await stage.chunk(root, at, piece)
        await stage.end(root, "".join(pieces))

    heard: list[str] = []
    cursor: str | None = None
    speaking: asyncio.Task[None] | None = None
    ended = False
    for life in range(60):
        async with socket(portal) as client:
            options = {"last_event_id": cursor} if cursor else {}
            frame_id = uuid.uuid4().hex
            await client.raw.send(
                json.dumps({"type": "subscribe", "payload": where | options, "id": frame_id})
            )
            if speaking is None:
                cursor = (await client.hear())["payload"]["event_id"]
                speaking = asyncio.create_task(speak(), name="speak")
            # Each life hears a few frames, then the line goes dead without a goodbye.
            for _ in range(5 + 3 * life):
                frame = await client.hear()
                if frame["type"] == "message_chunk":
                    heard.append(frame["payload"]["content"])
                if "event_id" in frame:
                    cursor = frame["event_id"]
                ended = frame["type"] == "task_update" and frame["payload"]["status"] == "completed"
                if ended:
                    break
            client.raw.transport.abort()
        if ended:
            break
    assert speaking is not None
    await speaking
    assert ended
    assert heard == pieces


async def test_two_subscriptions_tell_an_event_once_also_on_resume(
    portal: Portal, stage: Stage
) -> None:
    conversation_id, sent = await asked(portal, admin_token(portal))
    where = {"channel": "conversation", "conversation_id": conversation_id}
    async with socket(portal) as client:
        cursor = (await client.say("subscribe", **where))["payload"]["event_id"]
        await client.say("subscribe", channel="tasks")
        for at in range(10):
            await stage.tell(sent["task_id"], Kind.TASK, status="in_progress", progress=at / 10)
        live = [(await client.hear())["payload"]["progress"] for _ in range(10)]
        assert await client.quiet()
    async with socket(portal) as client:
        frames = []
        for payload in (where, {"channel": "tasks"}):
            request = {"type": "subscribe", "payload": {**payload, "last_event_id": cursor}}
            await client.raw.send(json.dumps(request))
        while not await _heard_all(client, frames):
            pass
    again = [one["payload"]["progress"] for one in frames if one["type"] == "task_update"]
    assert live == again == [at / 10 for at in range(10)]


async def _heard_all(client: Client, frames: list[dict[str, Any]]) -> bool:
    try:
        frames.append(await client.hear(1.0))
    except TimeoutError:
        return True
    return False


async def test_a_cursor_that_is_too_old_says_resync(portal: Portal, bus: Bus) -> None:
    await bus.emit(Event(kind=Kind.AGENT, agent="code", data={"status": "idle"}))
    async with socket(portal) as client:
        frame = await client.say("subscribe", channel="agents", last_event_id="5-0")
        assert frame["type"] == "error"
        assert frame["payload"]["code"] == "resync"
        assert (await client.hear())["type"] == "subscribed"
        await bus.emit(Event(kind=Kind.AGENT, agent="code", data={"status": "busy"}))
        assert (await client.hear())["payload"]["status"] == "busy"


async def test_what_was_revoked_closes_within_five_seconds(portal: Portal, store: Store) -> None:
    """A session, an API token, and a role that is another by now."""
    session, token, role = [await person(portal, store) for _ in range(3)]
    with portal.client(token.token) as person_:
        asking = {"name": "x", "scopes": ["tasks:read"]}
        made = person_.post("/api/tokens", json=asking).json()
    async with (
        socket(portal, session.token) as one,
        socket(portal, made["token"]) as two,
        socket(portal, role.token) as three,
    ):
        with portal.client(session.token) as client:
            (here,) = client.get("/api/auth/sessions").json()["sessions"]
            assert client.delete(f"/api/auth/sessions/{here['id']}").status_code == 204
        with portal.client(token.token) as client:
            client.delete(f"/api/tokens/{made['about']['id']}")
        with portal.admin() as admin:
            admin.patch(f"/api/users/{role.id}", json={"role": "admin"})
        started = time.monotonic()
        assert [await close_code(at.raw) for at in (one, two, three)] == [4401] * 3
        assert time.monotonic() - started < 5


async def test_an_expired_token_closes(portal: Portal) -> None:
    token = auth.local_token(portal.settings, ttl_s=2)
    async with socket(portal, token) as client:
        assert await close_code(client.raw) == 4401


async def test_a_slow_reader_is_cut_off_and_may_resume(
    portal: Portal, bus: Bus, store: Store
) -> None:
    somebody = await person(portal, store)
    options: dict[str, Any] = {"max_queue": 1}
    async with socket(portal, somebody.token, **options) as client:
        await client.say("subscribe", channel="tasks")
        filler = "x" * 20_000
        for at in range(40):
            events = [
                Event(
                    kind=Kind.TEXT,
                    agent="code",
                    user_id=somebody.id,
                    data={"content": filler, "n": at * 50 + n},
                )
                for n in range(50)
            ]
            await bus.emit(*events)
        await asyncio.sleep(2)
        async with socket(portal) as other:
            assert (await other.say("ping"))["type"] == "pong"
        got, cursor = [], ""
        code = None
        while code is None:
            try:
                frame = await client.hear(30)
            except ConnectionClosed as closed:
                code = closed.rcvd and closed.rcvd.code
                break
            got.append(frame["payload"]["n"])
            cursor = frame["event_id"]
    assert code == 1013
    assert 0 < len(got) < 2000
    async with socket(portal, somebody.token) as client:
        request = {"channel": "tasks", "last_event_id": cursor}
        await client.raw.send(json.dumps({"type": "subscribe", "payload": request}))
        assert (await client.hear())["type"] == "subscribed"
        while len(got) < 2000:
            got.append((await client.hear())["payload"]["n"])
    assert got == list(range(2000))
    assert await bus.depth(streams.EVENTS) >= 2000
