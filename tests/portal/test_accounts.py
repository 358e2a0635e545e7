"""Accounts: what admins do to them, invitations and resets, one's own profile, API tokens."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import httpx
import pytest

from base.bus import Bus
from base.store import Store
from portal.auth import ADMIN_ID
from portal.scopes import SCOPES
from portal.sessions import device
from tests.portal.conftest import Portal, leave_asked, person
from tests.portal.test_trail import everything, like, written

NEW = "quite a new one"


def fresh() -> str:
    return f"{uuid.uuid4().hex[:8]}@test"


def welcome(client: httpx.Client, token: str, **more: str) -> httpx.Response:
    form = {"token": token, "password": NEW, "again": NEW, **more}
    return client.post("/welcome", data=form)


def test_an_invitation_is_shown_often_and_used_once(portal: Portal) -> None:
    email = fresh()
    with portal.admin() as admin:
        made = admin.post("/api/users", json={"email": f" {email.upper()} ", "display_name": "Mo"})
        assert made.status_code == 201
        user, link = made.json()["user"], made.json()["invitation"]
        assert user["email"] == email
        assert user["invited"]
        assert link["url"] == f"{portal.url}/welcome?token={link['token']}"
        assert admin.post("/api/users", json={"email": email}).status_code == 409
    with portal.client() as client:
        for _ in range(2):
            page = client.get(link["path"])
            assert page.status_code == 200
            assert page.headers["cache-control"] == "no-store"
            assert email in page.text
            assert 'value="Mo"' in page.text
        short = welcome(client, link["token"], password="short", again="short")
        assert short.status_code == 422
        assert "12 characters" in short.text
        unlike = welcome(client, link["token"], again="something else", display_name="<b>")
        assert unlike.status_code == 422
        assert "not the same" in unlike.text
        assert "&lt;b&gt;" in unlike.text
        foreign = client.post(
            "/welcome",
            data={"token": link["token"], "password": NEW, "again": NEW},
            headers={"Origin": "http://evil"},
        )
        assert foreign.status_code == 403
        assert client.get(f"/login?token={link['token']}").status_code == 401
        done = welcome(client, link["token"], display_name="Mona")
        assert done.status_code == 303
        me = client.get("/api/auth/me").json()
        assert (me["email"], me["display_name"], me["role"]) == (email, "Mona", "user")
        assert me["has_password"]
        assert welcome(client, link["token"]).status_code == 401
        assert client.get(link["path"]).status_code == 401
        assert client.post("/login", data={"email": email, "password": NEW}).status_code == 303
    with portal.admin() as admin:
        assert not admin.get(f"/api/users/{user['id']}").json()["invited"]


async def test_a_reset_ends_what_was_and_an_earlier_link(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    with portal.admin() as admin:
        first = admin.post(f"/api/users/{somebody.id}/link").json()
        second = admin.post(f"/api/users/{somebody.id}/link").json()
    with portal.client() as client:
        assert welcome(client, first["token"]).status_code == 401
        assert "New password" in client.get(second["path"]).text
        old = {"email": somebody.email, "password": somebody.password}
        assert client.post("/login", data=old).status_code == 303  # it works until it is used
        assert welcome(client, second["token"]).status_code == 303
        assert client.post("/login", data=old).status_code == 401
    with portal.client(somebody.token) as program:
        assert program.get("/api/auth/me").status_code == 401
    with portal.admin() as admin:
        third = admin.post(f"/api/users/{somebody.id}/link").json()
    with portal.client() as client:
        given = {"email": somebody.email, "password": NEW}
        token = client.post("/api/auth/login", json=given).json()["token"]
        client.headers["Authorization"] = f"Bearer {token}"
        mine = {"new_password": NEW + "!", "current_password": NEW}
        assert client.post("/api/auth/password", json=mine).status_code == 200
        assert welcome(client, third["token"]).status_code == 401


def test_asking_twice_with_a_key_is_asking_once(portal: Portal) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    email = fresh()
    with portal.admin() as admin:
        one = admin.post("/api/users", json={"email": email}, headers=key)
        two = admin.post("/api/users", json={"email": email}, headers=key)
        assert (two.status_code, two.json()) == (201, one.json())
        assert admin.post("/api/users", json={"email": fresh()}, headers=key).status_code == 409
        key = {"Idempotency-Key": uuid.uuid4().hex}
        where = f"/api/users/{one.json()['user']['id']}/link"
        again = [admin.post(where, headers=key).json() for _ in range(2)]
        assert again[0] == again[1]
        assert again[0]["path"].startswith("/welcome?token=")
        key = {"Idempotency-Key": uuid.uuid4().hex}
        asking = {"name": "x", "scopes": ["tasks:read"]}
        tokens = [admin.post("/api/tokens", json=asking, headers=key).json() for _ in range(2)]
        assert tokens[0] == tokens[1]
    with portal.client() as client:
        assert welcome(client, again[0]["token"]).status_code == 303


async def test_no_secret_is_kept_as_it_was_given(portal: Portal, store: Store, bus: Bus) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    with portal.admin() as admin:
        made = admin.post("/api/users", json={"email": fresh()}, headers=key).json()
        key = {"Idempotency-Key": uuid.uuid4().hex}
        asking = {"name": "x", "scopes": ["tasks:read"]}
        token = admin.post("/api/tokens", json=asking, headers=key).json()["token"]
        listed = admin.get("/api/tokens").text + admin.get("/api/users").text
    secrets = [made["invitation"]["token"], token]
    tables = [
        one["tablename"]
        for one in await store.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    ]
    assert {"links", "api_tokens", "idempotency", "outbox"} <= set(tables)
    for table in tables:
        row = await store.fetchval(f"SELECT string_agg(t::text, '') FROM {table} t")
        assert not [one for one in secrets if one in (row or "")], table
    wire = json.dumps([one.payload for one in await everything(bus)])
    log = portal.log.read_text()
    assert not [one for one in secrets if one in listed + wire + log]


async def test_roles_and_deactivation_take_hold_at_once(
    portal: Portal, store: Store, bus: Bus
) -> None:
    somebody = await person(portal, store)
    with portal.client(somebody.token) as client, portal.admin() as admin:
        asking = {"name": "x", "scopes": ["tasks:read"]}
        token = client.post("/api/tokens", json=asking).json()["token"]
        assert client.get("/api/users").status_code == 403
        changed = admin.patch(f"/api/users/{somebody.id}", json={"role": "admin"})
        assert changed.json()["role"] == "admin"
        assert client.get("/api/users").status_code == 200
        admin.patch(f"/api/users/{somebody.id}", json={"role": "user"})
        assert client.get("/api/users").status_code == 403
        link = admin.post(f"/api/users/{somebody.id}/link").json()
        admin.patch(f"/api/users/{somebody.id}", json={"is_active": False})
        assert client.get("/api/auth/me").status_code == 401
        given = {"email": somebody.email, "password": somebody.password}
        assert client.post("/login", data=given).status_code == 401
        assert admin.post(f"/api/users/{somebody.id}/link").status_code == 409
        admin.patch(f"/api/users/{somebody.id}", json={"is_active": True})
        # What they had before does not come back with them.
        assert client.get("/api/auth/me").status_code == 401
        assert welcome(client, link["token"]).status_code == 401
        with portal.client(token) as program:
            assert program.get("/api/tasks").status_code == 401
        assert client.post("/login", data=given).status_code == 303
        assert admin.patch(f"/api/users/{uuid.uuid4()}", json={"role": "user"}).status_code == 404
        assert admin.patch(f"/api/users/{somebody.id}", json={}).status_code == 422
        for wrong in ({"role": "system"}, {"role": "owner"}, {"is_active": "yes"}):
            assert admin.patch(f"/api/users/{somebody.id}", json=wrong).status_code == 422
    told = await written(bus, store, like(ADMIN_ID, "write", "success", f"users/{somebody.id}"))
    made = [(one.details["role"], one.risk_level) for one in told if "role" in one.details]
    assert ("admin", "high") in made
    assert ("user", "medium") in made


@pytest.fixture
def alone(portal: Portal, store: Store) -> Any:
    """No admin but the owner of the machine, and those that the test makes."""

    async def only() -> None:
        await store.execute("UPDATE users SET role = 'user' WHERE id <> $1", ADMIN_ID)

    return only


async def test_the_last_admin_stays(portal: Portal, store: Store, alone: Any) -> None:
    await alone()
    with portal.admin() as admin:
        described = admin.get("/openapi.json").json()["paths"]["/api/users/{user_id}"]["patch"]
        assert "409" in described["responses"]
        for change in ({"role": "user"}, {"is_active": False}):
            refused = admin.patch(f"/api/users/{ADMIN_ID}", json=change)
            assert refused.status_code == 409
            assert "last admin" in refused.json()["detail"]
        other = await person(portal, store, role="admin")
        left = admin.patch(f"/api/users/{ADMIN_ID}", json={"is_active": False})
        assert left.status_code == 200
        try:
            # The owner of the machine needs no account to be let in.
            assert admin.get("/api/users").status_code == 200
            assert admin.patch(f"/api/users/{other.id}", json={"role": "user"}).status_code == 409
        finally:
            back = admin.patch(f"/api/users/{ADMIN_ID}", json={"is_active": True})
            assert back.status_code == 200


async def test_two_admins_cannot_remove_each_other(
    portal: Portal, store: Store, alone: Any
) -> None:
    await alone()
    one, two = [await person(portal, store, role="admin") for _ in range(2)]
    await store.execute("UPDATE users SET role = 'user' WHERE id = $1", ADMIN_ID)
    try:
        async with httpx.AsyncClient(base_url=portal.url, verify=False) as client:

            async def remove(by: str, whom: str) -> int:
                answer = await client.patch(
                    f"/api/users/{whom}",
                    json={"role": "user"},
                    headers={"Authorization": f"Bearer {by}"},
                )
                return answer.status_code

            for _ in range(5):
                tried = await asyncio.gather(remove(one.token, two.id), remove(two.token, one.id))
                left = await store.fetch("SELECT id FROM users WHERE role = 'admin'")
                assert len(left) == 1
                assert min(tried) == 200
                assert max(tried) in {403, 409}
                await store.execute(
                    "UPDATE users SET role = 'admin' WHERE id = ANY($1::uuid[])", [one.id, two.id]
                )
    finally:
        await store.execute("UPDATE users SET role = 'admin' WHERE id = $1", ADMIN_ID)


async def test_everybody_is_listed_by_pages(portal: Portal, store: Store) -> None:
    made = {(await person(portal, store)).id for _ in range(5)}
    with portal.admin() as admin:
        seen, cursor = [], None
        while True:
            params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = admin.get("/api/users", params=params).json()
            seen += [one["id"] for one in page["users"]]
            if (cursor := page["next_cursor"]) is None:
                break
        assert admin.get("/api/users", params={"cursor": "x"}).status_code == 422
    assert made | {ADMIN_ID} <= set(seen)
    assert len(seen) == len(set(seen))


async def test_a_profile_keeps_what_is_left_out(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    with portal.client(somebody.token) as client:
        client.patch("/api/auth/me", json={"display_name": " Mo ", "time_zone": "Europe/Berlin"})
        me = client.patch("/api/auth/me", json={"display_name": "Mona"}).json()
        assert (me["display_name"], me["time_zone"]) == ("Mona", "Europe/Berlin")
        assert client.patch("/api/auth/me", json={"time_zone": None}).json()["time_zone"] is None
        for zone in ("Mars/Base", "../../etc/passwd", "", "/etc/localtime"):
            wrong = client.patch("/api/auth/me", json={"time_zone": zone})
            assert wrong.status_code == 422, zone
        assert client.patch("/api/auth/me", json={"role": "admin"}).status_code == 422
        assert client.patch("/api/auth/me", json={}).json()["display_name"] == "Mona"


async def test_a_token_is_shown_once_and_tells_when_it_was_used(
    portal: Portal, store: Store, bus: Bus
) -> None:
    somebody = await person(portal, store)
    with portal.client(somebody.token) as client:
        asking = {"name": "ci", "scopes": ["tasks:write", "tasks:read"], "expires_in_days": 7}
        made = client.post("/api/tokens", json=asking).json()
        about = made["about"]
        assert about["scopes"] == ["tasks:read", "tasks:write"]
        assert made["token"].startswith(about["hint"])
        assert about["last_used_at"] is None
        with portal.client(made["token"]) as program:
            me = program.get("/api/auth/me").json()
            assert (me["id"], me["scopes"]) == (somebody.id, about["scopes"])
            assert program.post("/api/conversations", json={}).status_code == 201
            assert program.post("/api/auth/logout").status_code == 403
        (listed,) = client.get("/api/tokens").json()["tokens"]
        assert listed["last_used_at"] is not None
        assert client.delete(f"/api/tokens/{about['id']}").status_code == 204
        with portal.client(made["token"]) as program:
            assert program.get("/api/auth/me").status_code == 401
        assert client.delete(f"/api/tokens/{about['id']}").status_code == 404
        for wrong in (
            {"name": "x", "scopes": []},
            {"name": "", "scopes": ["tasks:read"]},
            {"name": "x", "scopes": ["root"]},
            {"name": "x", "scopes": ["session"]},
            {"name": "x", "scopes": ["any"]},
            {"name": "x", "scopes": ["admin"]},  # by a user
            {"name": "x", "scopes": ["tasks:read"], "expires_in_days": 0},
        ):
            assert client.post("/api/tokens", json=wrong).status_code == 422, wrong
        endless = {"name": "x", "scopes": ["tasks:read"], "expires_in_days": None}
        assert client.post("/api/tokens", json=endless).json()["about"]["expires_at"] is None
    told = await written(bus, store, like(somebody.id, "write", "success", "tokens/"))
    assert told[0].details["scopes"] == ["tasks:read", "tasks:write"]
    assert await written(bus, store, like(somebody.id, "delete", "success", "tokens/"))


async def test_an_admins_token_is_no_admin_without_that_scope(portal: Portal, store: Store) -> None:
    boss, other = await person(portal, store, role="admin"), await person(portal, store)
    with portal.client(boss.token) as client:
        asking = {"name": "x", "scopes": sorted(SCOPES.keys() - {"admin"})}
        token = client.post("/api/tokens", json=asking).json()["token"]
    with portal.client(other.token) as client:
        where = client.post("/api/conversations", json={}).json()["id"]
        sent = client.post(f"/api/conversations/{where}/messages", json={"content": "x"}).json()
    await store.execute(
        "INSERT INTO approvals (task_id, user_id, agent, call_id, request, binding, subject, risk,"
        " sentence, expires_at) VALUES ($1, $2, 'code', 'c', $4, $3, $3, 'low', 's',"
        " now() - interval '1 s')",
        *(sent["task_id"], other.id, "0" * 64, leave_asked(sent["task_id"], other.id)),
    )
    with portal.client(token) as program:
        assert program.get("/api/approvals?all=true").json()["approvals"] == []
        assert program.get("/api/memory/stats?everybody=true").status_code == 403


def test_fifty_tokens_are_enough(portal: Portal) -> None:
    with portal.admin() as admin:
        email = fresh()
        admin.post("/api/users", json={"email": email, "password": NEW})
    with portal.client() as client:
        given = {"email": email, "password": NEW}
        token = client.post("/api/auth/login", json=given).json()["token"]
        client.headers["Authorization"] = f"Bearer {token}"
        asking = {"name": "x", "scopes": ["tasks:read"]}
        got = [client.post("/api/tokens", json=asking).status_code for _ in range(51)]
    assert got == [201] * 50 + [409]


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/140.0 Safari/537.36 Edg/140.0",
         "Edge on Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0 Safari/604.1",
         "Safari on iPhone"),
        ("Mozilla/5.0 (Linux; Android 16) Chrome/140.0 Mobile Safari/537.36", "Chrome on Android"),
        ("python-httpx/0.28.1", "python-httpx"),
        ("", "unknown"),
    ],
)  # fmt: skip
def test_a_device_in_words(agent: str, said: str) -> None:
    assert device(agent) == said
