"""API tokens: what a person gives to a program of theirs. Only a hash is kept."""

from __future__ import annotations

import secrets
import uuid
from datetime import datetime

from base import streams
from base.errors import ConflictError, InputError, NotFoundError
from base.messages import Wire
from portal.account_shapes import NewToken
from portal.auth import API_TOKEN, Caller, from_now, hashed
from portal.desk import Desk
from portal.scopes import SESSION, allow
from portal.trail import account, recorded

TOKENS_MAX = 50
HINT_CHARS = 8
_COLUMNS = "id, name, hint, scopes, created_at, expires_at, last_used_at"


class Token(Wire):
    """A token without its secret; `hint` is how it begins. `expires_at` None: never;
    `last_used_at` is exact to the minute.
    """

    id: str
    name: str
    hint: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class NewTokenMade(Wire):
    """`token` is the secret: it is shown this once."""

    token: str
    about: Token


class Tokens(Wire):
    tokens: list[Token]


async def tokens(desk: Desk, caller: Caller) -> Tokens:
    """The caller's tokens, newest first, with those that have expired."""
    rows = await desk.store.fetch(
        f"SELECT {_COLUMNS} FROM api_tokens WHERE user_id = $1 ORDER BY created_at DESC, id",
        caller.user_id,
    )
    return Tokens(tokens=[Token(**row) for row in rows])


async def make(
    desk: Desk, caller: Caller, asked: NewToken, *, key: str | None = None
) -> NewTokenMade:
    """A new token. The same `key` gives the same one: it is derived, so that no copy is kept.

    Raises InputError for a scope that the caller's role cannot give, ConflictError beyond 50.
    """
    allow(caller, SESSION)
    if "admin" in asked.scopes and not caller.admin:
        raise InputError("scopes: only an admin's token can have the scope admin")
    about = [asked.name, sorted(asked.scopes), asked.expires_in_days]
    value = secrets.token_urlsafe(32)
    if key is not None:
        value = desk.auth.derived(f"{caller.user_id} token {key}")
    token, token_id = API_TOKEN + value, str(uuid.uuid4())
    ends = from_now(asked.expires_in_days * 86_400) if asked.expires_in_days else None
    async with desk.store.transaction() as tx:
        if key is not None:
            before = await tx.remember(
                user_id=caller.user_id,
                key=key,
                request=["token", *about],
                status=201,
                response={"id": token_id},
            )
            if before is not None:
                found = await tx.fetchrow(
                    f"SELECT {_COLUMNS} FROM api_tokens WHERE id = $1", before["id"]
                )
                if found is None:
                    raise ConflictError("the token that this request made was revoked")
                return NewTokenMade(token=token, about=Token(**found))
        await tx.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", caller.user_id)
        count = await tx.fetchval(
            "SELECT count(*) FROM api_tokens WHERE user_id = $1", caller.user_id
        )
        if count >= TOKENS_MAX:
            raise ConflictError(f"you have {TOKENS_MAX} tokens, which is the limit; revoke one")
        row = await tx.fetchrow(
            "INSERT INTO api_tokens (id, user_id, name, token_hash, hint, scopes, expires_at)"
            f" VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING {_COLUMNS}",
            *(token_id, caller.user_id, asked.name, hashed("api", token), token[:HINT_CHARS]),
            *(sorted(asked.scopes), ends),
        )
        assert row is not None
        made = Token(**row)
        told = account(caller, "write", f"tokens/{token_id}", scopes=made.scopes)
        await tx.publish(streams.AUDIT, recorded(told))
    return NewTokenMade(token=token, about=made)


async def revoke(desk: Desk, caller: Caller, token_id: str) -> None:
    """It is worth nothing from now on. Raises NotFoundError for none of the caller's."""
    allow(caller, SESSION)
    async with desk.store.transaction() as tx:
        gone = await tx.execute(
            "DELETE FROM api_tokens WHERE id = $1 AND user_id = $2", token_id, caller.user_id
        )
        if not gone:
            raise NotFoundError(f"no API token {token_id}")
        told = account(caller, "delete", f"tokens/{token_id}")
        await tx.publish(streams.AUDIT, recorded(told))
