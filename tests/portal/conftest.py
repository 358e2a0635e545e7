"""A portal process of its own with a database of its own, and somebody to play the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Playwright, async_playwright
from present import database, need, unlimited, wait_for

from base import secrets_files, streams
from base.approvals import ApprovalRequest
from base.bus import Bus
from base.errors import ConflictError
from base.limit import Limiter, Rates
from base.messages import Event, Kind, answer_id
from base.settings import Settings
from base.store import Store
from portal import auth
from portal.trail import Trail
from tests.portal.provider import CLIENT_ID, CLIENT_SECRET, Provider, serving
from tests.portal.receiver import Receiver, receiving

FREE = {"login_attempts": "unlimited"}
REPO = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits here waits in one loop a worker: the browser that they share lives there."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("asyncio"):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Portal:
    """A running portal: where it is, and what it runs on."""

    url: str
    settings: Settings
    log: Path
    pid: int

    @property
    def ws(self) -> str:
        return self.url.replace("http", "ws") + "/ws"

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, verify=False, **options)

    def admin(self) -> httpx.Client:
        return self.client(auth.local_token(self.settings))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A server that webhooks may call."""
    with receiving() as here:
        yield here


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def portal_dsn(postgres_server: Path, migrated: str) -> Iterator[str]:
    with database(postgres_server, migrated) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def portal(short_tmp: Path, redis_server: str, portal_dsn: str) -> Iterator[Portal]:
    """One for all tests that are not about limits."""
    with running(short_tmp, redis_server, portal_dsn, limited=False) as started:
        yield started


@contextlib.contextmanager
def running(
    folder: Path,
    redis: str,
    dsn: str,
    *,
    limited: bool,
    limits: str = "",
    again: Portal | None = None,
    **more: str,
) -> Iterator[Portal]:
    """A portal process; `limited`: with the shipped limits and `limits` over them; `again`: in
    the place of one that has ended.
    """
    if again is not None:
        home, port = again.settings.home, again.settings.port
    else:
        home, port = Path(tempfile.mkdtemp(dir=folder)), free_port()
    if not limited:
        unlimited(home)
    elif limits:
        (home / "config").mkdir(mode=0o700)
        (home / "config" / "limits.toml").write_text(limits)
    environment = {
        **os.environ,
        "AI_INFRA_HOME": str(home),
        "AI_INFRA_PORT": str(port),
        "AI_INFRA_REDIS_URL": redis,
        "AI_INFRA_POSTGRES_DSN": dsn,
        **more,
    }
    environment.pop("ANTHROPIC_API_KEY", None)
    process = subprocess.Popen([sys.executable, "-m", "portal"], cwd=REPO, env=environment)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, "the portal died; see its stderr"
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{url}/api/health/ready").status_code == 200
        return False

    settings = Settings(home=home, port=port, redis_url=redis, postgres_dsn=dsn)
    try:
        wait_for("the portal", answers, 90)
        yield Portal(url=url, settings=settings, log=home / "logs" / "portal.log", pid=process.pid)
    finally:
        process.terminate()
        code = process.wait(30)
    assert code == 0
    lines = (home / "logs" / "portal.log").read_text().splitlines()
    # NiceGUI asks each new page for its drawer and logs one that is closed or slow to answer.
    lines = [line for line in lines if "JavaScript did not respond" not in line]
    assert [line for line in lines if "Traceback" in line or "token=" in line] == []


@pytest.fixture(scope="session")
def provider() -> Iterator[Provider]:
    with serving() as started:
        yield started


@pytest.fixture(scope="session")
def gate(
    short_tmp: Path, redis_server: str, portal_dsn: str, provider: Provider
) -> Iterator[Portal]:
    """A portal that knows both, at the address where it is."""
    options = {
        "AI_INFRA_GOOGLE_CLIENT_ID": CLIENT_ID,
        "AI_INFRA_GOOGLE_ISSUER": provider.url,
        "AI_INFRA_GITHUB_CLIENT_ID": CLIENT_ID,
        "AI_INFRA_GITHUB_URL": provider.url,
        "AI_INFRA_GITHUB_API_URL": f"{provider.url}/api",
    }
    with running(short_tmp, redis_server, portal_dsn, limited=False, **options) as started:
        for name in ("google", "github"):
            provider.redirects.add(f"{started.url}/login/{name}/callback")
            secrets_files.put(started.settings.secrets, f"{name}-client-secret", CLIENT_SECRET)
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def store(portal: Portal) -> AsyncIterator[Store]:
    opened = await Store.open(portal.settings.postgres, "test")
    yield opened
    await opened.close()


@pytest_asyncio.fixture(loop_scope="session")
async def bus(portal: Portal) -> AsyncIterator[Bus]:
    opened = await Bus.open(portal.settings.redis, f"test-{uuid.uuid4().hex[:6]}")
    yield opened
    await opened.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def playwright() -> AsyncIterator[Playwright]:
    async with async_playwright() as started:
        yield started


@contextlib.asynccontextmanager
async def chromium(
    playwright: Playwright, *flags: str, program: str = "chromium-headless-shell"
) -> AsyncIterator[Browser]:
    """As its makers build it for machines without a screen. `chromium` draws the window around
    the page too, also where nobody sees it: twice the work, for what asks a person's leave only.
    """
    opened = await playwright.chromium.launch(
        executable_path=need(program), args=["--no-sandbox", "--disable-gpu", *flags]
    )
    yield opened
    await opened.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_browser(playwright: Playwright) -> AsyncIterator[Browser]:
    """A start costs two seconds of a core, a fresh profile in it next to nothing."""
    async with chromium(playwright) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def browser(shared_browser: Browser) -> AsyncIterator[Browser]:
    """Nobody's profile is open in it, and what the test opens is closed after it."""
    assert shared_browser.contexts == []
    yield shared_browser
    for context in shared_browser.contexts:
        await context.close()


class Stage:
    """Plays the supervisor and its agents: events on the stream, answers in the record."""

    def __init__(self, bus: Bus, store: Store) -> None:
        self.bus = bus
        self.store = store
        self.asked: list[dict[str, Any]] = []

    async def answer(self, payload: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(payload)
        match payload.get("verb"):
            case "retry":
                return {"task_id": str(uuid.uuid4())}
            case "cancel":
                return {"status": "cancelled"}
            case "steer":
                return {"ok": True, "agents": ["code"]}
        if payload.get("agent") == "qa":
            raise ConflictError("qa is stopped")
        return {"ok": True}

    async def tell(self, task_id: str, kind: Kind, part: str | None = None, **data: Any) -> None:
        row = await self.store.fetchrow(
            "SELECT user_id, conversation_id FROM tasks WHERE id = $1", task_id
        )
        assert row is not None
        event = Event(
            kind=kind,
            agent=data.pop("by", "supervisor"),
            user_id=row["user_id"],
            conversation_id=row["conversation_id"],
            root_id=task_id,
            task_id=part or task_id,
            data=data,
        )
        await self.bus.emit(event)

    async def chunk(self, task_id: str, seq: int, content: str, attempt: int = 1) -> None:
        await self.tell(
            task_id,
            Kind.CHUNK,
            message_id=answer_id(task_id),
            attempt=attempt,
            seq=seq,
            content=content,
        )

    async def end(self, task_id: str, content: str, status: str = "completed") -> None:
        row = await self.store.fetchrow("SELECT * FROM tasks WHERE id = $1", task_id)
        assert row is not None
        await self.store.execute(
            "INSERT INTO messages (id, conversation_id, role, content, agent, parent_message_id,"
            " metadata, created_at) VALUES ($1, $2, 'assistant', $3, 'supervisor', $4, $5,"
            " clock_timestamp())",
            *(answer_id(task_id), row["conversation_id"], content, row["message_id"]),
            {"task_id": task_id},
        )
        await self.store.execute(
            "UPDATE tasks SET status = $2, completed_at = now() WHERE id = $1", task_id, status
        )
        await self.tell(
            task_id,
            Kind.MESSAGE,
            message_id=answer_id(task_id),
            role="assistant",
            content=content,
        )
        await self.tell(task_id, Kind.TASK, status=status, progress=1.0, cost_usd=0.0421)


@pytest_asyncio.fixture(loop_scope="session")
async def stage(bus: Bus, store: Store) -> AsyncIterator[Stage]:
    playing = Stage(bus, store)
    serving = [
        asyncio.create_task(bus.serve(streams.SERVICE_SUPERVISOR, playing.answer), name="stage"),
        asyncio.create_task(bus.serve(streams.SERVICE_WATCH, playing.answer), name="stage watch"),
    ]
    yield playing
    for task in serving:
        task.cancel()
    await asyncio.gather(*serving, return_exceptions=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody with a password."""

    id: str
    email: str
    password: str
    token: str


def door(portal: Portal, store: Store) -> auth.Auth:
    """The portal's logins, in this process and without a limit."""
    rates = Rates.load(portal.settings)
    free = rates.model_copy(update={"auth": rates.auth.model_copy(update=FREE)})
    limiter = Limiter(portal.settings.redis, free)
    return auth.Auth(portal.settings, store, limiter, Trail(store, Bus("unix:///nowhere", "test")))


async def person(portal: Portal, store: Store, role: str = "user") -> Person:
    email, password = f"{uuid.uuid4().hex[:8]}@test", uuid.uuid4().hex
    hasher = door(portal, store)
    user_id = str(uuid.uuid4())
    await store.execute(
        "INSERT INTO users (id, email, password_hash, role) VALUES ($1, $2, $3, $4)",
        *(user_id, email, await hasher.passwords.hashed(password), role),
    )
    grant = await hasher.log_in(email, password, peer="127.0.0.1", agent="test", kind="refresh")
    return Person(id=user_id, email=email, password=password, token=grant.token)


async def asked(portal: Portal, token: str, content: str = "hello") -> tuple[str, dict[str, Any]]:
    """A conversation and what became of one message in it."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=portal.url, verify=False, headers=headers) as client:
        made = (await client.post("/api/conversations", json={})).json()
        sent = await client.post(
            f"/api/conversations/{made['id']}/messages", json={"content": content}
        )
        assert sent.status_code == 202, sent.text
        return made["id"], sent.json()


def leave_asked(task_id: str, user_id: str) -> dict[str, Any]:
    """What an approval's row says was asked for."""
    asked_for = ApprovalRequest(
        task_id=task_id, root_id=task_id, epoch=1, agent="code", user_id=user_id, call_id="c",
        kind="tool", tool="shell", level=2,
    )  # fmt: skip
    return asked_for.model_dump(mode="json")


def soon(seconds_s: float = 10.0) -> float:
    return time.monotonic() + seconds_s
