"""The pages' cookies: HttpOnly, SameSite=Lax, and over https Secure and bound to this host."""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from base.errors import InputError
from base.settings import Settings
from portal.auth import SESSION_DAYS
from portal.door import cookie_name, secure
from portal.oauth import FLOW_S

FLOW = "ai-infra-oauth"


def put(connection: HTTPConnection, response: Response, value: str) -> None:
    """Remember the session in the browser."""
    _put(connection, response, cookie_name(connection), value, SESSION_DAYS * 86_400)


def put_flow(connection: HTTPConnection, response: Response, value: str) -> None:
    """Remember a login by a provider until the browser comes back from there."""
    _put(connection, response, cookie_name(connection, FLOW), value, FLOW_S)


def flow(connection: HTTPConnection) -> str:
    """What was remembered; "" when nothing was."""
    return connection.cookies.get(cookie_name(connection, FLOW), "")


def clear(connection: HTTPConnection, response: Response) -> None:
    """Forget the session."""
    _clear(connection, response, cookie_name(connection))


def clear_flow(connection: HTTPConnection, response: Response) -> None:
    """Forget the login by a provider."""
    _clear(connection, response, cookie_name(connection, FLOW))


def elsewhere(request: Request, settings: Settings) -> str | None:
    """The same address where the provider will send the browser back to, if it is another host
    than the browser now asks: a cookie would not be there. Raises InputError when that was tried.
    """
    if request.headers.get("host") == urlsplit(settings.address).netloc:
        return None
    if "moved" in request.query_params:
        raise InputError(
            f"the portal is reached as {request.headers.get('host')}, but the settings say "
            f"{settings.address}; set public_url in settings.toml"
        )
    query = urlencode({**request.query_params, "moved": "true"})
    return f"{settings.address}{request.url.path}?{query}"


def _put(connection: HTTPConnection, response: Response, name: str, value: str, age_s: int) -> None:
    response.set_cookie(
        name,
        value,
        max_age=age_s,
        path="/",
        secure=secure(connection),
        httponly=True,
        samesite="lax",
    )


def _clear(connection: HTTPConnection, response: Response, name: str) -> None:
    response.delete_cookie(name, path="/", secure=secure(connection), httponly=True, samesite="lax")
