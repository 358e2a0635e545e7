"""One-time links: to log in, to accept an invitation, to set a new password."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from base import streams
from base.errors import UnauthenticatedError
from base.messages import Wire
from base.store import Session
from portal.auth import Caller, Grant, from_now, hashed
from portal.desk import Desk
from portal.scopes import SESSION, allow
from portal.trail import event, recorded

Purpose = Literal["login", "invite", "reset"]
LIFE_S = {"login": 900, "invite": 7 * 86_400, "reset": 86_400}
PATHS = {"login": "/login", "invite": "/welcome", "reset": "/welcome"}
HOW = {"login": "login link", "invite": "invitation", "reset": "password reset"}
OVER = "the link was used already or has expired"


class Link(Wire):
    """Works once, until `expires_at`. `path` is relative to the portal."""

    url: str
    path: str
    token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An invitation or a reset that nobody has used yet."""

    user_id: str
    email: str
    display_name: str
    purpose: Purpose


async def make_login(desk: Desk, caller: Caller, at: str, *, key: str | None = None) -> Link:
    """A login link for the caller. The same `key` gives the same link, used or not."""
    allow(caller, SESSION)
    return await make(desk, caller, caller.user_id, "login", at, key=key)


async def make(
    desk: Desk, caller: Caller, user_id: str, purpose: Purpose, at: str, *, key: str | None
) -> Link:
    """A link of `user_id`'s under the address `at`. With a `key` it is derived, so that no copy
    of the secret is kept.
    """
    ends = from_now(LIFE_S[purpose])
    async with desk.store.transaction() as tx:
        if key is None:
            return await put(tx, user_id, purpose, at)
        value = desk.auth.derived(f"{user_id} {purpose} {key}")
        before = await tx.remember(
            user_id=caller.user_id,
            key=key,
            request=["link", purpose, user_id],
            status=201,
            response={"ends": ends.isoformat()},
        )
        if before is not None:
            return told(value, datetime.fromisoformat(before["ends"]), purpose, at)
        return await put(tx, user_id, purpose, at, value=value, ends=ends)


async def put(
    tx: Session,
    user_id: str,
    purpose: Purpose,
    at: str,
    *,
    value: str | None = None,
    ends: datetime | None = None,
) -> Link:
    """Make it; an earlier one to set a password ends."""
    value, ends = value or secrets.token_urlsafe(32), ends or from_now(LIFE_S[purpose])
    await tx.execute("DELETE FROM links WHERE expires_at < now()")
    if purpose != "login":
        await tx.execute("DELETE FROM links WHERE user_id = $1 AND purpose <> 'login'", user_id)
    await tx.execute(
        "INSERT INTO links (token_hash, user_id, purpose, expires_at) VALUES ($1, $2, $3, $4)",
        *(hashed("link", value), user_id, purpose, ends),
    )
    return told(value, ends, purpose, at)


def told(value: str, ends: datetime, purpose: Purpose, at: str) -> Link:
    """The link as people are given it."""
    path = f"{PATHS[purpose]}?token={value}"
    return Link(url=at + path, path=path, token=value, expires_at=ends)


async def log_in(desk: Desk, value: str, *, agent: str, peer: str) -> Grant:
    """Turn a login link into a cookie session. Raises UnauthenticatedError."""
    async with desk.store.transaction() as tx:
        user_id = await tx.fetchval(
            "DELETE FROM links l USING users u WHERE l.token_hash = $1 AND l.purpose = 'login'"
            " AND l.expires_at > now() AND u.id = l.user_id AND u.is_active RETURNING u.id",
            hashed("link", value),
        )
        if user_id is not None:
            return await desk.auth.open(
                tx, user_id, "cookie", how=HOW["login"], peer=peer, agent=agent
            )
    desk.auth.passwords.failed("", peer, "wrong or used login link")
    raise UnauthenticatedError("the login link was used already or has expired")


async def waiting(desk: Desk, value: str) -> Waiting:
    """Whose invitation or reset it is; looking does not use it up. Raises UnauthenticatedError."""
    row = await desk.store.fetchrow(
        "SELECT u.id AS user_id, u.email, COALESCE(u.display_name, '') AS display_name, l.purpose"
        " FROM links l JOIN users u ON u.id = l.user_id WHERE l.token_hash = $1"
        " AND l.purpose <> 'login' AND l.expires_at > now() AND u.is_active",
        hashed("link", value),
    )
    if row is None:
        raise UnauthenticatedError(OVER)
    return Waiting(**row)


async def accept(
    desk: Desk, value: str, password: str, display_name: str, *, agent: str, peer: str
) -> Grant:
    """Set the password that the link is for; every other session of theirs ends."""
    try:
        found = await waiting(desk, value)
    except UnauthenticatedError:
        desk.auth.passwords.failed("", peer, "wrong or used invitation")
        raise
    kept = await desk.auth.passwords.hashed(password)
    async with desk.store.transaction() as tx:
        used = await tx.execute(
            "DELETE FROM links WHERE token_hash = $1 AND expires_at > now()",
            hashed("link", value),
        )
        if not used:
            raise UnauthenticatedError(OVER)
        await tx.execute("DELETE FROM links WHERE user_id = $1", found.user_id)
        await tx.execute("DELETE FROM sessions WHERE user_id = $1", found.user_id)
        await tx.execute(
            "UPDATE users SET password_hash = $2, updated_at = now(),"
            " display_name = COALESCE(NULLIF($3, ''), display_name) WHERE id = $1",
            *(found.user_id, kept, display_name.strip()[:100]),
        )
        changed = event(
            "auth",
            "write",
            f"users/{found.user_id}/password",
            actor_id=found.user_id,
            peer=peer,
            risk="medium",
            by=HOW[found.purpose],
        )
        await tx.publish(streams.AUDIT, recorded(changed))
        return await desk.auth.open(
            tx, found.user_id, "cookie", how=HOW[found.purpose], peer=peer, agent=agent
        )
