"""The pages' cookie: HttpOnly, SameSite=Lax, and over https Secure and bound to this host."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.responses import Response

from portal.auth import SESSION_DAYS
from portal.door import cookie_name, secure


def put(connection: HTTPConnection, response: Response, value: str) -> None:
    """Remember the session in the browser."""
    response.set_cookie(
        cookie_name(connection),
        value,
        max_age=SESSION_DAYS * 86_400,
        path="/",
        secure=secure(connection),
        httponly=True,
        samesite="lax",
    )


def clear(connection: HTTPConnection, response: Response) -> None:
    """Forget it."""
    response.delete_cookie(
        cookie_name(connection), path="/", secure=secure(connection), httponly=True, samesite="lax"
    )
