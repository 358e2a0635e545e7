"""Domains in local mode: a clear no, with the reason, for whoever may ask."""

from __future__ import annotations

import uuid
from typing import Any

from base.store import Store
from tests.portal.conftest import Portal, person
from tests.portal.test_api import problem

VERBS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/api/domains", {}),
    ("POST", "/api/domains", {"json": {"domain_name": "example.org"}}),
    ("POST", "/api/domains/plan", {"json": {"domain_name": "example.org"}}),
    ("POST", "/api/domains/undo", {"json": {}}),
    ("GET", "/api/domains/{}", {}),
    ("PATCH", "/api/domains/{}", {"json": {"enabled": False}}),
    ("POST", "/api/domains/{}/renew", {}),
    ("POST", "/api/domains/{}/rollback", {}),
    ("DELETE", "/api/domains/{}", {}),
    ("POST", "/api/domains/{}/deploy", {"files": {"files": ("index.html", b"<p>hi")}}),
    ("GET", "/api/domains/{}/certificate", {}),
]


async def test_every_verb_says_why_not(portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    with portal.admin() as admin, portal.client(somebody.token) as user:
        for method, path, body in VERBS:
            where = path.format(uuid.uuid4())
            said = problem(admin.request(method, where, **body), 409)
            assert said["type"] == "urn:ai-infra:problem:not-available-in-local-mode"
            assert "local mode" in said["detail"]
            assert "nginx" in said["detail"]
            problem(user.request(method, where, **body), 409 if method == "GET" else 403)
        for method, path in (("GET", "/api/broker"), ("POST", "/api/broker/unit.status")):
            body = {"unit": "nginx.service"} if method == "POST" else None
            said = problem(admin.request(method, path, json=body), 409)
            assert said["type"] == "urn:ai-infra:problem:not-available-in-local-mode"
            problem(user.request(method, path, json=body), 403)
