"""Logging in and out. The pages' cookie is set by `GET /login?token=…` and the login form."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from base.messages import Wire
from portal import cookies
from portal.auth import Grant
from portal.door import Admin, Asking, At, Key
from portal.peer import peer_of
from portal.shapes import Login, Password, Refresh

router = APIRouter(prefix="/auth", tags=["auth"])


class Tokens(Wire):
    """Send `token` as `Authorization: Bearer …`; renew it with `refresh_token`, which then ends."""

    token: str
    expires_at: datetime
    refresh_token: str


class Me(Wire):
    id: str
    email: str
    role: str


class Link(Wire):
    """A login link: works once, until `expires_at`. `path` is relative to the portal."""

    url: str
    path: str
    token: str
    expires_at: datetime


@router.post("/login")
async def login(desk: At, request: Request, body: Login) -> Tokens:
    """Log in with email and password; at most five failures in 15 minutes."""
    grant = await desk.auth.log_in(
        body.email,
        body.password,
        peer=peer_of(request, desk.settings),
        agent=request.headers.get("user-agent", ""),
        kind="refresh",
    )
    return _tokens(grant)


@router.post("/refresh")
async def refresh(desk: At, body: Refresh) -> Tokens:
    """New tokens for a refresh token, which is used up by this."""
    return _tokens(await desk.auth.refresh(body.refresh_token))


@router.post("/logout", status_code=204)
async def logout(desk: At, caller: Asking, request: Request, response: Response) -> None:
    """End this session: its tokens and its cookie are worth nothing from now on."""
    await desk.auth.log_out(caller)
    cookies.clear(request, response)


@router.get("/me")
async def me(caller: Asking) -> Me:
    """Who the token stands for."""
    return Me(id=caller.user_id, email=caller.email, role=caller.role)


@router.post("/links", status_code=201)
async def links(desk: At, caller: Admin, request: Request, key: Key = None) -> Link:
    """A one-time login link for the admin who asks, good for 15 minutes."""
    token, expires_at = await desk.auth.make_link(caller.user_id, key)
    path = f"/login?token={token}"
    url = str(request.base_url).rstrip("/") + path
    return Link(url=url, path=path, token=token, expires_at=expires_at)


@router.post("/password")
async def password(desk: At, caller: Asking, body: Password) -> dict[str, Any]:
    """Change one's password; every other session ends."""
    await desk.auth.set_password(caller, body.new_password, body.current_password)
    return {"ok": True}


def _tokens(grant: Grant) -> Tokens:
    return Tokens(token=grant.token, expires_at=grant.expires_at, refresh_token=grant.secret)
