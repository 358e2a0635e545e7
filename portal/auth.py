"""Who is asking: logins, sessions, access tokens and what renews them.

An access token (JWT, HS256, 15 min) names a row of `sessions`, so that logging out or deleting
the row ends it at once. The row holds only a hash of the secret that renews it: a refresh token
(programs) or a cookie (pages). A refresh token is used up by its use; one that comes again ends
the session. An API token is a row of `api_tokens`. The owner of the machine needs no row:
`local_token` signs with the secret file, which only the owner can read. On the appliance that is
the portal's account, and root; the agents' account has a secret of its own, which says less.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import secrets
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import jwt

from base import modes, streams
from base.errors import ForbiddenError, UnauthenticatedError
from base.limit import Limiter
from base.settings import OWNER_EMAIL, Settings
from base.store import Session, Store
from portal import signing
from portal.passwords import Passwords
from portal.scopes import SCOPES
from portal.trail import Trail, logged_in, logged_out, reused, user_made

ALGORITHM = "HS256"
SECRET, AGENTS_SECRET = "jwt-secret", "agents-jwt-secret"
#: What the agents' account of the appliance may: look, and give work. Neither answers nor accounts.
AGENTS_SCOPES = frozenset(SCOPES) - {"admin", "approvals:write"}
ACCESS_S = 900
LOCAL_S = 3600
SESSION_DAYS = 30
#: So long the same refresh token gives the same successor: two tabs or programs that share one
#: may renew it at the same moment, and an answer may get lost. Later it is a theft.
RACE_S = 10
#: How often it is written down that a session or a token is in use.
SEEN_S = 60
API_TOKEN = "ait_"
#: The same in every installation, so that a local token needs no database to be made.
ADMIN_ID = str(uuid.uuid5(uuid.NAMESPACE_OID, OWNER_EMAIL))
WRONG = "the email or the password is wrong"
ENDED = "the session has ended; log in again"

Kind = Literal["refresh", "cookie", "link", "api"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who is asking. `session_id` None: a local or an API token; `expires_at_s` is Unix time;
    `peer` is the address that asks, "" when unknown. `scopes` None: everything the role may.
    """

    user_id: str
    email: str
    role: str
    session_id: str | None
    expires_at_s: float
    local: bool = False
    by_cookie: bool = False
    peer: str = ""
    token_id: str | None = None
    scopes: frozenset[str] | None = None

    @property
    def admin(self) -> bool:
        """Whether they may do what only an admin may: a token has to have that scope, too."""
        return self.role == "admin" and (self.scopes is None or "admin" in self.scopes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a login gives. `secret` renews it: a refresh token or a cookie's value."""

    token: str
    expires_at: datetime
    secret: str


def secret(settings: Settings) -> bytes:
    """The signing secret, made at the first call (mode 0600); the first of two racers wins.

    Raises SettingsError for one that somebody else could have put there, or can read.
    """
    return signing.kept(settings.secrets / SECRET, signing.PRIVATE)


def agents_secret(settings: Settings) -> bytes | None:
    """What the agents' account signs with, made at the first call. None in local mode."""
    return signing.kept(settings.secrets / AGENTS_SECRET, modes.FILE) if modes.SHARED else None


def local_token(settings: Settings, *, ttl_s: float = LOCAL_S) -> str:
    """A short-lived admin token for the OS user who owns the home; for the agents' account of the
    appliance one with `AGENTS_SCOPES`. Needs no database.
    """
    try:
        key = secret(settings)
    except PermissionError:
        if not modes.SHARED:
            raise
        key = signing.kept(settings.secrets / AGENTS_SECRET, modes.FILE)
    return _sign(key, user_id=ADMIN_ID, session_id=None, ttl_s=ttl_s)


class Auth:
    """Logins of one portal. Every method raises UnauthenticatedError for a wrong secret."""

    def __init__(self, settings: Settings, store: Store, limiter: Limiter, trail: Trail) -> None:
        self.passwords = Passwords(limiter, trail)
        self._key = secret(settings)
        self._agents_key = agents_secret(settings)
        self._store = store

    async def ensure_admin(self) -> None:
        """The local admin exists, with a password nobody knows. Safe to call any time."""
        hashed = await self.passwords.hashed(secrets.token_urlsafe(32))
        async with self._store.transaction() as tx:
            made = await tx.execute(
                "INSERT INTO users (id, email, password_hash, display_name, role)"
                " VALUES ($1, $2, $3, 'Admin', 'admin') ON CONFLICT DO NOTHING",
                *(ADMIN_ID, OWNER_EMAIL, hashed),
            )
            if made:
                await tx.publish(streams.AUDIT, user_made(ADMIN_ID, "admin"))

    # Logging in and out --------------------------------------------------------------------

    async def log_in(
        self, email: str, password: str, *, peer: str, agent: str, kind: Kind
    ) -> Grant:
        """A new session. Raises TooManyError and BusError as `passwords.right` does.

        Takes as long for an unknown email as for a wrong password.
        """
        row = await self._store.fetchrow(
            "SELECT id, password_hash FROM users WHERE email = $1 AND is_active", email.lower()
        )
        known, user_id = (row["password_hash"], row["id"]) if row is not None else (None, "")
        if not await self.passwords.right(known, password, user_id=user_id, peer=peer):
            raise UnauthenticatedError(WRONG)
        async with self._store.transaction() as tx:
            return await self.open(tx, user_id, kind, how="password", peer=peer, agent=agent)

    async def open(
        self, tx: Session, user_id: str, kind: Kind, *, how: str, peer: str, agent: str
    ) -> Grant:
        """A new session of somebody who has shown by `how` that it is they."""
        value = secrets.token_urlsafe(32)
        await tx.execute("DELETE FROM sessions WHERE expires_at < now()")
        await tx.execute("UPDATE users SET last_login_at = now() WHERE id = $1", user_id)
        session_id = await tx.fetchval(
            "INSERT INTO sessions (user_id, token_hash, ip_address, user_agent, how, expires_at,"
            " last_seen_at) VALUES ($1, $2, $3, $4, $5, $6, now()) RETURNING id",
            *(user_id, hashed(kind, value), _address(peer), agent[:500], how),
            from_now(SESSION_DAYS * 86_400),
        )
        await tx.publish(streams.AUDIT, logged_in(user_id, session_id, how, peer))
        return self._grant(user_id, session_id, value)

    async def refresh(self, refresh_token: str, *, peer: str = "") -> Grant:
        """A new access token and a new refresh token; the old one is used up. When one comes
        again that was used up more than 10 s ago, or whose successor was used, two have it: the
        session ends for both.
        """
        value = self.derived(f"refresh {refresh_token}")
        old, new = hashed("refresh", refresh_token), hashed("refresh", value)
        async with self._store.transaction() as tx:
            row = await tx.fetchrow(
                "UPDATE sessions s SET token_hash = $2, expires_at = $3, last_seen_at = now()"
                " FROM users u WHERE s.token_hash = $1 AND s.expires_at > now()"
                " AND u.id = s.user_id AND u.is_active RETURNING s.id, s.user_id",
                *(old, new, from_now(SESSION_DAYS * 86_400)),
            )
            if row is not None:
                await tx.execute(
                    "DELETE FROM session_used WHERE session_id = $1"
                    " AND used_at < now() - make_interval(days => $2)",
                    *(row["id"], SESSION_DAYS),
                )
                await tx.execute(
                    "INSERT INTO session_used (token_hash, session_id) VALUES ($1, $2)",
                    *(old, row["id"]),
                )
                return self._grant(row["user_id"], row["id"], value)
            used = await tx.fetchrow(
                "SELECT s.id, s.user_id, s.token_hash = $2 AND s.expires_at > now()"
                " AND o.used_at > now() - make_interval(secs => $3) AS raced"
                " FROM session_used o JOIN sessions s ON s.id = o.session_id"
                " WHERE o.token_hash = $1 FOR UPDATE OF s",
                *(old, new, RACE_S),
            )
            if used is not None and used["raced"]:
                return self._grant(used["user_id"], used["id"], value)
            if used is not None:
                await tx.execute("DELETE FROM sessions WHERE id = $1", used["id"])
                await tx.publish(streams.AUDIT, reused(used["user_id"], used["id"], peer))
        if used is not None:
            raise UnauthenticatedError(
                "this refresh token was used before: its session has ended; log in again"
            )
        raise UnauthenticatedError("the refresh token is not valid or has expired; log in again")

    async def log_out(self, caller: Caller, *, everywhere: bool = False) -> None:
        """End the caller's session at once, or all of theirs. A local token simply runs out."""
        async with self._store.transaction() as tx:
            if everywhere:
                await tx.execute("DELETE FROM sessions WHERE user_id = $1", caller.user_id)
            elif caller.session_id is not None:
                await tx.execute("DELETE FROM sessions WHERE id = $1", caller.session_id)
            await tx.publish(streams.AUDIT, logged_out(caller, everywhere=everywhere))

    async def forget(self, cookie: str | None) -> None:
        """End the session of a cookie that a new login replaces, if it is one."""
        if cookie:
            await self._store.execute(
                "DELETE FROM sessions WHERE token_hash = $1", hashed("cookie", cookie)
            )

    def derived(self, text: str) -> str:
        """A secret that only this installation can make of `text`, always the same."""
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()

    # Who it is -----------------------------------------------------------------------------

    async def by_token(self, token: str, *, peer: str = "") -> Caller:
        """Who an access token or an API token stands for."""
        if token.startswith(API_TOKEN):
            return await self._by_api_token(token)
        scopes = None
        try:
            try:
                claims = _claims(token, self._key)
            except jwt.InvalidSignatureError:
                if self._agents_key is None:
                    raise
                claims, scopes = _claims(token, self._agents_key), AGENTS_SCOPES
                if claims.get("sub") != ADMIN_ID or claims.get("sid"):
                    raise
            user_id = str(uuid.UUID(claims["sub"]))
            session_id = str(uuid.UUID(claims["sid"])) if claims.get("sid") else None
        except jwt.ExpiredSignatureError as error:
            raise UnauthenticatedError("the token has expired; log in or refresh it") from error
        except (jwt.InvalidTokenError, ValueError, TypeError, AttributeError) as error:
            raise UnauthenticatedError("the token is not valid") from error
        local = claims.get("local") is True
        if session_id is None and not local:
            raise UnauthenticatedError("the token is not valid")
        row = await self._store.fetchrow(
            f"SELECT u.email, u.role, {_STALE} FROM users u"
            " LEFT JOIN sessions s ON s.id = $2 AND s.user_id = u.id AND s.expires_at > now()"
            " WHERE u.id = $1 AND (u.is_active OR $3) AND ($3 OR s.id IS NOT NULL)",
            *(user_id, session_id, local and session_id is None),
        )
        if row is None:
            raise UnauthenticatedError(ENDED)
        if session_id is not None and row["stale"]:
            await self._seen(session_id, peer)
        return Caller(
            user_id=user_id,
            email=row["email"],
            role="admin" if local else row["role"],
            session_id=session_id,
            expires_at_s=float(claims["exp"]),
            local=local and scopes is None,
            scopes=scopes,
        )

    async def by_cookie(self, cookie: str, *, peer: str = "") -> Caller:
        """Who a page's cookie stands for."""
        row = await self._store.fetchrow(
            f"SELECT s.id, s.user_id, s.expires_at, u.email, u.role, {_STALE} FROM sessions s"
            " JOIN users u ON u.id = s.user_id"
            " WHERE s.token_hash = $1 AND s.expires_at > now() AND u.is_active",
            hashed("cookie", cookie),
        )
        if row is None:
            raise UnauthenticatedError(ENDED)
        if row["stale"]:
            await self._seen(row["id"], peer)
        return Caller(
            user_id=row["user_id"],
            email=row["email"],
            role=row["role"],
            session_id=row["id"],
            expires_at_s=row["expires_at"].timestamp(),
            by_cookie=True,
        )

    async def over(self, caller: Caller) -> bool:
        """Whether the caller's token has expired, the session or the API token is no more, or
        the person's role is another by now.
        """
        if time.time() >= caller.expires_at_s:
            return True
        if caller.session_id is None and caller.token_id is None:
            return False
        row = await self._store.fetchrow(
            f"SELECT {_STALE} FROM sessions s JOIN users u ON u.id = s.user_id"
            " WHERE s.id = $1 AND s.expires_at > now() AND u.is_active AND u.role = $3"
            " UNION ALL SELECT FALSE FROM api_tokens t JOIN users u ON u.id = t.user_id"
            " WHERE t.id = $2 AND (t.expires_at IS NULL OR t.expires_at > now())"
            " AND u.is_active AND u.role = $3",
            *(caller.session_id, caller.token_id, caller.role),
        )
        if row is not None and row["stale"] and caller.session_id is not None:
            await self._seen(caller.session_id, caller.peer)
        return row is None

    async def _by_api_token(self, token: str) -> Caller:
        row = await self._store.fetchrow(
            "SELECT t.id, t.user_id, t.scopes, t.expires_at, u.email, u.role,"
            f" {_STALE.replace('s.last_seen_at', 't.last_used_at')} FROM api_tokens t"
            " JOIN users u ON u.id = t.user_id WHERE t.token_hash = $1 AND u.is_active"
            " AND (t.expires_at IS NULL OR t.expires_at > now())",
            hashed("api", token),
        )
        if row is None:
            raise UnauthenticatedError("the API token is not valid, has expired or was revoked")
        if row["stale"]:
            await self._store.execute(
                "UPDATE api_tokens SET last_used_at = now() WHERE id = $1", row["id"]
            )
        ends = row["expires_at"]
        return Caller(
            user_id=row["user_id"],
            email=row["email"],
            role=row["role"],
            session_id=None,
            expires_at_s=ends.timestamp() if ends is not None else math.inf,
            token_id=row["id"],
            scopes=frozenset(row["scopes"]),
        )

    async def _seen(self, session_id: str, peer: str) -> None:
        await self._store.execute(
            "UPDATE sessions SET last_seen_at = now(), ip_address = COALESCE($2, ip_address)"
            " WHERE id = $1",
            *(session_id, _address(peer)),
        )

    def _grant(self, user_id: str, session_id: str, value: str) -> Grant:
        return Grant(
            token=_sign(self._key, user_id=user_id, session_id=session_id, ttl_s=ACCESS_S),
            expires_at=from_now(ACCESS_S),
            secret=value,
        )


#: Whether it was last written down a while ago that the session is in use.
_STALE = f"COALESCE(s.last_seen_at, '-infinity') < now() - make_interval(secs => {SEEN_S}) AS stale"


def admin_only(caller: Caller) -> None:
    """Raises ForbiddenError unless an admin asks."""
    if not caller.admin:
        raise ForbiddenError("only an admin may do this")


def hashed(kind: Kind, value: str) -> str:
    """A refresh token is no cookie and no link: the kind is part of what is hashed."""
    return hashlib.sha256(f"{kind}:{value}".encode()).hexdigest()


def from_now(seconds_s: float) -> datetime:
    """The moment in `seconds_s`."""
    return datetime.now(UTC) + timedelta(seconds=seconds_s)


def _sign(key: bytes, *, user_id: str, session_id: str | None, ttl_s: float) -> str:
    now = int(time.time())
    claims: dict[str, Any] = {"sub": user_id, "iat": now, "exp": now + int(ttl_s)}
    claims |= {"sid": session_id} if session_id is not None else {"local": True}
    return jwt.encode(claims, key, algorithm=ALGORITHM)


def _claims(token: str, key: bytes) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(
        token, key, algorithms=[ALGORITHM], options={"require": ["exp", "sub"]}
    )
    return found


def _address(peer: str) -> str | None:
    try:
        return str(ipaddress.ip_address(peer))
    except ValueError:  # a Unix socket or a test client: no address to keep
        return None
