"""Live windows: a real tmux session, a portal process, and what may and may not pass."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
from present import need
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from base.store import Store
from portal import auth
from portal.screens import OPEN_MAX, UNSEEN_MAX_BYTES
from portal.terminals import READ_BYTES, SESSION
from supervisor.windows import Windows
from tests.conftest import wait_for
from tests.portal.conftest import Portal, person

#: tmux takes keys that follow each other faster for a paste, which no key binding hears.
PASTE_S = 0.05
pytestmark = pytest.mark.xdist_group("agents-session")


class Session:
    """The portal's own tmux server: window `code` echoes, `flood` writes on request."""

    def __init__(self, portal: Portal) -> None:
        self._line = [need("tmux"), "-u", "-S", str(portal.settings.tmux_socket)]
        self.socket = portal.settings.tmux_socket
        self.start()

    def start(self) -> None:
        self(
            *("-f", "/dev/null", "new-session", "-d", "-s", SESSION, "-n", "code"),
            *("-x", "90", "-y", "24", "cat"),
        )
        self._pid = int(self("display-message", "-p", "#{pid}"))
        self("set-option", "-g", "remain-on-exit", "on")
        self("new-window", "-d", "-t", SESSION, "-n", "flood", "sh")

    def __call__(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            [*self._line, *arguments], check=check, capture_output=True, text=True
        )
        return done.stdout.strip()

    def shown(self, window: str) -> str:
        return self("capture-pane", "-p", "-t", f"={SESSION}:{window}")

    def sessions(self) -> list[str]:
        return self("list-sessions", "-F", "#{session_name}", check=False).splitlines()

    def alone(self) -> bool:
        return self.sessions() == [SESSION]

    def close(self) -> None:
        self("kill-server", check=False)
        wait_for("the tmux server to end", lambda: not psutil.pid_exists(self._pid))


@pytest.fixture
def session(portal: Portal) -> Iterator[Session]:
    made = Session(portal)
    yield made
    made.close()


@asynccontextmanager
async def screen(
    portal: Portal, window: str, token: str | None = None, *, typing: bool = False, **options: Any
) -> AsyncIterator[ClientConnection]:
    headers = {"Authorization": f"Bearer {token or auth.local_token(portal.settings)}"}
    place = f"{portal.ws}/terminals/{window}" + ("?typing=true" if typing else "")
    async with connect(place, additional_headers=headers, **options) as raw:
        yield raw


async def hear(raw: ClientConnection, text: str, *, seen: bool = True, wait_s: float = 10) -> str:
    """All that is drawn until `text` was."""
    drawn = ""
    async with asyncio.timeout(wait_s):
        while text not in drawn:
            said = await raw.recv()
            if isinstance(said, bytes):
                drawn += said.decode(errors="replace")
                if seen:
                    await raw.send(json.dumps({"type": "seen", "bytes": len(said)}))
    return drawn


async def until_quiet(raw: ClientConnection, wait_s: float = 1.5) -> int:
    """How many bytes come until none do for `wait_s`."""
    got_bytes = 0
    try:
        while True:
            async with asyncio.timeout(wait_s):
                got_bytes += len(await raw.recv())
    except TimeoutError:
        return got_bytes


async def told(raw: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while not isinstance(said := await raw.recv(), str):
            pass
    found: dict[str, Any] = json.loads(said)
    return found


async def ended(raw: ClientConnection, wait_s: float = 10.0) -> int:
    async with asyncio.timeout(wait_s):
        try:
            while True:
                await raw.recv()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd is not None else 1006


def clients(portal: Portal) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(portal.pid).children()
        if "new-session" in (child.cmdline() if child.is_running() else [])
    ]


async def test_a_window_is_shown_and_nothing_that_is_typed_arrives(
    portal: Portal, session: Session
) -> None:
    session("send-keys", "-t", f"={SESSION}:code", "-l", "hello from the window")
    async with screen(portal, "code") as raw:
        size = await told(raw)
        assert size == {"type": "size", "columns": 90, "rows": 24, "typing": False, "dead": False}
        await hear(raw, "hello from the window")
        for text in ("stolen", "\r", "\x02d", "\x02:kill-server\r"):
            await asyncio.sleep(PASTE_S)
            await raw.send(json.dumps({"type": "type", "text": text}))
        await raw.send("no frame at all")
        session("send-keys", "-t", f"={SESSION}:code", "Enter")
        session("send-keys", "-t", f"={SESSION}:code", "-l", "still here")
        drawn = await hear(raw, "still here")
        assert "stolen" not in drawn + session.shown("code")
        flags = session("list-clients", "-F", "#{client_flags}")
        assert "read-only" in flags
        assert "ignore-size" in flags
    wait_for("the client's session to go", session.alone)
    wait_for("the client to be reaped", lambda: not clients(portal))


async def test_an_admin_types_and_reaches_the_program_alone(
    portal: Portal, session: Session
) -> None:
    async with screen(portal, "code", typing=True) as raw:
        assert (await told(raw))["typing"] is True
        await raw.send(json.dumps({"type": "type", "text": "by hand ⌨\r"}))
        await hear(raw, "by hand ⌨")
        # tmux's own prefix reaches the program like any other key: no window, no command line.
        for text, echoed in (("\x02c", "^Bc"), ("\x02:", "^B:")):
            await asyncio.sleep(PASTE_S)
            await raw.send(json.dumps({"type": "type", "text": text}))
            await hear(raw, echoed)
        windows = session("list-windows", "-t", f"={SESSION}", "-F", "#{window_name}")
        assert windows.split() == ["code", "flood"]


async def test_nobody_is_moved_or_resized(portal: Portal, session: Session) -> None:
    def size() -> str:
        return session(
            "list-windows", "-t", f"={SESSION}", "-F", "#{window_width}x#{window_height}"
        )

    before, shown = size(), session("display-message", "-p", "-t", SESSION, "#{window_name}")
    async with screen(portal, "flood") as raw:
        await told(raw)
        await hear(raw, "#")
        assert size() == before
        assert session("display-message", "-p", "-t", f"={SESSION}:", "#{window_name}") == shown
        session("resize-window", "-t", f"={SESSION}:flood", "-x", "120", "-y", "30")
        fresh = await told(raw)
        assert (fresh["columns"], fresh["rows"]) == (120, 30)
        assert "120x30" in size()


async def test_what_scrolled_away_comes_along(portal: Portal, session: Session) -> None:
    session("send-keys", "-t", f"={SESSION}:flood", "seq 1000 1200; echo end-of-it", "Enter")
    wait_for("the numbers", lambda: "\nend-of-it" in session.shown("flood"))
    assert "1001" not in session.shown("flood")
    async with screen(portal, "flood") as raw:
        drawn = await hear(raw, "end-of-it")
        assert "\r\n1001\r\n" in drawn


async def test_a_slow_browser_stops_the_reading_and_sees_the_end(
    portal: Portal, session: Session
) -> None:
    async with screen(portal, "flood") as raw:
        await hear(raw, "#")
        flood = "while :; do head -c 4000 /dev/urandom | base64 -w 80; done"
        session("send-keys", "-t", f"={SESSION}:flood", flood, "Enter")
        got_bytes = await until_quiet(raw)  # and nothing is said to have been seen
        assert UNSEEN_MAX_BYTES - READ_BYTES <= got_bytes <= UNSEEN_MAX_BYTES + READ_BYTES
        await raw.send(json.dumps({"type": "seen", "bytes": got_bytes}))
        session("send-keys", "-t", f"={SESSION}:flood", "C-c")
        session("send-keys", "-t", f"={SESSION}:flood", "clear; echo d''ry", "Enter")
        await hear(raw, "dry", wait_s=20)


async def test_a_window_that_goes_and_a_session_that_goes(portal: Portal, session: Session) -> None:
    async with screen(portal, "flood") as raw:
        await told(raw)
        session("kill-window", "-t", f"={SESSION}:flood")
        assert await ended(raw) == 4410
    async with screen(portal, "code") as raw, screen(portal, "code", typing=True) as other:
        await told(raw)
        await told(other)
        await Windows(session.socket, SESSION, portal.settings.run).close()
        assert await ended(raw) == 4410
        assert await ended(other) == 4410
    wait_for("the server to go", lambda: session.sessions() == [])
    async with screen(portal, "code") as raw:
        lost = await told(raw)
        assert lost["code"] == 4404
        assert "ai-infra up" in lost["why"]


async def test_who_may_look(portal: Portal, session: Session, store: Store) -> None:
    plain, boss = await person(portal, store), await person(portal, store, "admin")
    async with screen(portal, "code", plain.token) as raw:
        assert await ended(raw) == 4403
    async with screen(portal, "code", "nonsense") as raw:
        assert await ended(raw) == 4401
    async with screen(portal, "nowhere") as raw:
        lost = await told(raw)
        assert (lost["code"], "code, flood" in lost["why"]) == (4404, True)
    with pytest.raises(Exception, match="403"):
        async with screen(portal, "code", origin="http://evil.example"):
            pass
    async with screen(portal, "code", boss.token) as raw:
        await told(raw)
        await store.execute("DELETE FROM sessions WHERE user_id = $1", boss.id)
        assert await ended(raw, 5.0) == 4401
    wait_for("the clients to be reaped", lambda: not clients(portal))
    assert session.alone()


async def test_so_many_and_no_more(portal: Portal, session: Session, store: Store) -> None:
    boss = await person(portal, store, "admin")
    open_ones = [screen(portal, "code", boss.token) for _ in range(OPEN_MAX)]
    for one in open_ones:
        await told(await one.__aenter__())
    async with screen(portal, "code", boss.token) as raw:
        assert await ended(raw) == 4429
    for one in open_ones:
        await one.__aexit__(None, None, None)
    wait_for("all clients to go", lambda: session.alone() and not clients(portal), 20)
