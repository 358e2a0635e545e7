"""Every route of the portal against everybody who must not get in. Made of the route table, so
that a route which declares nothing, or takes an id that nobody here owns, fails.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import uuid
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.testclient import TestClient
from websockets.asyncio.client import connect

from base.store import Store
from portal import auth, door, problems
from portal.auth import ADMIN_ID
from portal.door import OPEN_PATHS
from portal.scopes import ANY, SCOPES, SESSION
from tests.portal.conftest import REPO, Person, Portal, asked, leave_asked, person
from tests.portal.test_ws import close_code, socket

#: Who may in besides `/api`, where the door asks everybody.
GUARDS = {
    "/openapi.json": "open",
    "/static": "open",
    "/login": "open",
    "/login/{provider}/callback": "open",
    "/welcome": "open",
    "/logout": "open",
    "/api/{rest:path}": "token",  # what is no route
    "/metrics": "token",
    "/mcp": "token",
    "/ws": "socket",
    "/ws/terminals/{window}": "socket",
    "": "pages",  # NiceGUI, whose pages are in the table one by one
}
ADMIN_ONLY = {
    ("GET", "/api/doctor"),
    ("POST", "/api/doctor"),
    ("GET", "/api/users"),
    ("POST", "/api/users"),
    ("GET", "/api/users/{user_id}"),
    ("PATCH", "/api/users/{user_id}"),
    ("POST", "/api/users/{user_id}/link"),
    ("POST", "/api/auth/links"),
    ("POST", "/api/agents/{name}/start"),
    ("POST", "/api/agents/{name}/restart"),
    ("POST", "/api/agents/{name}/pause"),
    ("POST", "/api/agents/{name}/resume"),
    ("GET", "/api/agents/{name}/logs"),
    ("POST", "/api/domains"),
    ("DELETE", "/api/domains/{domain_id}"),
    ("POST", "/api/domains/{domain_id}/deploy"),
    ("POST", "/api/domains/plan"),
    ("GET", "/api/domains/history"),
    ("POST", "/api/domains/undo"),
    ("PATCH", "/api/domains/{domain_id}"),
    ("POST", "/api/domains/{domain_id}/rollback"),
    ("POST", "/api/domains/{domain_id}/renew"),
    ("GET", "/api/broker"),
    ("POST", "/api/broker/{verb}"),
    ("GET", "/api/backups"),
    ("POST", "/api/backups"),
    ("GET", "/api/backups/progress"),
    ("POST", "/api/backups/verify"),
    ("POST", "/api/backups/{snapshot}/plan"),
    ("POST", "/api/backups/{snapshot}/restore"),
    ("GET", "/api/audit"),
    ("GET", "/api/audit/export"),
    ("GET", "/api/dlq"),
    ("POST", "/api/dlq/{letter_id:path}/replay"),
    ("POST", "/api/dlq/purge"),
    ("GET", "/api/settings"),
    ("GET", "/api/settings/keys"),
    ("PUT", "/api/settings/keys/{name}"),
    ("DELETE", "/api/settings/keys/{name}"),
    ("POST", "/api/settings/keys/{name}/try"),
    ("GET", "/api/settings/extensions"),
    ("POST", "/api/settings/restart"),
    ("GET", "/api/settings/agents/{name}"),
    ("PUT", "/api/settings/agents/{name}"),
    ("GET", "/api/settings/{file}"),
    ("PUT", "/api/settings/{file}"),
}
#: Ids of things that belong to somebody, and names of things that belong to nobody.
OWNED = {
    "conversation_id",
    "task_id",
    "message_id",
    "approval_id",
    "session_id",
    "token_id",
    "webhook_id",
    "attachment_id",
}
NAMES = {
    "name": "nobody",
    "verb": "pause",
    "snapshot": "986b286e",
    "letter_id": "x/1-0",
    "provider": "google",
    "file": "budgets",
    "part": "keys",
    "rest": "nowhere",
    "window": "monitor",
    "user_id": ADMIN_ID,
    "domain_id": ADMIN_ID,  # there are none in local mode
}
#: The keeper of memory answers for these: tests/portal/test_memory_api.py. A recording's id is
#: its user's own choice: tests/portal/test_voice_api.py.
KEPT = {"memory_id", "recording_id"}
#: Who may begins minutes of work: tests/portal/test_backups.py.
BEGINS = {("POST", "/api/backups"), ("POST", "/api/backups/verify")}
BODIES: dict[str, dict[str, Any]] = {
    "/api/conversations/{conversation_id}/messages": {"content": "hello"},
    "/api/tasks/{task_id}/steer": {"text": "more"},
    "/api/approvals/{approval_id}/decision": {"approve": True},
    "/api/conversations/{conversation_id}": {"title": "x"},
    "/api/domains": {"domain_name": "example.org"},
    "/api/domains/plan": {"domain_name": "example.org"},
    "/api/domains/{domain_id}": {"enabled": True},
    "/api/messages/{message_id}/feedback": {"rating": 5},
    "/api/backups/{snapshot}/plan": {},
    "/api/backups/{snapshot}/restore": {"confirm": "986b286e"},
}

Route = dict[str, Any]


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> list[Route]:
    line = [sys.executable, "-m", "tests.portal.table", str(tmp_path_factory.mktemp("table"))]
    done = subprocess.run(line, cwd=REPO, capture_output=True, text=True, check=True)
    found: list[Route] = json.loads(done.stdout)
    assert len(found) >= 70
    return found


def api(table: list[Route]) -> list[Route]:
    """The routes under `/api` that somebody has to be known for."""
    return [
        one
        for one in table
        if one["path"].startswith("/api/")
        and "{rest" not in one["path"]
        and one["path"].replace("{provider}", "google") not in OPEN_PATHS
    ]


def names(path: str) -> list[str]:
    return re.findall(r"{(\w+)(?::\w+)?}", path)


def call(client: httpx.Client, route: Route, **ids: str) -> httpx.Response:
    path = re.sub(r":\w+}", "}", route["path"])
    unknown = {one: str(uuid.uuid4()) for one in OWNED | KEPT}
    body = BODIES.get(route["path"])
    method = "POST" if route["method"] == "-" else route["method"]  # "-": it takes any
    return client.request(method, path.format(**unknown | NAMES | ids), json=body)


def told(route: Route, answer: httpx.Response) -> str:
    return f"{route['method']} {route['path']}: {answer.status_code} {answer.text[:200]}"


def test_every_route_says_who_may_in(table: list[Route]) -> None:
    for route in table:
        path, kind = route["path"], route["kind"]
        if path.startswith("/api/") and "{rest" not in path:
            assert route["need"] in {*SCOPES, ANY, SESSION}, f"{path}: no need(...) beside it"
        elif kind != "Page":
            assert path in GUARDS, f"{path}: nobody has said here who may in"
        unknown = set(names(path)) - OWNED - KEPT - NAMES.keys()
        assert not unknown, f"{path}: whose is {unknown}? Say so in this file"
    assert {(one["method"], one["path"]) for one in table if one.get("admin")} == ADMIN_ONLY
    # What an admin alone may do, no token without that scope may.
    loose = [
        one["path"] for one in table if one.get("admin") and one["need"] not in {"admin", SESSION}
    ]
    assert loose == []


async def wrong_tokens(portal: Portal, store: Store) -> dict[str, str | None]:
    key, now = auth.secret(portal.settings), int(time.time())
    claims = {"sub": ADMIN_ID, "iat": now, "exp": now + 600, "local": True}
    somebody, gone = await person(portal, store), await person(portal, store)
    with portal.client() as client:
        given = {"email": somebody.email, "password": somebody.password}
        refresh_token = client.post("/api/auth/login", json=given).json()["refresh_token"]
    scopes = {"name": "x", "scopes": list(SCOPES)}
    with portal.admin() as admin:
        revoked, expired = (admin.post("/api/tokens", json=scopes).json() for _ in range(2))
        admin.delete(f"/api/tokens/{revoked['about']['id']}")
        link = admin.post("/api/auth/links").json()["token"]
    long_ago = "UPDATE api_tokens SET expires_at = now() - interval '1 s' WHERE id = $1"
    await store.execute(long_ago, expired["about"]["id"])
    await store.execute("UPDATE users SET is_active = FALSE WHERE id = $1", gone.id)
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return {
        "no token": None,
        "no jwt": "nonsense",
        "expired": jwt.encode({**claims, "exp": now - 5}, key, "HS256"),
        "no expiry": jwt.encode({"sub": ADMIN_ID, "local": True}, key, "HS256"),
        "alg none": jwt.encode(claims, None, "none"),
        "alg HS512": jwt.encode(claims, key, "HS512"),
        "alg RS256": jwt.encode(claims, rsa_key, "RS256"),
        "other key": jwt.encode(claims, b"k" * 64, "HS256"),
        "empty key": jwt.encode(claims, b"\0" * 32, "HS256"),
        "no session": jwt.encode({**claims, "local": False}, key, "HS256"),
        "unknown session": jwt.encode(
            {**claims, "local": False, "sid": str(uuid.uuid4())}, key, "HS256"
        ),
        "somebody else's session": jwt.encode(
            {**claims, "local": False, "sid": jwt.decode(somebody.token, key, ["HS256"])["sid"]},
            key,
            "HS256",
        ),
        "unknown user": jwt.encode({**claims, "sub": str(uuid.uuid4())}, key, "HS256"),
        "subject no id": jwt.encode({**claims, "sub": "admin"}, key, "HS256"),
        "not active": gone.token,
        "refresh token": refresh_token,
        "login link": link,
        "API token, unknown": "ait_" + "x" * 43,
        "API token, revoked": revoked["token"],
        "API token, expired": expired["token"],
    }


async def test_no_route_takes_a_wrong_token(
    portal: Portal, store: Store, table: list[Route]
) -> None:
    closed = [*api(table), *(one for one in table if GUARDS.get(one["path"]) == "token")]
    assert len(closed) >= 50
    for name, token in (await wrong_tokens(portal, store)).items():
        # Else `/metrics` is open to this machine.
        with portal.client(token) as client:
            client.headers["X-Forwarded-For"] = "203.0.113.9"
            for route in closed:
                answer = call(client, route)
                assert answer.status_code == 401, f"{name}: {told(route, answer)}"
                assert answer.headers["content-type"] == "application/problem+json"
                assert "WWW-Authenticate" in answer.headers


async def test_no_socket_takes_a_wrong_token(portal: Portal, store: Store) -> None:
    for token in (await wrong_tokens(portal, store)).values():
        for path in [one for one, guard in GUARDS.items() if guard == "socket"]:
            at = portal.ws.removesuffix("/ws") + path.format(**NAMES)
            for where, headers in (
                (at, {"Authorization": f"Bearer {token}"} if token else {}),
                (f"{at}?token={token}", {}),
            ):
                async with connect(where, additional_headers=headers) as raw:
                    assert await close_code(raw) == 4401, path


async def test_no_page_takes_a_wrong_cookie_or_a_token(
    portal: Portal, store: Store, table: list[Route]
) -> None:
    pages = [one for one in table if one["kind"] == "Page"]
    assert len(pages) >= 3
    with portal.admin() as admin:
        made = admin.post("/api/tokens", json={"name": "x", "scopes": list(SCOPES)}).json()
    wrong = {**await wrong_tokens(portal, store), "API token, good": made["token"]}
    for name, token in wrong.items():
        for header in (
            {"Cookie": f"ai-infra={token}"} if token else {},
            {"Authorization": f"Bearer {token}"} if token else {},
        ):
            with portal.client() as client:
                for route in pages:
                    path = re.sub(r"{\w+}", str(uuid.uuid4()), route["path"])
                    answer = client.get(path, headers=header)
                    assert answer.status_code == 303, f"{name}: {told(route, answer)}"
                    assert answer.headers["location"].startswith("/login")


async def test_a_lower_role_gets_403_where_only_an_admin_may(
    portal: Portal, store: Store, table: list[Route]
) -> None:
    somebody = await person(portal, store)
    with portal.client(somebody.token) as client:
        for route in table:
            if route.get("admin"):
                answer = call(client, route)
                assert answer.status_code == 403, told(route, answer)
        client.headers["X-Forwarded-For"] = "203.0.113.9"
        assert client.get("/metrics").status_code == 403


async def belongings(portal: Portal, store: Store, owner: Person) -> dict[str, str]:
    """One of everything that somebody can own, by the name that routes call its id."""
    conversation_id, sent = await asked(portal, owner.token)
    approval_id = str(uuid.uuid4())
    await store.execute(
        "INSERT INTO approvals (id, task_id, user_id, agent, call_id, request, binding, subject,"
        " risk, sentence, status, expires_at) VALUES ($1, $2, $3, 'code', 'c', $5, $4, $4,"
        " 'low', 's', 'denied', now() + interval '1 hour')",
        *(approval_id, sent["task_id"], owner.id, "0" * 64, leave_asked(sent["task_id"], owner.id)),
    )
    with portal.client(owner.token) as client:
        session_id = client.get("/api/auth/sessions").json()["sessions"][0]["id"]
        asking = {"name": "mine", "scopes": ["tasks:read"]}
        token_id = client.post("/api/tokens", json=asking).json()["about"]["id"]
        kept = client.post("/api/attachments?name=a.txt", content=b"mine").json()
        hook = client.post("/api/webhooks", json={"url": "https://a.example/"}).json()
    return {
        "conversation_id": conversation_id,
        "task_id": sent["task_id"],
        "message_id": sent["answer_message_id"],
        "approval_id": approval_id,
        "session_id": session_id,
        "token_id": token_id,
        "webhook_id": hook["webhook"]["id"],
        "attachment_id": kept["id"],
    }


@pytest.mark.parametrize("role", ["user", "admin"])
async def test_what_is_somebody_elses_does_not_exist(
    portal: Portal, store: Store, table: list[Route], role: str
) -> None:
    owner, other = await person(portal, store), await person(portal, store, role=role)
    ids = await belongings(portal, store, owner)
    assert ids.keys() == OWNED
    tried = set()
    with portal.client(other.token) as client:
        for route in api(table):
            mine = OWNED.intersection(names(route["path"]))
            if role == "admin" and "approval_id" in mine:
                continue  # admins answer everybody's
            if mine:
                tried |= mine
                answer = call(client, route, **ids)
                assert answer.status_code == 404, told(route, answer)
        listed = [one for one in api(table) if one["method"] == "GET" and not names(one["path"])]
        for route in listed:
            if not route["path"].startswith(("/api/memory", "/api/approvals", "/api/audit")):
                said = call(client, route).text
                assert not [one for one in ids.values() if one in said], route["path"]
    assert tried == OWNED - ({"approval_id"} if role == "admin" else set())
    with portal.client(owner.token) as client:
        assert client.get("/api/auth/me").status_code == 200
        task = client.get(f"/api/tasks/{ids['task_id']}")
        assert task.status_code == 200, task.text
        assert task.json()["task"]["status"] == "pending"
        assert len(client.get("/api/tokens").json()["tokens"]) == 1


async def test_a_token_may_what_its_scopes_say_and_nothing_else(
    portal: Portal, store: Store, table: list[Route]
) -> None:
    """As an admin, so that nothing but the scope can be the reason."""
    boss = await person(portal, store, role="admin")
    with portal.client(boss.token) as client:

        def token(*scopes: str) -> str:
            made = client.post("/api/tokens", json={"name": "x", "scopes": scopes})
            assert made.status_code == 201, made.text
            value: str = made.json()["token"]
            return value

        without = {one: token(*(SCOPES.keys() - {one})) for one in SCOPES}
        alone = {one: token(one) for one in SCOPES}
        every = token(*SCOPES)
    tried = set()
    for route in api(table):
        need = route["need"]
        with portal.client(without.get(need, every)) as program:
            answer = call(program, route)
            if need == ANY:
                assert answer.status_code == 200, told(route, answer)
            else:
                assert answer.status_code == 403, told(route, answer)
        if (route["method"], route["path"]) in BEGINS:
            continue
        if need in SCOPES and not route["path"].startswith("/api/memory"):
            tried.add(need)
            with portal.client(alone[need]) as program:
                answer = call(program, route)
                assert answer.status_code not in {401, 403}, told(route, answer)
    assert tried >= SCOPES.keys() - {"memory:read", "memory:write"}


async def test_a_token_at_the_socket_and_at_metrics(portal: Portal, store: Store) -> None:
    boss = await person(portal, store, role="admin")
    with portal.client(boss.token) as client:

        def token(*scopes: str) -> str:
            asking = {"name": "x", "scopes": scopes}
            return str(client.post("/api/tokens", json=asking).json()["token"])

        reader, agents, admin = token("tasks:read"), token("agents:read"), token("admin")
        where = client.post("/api/conversations", json={}).json()["id"]
    async with socket(portal, reader) as one:
        assert (await one.say("subscribe", channel="tasks"))["type"] == "subscribed"
        refused = await one.say("subscribe", channel="agents")
        assert refused["payload"]["code"] == "forbidden"
        sent = await one.say("send_message", conversation_id=where, content="hello")
        assert sent["payload"]["code"] == "forbidden"
    async with socket(portal, agents) as one:
        assert (await one.say("subscribe", channel="agents"))["type"] == "subscribed"
        wanted = {"channel": "conversation", "conversation_id": where}
        assert (await one.say("subscribe", **wanted))["payload"]["code"] == "forbidden"
    for value, status in ((reader, 403), (admin, 200)):
        with portal.client(value) as program:
            program.headers["X-Forwarded-For"] = "203.0.113.9"
            assert program.get("/metrics").status_code == status


def test_the_table_sees_a_route_that_declares_nothing() -> None:
    """The rule bites: an endpoint without a declaration refuses every API token."""
    app = FastAPI()

    @app.middleware("http")
    async def somebody(request: Request, go: Any) -> Any:
        request.state.caller = auth.Caller(
            user_id=ADMIN_ID,
            email="",
            role="admin",
            session_id=None,
            expires_at_s=time.time() + 60,
            scopes=frozenset(SCOPES),
        )
        return await go(request)

    router = APIRouter(prefix="/api", dependencies=[Depends(door.declared)])
    router.add_api_route("/silent", lambda: {"in": True})
    router.add_api_route("/said", lambda: {"in": True}, dependencies=[door.need("tasks:read")])
    app.include_router(router)
    problems.install(app)
    with TestClient(app) as client:
        assert client.get("/api/silent").status_code == 403
        assert client.get("/api/said").status_code == 200
