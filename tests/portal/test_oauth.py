"""Logging in by Google and GitHub, against an identity provider on this machine."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect
from starlette.requests import Request
from starlette.responses import Response

from base import secrets_files
from base.errors import InputError
from base.settings import Settings
from base.store import Store
from portal import cookies
from portal.auth import ADMIN_ID
from portal.oauth import Providers
from tests.portal.conftest import Person, Portal, person
from tests.portal.provider import CLIENT_ID, CLIENT_SECRET, Provider

pytestmark = pytest.mark.xdist_group("gate")  # one portal that knows both
BOTH = pytest.mark.parametrize("name", ["google", "github"])


@pytest.fixture(autouse=True)
def fresh(provider: Provider) -> None:
    provider.reset()
    provider.subject = str(uuid.uuid4().int % 10**9)
    provider.email = f"{uuid.uuid4().hex[:8]}@test"


@pytest_asyncio.fixture(loop_scope="session")
async def record(gate: Portal) -> AsyncIterator[Store]:
    opened = await Store.open(gate.settings.postgres, "test")
    yield opened
    await opened.close()


def invited(gate: Portal, email: str, **more: Any) -> dict[str, Any]:
    with gate.admin() as admin:
        made = admin.post("/api/users", json={"email": email, **more})
        assert made.status_code == 201, made.text
        found: dict[str, Any] = made.json()
        return found


def go(client: httpx.Client, name: str, query: str = "") -> str:
    """Through the provider; the address that it sends the browser back to."""
    begun = client.get(f"/api/auth/oauth/{name}{query}")
    assert begun.status_code == 303, begun.text
    there = httpx.get(begun.headers["location"])
    assert there.status_code == 302, there.text
    return str(there.headers["location"])


def enter(client: httpx.Client, name: str, query: str = "") -> httpx.Response:
    return client.get(go(client, name, query))


def said(answer: httpx.Response) -> str:
    return answer.text.split('role="alert">')[1].split("</div>")[0]


@BOTH
def test_the_whole_way_by_an_invitation_and_then_without(
    gate: Portal, provider: Provider, name: str
) -> None:
    made = invited(gate, provider.email.upper())
    with gate.client() as client:
        began = client.get(f"/api/auth/oauth/{name}")
        asked = {k: v[0] for k, v in parse_qs(urlsplit(began.headers["location"]).query).items()}
        assert asked["redirect_uri"] == f"{gate.url}/login/{name}/callback"
        assert asked["code_challenge_method"] == "S256"
        assert ("nonce" in asked) == (name == "google")
        assert CLIENT_SECRET not in began.headers["location"] + began.headers["set-cookie"]
        assert "HttpOnly" in began.headers["set-cookie"]
        answer = enter(client, name)
        assert answer.status_code == 303, answer.text
        assert answer.headers["location"] == "/"
        me = client.get("/api/auth/me").json()
        assert me["id"] == made["user"]["id"]
        assert me["role"] == "user"
        assert [one["provider"] for one in me["identities"]] == [name]
        assert client.get("/api/auth/sessions").json()["sessions"][0]["how"] == name
    with gate.client() as client:  # the invitation is used up, the identity stays
        assert client.get(made["invitation"]["path"]).status_code == 401
        provider.email = "changed@test"
        assert enter(client, name).status_code == 303
        assert client.get("/api/auth/me").json()["id"] == made["user"]["id"]


@BOTH
async def test_a_stranger_and_an_email_alone_do_not_get_in(
    gate: Portal, provider: Provider, record: Store, name: str
) -> None:
    invited(gate, f"{uuid.uuid4().hex}@test")  # somebody else's waits
    before = await record.fetchval("SELECT count(*) FROM users")
    with gate.client() as client:
        answer = enter(client, name)
        assert answer.status_code == 401
        assert "No account here" in said(answer)
        assert client.get("/api/auth/me").status_code == 401
        # The email of somebody who has an account, with a password or as an admin, is no key to it.
        for email in ((await person(gate, record)).email, "admin@local"):
            provider.email = email
            assert enter(client, name).status_code == 401
    assert await record.fetchval("SELECT count(*) FROM users") == before + 1
    assert not await record.fetchval("SELECT count(*) FROM identities WHERE user_id = $1", ADMIN_ID)


@BOTH
@pytest.mark.parametrize("fault", ["not verified", "over", "not active"])
async def test_an_invitation_that_does_not_count(
    gate: Portal, provider: Provider, record: Store, name: str, fault: str
) -> None:
    made = invited(gate, provider.email)
    if fault == "not verified":
        provider.verified = False
    elif fault == "over":
        late = "UPDATE links SET expires_at = now() - interval '1 s' WHERE user_id = $1"
        await record.execute(late, made["user"]["id"])
    else:
        with gate.admin() as admin:
            admin.patch(f"/api/users/{made['user']['id']}", json={"is_active": False})
    with gate.client() as client:
        assert enter(client, name).status_code == 401


def test_a_verified_email_that_is_not_the_first_one_counts_at_github(
    gate: Portal, provider: Provider
) -> None:
    made = invited(gate, provider.email)
    provider.emails = [
        {"email": "first@test", "primary": True, "verified": True},
        {"email": "unverified@test", "primary": False, "verified": False},
        {"email": provider.email, "primary": False, "verified": True},
    ]
    with gate.client() as client:
        assert enter(client, "github").status_code == 303
        assert client.get("/api/auth/me").json()["id"] == made["user"]["id"]


@BOTH
def test_the_state_belongs_to_one_browser_one_provider_and_one_time(
    gate: Portal, provider: Provider, name: str
) -> None:
    invited(gate, provider.email)
    with gate.client() as victim, gate.client() as attacker:
        stolen = go(attacker, name)
        assert "begun elsewhere" in said(victim.get(stolen))  # login CSRF: no cookie of ours
        go(victim, name)
        assert "begun elsewhere" in said(victim.get(stolen))  # another state than the cookie's
    with gate.client() as client:
        back = go(client, name)
        other = "github" if name == "google" else "google"
        assert client.get(back.replace(f"/{name}/", f"/{other}/")).status_code == 401
        assert client.get(back).status_code == 401  # that try has used the cookie up
    with gate.client() as client:
        back = go(client, name)
        assert client.get(back).status_code == 303
        assert client.get(back).status_code == 401
    with gate.client() as client:
        go(client, name)
        refused = client.get(f"/login/{name}/callback?error=access_denied&state=x")
        assert refused.status_code == 401
        assert "You did not log in there" in said(refused)
        client.cookies.set("ai-infra-oauth", "nonsense")
        assert client.get(f"/login/{name}/callback?code=x&state=x").status_code == 401


@pytest.mark.parametrize(
    "fault",
    [
        {"aud": "somebody-else"},
        {"iss": "https://accounts.google.com"},
        {"nonce": "another"},
        {"nonce": None},
        {"exp": 1_000_000_000},
        {"sub": None},
        {"azp": "somebody-else"},
        {"at_hash": "x" * 22},
    ],
    ids=str,
)
def test_an_id_token_that_is_not_for_this_login(
    gate: Portal, provider: Provider, fault: dict[str, Any]
) -> None:
    invited(gate, provider.email)
    provider.claims = fault
    with gate.client() as client:
        answer = enter(client, "google")
        assert answer.status_code == 401
        assert "Google did not confirm it" in said(answer)
        assert client.get("/api/auth/me").status_code == 401


@pytest.mark.parametrize("sign", ["none", "HS256", "other key"])
def test_an_id_token_that_the_provider_did_not_sign(
    gate: Portal, provider: Provider, sign: str
) -> None:
    invited(gate, provider.email)
    provider.sign = sign
    with gate.client() as client:
        assert enter(client, "google").status_code == 401


def test_a_code_without_its_verifier_is_worth_nothing(gate: Portal, provider: Provider) -> None:
    """A code that was stolen on its way back, put into the thief's own login."""
    invited(gate, provider.email)
    with gate.client() as victim, gate.client() as thief:
        code = parse_qs(urlsplit(go(victim, "github")).query)["code"][0]
        own = urlsplit(go(thief, "github"))
        state = parse_qs(own.query)["state"][0]
        answer = thief.get(f"{own.path}?code={code}&state={state}")
        assert answer.status_code == 401
        assert "GitHub did not confirm it" in said(answer)


async def linker(gate: Portal, record: Store) -> tuple[Person, httpx.Client]:
    """Somebody who is logged in with a browser."""
    somebody = await person(gate, record)
    client = gate.client()
    client.headers["Sec-Fetch-Site"] = "same-origin"
    given = {"email": somebody.email, "password": somebody.password}
    assert client.post("/login", data=given).status_code == 303
    return somebody, client


@BOTH
async def test_somebody_who_is_logged_in_links_and_unlinks(
    gate: Portal, provider: Provider, record: Store, name: str
) -> None:
    somebody, client = await linker(gate, record)
    ours = {"Origin": gate.url}
    with closing(client):
        answer = enter(client, name, "?link=true")
        assert answer.headers["location"] == "/settings"
        assert client.get("/api/auth/me").json()["identities"][0]["email"] == provider.email
        with gate.client() as elsewhere:
            assert enter(elsewhere, name).status_code == 303
            assert elsewhere.get("/api/auth/me").json()["id"] == somebody.id
        other, second = await linker(gate, record)
        with closing(second):
            refused = enter(second, name, "?link=true")
            assert refused.status_code == 409
            assert "somebody else" in said(refused)
            assert second.get("/api/auth/me").json()["identities"] == []
        provider.subject = "77"
        assert enter(client, name, "?link=true").status_code == 409  # one of each provider
        gone = client.delete(f"/api/auth/identities/{name}", headers=ours)
        assert gone.status_code == 204
        again = client.delete(f"/api/auth/identities/{name}", headers=ours)
        assert again.status_code == 404
        assert other.id != somebody.id


async def test_linking_is_asked_for_by_our_own_page_in_the_same_session(
    gate: Portal, record: Store
) -> None:
    somebody, client = await linker(gate, record)
    with closing(client):
        foreign = {"Sec-Fetch-Site": "cross-site"}
        asked = client.get("/api/auth/oauth/google?link=true", headers=foreign)
        assert asked.status_code == 401
        back = go(client, "google", "?link=true")
        given = {"email": somebody.email, "password": somebody.password}
        client.post("/login", data=given)  # another session in the same browser
        assert "logged in as somebody else" in said(client.get(back))
        assert client.get("/api/auth/me").json()["identities"] == []
    with gate.client(somebody.token) as program:
        assert program.get("/api/auth/oauth/google?link=true").status_code == 401


def test_the_only_way_in_stays_and_a_first_password_may_be_set(
    gate: Portal, provider: Provider
) -> None:
    invited(gate, provider.email)
    with gate.client() as client:
        client.headers["Origin"] = gate.url
        enter(client, "github")
        assert client.delete("/api/auth/identities/github").status_code == 403
        new = {"new_password": "quite a new one"}
        assert client.post("/api/auth/password", json=new).status_code == 200
        assert client.delete("/api/auth/identities/github").status_code == 204


def test_a_provider_that_does_not_answer_is_said_so(gate: Portal, provider: Provider) -> None:
    with gate.client() as client:
        back = go(client, "github")
        provider.tokens.clear()
        provider.down = True
        answer = client.get(back)
        assert answer.status_code == 503
        assert "GitHub does not answer" in said(answer)


def test_nothing_of_it_where_it_is_not_set_up(portal: Portal) -> None:
    with portal.client() as client:
        assert client.get("/api/auth/oauth/google").status_code == 404
        assert client.get("/api/auth/oauth/other").status_code == 401
        assert "Log in with" not in client.get("/login").text


async def test_the_address_is_that_of_the_settings_alone(
    tmp_path: Path, provider: Provider
) -> None:
    settings = Settings(
        home=tmp_path,
        public_url="https://ai.test",
        github_client_id=CLIENT_ID,
        github_url=provider.url,
    )
    secrets_files.put(settings.secrets, "github-client-secret", CLIENT_SECRET)
    begun = await Providers(settings, "k" * 32).begin("github")
    asked = parse_qs(urlsplit(begun.url).query)
    assert asked["redirect_uri"] == ["https://ai.test/login/github/callback"]

    def reached(host: str, query: str = "", **more: str) -> Request:
        headers = {"host": host, **more}
        return Request(
            {
                "type": "http",
                "method": "GET",
                "scheme": "http",
                "path": "/api/auth/oauth/github",
                "query_string": query.encode(),
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            }
        )

    there = cookies.elsewhere(reached("127.0.0.1:8000", "next=/events"), settings)
    assert there == "https://ai.test/api/auth/oauth/github?next=%2Fevents&moved=true"
    with pytest.raises(InputError, match="public_url"):
        cookies.elsewhere(reached("evil.test", "moved=true"), settings)
    here = reached("ai.test", **{"x-forwarded-proto": "https"})
    assert cookies.elsewhere(here, settings) is None
    answer = Response()
    cookies.put_flow(here, answer, begun.flow)
    assert answer.headers["set-cookie"].startswith("__Host-ai-infra-oauth=")
    assert "Secure" in answer.headers["set-cookie"]


@BOTH
def test_it_leads_back_to_a_page_of_ours_and_nowhere_else(
    gate: Portal, provider: Provider, name: str
) -> None:
    invited(gate, provider.email)
    with gate.client() as client:
        assert "?next=%2Fevents" in client.get("/login?next=/events").text
        assert enter(client, name, "?next=/events").headers["location"] == "/events"
        for evil in ("//evil.test", "https://evil.test", "/\\evil.test", "javascript:x"):
            answer = enter(client, name, f"?next={quote(evil, safe='')}")
            assert (answer.status_code, answer.headers["location"]) == (303, "/")


async def test_the_buttons_in_a_browser(gate: Portal, provider: Provider, browser: Browser) -> None:
    """The browser comes back from another site, and is in."""
    invited(gate, provider.email)
    context = await browser.new_context(viewport={"width": 390, "height": 800})
    page = await context.new_page()
    page.set_default_timeout(15_000)
    await page.goto(f"{gate.url}/login")
    await page.get_by_role("link", name="Log in with Google").click()
    await expect(page.get_by_text("What should the agents do?")).to_be_visible()
    cookies = {one["name"]: one for one in await context.cookies()}
    assert cookies["ai-infra"]["httpOnly"]
    assert "ai-infra-oauth" not in cookies
    await context.close()
