"""Webhooks: told of each request that ended, signed, again until it arrives, across a kill."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from base.messages import Kind
from base.store import Store
from portal import deliveries
from portal.deliveries import Deliveries
from portal.webhooks import MOST
from tests.conftest import wait_for
from tests.portal.conftest import (
    REPO,
    Portal,
    Stage,
    asked,
    database,
    free_port,
    person,
    running,
)
from tests.portal.receiver import Receiver
from tests.portal.test_api import problem

pytestmark = pytest.mark.xdist_group("webhooks")  # one portal


@pytest.fixture(scope="module")
def portal(
    short_tmp: Path, redis_server: str, postgres_server: Path, migrated: str
) -> Iterator[Portal]:
    """One with a database of its own: of portals that share one, a single one delivers."""
    with (
        database(postgres_server, migrated) as dsn,
        running(short_tmp, redis_server, dsn, limited=False) as started,
    ):
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def quick(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Nobody waits for hours here."""
    monkeypatch.setattr(deliveries, "WAITS_S", (0.05,) * 3)
    yield


async def soon(what: str, true: Any, seconds_s: float = 20.0) -> Any:
    ends_s = time.monotonic() + seconds_s
    while not (found := true()) or (asyncio.iscoroutine(found) and not await found):
        assert time.monotonic() < ends_s, f"never: {what}"
        await asyncio.sleep(0.02)
    return found


def verified(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """As a receiver would: written apart from the code that signs."""
    match = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", headers["x-ai-infra-signature"])
    assert match is not None
    wanted = hmac.new(secret.encode(), match[1].encode() + b"." + body, "sha256").hexdigest()
    return hmac.compare_digest(wanted, match[2]) and abs(time.time() - int(match[1])) <= 300


def hooked(client: httpx.Client, url: str, **more: Any) -> dict[str, Any]:
    made = client.post("/api/webhooks", json={"url": url, **more})
    assert made.status_code == 201, made.text
    found: dict[str, Any] = made.json()
    return found


async def test_a_finished_task_is_told_once_and_signed(
    portal: Portal, stage: Stage, receiver: Receiver
) -> None:
    with portal.admin() as admin:
        token = admin.headers["Authorization"].split()[1]
        made = hooked(admin, receiver.url, description="ours")
        hook_id, secret = made["webhook"]["id"], made["secret"]
        assert secret not in admin.get("/api/webhooks").text
        assert secret not in admin.get(f"/api/webhooks/{hook_id}").text
        _, sent = await asked(portal, token)
        _, other = await asked(portal, token, "goes on")
        await stage.end(sent["task_id"], "Done: <é>")
        await soon("a call", receiver.bodies)
        await stage.tell(sent["task_id"], Kind.TASK, status="completed")  # told again
        await stage.end(other["task_id"], "no", status="failed")
        await soon("the other", lambda: len(receiver.bodies()) >= 2)
        headers, body = receiver.got[0]
        told = json.loads(body)
        assert told["task"]["id"] == sent["task_id"]
        assert told["task"]["status"] == "completed"
        assert told["answer"] == "Done: <é>"
        assert told["task"]["answer_message_id"] == sent["answer_message_id"]
        assert headers["content-type"] == "application/json"
        assert headers["x-ai-infra-event"] == "task.finished"
        assert headers["x-ai-infra-delivery"] == told["id"]
        assert headers["host"] == httpx.URL(receiver.url).netloc.decode()
        assert verified(secret, headers, body)
        assert not verified(secret, headers, body + b" ")
        assert [one["task"]["id"] for one in receiver.bodies()] == [
            sent["task_id"],
            other["task_id"],
        ]

        def listed() -> list[dict[str, Any]]:
            found = admin.get(f"/api/webhooks/{hook_id}/deliveries").json()["deliveries"]
            return found if {one["status"] for one in found} == {"delivered"} else []

        both = await soon("both noted", listed)  # what was called is noted a moment later
        assert [one["response_status"] for one in both] == [200, 200]
        assert admin.delete(f"/api/webhooks/{hook_id}").status_code == 204
        problem(admin.get(f"/api/webhooks/{hook_id}"), 404)


async def someone(store: Store, receiver: Receiver) -> tuple[str, str, str]:
    """An admin, a conversation of theirs, and a webhook that calls the receiver."""
    user = await store.fetchval(
        "INSERT INTO users (email, role) VALUES ('a@b', 'admin') RETURNING id"
    )
    talk = await store.fetchval(
        "INSERT INTO conversations (user_id) VALUES ($1) RETURNING id", user
    )
    hook = await store.fetchval(
        "INSERT INTO webhooks (user_id, url, private) VALUES ($1, $2, TRUE) RETURNING id",
        *(user, receiver.url),
    )
    return user, talk, hook


async def ended(store: Store, user: str, talk: str) -> str:
    """A request that has just ended."""
    found: str = await store.fetchval(
        "INSERT INTO tasks (user_id, conversation_id, type, assigned_agent, input, status,"
        " completed_at) VALUES ($1, $2, 'request', 'supervisor', '{}', 'completed', now())"
        " RETURNING id",
        *(user, talk),
    )
    return found


async def test_a_test_and_what_is_not_mine(
    portal: Portal, store: Store, receiver: Receiver
) -> None:
    somebody = await person(portal, store)
    with portal.admin() as admin, portal.client(somebody.token) as other:
        hook_id = hooked(admin, receiver.url)["webhook"]["id"]
        sent = admin.post(f"/api/webhooks/{hook_id}/test")
        assert sent.status_code == 202
        await soon("the test", lambda: receiver.bodies("test"))
        assert receiver.bodies("test")[0]["id"] == sent.json()["id"]
        for method, path in (
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/test"),
            ("GET", "/deliveries"),
        ):
            problem(other.request(method, f"/api/webhooks/{hook_id}{path}"), 404)
        assert other.get("/api/webhooks").json()["webhooks"] == []
        admin.delete(f"/api/webhooks/{hook_id}")


async def test_which_addresses_may_be_called(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    with portal.admin() as admin, portal.client(somebody.token) as user:
        for url in (
            "http://127.0.0.1:9/x",
            "https://localhost/x",
            "https://[::1]/",
            "https://10.0.0.1/",
        ):
            problem(user.post("/api/webhooks", json={"url": url}), 403)
        problem(user.post("/api/webhooks", json={"url": "https://a.example", "private": True}), 403)
        wrong = (
            "http://a.example/",
            "ftp://a.example/",
            "https://",
            "https://u:p@a.example/",
            "https://169.254.169.254/latest",
            "https://a.example:99999/",
            "https://a.example/#f",
            "no url",
        )
        for url in wrong:
            problem(admin.post("/api/webhooks", json={"url": url}), 422)
        key = {"Idempotency-Key": str(uuid.uuid4())}
        body = {"url": "https://a.example/hook"}
        made = [user.post("/api/webhooks", json=body, headers=key).json() for _ in range(2)]
        assert made[0] == made[1]
        for _ in range(MOST - 1):
            hooked(user, "https://a.example/hook")
        assert "limit" in problem(user.post("/api/webhooks", json=body), 409)["detail"]


async def test_it_is_tried_again_then_given_up_and_a_dead_hook_says_so(
    portal: Portal,
    store: Store,
    stage: Stage,
    receiver: Receiver,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    postgres_dsn: str,
) -> None:
    """The loop itself, over a record of its own: no other portal delivers there."""
    monkeypatch.setattr(deliveries, "DEAD_FAILURES", 6)
    own = await Store.open(postgres_dsn, "test")
    await own.migrate()
    user, talk, hook = await someone(own, receiver)

    async def another() -> str:
        found = await ended(own, user, talk)
        works.wake()
        return found

    async def row(task_id: str) -> dict[str, Any]:
        return await own.fetchrow(
            "SELECT * FROM webhook_deliveries WHERE task_id = $1", task_id
        ) or {"status": "none", "attempts": 0}

    async def state(task_id: str, status: str) -> bool:
        return bool((await row(task_id))["status"] == status)

    works = Deliveries(portal.settings, own)
    running = asyncio.create_task(works.run(), name="works")
    try:
        receiver.answers = [500, 503]
        first = await another()
        await soon("the third attempt", lambda: state(first, "delivered"))
        found = await row(first)
        assert (found["attempts"], found["response_status"]) == (3, 200)
        assert len({body for _, body in receiver.got}) == 1, "each attempt sends the same"
        assert await own.fetchval("SELECT failures FROM webhooks WHERE id = $1", hook) == 0

        receiver.always = 500
        second = await another()
        await soon("the end of the tries", lambda: state(second, "failed"))
        assert (await row(second))["error"] == "it answered 500"
        assert (await row(second))["attempts"] == 4
        third = await another()

        async def disabled() -> bool:
            sql = "SELECT disabled_at IS NOT NULL FROM webhooks WHERE id = $1"
            return bool(await own.fetchval(sql, hook))

        await soon("the hook is disabled", disabled)
        why = await own.fetchval("SELECT disabled_why FROM webhooks WHERE id = $1", hook)
        assert why == "6 attempts in a row failed; the last one: it answered 500"
        assert "disabled" in str(await own.fetch("SELECT convert_from(body, 'UTF8') FROM outbox"))
        calls = len(receiver.got)
        works.wake()
        await asyncio.sleep(0.3)
        assert len(receiver.got) == calls, "a disabled hook is left alone"

        receiver.always = 200
        await own.execute(
            "INSERT INTO webhook_deliveries (webhook_id, event, body)"
            " VALUES ($1, 'test', '{\"type\": \"test\"}')",
            hook,
        )
        works.wake()
        await soon("what waited is told", lambda: state(third, "delivered"))
        assert not await disabled()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await own.close()


async def test_many_hooks_are_called_a_few_at_a_time(
    portal: Portal, receiver: Receiver, postgres_dsn: str
) -> None:
    own = await Store.open(postgres_dsn, "test")
    await own.migrate()
    user = await own.fetchval(
        "INSERT INTO users (email, role) VALUES ('a@b', 'admin') RETURNING id"
    )
    await own.execute(
        "WITH made AS (INSERT INTO webhooks (user_id, url, private)"
        " SELECT $1, $2, TRUE FROM generate_series(1, 20) RETURNING id)"
        " INSERT INTO webhook_deliveries (webhook_id, event, body)"
        " SELECT id, 'test', '{\"type\": \"test\"}' FROM made, generate_series(1, 2)",
        *(user, receiver.url),
    )
    receiver.hold.clear()
    works = Deliveries(portal.settings, own)
    running = asyncio.create_task(works.run(), name="works")
    try:
        await soon("the first", lambda: len(receiver.got) == deliveries.HOOKS_AT_ONCE)
        await asyncio.sleep(0.2)
        assert len(receiver.got) == deliveries.HOOKS_AT_ONCE
        receiver.hold.set()
        await soon("all of them", lambda: len(receiver.got) == 40)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await own.close()


async def test_a_killed_portal_tells_after_its_restart(
    short_tmp: Path, redis_server: str, postgres_dsn: str, receiver: Receiver
) -> None:
    home, port = short_tmp / f"w{uuid.uuid4().hex[:6]}", free_port()
    environment = {
        **os.environ,
        "AI_INFRA_HOME": str(home),
        "AI_INFRA_PORT": str(port),
        "AI_INFRA_REDIS_URL": redis_server,
        "AI_INFRA_POSTGRES_DSN": postgres_dsn,
    }

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-m", "portal"], cwd=REPO, env=environment)
        url = f"http://127.0.0.1:{port}/api/health/live"

        def answers() -> bool:
            try:
                return httpx.get(url).status_code == 200
            except httpx.TransportError:
                return False

        wait_for("the portal", answers, 90)
        return process

    own = await Store.open(postgres_dsn, "test")
    await own.migrate()
    user, talk, hook = await someone(own, receiver)
    # The first call is under way when the portal dies; the task ends while it is dead.
    receiver.hold.clear()
    await own.execute(
        "INSERT INTO webhook_deliveries (webhook_id, event, body) VALUES ($1, 'test', $2)",
        *(hook, json.dumps({"type": "test"})),
    )
    process = start()
    try:
        await soon("the call", lambda: receiver.got)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        task_id = await ended(own, user, talk)
        receiver.hold.set()
        process = start()
        await soon("the call again", lambda: len(receiver.bodies("test")) == 2)
        await soon("the task", receiver.bodies)
        assert receiver.bodies()[0]["task"]["id"] == task_id
        one, two = (headers["x-ai-infra-delivery"] for headers, _ in receiver.got[:2])
        assert one == two, "the same telling has the same id"
    finally:
        await own.close()
        process.terminate()
        process.wait(30)
