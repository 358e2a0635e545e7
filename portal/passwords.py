"""Passwords: how they are kept (argon2id), and how often a wrong one may be tried."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress

import argon2

from base.errors import BusError, TooManyError
from base.limit import Limiter
from portal.peer import neighbourhood
from portal.trail import Trail, login_failed

ATTEMPTS = "auth.login_attempts"


class Passwords:
    """Of one portal. Two are hashed at a time: each takes 19 MiB."""

    def __init__(self, limiter: Limiter, trail: Trail) -> None:
        self._limiter = limiter
        self._trail = trail
        self._hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
        self._hashing = asyncio.Semaphore(2)
        self._nobody = self._hasher.hash(secrets.token_hex(16))

    async def hashed(self, password: str) -> str:
        """What `users.password_hash` holds."""
        async with self._hashing:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def right(self, known: str | None, password: str, *, user_id: str, peer: str) -> bool:
        """Whether it is the password that `known` is the hash of; None (nobody, or none set):
        False after as long. Raises TooManyError after five failures in 15 min from one address,
        and BusError when they cannot be counted: then nobody gets in by password.
        """
        await self._attempt(peer)
        right = await self._verify(known or self._nobody, password)
        if known is None or not right:
            # Only an account that exists is named: people type passwords into the wrong field.
            self.failed(user_id, peer, "wrong password")
            return False
        with suppress(BusError):  # it counted as a failure, and stays one for its 15 minutes
            await self._limiter.give_back(ATTEMPTS, neighbourhood(peer))
        return True

    def failed(self, user_id: str, peer: str, reason: str, *, denied: bool = False) -> None:
        """Have it written down that a login failed."""
        self._trail.tell(login_failed(user_id, peer, reason, denied=denied))

    async def _attempt(self, peer: str) -> None:
        """Count one attempt to guess a password; a right one is given back."""
        try:
            await self._limiter.take(ATTEMPTS, neighbourhood(peer), "too many attempts")
        except TooManyError as error:
            self.failed("", peer, str(error), denied=True)
            raise

    async def _verify(self, hashed: str, password: str) -> bool:
        async with self._hashing:
            try:
                return await asyncio.to_thread(self._hasher.verify, hashed, password)
            except argon2.exceptions.VerifyMismatchError:
                return False
