"""Who somebody is at Google or GitHub: an identity gets in whoever it is linked with.

It is linked when somebody who is logged in asks for it, or when it shows the verified email of an
invitation that waits. Nobody else gets in by it: an email alone is no proof of an account here.
"""

from __future__ import annotations

from datetime import datetime

from base import streams
from base.errors import ConflictError, ForbiddenError, NotFoundError, UnauthenticatedError
from base.messages import Wire
from portal.auth import Caller, Grant
from portal.desk import Desk
from portal.oauth import Known
from portal.scopes import SESSION, allow
from portal.trail import account, event, recorded

STRANGER = (
    "No account here is linked with it. Log in another way and link it in the settings, "
    "or ask an admin for an invitation."
)


class Identity(Wire):
    provider: str
    email: str
    created_at: datetime
    used_at: datetime | None


class Identities(Wire):
    identities: list[Identity]


async def identities(desk: Desk, caller: Caller) -> Identities:
    """What the caller's account is linked with."""
    rows = await desk.store.fetch(
        "SELECT provider, email, created_at, used_at FROM identities WHERE user_id = $1"
        " ORDER BY provider",
        caller.user_id,
    )
    return Identities(identities=[Identity(**row) for row in rows])


async def enter(desk: Desk, known: Known, *, agent: str, peer: str) -> Grant:
    """A cookie session of whom it is linked with, or is now by an invitation. Raises
    UnauthenticatedError for a stranger.
    """
    async with desk.store.transaction() as tx:
        user_id = await tx.fetchval(
            "UPDATE identities i SET used_at = now() FROM users u WHERE i.provider = $1"
            " AND i.subject = $2 AND u.id = i.user_id AND u.is_active RETURNING u.id",
            *(known.provider, known.subject),
        )
        if user_id is None and known.emails:
            user_id = await tx.fetchval(
                "SELECT u.id FROM users u JOIN links l ON l.user_id = u.id"
                " WHERE u.email = ANY($1::text[]) AND u.is_active AND l.purpose = 'invite'"
                " AND l.expires_at > now() AND NOT EXISTS (SELECT FROM identities i"
                " WHERE (i.provider, i.subject) = ($2, $3)) LIMIT 1 FOR UPDATE OF l",
                *(list(known.emails), known.provider, known.subject),
            )
            if user_id is not None:
                await tx.execute("DELETE FROM links WHERE user_id = $1", user_id)
                await tx.execute(
                    "INSERT INTO identities (provider, subject, user_id, email, used_at)"
                    " VALUES ($1, $2, $3, $4, now())",
                    *(known.provider, known.subject, user_id, known.emails[0]),
                )
                told = event(
                    "auth",
                    "write",
                    f"users/{user_id}/identities/{known.provider}",
                    actor_id=user_id,
                    peer=peer,
                    risk="medium",
                    by="invitation",
                )
                await tx.publish(streams.AUDIT, recorded(told))
        if user_id is not None:
            return await desk.auth.open(
                tx, user_id, "cookie", how=known.provider, peer=peer, agent=agent
            )
    desk.auth.passwords.failed("", peer, f"nobody is linked with this {known.provider} account")
    raise UnauthenticatedError(STRANGER)


async def link(desk: Desk, caller: Caller, known: Known) -> None:
    """Link it with the caller's account. Twice is safe. Raises ConflictError when it, or another
    one of that provider, is linked already.
    """
    allow(caller, SESSION)
    async with desk.store.transaction() as tx:
        made = await tx.execute(
            "INSERT INTO identities (provider, subject, user_id, email) VALUES ($1, $2, $3, $4)"
            " ON CONFLICT DO NOTHING",
            *(known.provider, known.subject, caller.user_id, next(iter(known.emails), "")),
        )
        if made:
            told = account(caller, "write", f"users/{caller.user_id}/identities/{known.provider}")
            await tx.publish(streams.AUDIT, recorded(told))
            return
        whose = await tx.fetchval(
            "SELECT user_id FROM identities WHERE provider = $1 AND subject = $2",
            *(known.provider, known.subject),
        )
    if whose is None:
        raise ConflictError("Another account of that provider is linked; unlink it first.")
    if whose != caller.user_id:
        raise ConflictError("It is linked with somebody else's account here.")


async def unlink(desk: Desk, caller: Caller, provider: str) -> None:
    """Raises NotFoundError for none such, ForbiddenError when no way in would be left."""
    allow(caller, SESSION)
    async with desk.store.transaction() as tx:
        row = await tx.fetchrow(
            "SELECT password_hash IS NOT NULL OR (SELECT count(*) > 1 FROM identities"
            " WHERE user_id = users.id) AS spare FROM users WHERE id = $1 FOR UPDATE",
            caller.user_id,
        )
        if row is None or not row["spare"]:
            raise ForbiddenError("it is the only way into this account; set a password first")
        gone = await tx.execute(
            "DELETE FROM identities WHERE user_id = $1 AND provider = $2",
            *(caller.user_id, provider),
        )
        if not gone:
            raise NotFoundError(f"no {provider} account is linked")
        told = account(caller, "delete", f"users/{caller.user_id}/identities/{provider}")
        await tx.publish(streams.AUDIT, recorded(told))
