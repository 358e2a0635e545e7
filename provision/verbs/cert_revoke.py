"""cert.revoke: the authority declares a certificate void; the site goes on over http."""

from __future__ import annotations

from typing import Any

from base.verbs import By, CertRevoke
from provision.box import Box
from provision.certs import Certs
from provision.domains import Domains
from provision.verb import Tell, Verb, named


async def plan(request: CertRevoke, box: Box) -> list[str]:
    cert = Certs(box).get(request.domain)
    return [
        f"revoke the certificate of {', '.join(cert.names)} ({request.reason})",
        f"serve {request.domain} over http alone, and delete the certificate and its key",
    ]


async def run(request: CertRevoke, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    domains = Domains(box, who=named(by))
    await domains.revoke(request.domain, request.reason, tell)
    return {"site": domains.shown(request.domain).model_dump(mode="json")}


VERB = Verb(name="cert.revoke", request=CertRevoke, approval="person", plan=plan, run=run)
