"""Who gets in: every route against every wrong token, logins, links, cookies, revocation."""

from __future__ import annotations

import asyncio
import os
import stat
import time
import uuid
from typing import Any

import httpx
import jwt

from base.store import Store
from portal import auth
from portal.auth import ADMIN_ID
from tests.portal.conftest import Portal, asked, door, person

OPEN = {"/api/auth/login", "/api/auth/refresh", "/api/health/live", "/api/health/ready"}
ADMIN_ONLY = {
    ("POST", "/api/auth/links"),
    ("POST", "/api/agents/{name}/{verb}"),
    ("POST", "/api/domains"),
    ("DELETE", "/api/domains/{domain_id}"),
    ("POST", "/api/domains/{domain_id}/deploy"),
    ("GET", "/api/audit"),
    ("GET", "/api/dlq"),
    ("POST", "/api/dlq/{letter_id}/replay"),
    ("POST", "/api/dlq/purge"),
}
BODIES: dict[str, dict[str, Any]] = {
    "/api/conversations": {"title": "x"},
    "/api/conversations/{conversation_id}": {"title": "x"},
    "/api/domains": {"domain_name": "example.org"},
    "/api/conversations/{conversation_id}/messages": {"content": "hello"},
    "/api/tasks/{task_id}/steer": {"text": "more"},
    "/api/dlq/purge": {"stream": "nowhere"},
    "/api/auth/password": {"new_password": "a long enough one", "current_password": "wrong"},
}


def routes(portal: Portal) -> list[tuple[str, str]]:
    with portal.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    found = [(method.upper(), path) for path, item in paths.items() for method in item]
    assert len(found) >= 50
    return [(method, path) for method, path in found if path not in OPEN]


def call(client: httpx.Client, method: str, path: str, **names: str) -> httpx.Response:
    filled = {"name": "code", "verb": "pause", "letter_id": "x/1-0", **names}
    ids = ("conversation_id", "task_id", "approval_id", "memory_id", "message_id", "domain_id")
    ids = (*ids, "webhook_id")
    filled = {**{one: str(uuid.uuid4()) for one in ids}, **filled}
    body = BODIES.get(path) if method in {"POST", "PUT", "PATCH"} else None
    return client.request(method, path.format(**filled), json=body)


def forged(portal: Portal) -> dict[str, str | None]:
    key = auth.secret(portal.settings)
    now = int(time.time())
    claims = {"sub": ADMIN_ID, "iat": now, "exp": now + 600, "local": True}
    return {
        "no token": None,
        "no jwt": "nonsense",
        "expired": jwt.encode({**claims, "exp": now - 5}, key, "HS256"),
        "no expiry": jwt.encode({"sub": ADMIN_ID, "local": True}, key, "HS256"),
        "alg none": jwt.encode(claims, None, "none"),
        "alg HS512": jwt.encode(claims, key, "HS512"),
        "other key": jwt.encode(claims, b"k" * 64, "HS256"),
        "no session": jwt.encode({**claims, "local": False}, key, "HS256"),
        "unknown session": jwt.encode({**claims, "sid": str(uuid.uuid4())}, key, "HS256"),
        "unknown user": jwt.encode({**claims, "sub": str(uuid.uuid4())}, key, "HS256"),
        "subject no id": jwt.encode({**claims, "sub": "admin"}, key, "HS256"),
    }


def test_every_route_refuses_every_wrong_token(portal: Portal) -> None:
    for name, token in forged(portal).items():
        with portal.client(token) as client:
            for method, path in routes(portal):
                answer = call(client, method, path)
                assert answer.status_code == 401, f"{name}: {method} {path}: {answer.status_code}"
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["instance"].startswith("/api/")
                assert "WWW-Authenticate" in answer.headers


async def test_a_lower_role_gets_403_where_only_an_admin_may(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    with portal.client(somebody.token) as client:
        refused = {
            (method, path)
            for method, path in routes(portal)
            if "logout" not in path
            and "password" not in path
            and "tasks/{" not in path
            and "/memory" not in path  # no keeper here: each would wait for it
            and call(client, method, path).status_code == 403
        }
    assert refused == ADMIN_ONLY


async def test_what_is_somebody_elses_does_not_exist(portal: Portal, store: Store) -> None:
    owner, other = await person(portal, store), await person(portal, store, role="admin")
    conversation_id, sent = await asked(portal, owner.token)
    names = {"conversation_id": conversation_id, "task_id": sent["task_id"]}
    tried = 0
    with portal.client(other.token) as client:
        for method, path in routes(portal):
            if "{conversation_id}" in path or "{task_id}" in path:
                tried += 1
                answer = call(client, method, path, **names)
                assert answer.status_code == 404, f"{method} {path}: {answer.text}"
        listed = client.get("/api/conversations").text + client.get("/api/tasks").text
        assert conversation_id not in listed
        assert sent["task_id"] not in listed
    assert tried >= 8
    with portal.client(owner.token) as client:
        assert client.get(f"/api/tasks/{sent['task_id']}").status_code == 200


async def test_login_refresh_logout(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    with portal.client() as client:
        given = {"email": somebody.email.upper(), "password": somebody.password}
        first = client.post("/api/auth/login", json=given)
        assert first.status_code == 200
        assert {"token", "expires_at", "refresh_token"} == set(first.json())
        second = client.post(
            "/api/auth/refresh", json={"refresh_token": first.json()["refresh_token"]}
        ).json()
        again = client.post(
            "/api/auth/refresh", json={"refresh_token": first.json()["refresh_token"]}
        )
        assert again.status_code == 401
        client.headers["Authorization"] = f"Bearer {second['token']}"
        assert client.get("/api/auth/me").json()["email"] == somebody.email
        assert client.post("/api/auth/logout").status_code == 204
        assert client.get("/api/auth/me").status_code == 401
        renew = client.post("/api/auth/refresh", json={"refresh_token": second["refresh_token"]})
        assert renew.status_code == 401
    stored = await store.fetch("SELECT token_hash FROM sessions")
    assert all(second["refresh_token"] not in row["token_hash"] for row in stored)


async def test_a_new_password_ends_the_other_sessions(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    given = {"email": somebody.email, "password": somebody.password}
    with portal.client() as client:
        mine = client.post("/api/auth/login", json=given).json()["token"]
        client.headers["Authorization"] = f"Bearer {mine}"
        wrong = {"new_password": "quite a new one", "current_password": "not this"}
        assert client.post("/api/auth/password", json=wrong).status_code == 422
        without = {"new_password": "quite a new one"}
        assert client.post("/api/auth/password", json=without).status_code == 422
        right = {**without, "current_password": somebody.password}
        assert client.post("/api/auth/password", json=right).status_code == 200
        assert client.get("/api/auth/me").status_code == 200
    with portal.client(somebody.token) as client:
        assert client.get("/api/auth/me").status_code == 401
        assert client.post("/api/auth/login", json=given).status_code == 401


async def test_an_unknown_email_takes_as_long(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    with portal.client() as client:

        def took_s(email: str) -> float:
            started = time.perf_counter()
            answer = client.post("/api/auth/login", json={"email": email, "password": "no"})
            assert answer.status_code == 401
            return time.perf_counter() - started

        known = min(took_s(somebody.email) for _ in range(4))
        unknown = min(took_s(f"{uuid.uuid4()}@nowhere") for _ in range(4))
        assert unknown > known / 3


def test_a_login_link_works_once_and_sets_a_safe_cookie(portal: Portal) -> None:
    with portal.admin() as admin:
        link = admin.post("/api/auth/links", headers={"Idempotency-Key": str(uuid.uuid4())}).json()
    with portal.client() as client:
        first = client.get(link["path"])
        assert first.status_code == 303
        cookie = first.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "Secure" not in cookie
        assert client.get("/api/auth/me").json()["email"] == "admin@local"
    with portal.client() as client:
        assert client.get(link["path"]).status_code == 401
        behind_tls = {"X-Forwarded-Proto": "https"}
        with portal.admin() as admin:
            link = admin.post("/api/auth/links").json()
        secure = client.get(link["path"], headers=behind_tls).headers["set-cookie"]
        assert secure.startswith("__Host-")
        assert "Secure" in secure


def test_a_link_repeated_by_its_key_is_the_same_link_and_no_second_one(portal: Portal) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    with portal.admin() as admin:
        one = admin.post("/api/auth/links", headers=key).json()
        assert admin.post("/api/auth/links", headers=key).json() == one
        with portal.client() as client:
            assert client.get(one["path"]).status_code == 303
        assert admin.post("/api/auth/links", headers=key).json() == one
        with portal.client() as client:
            assert client.get(one["path"]).status_code == 401


def test_a_cookie_counts_only_for_our_own_pages(portal: Portal) -> None:
    with portal.admin() as admin:
        link = admin.post("/api/auth/links").json()
    with portal.client() as client:
        client.get(link["path"])
        ours = {"Origin": portal.url}
        assert client.post("/api/conversations", json={}).status_code == 401
        evil = client.post("/api/conversations", json={}, headers={"Origin": "http://evil"})
        assert evil.status_code == 401
        read = client.get("/api/auth/me", headers={"Sec-Fetch-Site": "cross-site"})
        assert read.status_code == 401
        assert client.post("/api/conversations", json={}, headers=ours).status_code == 201
        assert client.post("/logout", headers=ours).status_code == 303
        assert client.get("/api/auth/me").status_code == 401


async def test_the_login_form(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    with portal.client() as client:
        assert client.get("/").headers["location"] == "/login"
        page = client.get("/login")
        assert "<form" in page.text
        wrong = client.post("/login", data={"email": '"><script>', "password": "x"})
        assert wrong.status_code == 401
        assert "<script>" not in wrong.text
        given = {"email": somebody.email, "password": somebody.password}
        foreign = client.post("/login", data=given, headers={"Origin": "http://evil"})
        assert foreign.status_code == 403
        assert client.post("/login", data=given).status_code == 303
        assert client.get("/").status_code == 200


def test_the_secret_is_private_and_made_once(portal: Portal) -> None:
    path = portal.settings.secrets / "jwt-secret"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert auth.secret(portal.settings) == auth.secret(portal.settings)


async def test_racers_use_one_link_once(portal: Portal, store: Store) -> None:
    desk = door(portal, store)
    value, _ = await desk.make_link(ADMIN_ID)
    tries = await asyncio.gather(
        *(desk.use_link(value, agent="") for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(one, auth.Grant) for one in tries) == 1


async def test_a_refresh_token_is_no_link_and_no_cookie(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    with portal.client() as client:
        given = {"email": somebody.email, "password": somebody.password}
        refresh = client.post("/api/auth/login", json=given).json()["refresh_token"]
        assert client.get(f"/login?token={refresh}").status_code == 401
        client.cookies.set("ai-infra", refresh)
        assert client.get("/api/auth/me").status_code == 401
