"""Who is asking: passwords, sessions, access tokens, one-time login links.

An access token (JWT, HS256, 15 min) names a row of `sessions`, so that logging out or deleting
the row ends it at once. The row holds only a hash of the secret that renews it: a refresh token
(programs), a cookie (pages) or a login link (until it is used). The owner of the machine needs
no row: `local_token` signs with the secret file, which only the owner can read.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import os
import secrets
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import argon2
import jwt

from base import streams
from base.errors import (
    BusError,
    ForbiddenError,
    InputError,
    SettingsError,
    TooManyError,
    UnauthenticatedError,
)
from base.limit import Limiter
from base.settings import Settings
from base.store import Session, Store
from portal.peer import neighbourhood
from portal.trail import (
    Trail,
    logged_in,
    logged_out,
    login_failed,
    password_changed,
    user_made,
)

ALGORITHM = "HS256"
ACCESS_S = 900
LOCAL_S = 3600
LINK_S = 900
SESSION_DAYS = 30
ADMIN_EMAIL = "admin@local"
#: The same in every installation, so that a local token needs no database to be made.
ADMIN_ID = str(uuid.uuid5(uuid.NAMESPACE_OID, ADMIN_EMAIL))
WRONG = "the email or the password is wrong"
ATTEMPTS = "auth.login_attempts"

Kind = Literal["refresh", "cookie", "link"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who is asking. `session_id` None: a local token; `expires_at_s` is Unix time; `peer` is
    the address that asks, "" when unknown.
    """

    user_id: str
    email: str
    role: str
    session_id: str | None
    expires_at_s: float
    local: bool = False
    by_cookie: bool = False
    peer: str = ""

    @property
    def admin(self) -> bool:
        return self.role == "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a login gives. `secret` renews it: a refresh token or a cookie's value."""

    token: str
    expires_at: datetime
    secret: str


def secret(settings: Settings) -> bytes:
    """The signing secret, made at the first call (mode 0600); the first of two racers wins."""
    path = settings.secrets / "jwt-secret"
    if not path.exists():
        fresh = path.with_name(f"jwt-secret.{os.getpid()}.{secrets.token_hex(4)}")
        fresh.touch(mode=0o600)
        fresh.write_bytes(secrets.token_hex(32).encode())
        _link_once(fresh, path)
    key = path.read_bytes().strip()
    if len(key) < 32:
        raise SettingsError([f"{path} is too short to be a secret; delete it to get a new one"])
    return key


def local_token(settings: Settings, *, ttl_s: float = LOCAL_S) -> str:
    """A short-lived admin token for the OS user who owns the home. Needs no database."""
    return _sign(secret(settings), user_id=ADMIN_ID, session_id=None, ttl_s=ttl_s)


class Auth:
    """Logins of one portal. Every method raises UnauthenticatedError for a wrong secret."""

    def __init__(self, settings: Settings, store: Store, limiter: Limiter, trail: Trail) -> None:
        self._key = secret(settings)
        self._store = store
        self._limiter = limiter
        self._trail = trail
        self._hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
        self._hashing = asyncio.Semaphore(2)
        self._nobody = self._hasher.hash(secrets.token_hex(16))

    async def ensure_admin(self) -> None:
        """The local admin exists, with a password nobody knows. Safe to call any time."""
        hashed = await self.hashed(secrets.token_urlsafe(32))
        async with self._store.transaction() as tx:
            made = await tx.execute(
                "INSERT INTO users (id, email, password_hash, display_name, role)"
                " VALUES ($1, $2, $3, 'Admin', 'admin') ON CONFLICT DO NOTHING",
                *(ADMIN_ID, ADMIN_EMAIL, hashed),
            )
            if made:
                await tx.publish(streams.AUDIT, user_made(ADMIN_ID, "admin"))

    async def log_in(
        self, email: str, password: str, *, peer: str, agent: str, kind: Kind
    ) -> Grant:
        """A new session. Raises TooManyError after five failures in 15 min from one address, and
        BusError when they cannot be counted: then nobody gets in by password.

        Takes as long for an unknown email as for a wrong password.
        """
        await self._attempt(peer)
        row = await self._store.fetchrow(
            "SELECT id, password_hash FROM users WHERE email = $1 AND is_active", email.lower()
        )
        known = row["password_hash"] if row is not None else None
        right = await self._verify(known or self._nobody, password)
        if row is None or known is None or not right:
            # Only an account that exists is named: people type passwords into the wrong field.
            self._failed(row["id"] if row is not None else "", peer, "wrong password")
            raise UnauthenticatedError(WRONG)
        with suppress(BusError):  # it counted as a failure, and stays one for its 15 minutes
            await self._limiter.give_back(ATTEMPTS, neighbourhood(peer))
        async with self._store.transaction() as tx:
            await tx.execute("DELETE FROM sessions WHERE expires_at < now()")
            await tx.execute("UPDATE users SET last_login_at = now() WHERE id = $1", row["id"])
            return await self._open(tx, row["id"], kind, peer, agent)

    async def refresh(self, refresh_token: str) -> Grant:
        """A new access token and a new refresh token; the old one is used up."""
        return await self._exchange("refresh", refresh_token, "refresh", "")

    async def use_link(self, link: str, *, agent: str, peer: str = "") -> Grant:
        """Turn a login link into a cookie session. Works once."""
        try:
            return await self._exchange("link", link, "cookie", agent, peer)
        except UnauthenticatedError:
            self._failed("", peer, "wrong or used login link")
            raise

    async def make_link(self, user_id: str, key: str | None = None) -> tuple[str, datetime]:
        """The secret of a one-time login link, and when it ends.

        The same `key` gives the same link, used or not; it is derived, so that no copy is kept.
        """
        value, ends = secrets.token_urlsafe(32), _from_now(LINK_S)
        if key is not None:
            value = hmac.new(self._key, f"{user_id} link {key}".encode(), "sha256").hexdigest()
        async with self._store.transaction() as tx:
            if key is not None:
                answer = {"ends": ends.isoformat()}
                before = await tx.remember(
                    user_id=user_id, key=key, request="link", status=200, response=answer
                )
                if before is not None:
                    return value, datetime.fromisoformat(before["ends"])
            await tx.execute(
                "INSERT INTO sessions (user_id, token_hash, user_agent, expires_at)"
                " VALUES ($1, $2, 'unused login link', $3)",
                *(user_id, _hashed("link", value), ends),
            )
        return value, ends

    async def log_out(self, caller: Caller) -> None:
        """End the caller's session at once. A local token has none and simply runs out."""
        async with self._store.transaction() as tx:
            if caller.session_id is not None:
                await tx.execute("DELETE FROM sessions WHERE id = $1", caller.session_id)
            await tx.publish(streams.AUDIT, logged_out(caller))

    async def set_password(self, caller: Caller, new: str, current: str | None) -> None:
        """Change the caller's password and end all other sessions of theirs."""
        if not caller.local:
            known = await self._store.fetchval(
                "SELECT password_hash FROM users WHERE id = $1", caller.user_id
            )
            if current is not None:
                await self._attempt(caller.peer)
            if current is None or not await self._verify(known or self._nobody, current):
                self._failed(caller.user_id, caller.peer, "wrong current password")
                raise InputError("the current password is wrong")
            with suppress(BusError):
                await self._limiter.give_back(ATTEMPTS, neighbourhood(caller.peer))
        hashed = await self.hashed(new)
        async with self._store.transaction() as tx:
            await tx.execute(
                "UPDATE users SET password_hash = $2, updated_at = now() WHERE id = $1",
                *(caller.user_id, hashed),
            )
            ended = await tx.execute(
                "DELETE FROM sessions WHERE user_id = $1 AND id IS DISTINCT FROM $2",
                *(caller.user_id, caller.session_id),
            )
            await tx.publish(streams.AUDIT, *password_changed(caller, ended))

    async def by_token(self, token: str) -> Caller:
        """Who an access token stands for."""
        try:
            claims = jwt.decode(
                token, self._key, algorithms=[ALGORITHM], options={"require": ["exp", "sub"]}
            )
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
            "SELECT email, role FROM users u WHERE id = $1 AND is_active AND ($2::uuid IS NULL"
            " OR EXISTS (SELECT FROM sessions s WHERE s.id = $2 AND s.user_id = u.id"
            " AND s.expires_at > now()))",
            user_id,
            session_id,
        )
        if row is None:
            raise UnauthenticatedError("the session has ended; log in again")
        return Caller(
            user_id=user_id,
            email=row["email"],
            role=row["role"],
            session_id=session_id,
            expires_at_s=float(claims["exp"]),
            local=local,
        )

    async def by_cookie(self, cookie: str) -> Caller:
        """Who a page's cookie stands for."""
        row = await self._store.fetchrow(
            "SELECT s.id, s.user_id, s.expires_at, u.email, u.role FROM sessions s"
            " JOIN users u ON u.id = s.user_id"
            " WHERE s.token_hash = $1 AND s.expires_at > now() AND u.is_active",
            _hashed("cookie", cookie),
        )
        if row is None:
            raise UnauthenticatedError("the session has ended; log in again")
        return Caller(
            user_id=row["user_id"],
            email=row["email"],
            role=row["role"],
            session_id=row["id"],
            expires_at_s=row["expires_at"].timestamp(),
            by_cookie=True,
        )

    async def over(self, caller: Caller) -> bool:
        """Whether the caller's token has expired or the session is no more."""
        if time.time() >= caller.expires_at_s:
            return True
        if caller.session_id is None:
            return False
        alive = await self._store.fetchval(
            "SELECT TRUE FROM sessions s JOIN users u ON u.id = s.user_id"
            " WHERE s.id = $1 AND s.expires_at > now() AND u.is_active",
            caller.session_id,
        )
        return alive is None

    async def _attempt(self, peer: str) -> None:
        """Count one attempt to guess a password; a right one is given back."""
        try:
            await self._limiter.take(ATTEMPTS, neighbourhood(peer), "too many attempts")
        except TooManyError as error:
            self._failed("", peer, str(error), denied=True)
            raise

    def _failed(self, user_id: str, peer: str, reason: str, *, denied: bool = False) -> None:
        self._trail.tell(login_failed(user_id, peer, reason, denied=denied))

    async def _open(self, tx: Session, user_id: str, kind: Kind, peer: str, agent: str) -> Grant:
        value, hashed = _fresh(kind)
        session_id = await tx.fetchval(
            "INSERT INTO sessions (user_id, token_hash, ip_address, user_agent, expires_at)"
            " VALUES ($1, $2, $3, $4, $5) RETURNING id",
            user_id,
            hashed,
            _address(peer),
            agent[:500],
            _from_now(SESSION_DAYS * 86_400),
        )
        await tx.publish(streams.AUDIT, logged_in(user_id, session_id, "password", peer))
        return self._grant(user_id, session_id, value)

    async def _exchange(
        self, old: Kind, value: str, new: Kind, agent: str, peer: str = ""
    ) -> Grant:
        """One statement: of two who present the same secret, one gets nothing."""
        fresh, hashed = _fresh(new)
        async with self._store.transaction() as tx:
            row = await tx.fetchrow(
                "UPDATE sessions s SET token_hash = $2, expires_at = $3,"
                " user_agent = COALESCE(NULLIF($4, ''), s.user_agent) FROM users u"
                " WHERE s.token_hash = $1 AND s.expires_at > now()"
                " AND u.id = s.user_id AND u.is_active RETURNING s.id, s.user_id",
                *(_hashed(old, value), hashed, _from_now(SESSION_DAYS * 86_400), agent[:500]),
            )
            if row is None:
                what = "login link" if old == "link" else "refresh token"
                raise UnauthenticatedError(f"the {what} was used already or has expired")
            if old == "link":
                await tx.publish(
                    streams.AUDIT, logged_in(row["user_id"], row["id"], "login link", peer)
                )
        return self._grant(row["user_id"], row["id"], fresh)

    def _grant(self, user_id: str, session_id: str, value: str) -> Grant:
        token = _sign(self._key, user_id=user_id, session_id=session_id, ttl_s=ACCESS_S)
        return Grant(token=token, expires_at=_from_now(ACCESS_S), secret=value)

    async def hashed(self, password: str) -> str:
        """The argon2id hash that `users.password_hash` holds."""
        async with self._hashing:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def _verify(self, hashed: str, password: str) -> bool:
        async with self._hashing:
            try:
                return await asyncio.to_thread(self._hasher.verify, hashed, password)
            except argon2.exceptions.VerifyMismatchError:
                return False


def admin_only(caller: Caller) -> None:
    """Raises ForbiddenError unless an admin asks."""
    if not caller.admin:
        raise ForbiddenError("only an admin may do this")


def _sign(key: bytes, *, user_id: str, session_id: str | None, ttl_s: float) -> str:
    now = int(time.time())
    claims: dict[str, Any] = {"sub": user_id, "iat": now, "exp": now + int(ttl_s)}
    claims |= {"sid": session_id} if session_id is not None else {"local": True}
    return jwt.encode(claims, key, algorithm=ALGORITHM)


def _fresh(kind: Kind) -> tuple[str, str]:
    value = secrets.token_urlsafe(32)
    return value, _hashed(kind, value)


def _hashed(kind: Kind, value: str) -> str:
    """A refresh token is no cookie and no link: the kind is part of what is hashed."""
    return hashlib.sha256(f"{kind}:{value}".encode()).hexdigest()


def _from_now(seconds_s: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds_s)


def _address(peer: str) -> str | None:
    try:
        return str(ipaddress.ip_address(peer))
    except ValueError:  # a Unix socket or a test client: no address to keep
        return None


def _link_once(fresh: Path, path: Path) -> None:
    try:
        os.link(fresh, path)
    except FileExistsError:
        return
    finally:
        fresh.unlink()
