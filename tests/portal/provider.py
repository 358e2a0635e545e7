"""An identity provider on this machine: Google's OpenID Connect and GitHub's OAuth 2, the parts
that a login uses, as strict as they are. It is a real HTTP server in a thread.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT_ID, CLIENT_SECRET = "client-of-the-test", "secret-of-the-test"
KID = "key-1"


class Provider:
    """Who logs in there, and what it does wrong. `claims` are laid over those of the ID token."""

    def __init__(self) -> None:
        self.url = ""
        self.redirects: set[str] = set()
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.other_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.codes: dict[str, dict[str, str]] = {}
        self.tokens: dict[str, str] = {}
        self.asked: list[dict[str, str]] = []
        self.reset()

    def reset(self) -> None:
        self.subject, self.email, self.verified = "1001", "nobody@test", True
        self.emails: list[dict[str, Any]] | None = None
        self.claims: dict[str, Any] = {}
        self.sign = "RS256"
        self.down = False

    # The answers, by path --------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            "code_challenge_methods_supported": ["plain", "S256"],
        }

    def jwks(self) -> dict[str, Any]:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [public | {"kid": KID, "use": "sig", "alg": "RS256"}]}

    def authorize(self, asked: dict[str, str], *, nonce: bool) -> str:
        """Where the browser goes next. Raises ValueError for what Google or GitHub refuse."""
        if asked.get("client_id") != CLIENT_ID or asked.get("response_type") != "code":
            raise ValueError("wrong client or response type")
        if asked.get("redirect_uri") not in self.redirects:
            raise ValueError(f"redirect_uri {asked.get('redirect_uri')} is not registered")
        if asked.get("code_challenge_method") != "S256" or not asked.get("code_challenge"):
            raise ValueError("no PKCE")
        if not asked.get("state") or (nonce and not asked.get("nonce")):
            raise ValueError("no state, or no nonce")
        self.asked.append(asked)
        code = secrets.token_urlsafe(12)
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def token(self, form: dict[str, str], authorization: str, *, openid: bool) -> dict[str, Any]:
        given = (form.get("client_id", ""), form.get("client_secret", ""))
        if authorization.startswith("Basic "):
            name, _, word = base64.b64decode(authorization[6:]).decode().partition(":")
            given = (unquote(name), unquote(word))
        began = self.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            given != (CLIENT_ID, CLIENT_SECRET)
            or form.get("grant_type") != "authorization_code"
            or began is None
            or began["redirect_uri"] != form.get("redirect_uri")
            or began["code_challenge"] != challenge
        ):
            return {"error": "invalid_grant"}
        access = secrets.token_urlsafe(12)
        self.tokens[access] = self.subject
        answer: dict[str, Any] = {"access_token": access, "token_type": "bearer"}
        return answer | ({"id_token": self._id_token(began, access)} if openid else {})

    def _id_token(self, began: dict[str, str], access: str) -> str:
        now = int(time.time())
        half = hashlib.sha256(access.encode()).digest()[:16]
        claims: dict[str, Any] = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "azp": CLIENT_ID,
            "sub": self.subject,
            "email": self.email,
            "email_verified": self.verified,
            "nonce": began.get("nonce"),
            "at_hash": base64.urlsafe_b64encode(half).rstrip(b"=").decode(),
            "iat": now,
            "exp": now + 3600,
        } | self.claims
        claims = {name: value for name, value in claims.items() if value is not None}
        header = {"kid": KID}
        if self.sign == "none":
            return jwt.encode(claims, None, "none", header)
        if self.sign == "HS256":  # with what is public as the secret, as the old attack does
            public = self.jwks()["keys"][0]["n"].encode()
            return jwt.encode(claims, public, "HS256", header)
        key = self.other_key if self.sign == "other key" else self.key
        return jwt.encode(claims, key, "RS256", header)

    def user(self, authorization: str) -> dict[str, Any] | None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() not in {"bearer", "token"} or token not in self.tokens:
            return None
        return {"id": int(self.tokens[token]), "login": "somebody", "email": None}


class _Answering(BaseHTTPRequestHandler):
    provider: Provider

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        at = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(at.query).items()}
        provider, token = self.provider, self.headers.get("Authorization", "")
        if provider.down:
            self._say(503, {})
        elif at.path == "/.well-known/openid-configuration":
            self._say(200, provider.document())
        elif at.path == "/jwks":
            self._say(200, provider.jwks())
        elif at.path in {"/authorize", "/login/oauth/authorize"}:
            try:
                there = provider.authorize(asked, nonce=at.path == "/authorize")
            except ValueError as error:
                self._say(400, {"error": str(error)})
                return
            self.send_response(302)
            self.send_header("Location", there)
            self.end_headers()
        elif (user := provider.user(token)) is None:
            self._say(401, {})
        elif at.path == "/api/user":
            self._say(200, user)
        elif at.path == "/api/user/emails":
            one = {"email": provider.email, "primary": True, "verified": provider.verified}
            self._say(200, provider.emails or [one])
        else:
            self._say(404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        openid = self.path == "/token"
        answer = self.provider.token(form, self.headers.get("Authorization", ""), openid=openid)
        # GitHub says 200 to a refusal.
        self._say(400 if openid and "error" in answer else 200, answer)

    def _say(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving() -> Iterator[Provider]:
    provider = Provider()
    answering = type("Answering", (_Answering,), {"provider": provider})
    server = ThreadingHTTPServer(("127.0.0.1", 0), answering)
    provider.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, name="provider", daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
