"""domain.list: the managed domains, with the days of their certificates."""

from __future__ import annotations

from typing import Any

from base.verbs import By, Nothing
from provision.box import Box
from provision.domains import Domains
from provision.verb import Tell, Verb


async def plan(request: Nothing, box: Box) -> list[str]:
    return ["read what is written down, nginx's sites and the certificates"]


async def run(request: Nothing, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    return {"sites": [site.model_dump(mode="json") for site in Domains(box).all()]}


VERB = Verb(name="domain.list", request=Nothing, approval="none", plan=plan, run=run, alone=False)
