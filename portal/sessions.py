"""Where somebody is logged in, and how they end that."""

from __future__ import annotations

from datetime import datetime

from base import streams
from base.errors import NotFoundError
from base.messages import Wire
from portal.auth import Caller
from portal.desk import Desk
from portal.scopes import SESSION, allow
from portal.trail import account, recorded

#: First match wins: every browser also names those that it descends from.
BROWSERS = (
    ("Edg/", "Edge"), ("OPR/", "Opera"), ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"), ("FxiOS/", "Firefox"), ("CriOS/", "Chrome"), ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)  # fmt: skip
SYSTEMS = (
    ("iPhone", "iPhone"), ("iPad", "iPad"), ("Android", "Android"), ("CrOS", "ChromeOS"),
    ("Windows", "Windows"), ("Mac OS X", "macOS"), ("Linux", "Linux"),
)  # fmt: skip


class LoggedIn(Wire):
    """One session. `how` it was begun: password, login link, invitation, reset, google, github;
    `last_seen_at` is exact to the minute.
    """

    id: str
    device: str
    user_agent: str
    address: str | None
    how: str
    created_at: datetime
    last_seen_at: datetime | None
    expires_at: datetime
    current: bool


class Sessions(Wire):
    sessions: list[LoggedIn]


class Ended(Wire):
    """How many sessions were ended."""

    ended: int


async def sessions(desk: Desk, caller: Caller) -> Sessions:
    """The caller's sessions, the present one first, then the one that was used last."""
    rows = await desk.store.fetch(
        "SELECT id, COALESCE(user_agent, '') AS user_agent, ip_address AS address, how,"
        " created_at, last_seen_at, expires_at, id IS NOT DISTINCT FROM $2 AS current"
        " FROM sessions WHERE user_id = $1 AND expires_at > now()"
        " ORDER BY current DESC, COALESCE(last_seen_at, created_at) DESC, id",
        *(caller.user_id, caller.session_id),
    )
    return Sessions(sessions=[LoggedIn(**row, device=device(row["user_agent"])) for row in rows])


async def end(desk: Desk, caller: Caller, session_id: str) -> None:
    """End one session of the caller's; its sockets and pages close within 5 s. Raises
    NotFoundError for none such.
    """
    allow(caller, SESSION)
    async with desk.store.transaction() as tx:
        gone = await tx.execute(
            "DELETE FROM sessions WHERE id = $1 AND user_id = $2", session_id, caller.user_id
        )
        if not gone:
            raise NotFoundError(f"no session {session_id}")
        told = account(caller, "logout", f"sessions/{session_id}", reason="revoked")
        await tx.publish(streams.AUDIT, recorded(told))


async def end_others(desk: Desk, caller: Caller) -> Ended:
    """End every session of the caller's but the present one."""
    allow(caller, SESSION)
    async with desk.store.transaction() as tx:
        ended = await tx.execute(
            "DELETE FROM sessions WHERE user_id = $1 AND id IS DISTINCT FROM $2",
            *(caller.user_id, caller.session_id),
        )
        if ended:
            whose = f"users/{caller.user_id}/sessions"
            told = account(caller, "logout", whose, sessions=ended, reason="revoked")
            await tx.publish(streams.AUDIT, recorded(told))
    return Ended(ended=ended)


def device(user_agent: str) -> str:
    """In words, such as "Firefox on Linux"; a program's own name; "unknown" when it said none."""
    browser = next((name for mark, name in BROWSERS if mark in user_agent), None)
    system = next((name for mark, name in SYSTEMS if mark in user_agent), None)
    if browser is None:
        return user_agent.partition(" ")[0].partition("/")[0][:60] or "unknown"
    return f"{browser} on {system}" if system else browser
