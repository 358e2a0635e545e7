"""domain.enable: a site that was disabled is served again."""

from __future__ import annotations

from typing import Any

from base.verbs import By, DomainName
from provision.box import Box
from provision.domains import Domains
from provision.verb import Tell, Verb, named


async def plan(request: DomainName, box: Box) -> list[str]:
    return [f"serve {', '.join(Domains(box).shown(request.domain).names)}"]


async def run(request: DomainName, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    domains = Domains(box, who=named(by))
    await domains.enable(request.domain, tell)
    return {"site": domains.shown(request.domain).model_dump(mode="json")}


VERB = Verb(name="domain.enable", request=DomainName, approval="admin", plan=plan, run=run)
