"""People: what an admin does to their accounts, and what they do to their own."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from base import streams
from base.audit import Risk
from base.errors import ConflictError, InputError, NotFoundError
from base.messages import Wire
from base.store import Session
from portal import identities, limits, links
from portal.account_shapes import ChangeUser, NewUser, Profile
from portal.auth import ACCESS_S, Caller, admin_only, from_now
from portal.desk import Desk
from portal.identities import Identity
from portal.links import Link
from portal.scopes import SESSION, allow
from portal.talk import pack, unpack
from portal.trail import account, password_changed, recorded

RESETS = "auth.password_reset"


class User(Wire):
    """`invited`: an invitation waits to be accepted."""

    id: str
    email: str
    display_name: str
    role: str
    is_active: bool
    invited: bool
    created_at: datetime
    last_login_at: datetime | None


class Users(Wire):
    users: list[User]
    next_cursor: str | None


class NewUserMade(Wire):
    """`invitation` is there when no password was given; it is shown this once."""

    user: User
    invitation: Link | None


class Me(Wire):
    """The one who asks. `scopes` null: a session, which may everything that the role may."""

    id: str
    email: str
    role: str
    display_name: str
    time_zone: str | None
    has_password: bool
    identities: list[Identity]
    scopes: list[str] | None


_USER = (
    "SELECT id, email, COALESCE(display_name, '') AS display_name, role, is_active, created_at,"
    " last_login_at, EXISTS (SELECT FROM links l WHERE l.user_id = users.id"
    " AND l.purpose = 'invite' AND l.expires_at > now()) AS invited FROM users"
)


# For admins --------------------------------------------------------------------------------


async def users(desk: Desk, caller: Caller, *, limit: int = 50, cursor: str | None = None) -> Users:
    """Everybody with an account, newest first (admin)."""
    _admin(caller)
    before, last = unpack(cursor) if cursor else (None, None)
    rows = await desk.store.fetch(
        f"{_USER} WHERE $1::timestamptz IS NULL OR (created_at, id) < ($1, $2::uuid)"
        " ORDER BY created_at DESC, id DESC LIMIT $3",
        *(before, last, limit + 1),
    )
    found, more = [User(**row) for row in rows[:limit]], len(rows) > limit
    return Users(
        users=found, next_cursor=pack(found[-1].created_at, found[-1].id) if more else None
    )


async def user(desk: Desk, caller: Caller, user_id: str) -> User:
    """One account (admin). Raises NotFoundError."""
    _admin(caller)
    row = await desk.store.fetchrow(f"{_USER} WHERE id = $1", user_id)
    if row is None:
        raise NotFoundError(f"no user {user_id}")
    return User(**row)


async def create(
    desk: Desk, caller: Caller, asked: NewUser, at: str, *, key: str | None = None
) -> NewUserMade:
    """A new account, with a password or an invitation under the address `at` (admin). Raises
    ConflictError when the email has one.
    """
    _admin(caller)
    kept = await desk.auth.passwords.hashed(asked.password) if asked.password else None
    user_id, value, ends = str(uuid.uuid4()), None, None
    async with desk.store.transaction() as tx:
        if key is not None:
            value = desk.auth.derived(f"{caller.user_id} invite {key}")
            about = [asked.email, asked.role, asked.display_name, kept is None]
            ends = from_now(links.LIFE_S["invite"])
            answer = {"id": user_id, "ends": ends.isoformat()}
            before = await tx.remember(
                user_id=caller.user_id, key=key, request=about, status=201, response=answer
            )
            if before is not None:
                user_id, ends = before["id"], datetime.fromisoformat(before["ends"])
                link = links.told(value, ends, "invite", at) if kept is None else None
                return NewUserMade(user=await _of(tx, user_id), invitation=link)
        made = await tx.execute(
            "INSERT INTO users (id, email, password_hash, display_name, role)"
            " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            *(user_id, asked.email, kept, asked.display_name, asked.role),
        )
        if not made:
            raise ConflictError(f"{asked.email} has an account already")
        link = None
        if kept is None:
            link = await links.put(tx, user_id, "invite", at, value=value, ends=ends)
        risk: Risk = "high" if asked.role == "admin" else "medium"
        invited = kept is None
        told = account(
            caller, "write", f"users/{user_id}", risk=risk, role=asked.role, invited=invited
        )
        await tx.publish(streams.AUDIT, recorded(told))
        return NewUserMade(user=await _of(tx, user_id), invitation=link)


async def change(desk: Desk, caller: Caller, user_id: str, asked: ChangeUser) -> User:
    """Change the role, or whether they may get in (admin). Who may not any more is logged out at
    once and loses their API tokens. Raises ConflictError for the last admin.
    """
    _admin(caller)
    async with desk.store.transaction() as tx:
        # All of them, so that two who demote each other wait for one another.
        admins = await tx.fetch(
            "SELECT id FROM users WHERE role = 'admin' AND is_active ORDER BY id FOR UPDATE"
        )
        before = await tx.fetchrow(f"{_USER} WHERE id = $1 FOR UPDATE", user_id)
        if before is None:
            raise NotFoundError(f"no user {user_id}")
        role = asked.role or before["role"]
        active = before["is_active"] if asked.is_active is None else asked.is_active
        left = {one["id"] for one in admins} - {user_id}
        if not left and (role != "admin" or not active):
            raise ConflictError("this is the last admin; make another one first")
        await tx.execute(
            "UPDATE users SET role = $2, is_active = $3, updated_at = now() WHERE id = $1",
            *(user_id, role, active),
        )
        if not active:
            for table in ("sessions", "links", "api_tokens"):
                await tx.execute(f"DELETE FROM {table} WHERE user_id = $1", user_id)
        risk: Risk = "high" if role == "admin" and active else "medium"
        told = account(caller, "write", f"users/{user_id}", risk=risk, role=role, is_active=active)
        await tx.publish(streams.AUDIT, recorded(told))
        return await _of(tx, user_id)


async def link(
    desk: Desk, caller: Caller, user_id: str, at: str, *, key: str | None = None
) -> Link:
    """A link to set a new password (one day), or for whom has not been in yet a new invitation
    (seven days); earlier ones end (admin). Three an hour for each account.
    """
    found = await user(desk, caller, user_id)
    if not found.is_active:
        raise ConflictError("this account is not active; activate it first")
    await limits.within(desk.limiter, RESETS, user_id, "too many links for this account")
    purpose: links.Purpose = "invite" if await _new(desk, user_id) else "reset"
    made = await links.make(desk, caller, user_id, purpose, at, key=key)
    desk.tell(account(caller, "write", f"users/{user_id}", link=purpose))
    return made


# For everybody -----------------------------------------------------------------------------


async def me(desk: Desk, caller: Caller) -> Me:
    """The one who asks."""
    row = await desk.store.fetchrow(
        "SELECT COALESCE(display_name, '') AS display_name, time_zone,"
        " password_hash IS NOT NULL AS has_password FROM users WHERE id = $1",
        caller.user_id,
    )
    return Me(
        id=caller.user_id,
        email=caller.email,
        role=caller.role,
        identities=(await identities.identities(desk, caller)).identities,
        scopes=sorted(caller.scopes) if caller.scopes is not None else None,
        **(row or {}),
    )


async def set_profile(desk: Desk, caller: Caller, asked: Profile) -> Me:
    """Change what was given, and leave the rest."""
    allow(caller, SESSION)
    given: dict[str, Any] = asked.model_dump(include=asked.model_fields_set)
    await desk.store.execute(
        "UPDATE users SET updated_at = now(),"
        " display_name = CASE WHEN $2 THEN $3 ELSE display_name END,"
        " time_zone = CASE WHEN $4 THEN $5 ELSE time_zone END WHERE id = $1",
        *(caller.user_id, "display_name" in given, given.get("display_name")),
        *("time_zone" in given, given.get("time_zone")),
    )
    return await me(desk, caller)


async def set_password(desk: Desk, caller: Caller, new: str, current: str | None) -> None:
    """Change the caller's password and end all other sessions of theirs. The present one is
    needed; without one (who came by Google or GitHub) a login in the last 15 minutes is.
    """
    allow(caller, SESSION)
    if not caller.local:
        row = await desk.store.fetchrow(
            "SELECT u.password_hash, s.created_at > now() - make_interval(secs => $3) AS fresh"
            " FROM users u LEFT JOIN sessions s ON s.id = $2 WHERE u.id = $1",
            *(caller.user_id, caller.session_id, ACCESS_S),
        )
        known = row["password_hash"] if row is not None else None
        if known is None:
            if row is None or not row["fresh"]:
                raise InputError("log in again first: you set a password for the first time")
        elif current is None or not await desk.auth.passwords.right(
            known, current, user_id=caller.user_id, peer=caller.peer
        ):
            raise InputError("the current password is wrong")
    kept = await desk.auth.passwords.hashed(new)
    async with desk.store.transaction() as tx:
        await tx.execute(
            "UPDATE users SET password_hash = $2, updated_at = now() WHERE id = $1",
            *(caller.user_id, kept),
        )
        await tx.execute(
            "DELETE FROM links WHERE user_id = $1 AND purpose <> 'login'", caller.user_id
        )
        ended = await tx.execute(
            "DELETE FROM sessions WHERE user_id = $1 AND id IS DISTINCT FROM $2",
            *(caller.user_id, caller.session_id),
        )
        await tx.publish(streams.AUDIT, *password_changed(caller, ended))


def _admin(caller: Caller) -> None:
    allow(caller, SESSION)
    admin_only(caller)


async def _of(tx: Session, user_id: str) -> User:
    row = await tx.fetchrow(f"{_USER} WHERE id = $1", user_id)
    assert row is not None
    return User(**row)


async def _new(desk: Desk, user_id: str) -> bool:
    """Whether they have never been in, and have no way of their own to come in."""
    return bool(
        await desk.store.fetchval(
            "SELECT password_hash IS NULL AND last_login_at IS NULL AND NOT EXISTS"
            " (SELECT FROM identities i WHERE i.user_id = users.id) FROM users WHERE id = $1",
            user_id,
        )
    )
