"""Logging in and out, one's own account, and where one is logged in. The pages' cookie is set by
the pages under `/login` and `/welcome`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from base.errors import UnauthenticatedError
from base.messages import Wire
from portal import accounts, cookies, identities, links, sessions
from portal.account_shapes import Profile
from portal.auth import Grant
from portal.door import Admin, Asking, At, Key, address_of, caller_of, need
from portal.oauth import Name
from portal.peer import peer_of
from portal.scopes import ANY, SESSION
from portal.shapes import Login, Password, Refresh

router = APIRouter(prefix="/auth", tags=["auth"])
SESSIONS = [need(SESSION)]


class Tokens(Wire):
    """Send `token` as `Authorization: Bearer …`; renew it with `refresh_token`, which then ends."""

    token: str
    expires_at: datetime
    refresh_token: str


@router.post("/login", dependencies=[need(ANY)])
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


@router.post("/refresh", dependencies=[need(ANY)])
async def refresh(desk: At, request: Request, body: Refresh) -> Tokens:
    """New tokens for a refresh token, which is used up by this. One that comes again ends its
    session, except within 10 s: then the answer is the same refresh token as before.
    """
    peer = peer_of(request, desk.settings)
    return _tokens(await desk.auth.refresh(body.refresh_token, peer=peer))


@router.post("/logout", status_code=204, dependencies=SESSIONS)
async def logout(
    desk: At,
    caller: Asking,
    request: Request,
    response: Response,
    everywhere: Annotated[bool, Query()] = False,
) -> None:
    """End this session, or all: tokens and cookies are worth nothing from now on."""
    await desk.auth.log_out(caller, everywhere=everywhere)
    cookies.clear(request, response)


@router.get("/me", dependencies=[need(ANY)])
async def me(desk: At, caller: Asking) -> accounts.Me:
    """Who the token stands for."""
    return await accounts.me(desk, caller)


@router.patch("/me", dependencies=SESSIONS)
async def set_profile(desk: At, caller: Asking, body: Profile) -> accounts.Me:
    """Change one's display name or time zone; what is left out stays."""
    return await accounts.set_profile(desk, caller, body)


@router.post("/password", dependencies=SESSIONS)
async def password(desk: At, caller: Asking, body: Password) -> dict[str, Any]:
    """Change one's password; every other session ends."""
    await accounts.set_password(desk, caller, body.new_password, body.current_password)
    return {"ok": True}


@router.post("/links", status_code=201, dependencies=SESSIONS)
async def make_link(desk: At, caller: Admin, request: Request, key: Key = None) -> links.Link:
    """A one-time login link for the admin who asks, good for 15 minutes."""
    at = address_of(request, desk.settings)
    return await links.make_login(desk, caller, at, key=key)


@router.get("/sessions", dependencies=SESSIONS)
async def logged_in(desk: At, caller: Asking) -> sessions.Sessions:
    """Where one is logged in: device, address, when last seen."""
    return await sessions.sessions(desk, caller)


@router.delete("/sessions", dependencies=SESSIONS)
async def end_others(desk: At, caller: Asking) -> sessions.Ended:
    """Log out everywhere else; sockets and pages there close within 5 s."""
    return await sessions.end_others(desk, caller)


@router.delete("/sessions/{session_id}", status_code=204, dependencies=SESSIONS)
async def end(desk: At, caller: Asking, session_id: UUID) -> None:
    """End one session of one's own; its sockets and pages close within 5 s."""
    await sessions.end(desk, caller, str(session_id))


@router.get("/identities", dependencies=SESSIONS)
async def linked(desk: At, caller: Asking) -> identities.Identities:
    """Which accounts at Google and GitHub get into this one."""
    return await identities.identities(desk, caller)


@router.delete("/identities/{provider}", status_code=204, dependencies=SESSIONS)
async def unlink(desk: At, caller: Asking, provider: Name) -> None:
    """They get in by it no longer; refused when it is the only way in."""
    await identities.unlink(desk, caller, provider)


@router.get(
    "/oauth/{provider}",
    dependencies=[need(ANY)],
    status_code=303,
    response_class=RedirectResponse,
    responses={303: {"description": "To the provider; it sends the browser back to us."}},
)
async def oauth(
    desk: At,
    request: Request,
    provider: Name,
    link: Annotated[bool, Query()] = False,
    back: Annotated[str, Query(alias="next", max_length=2048)] = "/",
) -> Response:
    """Log in by Google or GitHub, in a browser; with `link` the one who is logged in links it
    with their account. `next`: the page of ours to go to afterwards.
    """
    session_id = None
    if link:
        caller = await caller_of(request)
        session_id = caller.session_id if caller.by_cookie else None
        if session_id is None:
            raise UnauthenticatedError("linking is for somebody who is logged in with a browser")
    if (there := cookies.elsewhere(request, desk.settings)) is not None:
        return RedirectResponse(there, 303)
    begun = await desk.providers.begin(provider, session_id=session_id, back=back)
    response = RedirectResponse(begun.url, 303)
    cookies.put_flow(request, response, begun.flow)
    return response


def _tokens(grant: Grant) -> Tokens:
    return Tokens(token=grant.token, expires_at=grant.expires_at, refresh_token=grant.secret)
