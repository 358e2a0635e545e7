"""Logging in by Google (OpenID Connect) and GitHub (OAuth 2), spoken by Authlib.

The authorization code flow with PKCE (S256), a state and, for Google, a nonce. What has to be
remembered until the browser comes back lies signed in a cookie of that browser for ten minutes.
The redirect address is made of the settings alone, never of the request.
"""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import jwt

from base import log, secrets
from base.errors import AIError, NotFoundError, NotRunningError, UnauthenticatedError
from base.settings import Settings
from portal.auth import from_now

if TYPE_CHECKING:
    from authlib.integrations.starlette_client import StarletteOAuth2App

Name = Literal["google", "github"]
TITLES: dict[Name, str] = {"google": "Google", "github": "GitHub"}
SECRETS = {"google": "google-client-secret", "github": "github-client-secret"}
FLOW_S = 600
ANSWER_S = 10.0
#: What an ID token may be signed with, whatever the provider's document says.
ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"})
AGAIN = "This login was begun elsewhere or too long ago. Begin again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Somebody as a provider knows them. `emails`: those that it has verified, lower case."""

    provider: str
    subject: str
    emails: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """Where to send the browser, and what it has to bring back in its cookie."""

    url: str
    flow: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Who it is; the session that asked to link it, None for a login; where the person wanted to
    go, as it was asked for.
    """

    known: Known
    session_id: str | None
    back: str


class Providers:
    """The identity providers of one portal; those without a client id and secret are not there."""

    def __init__(self, settings: Settings, key: str) -> None:
        self._settings = settings
        self._key = key
        self._apps: dict[tuple[str, str], StarletteOAuth2App] = {}

    async def names(self) -> list[Name]:
        """Those that can be used."""
        return [name for name in TITLES if await self._secret(name) is not None]

    async def begin(self, name: Name, *, session_id: str | None = None, back: str = "/") -> Begun:
        """Begin a login, or for a session to link an identity with its account. Raises
        NotFoundError for a provider that is not set up, NotRunningError when it does not answer.
        """
        app = await self._app(name)
        async with _asked(name):
            begun = await app.create_authorization_url(self._redirect(name))
        flow = {
            "provider": name,
            "state": begun["state"],
            "verifier": begun["code_verifier"],
            "nonce": begun.get("nonce"),
            "session": session_id,
            "back": back,
            "exp": from_now(FLOW_S),
        }
        return Begun(url=begun["url"], flow=jwt.encode(flow, self._key, "HS256"))

    async def finish(self, name: Name, *, flow: str, state: str, code: str) -> Done:
        """Who came back. Raises UnauthenticatedError for a state that is not this browser's,
        NotRunningError when the provider does not answer.
        """
        try:
            begun = jwt.decode(flow, self._key, ["HS256"], options={"require": ["exp"]})
        except jwt.InvalidTokenError as error:
            raise UnauthenticatedError(AGAIN) from error
        same = hmac.compare_digest(begun["state"].encode(), state.encode())
        if not same or begun["provider"] != name:
            raise UnauthenticatedError(AGAIN)
        app = await self._app(name)
        async with _asked(name):
            token = await app.fetch_access_token(
                redirect_uri=self._redirect(name), code=code, code_verifier=begun["verifier"]
            )
            known = await (_google if name == "google" else _github)(app, token, begun["nonce"])
        return Done(known=known, session_id=begun["session"], back=begun["back"])

    def _redirect(self, name: Name) -> str:
        return f"{self._settings.address}/login/{name}/callback"

    async def _secret(self, name: Name) -> str | None:
        if not self._client_id(name):
            return None
        try:
            found = await secrets.of(self._settings).fetch(SECRETS[name])
        except AIError as error:
            log.get("portal").warning("no client secret", provider=name, error=str(error))
            return None
        return found.get_secret_value() if found else None

    def _client_id(self, name: Name) -> str | None:
        settings = self._settings
        return settings.google_client_id if name == "google" else settings.github_client_id

    async def _app(self, name: Name) -> StarletteOAuth2App:
        """Made anew when the secret changes; it keeps the provider's document and keys."""
        secret = await self._secret(name)
        if secret is None:
            raise NotFoundError(f"logging in by {TITLES[name]} is not set up here")
        if (name, secret) not in self._apps:
            self._apps[name, secret] = self._registered(name, secret)
        app = self._apps[name, secret]
        if name == "google":
            async with _asked(name):
                document = await app.load_server_metadata()
                if document.get("issuer") != self._settings.google_issuer:
                    raise ValueError("its document names another issuer")
                offered = document.get("id_token_signing_alg_values_supported") or ["RS256"]
                document["id_token_signing_alg_values_supported"] = [
                    one for one in offered if one in ALGORITHMS
                ]
        return app

    def _registered(self, name: Name, secret: str) -> StarletteOAuth2App:
        from authlib.integrations.starlette_client import OAuth

        options: dict[str, Any] = {"code_challenge_method": "S256", "timeout": ANSWER_S}
        settings, where = self._settings, {}
        if name == "google":
            options["scope"] = "openid email profile"
            issuer = settings.google_issuer
            where = {"server_metadata_url": f"{issuer}/.well-known/openid-configuration"}
        else:
            options["scope"] = "read:user user:email"
            web = f"{settings.github_url}/login/oauth"
            where = {
                "authorize_url": f"{web}/authorize",
                "access_token_url": f"{web}/access_token",
                "api_base_url": f"{settings.github_api_url}/",
            }
        registered: StarletteOAuth2App = OAuth().register(
            name,
            client_id=self._client_id(name),
            client_secret=secret,
            client_kwargs=options,
            **where,
        )
        return registered


async def _google(app: StarletteOAuth2App, token: dict[str, Any], nonce: str | None) -> Known:
    if not nonce or "id_token" not in token:
        raise ValueError("it sent no ID token")
    claims = await app.parse_id_token(
        token,
        nonce,
        claims_options={
            "iss": {"essential": True, "values": [app.server_metadata["issuer"]]},
            "aud": {"essential": True, "value": app.client_id},
        },
    )
    email = claims.get("email") if claims.get("email_verified") is True else None
    emails = (str(email).lower(),) if email else ()
    return Known(provider="google", subject=str(claims["sub"]), emails=emails)


async def _github(app: StarletteOAuth2App, token: dict[str, Any], _: str | None) -> Known:
    user = await app.get("user", token=token)
    found = await app.get("user/emails", token=token)
    user.raise_for_status()
    found.raise_for_status()
    subject = user.json()["id"]
    if not isinstance(subject, int):
        raise TypeError("it named nobody")
    emails = sorted(found.json(), key=lambda one: not one.get("primary"))
    verified = tuple(str(one["email"]).lower() for one in emails if one.get("verified") is True)
    return Known(provider="github", subject=str(subject), emails=verified)


@asynccontextmanager
async def _asked(name: Name) -> AsyncIterator[None]:
    """A provider's answer, or one of our errors that says whose fault it is."""
    import httpx2
    from authlib.common.errors import AuthlibBaseError
    from joserfc.errors import JoseError

    try:
        yield
    except (AuthlibBaseError, JoseError) as error:
        log.get("portal").warning("login refused by provider", provider=name, error=repr(error))
        raise UnauthenticatedError(f"{TITLES[name]} did not confirm it. Begin again.") from error
    except (
        httpx2.HTTPError,
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
    ) as error:
        log.get("portal").warning("provider failed", provider=name, error=repr(error))
        raise NotRunningError(f"{TITLES[name]} does not answer as it should; try later.") from error
