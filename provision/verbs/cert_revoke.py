"""cert.revoke: the authority declares a certificate void; the site goes on over http."""

from __future__ import annotations

from typing import Any

from base.verbs import By, CertRevoke
from provision import front_tls
from provision.box import Box
from provision.certs import Certs
from provision.domains import Domains
from provision.verb import Tell, Verb, named


async def plan(request: CertRevoke, box: Box) -> list[str]:
    cert = Certs(box).get(request.domain)
    own = front_tls.front(box, request.domain) is not None
    how = "with a certificate of its own" if own else "over http alone"
    return [
        f"revoke the certificate of {', '.join(cert.names)} ({request.reason})",
        f"serve {request.domain} {how}, and delete the certificate and its key",
    ]


async def run(request: CertRevoke, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    if front_tls.front(box, request.domain) is not None:
        await front_tls.revoke(box, request.domain, request.reason, tell, who=named(by))
        return {"revoked": request.domain}
    domains = Domains(box, who=named(by))
    await domains.revoke(request.domain, request.reason, tell)
    return {"site": domains.shown(request.domain).model_dump(mode="json")}


VERB = Verb(name="cert.revoke", request=CertRevoke, approval="person", plan=plan, run=run)
