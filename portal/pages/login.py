"""The login page: one plain form, no script. A one-time link logs in by itself."""

from __future__ import annotations

from contextlib import suppress
from html import escape
from typing import Annotated

from fastapi import FastAPI, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from base.errors import AIError, UnauthenticatedError
from portal import cookies
from portal.door import At, caller_of, count
from portal.limits import same_origin
from portal.pages.shell import back_path
from portal.peer import peer_of
from portal.problems import status_of

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<title>Log in · AI Infrastructure</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="/static/favicon.svg"><link rel="stylesheet" href="/static/portal.css"></head>
<body class="login"><main>
<div class="brand"><img src="/static/favicon.svg" alt="">AI Infrastructure</div>
<h1>Log in</h1>{fault}
<form method="post" action="/login"><input type="hidden" name="next"
value="{next}"><label>Email<input name="email" type="email"
value="{email}" autocomplete="username" required></label><label>Password<input name="password"
type="password" autocomplete="current-password" required></label><button>Log in</button></form>
<p>No password yet? On the server, run <code>ai-infra login-link</code> for a one-time login link,
or <code>ai-infra passwd</code> to set a password.</p></main></body></html>"""


def install(app: FastAPI) -> None:
    """`GET /login`, `GET /login?token=…`, `POST /login`, `POST /logout`."""
    app.add_api_route("/login", _show, methods=["GET"], include_in_schema=False)
    app.add_api_route("/login", _form, methods=["POST"], include_in_schema=False)
    app.add_api_route("/logout", _leave, methods=["POST"], include_in_schema=False)


def _page(
    fault: str = "", email: str = "admin@local", status: int = 200, back: str = "/"
) -> HTMLResponse:
    shown = f'<div class="notice bad" role="alert">{escape(fault)}</div>' if fault else ""
    html = PAGE.replace("{fault}", shown).replace("{email}", escape(email, quote=True))
    html = html.replace("{next}", escape(back_path(back), quote=True))
    return HTMLResponse(html, status)


async def _show(
    request: Request,
    desk: At,
    token: str | None = None,
    back: Annotated[str, Query(alias="next", max_length=2048)] = "/",
) -> Response:
    if token is None:
        return _page(back=back)
    try:
        grant = await desk.auth.use_link(
            token,
            agent=request.headers.get("user-agent", ""),
            peer=peer_of(request, desk.settings),
        )
    except UnauthenticatedError as error:
        return _page(f"{error}. Ask for a new one on the server: ai-infra login-link", status=401)
    response = RedirectResponse("/", 303)
    cookies.put(request, response, grant.secret)
    return response


async def _form(
    request: Request,
    desk: At,
    email: Annotated[str, Form(max_length=255)],
    password: Annotated[str, Form(max_length=1024)],
    back: Annotated[str, Form(alias="next", max_length=2048)] = "/",
) -> Response:
    if not same_origin(request.headers):
        return _page("This form was sent by another site.", status=403)
    try:
        await count(desk, request, None)
        grant = await desk.auth.log_in(
            email,
            password,
            peer=peer_of(request, desk.settings),
            agent=request.headers.get("user-agent", ""),
            kind="cookie",
        )
    except AIError as error:
        said = str(error)
        return _page(said[:1].upper() + said[1:] + ".", email, status_of(error), back)
    response = RedirectResponse(back_path(back), 303)
    cookies.put(request, response, grant.secret)
    return response


async def _leave(request: Request, desk: At) -> Response:
    response = RedirectResponse("/login", 303)
    with suppress(UnauthenticatedError):  # over already: the cookie still goes
        await desk.auth.log_out(await caller_of(request))
    cookies.clear(request, response)
    return response
