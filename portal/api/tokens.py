"""API tokens of the one who asks."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from portal import tokens as given
from portal.account_shapes import NewToken
from portal.door import Asking, At, Key, need
from portal.scopes import SESSION

router = APIRouter(prefix="/tokens", tags=["tokens"], dependencies=[need(SESSION)])


@router.get("")
async def tokens(desk: At, caller: Asking) -> given.Tokens:
    """One's API tokens, newest first; never their secrets."""
    return await given.tokens(desk, caller)


@router.post("", status_code=201)
async def make(desk: At, caller: Asking, body: NewToken, key: Key = None) -> given.NewTokenMade:
    """A new API token; its secret is in this answer and nowhere else."""
    return await given.make(desk, caller, body, key=key)


@router.delete("/{token_id}", status_code=204)
async def revoke(desk: At, caller: Asking, token_id: UUID) -> None:
    """The token is worth nothing from now on; its sockets close within 5 s."""
    await given.revoke(desk, caller, str(token_id))
