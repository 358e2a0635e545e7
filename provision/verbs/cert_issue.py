"""cert.issue: a certificate for a site that has none, or by another challenge."""

from __future__ import annotations

from typing import Any

from base.verbs import By, CertIssue
from provision import front_tls, pointing
from provision.box import Box
from provision.domains import Domains
from provision.verb import Tell, Verb, named


async def plan(request: CertIssue, box: Box) -> list[str]:
    own = front_tls.front(box, request.domain)
    names = own.hosts if own else Domains(box).shown(request.domain).names
    await pointing.check(names, box)
    return [
        f"ask the certificate authority for {', '.join(names)} ({request.challenge})",
        "serve the site over https with it",
    ]


async def run(request: CertIssue, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    """For the portal's own name the certificate alone, else the site."""
    if front_tls.front(box, request.domain) is not None:
        cert = await front_tls.certify(box, request.domain, request.challenge, tell, who=named(by))
        return {"certificate": cert.model_dump(mode="json")}
    domains = Domains(box, who=named(by))
    await domains.issue(request.domain, request.challenge, tell)
    return {"site": domains.shown(request.domain).model_dump(mode="json")}


VERB = Verb(
    name="cert.issue", request=CertIssue, approval="admin", plan=plan, run=run, deadline_s=600.0
)
