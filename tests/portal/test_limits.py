"""The shipped limits, at a portal of its own: who waits, how they are told, who is left alone."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from present import need
from websockets.asyncio.client import ClientConnection, connect

from base.store import Store
from portal import auth
from portal.peer import neighbourhood
from tests.conftest import wait_for
from tests.portal.conftest import Portal, person, running
from tests.portal.test_ws import Client, close_code, socket


@pytest.fixture(scope="module")
def limited(short_tmp: Path, redis_server: str, portal_dsn: str) -> Iterator[Portal]:
    """Every limit as it is shipped; nginx on this machine is believed."""
    nginx = {"AI_INFRA_BEHIND_NGINX": "true"}
    with running(short_tmp, redis_server, portal_dsn, limited=True, **nginx) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def record(limited: Portal) -> AsyncIterator[Store]:
    opened = await Store.open(limited.settings.postgres, "test")
    yield opened
    await opened.close()


def from_address(portal: Portal, address: str, **headers: str) -> httpx.Client:
    """A client whose socket has that address of this machine."""
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(
        base_url=portal.url, verify=False, headers=headers, transport=transport, timeout=20
    )


def codes(client: httpx.Client, count: int, path: str = "/api/auth/me") -> list[int]:
    return [client.get(path).status_code for _ in range(count)]


def test_a_stranger_gets_ten_a_minute_and_a_problem_document(limited: Portal) -> None:
    with from_address(limited, "127.0.0.11") as client:
        assert codes(client, 11) == [401] * 10 + [429]
        refused = client.get("/api/tasks", headers={"Authorization": "Bearer nonsense"})
        assert refused.status_code == 429
        assert 0 < int(refused.headers["Retry-After"]) <= 60
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["type"] == "urn:ai-infra:problem:too-many-requests"
        assert "too many requests; try again in" in refused.json()["detail"]
        assert codes(client, 30, "/api/health/ready") == [200] * 30
        assert codes(client, 30, "/static/portal.css") == [200] * 30
    with from_address(limited, "127.0.0.12") as other:
        assert codes(other, 1) == [401]


async def test_a_user_gets_a_hundred_and_an_admin_a_thousand(
    limited: Portal, record: Store
) -> None:
    user, admin = await person(limited, record), await person(limited, record, role="admin")
    with limited.client(user.token) as client:
        assert codes(client, 101) == [200] * 100 + [429]
    with limited.client(admin.token) as client:
        assert codes(client, 130) == [200] * 130


async def test_a_forwarded_address_counts_from_nginx_alone(
    limited: Portal, portal: Portal, record: Store
) -> None:
    with from_address(limited, "127.0.0.13") as nginx:
        for at in range(12):
            headers = {"X-Forwarded-For": f"6.6.6.{at}, 203.0.113.{at}"}
            assert nginx.get("/api/auth/me", headers=headers).status_code == 401
        same = {"X-Forwarded-For": "6.6.6.6, 203.0.113.77"}
        got = [nginx.get("/api/auth/me", headers=same).status_code for _ in range(11)]
        assert got == [401] * 10 + [429]
        invented = {"X-Forwarded-For": "203.0.113.77, 198.51.100.1"}
        assert nginx.get("/api/auth/me", headers=invented).status_code == 401


def test_without_nginx_nobody_is_believed(
    short_tmp: Path, redis_server: str, portal_dsn: str
) -> None:
    limits = '[api]\nanonymous = "3/minute"\n'
    with (
        running(short_tmp, redis_server, portal_dsn, limited=True, limits=limits) as started,
        from_address(started, "127.0.0.14") as client,
    ):
        got = [
            client.get("/api/auth/me", headers={"X-Forwarded-For": f"203.0.113.{at}"}).status_code
            for at in range(4)
        ]
        assert got == [401] * 3 + [429]


def test_addresses_of_one_customer_count_as_one() -> None:
    assert neighbourhood("2001:db8:1:2::1") == neighbourhood("2001:db8:1:2:ffff::9")
    assert neighbourhood("2001:db8:1:2::1") != neighbourhood("2001:db8:1:3::1")
    assert neighbourhood("192.0.2.1") == "192.0.2.1"


async def test_five_wrong_passwords_close_the_door_to_an_address(
    limited: Portal, record: Store
) -> None:
    somebody, other = await person(limited, record), await person(limited, record)
    right = {"email": somebody.email, "password": somebody.password}
    with from_address(limited, "127.0.0.15") as client:
        for _ in range(2):  # a right one takes nothing
            assert client.post("/api/auth/login", json=right).status_code == 200
        wrong = [{"email": one.email, "password": "no"} for one in (somebody, other) * 3]
        got = [client.post("/api/auth/login", json=one).status_code for one in wrong]
        assert got == [401] * 5 + [429]
    with from_address(limited, "127.0.0.15") as client:
        client.headers["X-Forwarded-For"] = ""
        refused = client.post("/login", data=right)
        assert refused.status_code == 429
        assert "Too many" in refused.text
    with from_address(limited, "127.0.0.16") as elsewhere:
        assert elsewhere.post("/api/auth/login", json=right).status_code == 200


async def test_guessing_the_current_password_is_a_login_attempt(
    limited: Portal, record: Store
) -> None:
    somebody = await person(limited, record)
    with from_address(limited, "127.0.0.17", Authorization=f"Bearer {somebody.token}") as client:
        body = {"new_password": "quite a new one", "current_password": "wrong"}
        got = [client.post("/api/auth/password", json=body).status_code for _ in range(6)]
        assert got == [422] * 5 + [429]


async def test_three_links_an_hour_for_an_account(limited: Portal, record: Store) -> None:
    somebody, other = await person(limited, record), await person(limited, record)
    with limited.admin() as admin:
        got = [admin.post(f"/api/users/{somebody.id}/link").status_code for _ in range(4)]
        assert got == [201] * 3 + [429]
        assert admin.post(f"/api/users/{other.id}/link").status_code == 201


def test_the_forms_in_front_of_the_door_count_by_address(limited: Portal) -> None:
    form = {"token": "x", "password": "quite a new one", "again": "quite a new one"}
    with from_address(limited, "127.0.0.18") as client:
        back = [client.get("/login/github/callback?code=x&state=x").status_code for _ in range(5)]
        assert back == [401] * 5
        got = [client.post("/welcome", data=form).status_code for _ in range(6)]
        assert got == [401] * 5 + [429]


async def test_thirty_messages_a_minute_over_all_sockets_and_the_socket_lives(
    limited: Portal, record: Store
) -> None:
    somebody = await person(limited, record)
    with limited.client(somebody.token) as client:
        where = client.post("/api/conversations", json={}).json()["id"]
    async with socket(limited, somebody.token) as one, socket(limited, somebody.token) as two:
        for at in range(30):
            sent = await (one, two)[at % 2].say(
                "send_message", conversation_id=where, content=f"message {at}"
            )
            assert sent["type"] == "accepted", at
        refused = await two.say("send_message", conversation_id=where, content="one more")
        assert refused["type"] == "error"
        assert refused["payload"]["code"] == "too-many-requests"
        assert 0 < refused["payload"]["details"]["retry_after_s"] <= 60
        assert (await two.say("ping"))["type"] == "pong"
        assert (await one.say("subscribe", channel="tasks"))["type"] == "subscribed"


async def test_a_sixth_connection_is_told_why_and_a_closed_one_makes_room(
    limited: Portal, record: Store
) -> None:
    somebody = await person(limited, record)
    headers = {"Authorization": f"Bearer {somebody.token}"}

    async def open_one() -> ClientConnection:
        return await connect(limited.ws, additional_headers=headers)

    opened = [await open_one() for _ in range(5)]
    for raw in opened:
        assert json.loads(await raw.recv())["type"] == "connected"
    sixth = await open_one()
    said = json.loads(await sixth.recv())
    assert said["type"] == "error"
    assert said["payload"]["code"] == "too-many-requests"
    assert "5 connections" in said["payload"]["message"]
    assert await close_code(sixth) == 4429
    await opened[0].close()
    await asyncio.sleep(0.3)
    again = await open_one()
    assert json.loads(await again.recv())["type"] == "connected"
    for raw in (*opened[1:], again):
        assert (await Client(raw).say("ping"))["type"] == "pong"
        await raw.close()


async def test_without_redis_requests_pass_and_logins_do_not(
    short_tmp: Path, portal_dsn: str, store: Store
) -> None:
    folder = Path(tempfile.mkdtemp(dir=short_tmp))
    path = folder / "r.sock"
    line = [need("redis-server"), "--port", "0", "--unixsocket", str(path), "--save", ""]
    server = subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL)
    wait_for("redis", path.exists)
    with running(short_tmp, f"unix://{path}", portal_dsn, limited=True) as started:
        somebody = await person(started, store)
        given = {"email": somebody.email, "password": somebody.password}
        server.kill()
        server.wait(10)
        with started.client(somebody.token) as client:
            assert codes(client, 3) == [200] * 3
            refused = client.post("/api/auth/login", json=given)
            assert refused.status_code == 503
            assert refused.json()["detail"].startswith("rate limits: redis")
            assert client.post("/login", data=given).status_code == 503
        lines = started.log.read_text().splitlines()
        assert len([one for one in lines if "lost redis for rate limits" in one]) == 1


def test_a_wrong_limit_stops_the_portal_with_every_fault(
    short_tmp: Path, redis_server: str, portal_dsn: str
) -> None:
    text = '[api]\nanonymous = "often"\n[agents]\nnothing = "1/minute"\n'
    with (
        pytest.raises(AssertionError),
        running(short_tmp, redis_server, portal_dsn, limited=True, limits=text),
    ):
        pass


def test_the_local_owner_is_premium(limited: Portal) -> None:
    with limited.client(auth.local_token(limited.settings)) as client:
        key = uuid.uuid4().hex
        got = [client.get(f"/api/tasks?agent={key}").status_code for _ in range(120)]
    assert got == [200] * 120
