"""cert.list: the certificates of the sites and how long they are good."""

from __future__ import annotations

from typing import Any

from base.verbs import By, Nothing
from provision.box import Box
from provision.certs import Certs
from provision.verb import Tell, Verb


async def plan(request: Nothing, box: Box) -> list[str]:
    return ["read the certificates"]


async def run(request: Nothing, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    return {"certificates": [cert.model_dump(mode="json") for cert in Certs(box).list()]}


VERB = Verb(name="cert.list", request=Nothing, approval="none", plan=plan, run=run, alone=False)
