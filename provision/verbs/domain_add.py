"""domain.add: a site under a name, from looking it up in DNS to answering over https."""

from __future__ import annotations

from typing import Any

from base.verbs import By, DomainAdd
from provision.box import Box
from provision.domains import Domains
from provision.verb import Tell, Verb, named


async def plan(request: DomainAdd, box: Box) -> list[str]:
    return await Domains(box).plan_add(request)


async def run(request: DomainAdd, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    domains = Domains(box, who=named(by))
    await domains.add(request, tell)
    return {"site": domains.shown(request.domain).model_dump(mode="json")}


VERB = Verb(
    name="domain.add", request=DomainAdd, approval="admin", plan=plan, run=run, deadline_s=600.0
)
