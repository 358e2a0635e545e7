"""The pages in front of the door: log in, accept an invitation, come back from Google or GitHub.

Plain forms, no script. A one-time login link logs in by itself; one to set a password only shows
its form when it is opened, so that a program that looks at links does not use it up.
"""

from __future__ import annotations

from contextlib import suppress
from html import escape
from typing import Annotated
from urllib.parse import quote

from fastapi import FastAPI, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from base.errors import AIError, ForbiddenError, InputError, UnauthenticatedError
from portal import cookies, identities, links
from portal.account_shapes import PASSWORD_MIN_CHARS
from portal.auth import Grant
from portal.door import At, caller_of, cookie_name, count
from portal.limits import same_origin
from portal.oauth import TITLES, Name
from portal.pages.shell import back_path
from portal.peer import peer_of
from portal.problems import status_of

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<title>{title} · AI Infrastructure</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="{scheme}">
<link rel="icon" href="/static/favicon.svg"><link rel="stylesheet" href="/static/portal.css"></head>
<body class="login{theme}"><main>
<div class="brand"><img src="/static/favicon.svg" alt="">AI Infrastructure</div>
<h1>{title}</h1>{fault}{body}</main></body></html>"""

LOGIN = """{buttons}<form method="post" action="/login"><input type="hidden" name="next"
value="{next}"><label>Email<input name="email" type="email"
value="{email}" autocomplete="username" required maxlength="255"></label><label>Password<input
name="password" type="password" autocomplete="current-password" required maxlength="1024"></label>
<button>Log in</button></form>
<p>No password yet? On the server, run <code>ai-infra login-link</code> for a one-time login link,
or <code>ai-infra passwd</code> to set a password.</p>
<p>Invited, or forgot it? An admin can make a link for you to set a new one.</p>"""

WELCOME = """<p class="lead">{said}</p>{buttons}<form method="post" action="/welcome">
<input type="hidden" name="token" value="{token}">
<label>Email<input name="email" type="email" value="{email}" autocomplete="username"
readonly></label><label>Your name<input name="display_name" value="{name}" autocomplete="name"
maxlength="100"></label><label>New password<input name="password" type="password"
autocomplete="new-password" required minlength="{least}" maxlength="1024"
aria-describedby="least"></label><p id="least" class="note">{least} characters or more.</p>
<label>Once more<input name="again" type="password" autocomplete="new-password" required
maxlength="1024"></label><button>{verb}</button></form>"""

LINK_OVER = "This link was used already or has expired. Ask an admin for a new one."
FOREIGN = "This form was sent by another site."
INVITED = "You are invited. Choose how you will log in."
RESET = "Choose a new password. You will be logged out everywhere else."
CANCELLED = "You did not log in there. Try again, or log in another way."


def install(app: FastAPI) -> None:
    """`/login`, `/login?token=…`, `/login/{provider}/callback`, `/welcome`, `/logout`."""
    for path, method, does in (
        ("/login", "GET", _show),
        ("/login", "POST", _form),
        ("/login/{provider}/callback", "GET", _back),
        ("/welcome", "GET", _welcome),
        ("/welcome", "POST", _accept),
        ("/logout", "POST", _leave),
    ):
        app.add_api_route(path, does, methods=[method], include_in_schema=False)


async def _show(
    request: Request,
    desk: At,
    token: str | None = None,
    back: Annotated[str, Query(alias="next", max_length=2048)] = "/",
) -> Response:
    if token is None:
        return await _login(desk, request, back=back)
    try:
        grant = await links.log_in(desk, token, agent=_agent(request), peer=_peer(desk, request))
    except UnauthenticatedError as error:
        said = f"{_sentence(error)} Ask for a new one on the server: ai-infra login-link"
        return await _login(desk, request, said, status=401)
    return await _in(desk, request, grant)


async def _form(
    request: Request,
    desk: At,
    email: Annotated[str, Form(max_length=255)],
    password: Annotated[str, Form(max_length=1024)],
    back: Annotated[str, Form(alias="next", max_length=2048)] = "/",
) -> Response:
    if not same_origin(request.headers):
        return await _login(desk, request, FOREIGN, status=403)
    try:
        await count(desk, request, None)
        grant = await desk.auth.log_in(
            email,
            password,
            peer=_peer(desk, request),
            agent=_agent(request),
            kind="cookie",
        )
    except AIError as error:
        return await _login(
            desk, request, _sentence(error), email=email, status=status_of(error), back=back
        )
    return await _in(desk, request, grant, back)


async def _back(
    request: Request,
    desk: At,
    provider: Name,
    state: str = "",
    code: str = "",
    error: str = "",
) -> Response:
    """Back from a provider: logged in, or an identity linked, or told why not."""
    flow = cookies.flow(request)
    try:
        await count(desk, request, None)
        if error or not code:
            raise UnauthenticatedError(CANCELLED)
        done = await desk.providers.finish(provider, flow=flow, state=state, code=code)
        if done.session_id is None:
            grant = await identities.enter(
                desk, done.known, agent=_agent(request), peer=_peer(desk, request)
            )
            response: Response = await _in(desk, request, grant, done.back)
        else:
            # The state has shown that this browser began it, so the cookie counts here.
            cookie = request.cookies.get(cookie_name(request), "")
            caller = await desk.auth.by_cookie(cookie, peer=_peer(desk, request))
            if caller.session_id != done.session_id:
                raise UnauthenticatedError("You are logged in as somebody else now. Begin again.")
            await identities.link(desk, caller, done.known)
            response = RedirectResponse("/settings", 303)
    except AIError as fault:
        response = await _login(desk, request, _sentence(fault), status=status_of(fault))
    cookies.clear_flow(request, response)
    return response


async def _welcome(request: Request, desk: At, token: str = "") -> Response:
    try:
        found = await links.waiting(desk, token)
    except UnauthenticatedError:
        return await _login(desk, request, LINK_OVER, status=401)
    return await _set_password(desk, request, token, found)


async def _accept(
    request: Request,
    desk: At,
    token: Annotated[str, Form(max_length=512)],
    password: Annotated[str, Form(max_length=1024)],
    again: Annotated[str, Form(max_length=1024)] = "",
    display_name: Annotated[str, Form(max_length=100)] = "",
) -> Response:
    if not same_origin(request.headers):
        return await _login(desk, request, FOREIGN, status=403)
    try:
        await count(desk, request, None)
        found = await links.waiting(desk, token)
        try:
            if len(password) < PASSWORD_MIN_CHARS:
                raise InputError(f"the password needs {PASSWORD_MIN_CHARS} characters or more")
            if password != again:
                raise InputError("the two passwords are not the same")
            grant = await links.accept(
                desk,
                token,
                password,
                display_name,
                agent=_agent(request),
                peer=_peer(desk, request),
            )
        except InputError as error:
            return await _set_password(desk, request, token, found, _sentence(error), display_name)
    except UnauthenticatedError:
        return await _login(desk, request, LINK_OVER, status=401)
    except AIError as error:
        return await _login(desk, request, _sentence(error), status=status_of(error))
    return await _in(desk, request, grant)


async def _leave(request: Request, desk: At) -> Response:
    if not same_origin(request.headers):
        raise ForbiddenError("this was sent by another site")
    response = RedirectResponse("/login", 303)
    with suppress(UnauthenticatedError):  # over already: the cookie still goes
        await desk.auth.log_out(await caller_of(request))
    cookies.clear(request, response)
    return response


async def _in(desk: At, request: Request, grant: Grant, back: str = "/") -> Response:
    """To the pages, with a new cookie; the session that the browser had before ends."""
    await desk.auth.forget(request.cookies.get(cookie_name(request)))
    response = RedirectResponse(back_path(back), 303)
    cookies.put(request, response, grant.secret)
    return response


async def _login(
    desk: At,
    request: Request,
    fault: str = "",
    *,
    email: str = "admin@local",
    status: int = 200,
    back: str = "/",
) -> HTMLResponse:
    back = back_path(back)
    body = LOGIN.replace("{buttons}", await _buttons(desk, back))
    body = body.replace("{email}", escape(email)).replace("{next}", escape(back))
    return _page(request, "Log in", fault, body, status)


async def _set_password(
    desk: At, request: Request, token: str, found: links.Waiting, fault: str = "", name: str = ""
) -> HTMLResponse:
    invited = found.purpose == "invite"
    values = {
        "said": INVITED if invited else RESET,
        "buttons": await _buttons(desk) if invited else "",
        "verb": "Log in",
        "least": str(PASSWORD_MIN_CHARS),
        "token": escape(token),
        "email": escape(found.email),
        "name": escape(name or found.display_name),
    }
    body = WELCOME
    for key, value in values.items():
        body = body.replace("{" + key + "}", value)
    title = "Welcome" if invited else "New password"
    return _page(request, title, fault, body, 422 if fault else 200)


async def _buttons(desk: At, back: str = "/") -> str:
    """One a provider that is set up."""
    there = f"?next={quote(back, safe='')}" if back != "/" else ""
    found = "".join(
        f'<a class="provider" href="/api/auth/oauth/{name}{there}">Log in with {TITLES[name]}</a>'
        for name in await desk.providers.names()
    )
    return f'<div class="providers">{found}</div><p class="or"><span>or</span></p>' if found else ""


def _page(request: Request, title: str, fault: str, body: str, status: int) -> HTMLResponse:
    theme = request.cookies.get("ai-theme")
    chosen = f" body--{theme}" if theme in {"dark", "light"} else ""
    shown = f'<div class="notice bad" role="alert">{escape(fault)}</div>' if fault else ""
    html = PAGE.replace("{title}", title).replace("{theme}", chosen).replace("{fault}", shown)
    html = html.replace("{scheme}", theme if chosen and theme else "light dark")
    return HTMLResponse(html.replace("{body}", body), status)


def _sentence(error: Exception) -> str:
    said = str(error)
    return said[:1].upper() + said[1:] + ("" if said.endswith((".", "…")) else ".")


def _agent(request: Request) -> str:
    return request.headers.get("user-agent", "")


def _peer(desk: At, request: Request) -> str:
    return peer_of(request, desk.settings)
