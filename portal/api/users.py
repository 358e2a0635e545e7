"""Everybody's accounts, for admins."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request

from portal import accounts
from portal.account_shapes import ChangeUser, NewUser
from portal.api.responses import may
from portal.door import Admin, At, Key, address_of, need
from portal.links import Link
from portal.scopes import SESSION

router = APIRouter(prefix="/users", tags=["users"], dependencies=[need(SESSION)])


@router.get("")
async def users(
    desk: At,
    caller: Admin,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> accounts.Users:
    """Everybody with an account, newest first (admin)."""
    return await accounts.users(desk, caller, limit=limit, cursor=cursor)


@router.post("", status_code=201)
async def create(
    desk: At, caller: Admin, request: Request, body: NewUser, key: Key = None
) -> accounts.NewUserMade:
    """A new account; without a password the answer has an invitation link (admin)."""
    at = address_of(request, desk.settings)
    return await accounts.create(desk, caller, body, at, key=key)


@router.get("/{user_id}")
async def user(desk: At, caller: Admin, user_id: UUID) -> accounts.User:
    """One account (admin)."""
    return await accounts.user(desk, caller, str(user_id))


@router.patch("/{user_id}", responses=may(409))
async def change(desk: At, caller: Admin, user_id: UUID, body: ChangeUser) -> accounts.User:
    """Change the role, deactivate or activate; never the last admin (admin)."""
    return await accounts.change(desk, caller, str(user_id), body)


@router.post("/{user_id}/link", status_code=201)
async def link(desk: At, caller: Admin, request: Request, user_id: UUID, key: Key = None) -> Link:
    """A one-time link to set a new password, or a new invitation (admin)."""
    at = address_of(request, desk.settings)
    return await accounts.link(desk, caller, str(user_id), at, key=key)
