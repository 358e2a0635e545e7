"""Logins, links, cookies and what ends them. Who is kept out of which route: test_doors.py."""

from __future__ import annotations

import asyncio
import os
import stat
import time
import uuid

import httpx
from playwright.async_api import Browser, expect

from base.bus import Bus
from base.store import Store
from portal import auth
from tests.portal.conftest import Portal, person
from tests.portal.test_trail import like, written


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


async def test_racers_use_one_link_once(portal: Portal) -> None:
    with portal.admin() as admin:
        path = admin.post("/api/auth/links").json()["path"]
    async with httpx.AsyncClient(base_url=portal.url, verify=False) as client:
        tries = await asyncio.gather(*(client.get(path) for _ in range(5)))
    assert sorted(one.status_code for one in tries) == [303, 401, 401, 401, 401]


async def later(store: Store, user_id: str) -> None:
    """As if the refresh tokens of that user had been used a minute ago."""
    await store.execute(
        "UPDATE session_used SET used_at = used_at - interval '1 min' WHERE session_id IN"
        " (SELECT id FROM sessions WHERE user_id = $1)",
        user_id,
    )


async def test_a_used_refresh_token_that_comes_again_ends_its_session(
    portal: Portal, store: Store, bus: Bus
) -> None:
    somebody = await person(portal, store)
    with portal.client() as client:

        def refresh(value: str) -> httpx.Response:
            return client.post("/api/auth/refresh", json={"refresh_token": value})

        given = {"email": somebody.email, "password": somebody.password}
        first = client.post("/api/auth/login", json=given).json()["refresh_token"]
        second = refresh(first).json()
        await later(store, somebody.id)
        with portal.client(second["token"]) as mine:
            assert mine.get("/api/auth/me").status_code == 200
            stolen = refresh(first)
            assert stolen.status_code == 401
            assert "used before" in stolen.json()["detail"]
            assert mine.get("/api/auth/me").status_code == 401
        assert refresh(second["refresh_token"]).status_code == 401
        assert refresh(first).status_code == 401
    (told,) = await written(bus, store, like(somebody.id, "logout", "denied", "sessions/"))
    assert told.risk_level == "high"
    assert told.details == {"reason": "a used refresh token came again"}
    with portal.client(somebody.token) as other:  # another family: it has nothing to do with it
        assert other.get("/api/auth/me").status_code == 200


async def test_two_who_refresh_at_the_same_moment_both_go_on(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    given = {"email": somebody.email, "password": somebody.password}
    async with httpx.AsyncClient(base_url=portal.url, verify=False) as client:
        first = (await client.post("/api/auth/login", json=given)).json()["refresh_token"]

        async def refresh(value: str) -> httpx.Response:
            return await client.post("/api/auth/refresh", json={"refresh_token": value})

        both = await asyncio.gather(*(refresh(first) for _ in range(4)))
        assert [one.status_code for one in both] == [200] * 4
        (second,) = {one.json()["refresh_token"] for one in both}
        assert second != first
        third = (await refresh(second)).json()["refresh_token"]
        # The first one's successor was used meanwhile: nobody honest is that far behind.
        assert (await refresh(first)).status_code == 401
        assert (await refresh(third)).status_code == 401


async def test_where_somebody_is_logged_in(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    given = {"email": somebody.email, "password": somebody.password}
    firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    with portal.client() as client:
        client.headers.update({"User-Agent": firefox, "Origin": portal.url})
        client.post("/login", data=given)
        here, other = client.get("/api/auth/sessions").json()["sessions"]
        assert here["current"]
        assert here["device"] == "Firefox on Linux"
        assert here["address"] == "127.0.0.1"
        assert here["how"] == "password"
        assert here["last_seen_at"] >= here["created_at"]
        assert not other["current"]
        assert other["device"] == "test"
        with portal.client(somebody.token) as program:
            assert program.get("/api/auth/me").status_code == 200
            assert client.delete(f"/api/auth/sessions/{other['id']}").status_code == 204
            assert program.get("/api/auth/me").status_code == 401
        assert client.delete(f"/api/auth/sessions/{other['id']}").status_code == 404
        tokens = [client.post("/api/auth/login", json=given).json()["token"] for _ in range(2)]
        assert client.delete("/api/auth/sessions").json() == {"ended": 2}
        for token in tokens:
            with portal.client(token) as program:
                assert program.get("/api/auth/me").status_code == 401
        assert client.get("/api/auth/me").status_code == 200
        client.post("/api/auth/login", json=given)
        assert client.post("/api/auth/logout?everywhere=true").status_code == 204
    left = await store.fetchval("SELECT count(*) FROM sessions WHERE user_id = $1", somebody.id)
    assert left == 0


async def test_a_session_is_seen_at_most_once_a_minute(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    seen = "SELECT last_seen_at FROM sessions WHERE user_id = $1"
    first = await store.fetchval(seen, somebody.id)
    with portal.client(somebody.token) as client:
        client.get("/api/auth/me")
        assert await store.fetchval(seen, somebody.id) == first
        await store.execute(
            "UPDATE sessions SET last_seen_at = now() - interval '2 min' WHERE user_id = $1",
            somebody.id,
        )
        client.get("/api/auth/me")
    assert await store.fetchval(seen, somebody.id) > first


async def test_a_login_makes_a_new_session_and_ends_the_one_before(
    portal: Portal, store: Store
) -> None:
    """Nobody can plant a session that somebody else then logs in to."""
    somebody, attacker = await person(portal, store), await person(portal, store)
    with portal.client() as client:
        client.post("/login", data={"email": attacker.email, "password": attacker.password})
        planted = client.cookies["ai-infra"]
        given = {"email": somebody.email, "password": somebody.password}
        assert client.post("/login", data=given).status_code == 303
        assert client.cookies["ai-infra"] != planted
        assert client.get("/api/auth/me").json()["email"] == somebody.email
    with portal.client() as thief:
        mine = thief.get("/api/auth/me", headers={"Cookie": f"ai-infra={planted}"})
        assert mine.status_code == 401
        fixed = {"Cookie": "ai-infra=fixed-by-somebody"}
        answer = thief.post("/login", data=given, headers=fixed)
        assert answer.status_code == 303
        assert "fixed-by-somebody" not in answer.headers["set-cookie"]
        assert thief.get("/api/auth/me", headers=fixed).status_code == 401


async def test_a_link_elsewhere_opens_a_page_and_no_more(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    opened = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    with portal.client() as client:
        client.post("/login", data={"email": somebody.email, "password": somebody.password})
        assert client.get("/", headers=opened).status_code == 200
        assert client.get("/", headers={**opened, "Sec-Fetch-Dest": "iframe"}).status_code == 303
        assert client.get("/", headers={**opened, "Sec-Fetch-Mode": "no-cors"}).status_code == 303
        assert client.get("/api/auth/me", headers=opened).status_code == 401
        evil = {"Origin": "http://evil"}
        assert client.post("/logout", headers=evil).status_code == 403
        assert client.get("/api/auth/me").status_code == 200


async def test_a_stream_of_events_ends_with_its_session(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    headers = {"Authorization": f"Bearer {somebody.token}", "Accept": "text/event-stream"}
    async with (
        httpx.AsyncClient(base_url=portal.url, verify=False, headers=headers, timeout=20) as client,
        client.stream("GET", "/api/events") as events,
    ):
        assert events.status_code == 200
        assert (await client.delete("/api/auth/sessions")).json() == {"ended": 0}
        assert (await client.post("/api/auth/logout")).status_code == 204
        started = time.monotonic()
        async for _ in events.aiter_lines():
            pass
        assert time.monotonic() - started < 5


async def test_a_page_whose_session_ends_goes_to_the_login_within_five_seconds(
    portal: Portal, browser: Browser, store: Store
) -> None:
    somebody = await person(portal, store)
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"{portal.url}/login")
    await page.get_by_label("Email").fill(somebody.email)
    await page.get_by_label("Password").fill(somebody.password)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_text("What should the agents do?")).to_be_visible()
    with portal.client(somebody.token) as program:
        assert program.delete("/api/auth/sessions").json() == {"ended": 1}
    started = time.monotonic()
    await page.wait_for_url("**/login", timeout=15_000)
    assert time.monotonic() - started < 5.5
    await context.close()


async def test_a_refresh_token_is_no_link_and_no_cookie(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    with portal.client() as client:
        given = {"email": somebody.email, "password": somebody.password}
        refresh = client.post("/api/auth/login", json=given).json()["refresh_token"]
        assert client.get(f"/login?token={refresh}").status_code == 401
        client.cookies.set("ai-infra", refresh)
        assert client.get("/api/auth/me").status_code == 401
