"""domain.remove: the site is taken away, its files are archived, its certificate may be revoked."""

from __future__ import annotations

from typing import Any

from base.verbs import By, DomainRemove
from provision.box import Box
from provision.domains import Domains
from provision.verb import Tell, Verb, named


async def plan(request: DomainRemove, box: Box) -> list[str]:
    site = Domains(box).shown(request.domain)
    steps = [f"stop serving {', '.join(site.names)}"]
    if request.revoke and site.ssl_expires_at is not None:
        steps.insert(0, "revoke its certificate")
    if site.kind == "static":
        steps.append("archive its files")
    return steps


async def run(request: DomainRemove, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    archive = await Domains(box, who=named(by)).remove(
        request.domain, revoke=request.revoke, tell=tell
    )
    return {"domain": request.domain, "archive": str(archive) if archive else None}


VERB = Verb(name="domain.remove", request=DomainRemove, approval="person", plan=plan, run=run)
