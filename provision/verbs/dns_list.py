"""dns.list: the records of a zone."""

from __future__ import annotations

from typing import Any

from base.verbs import By
from base.verbs_outside import DnsList, record_name
from provision import cloudflare
from provision.box import Box
from provision.dns import Dns, shown
from provision.verb import Tell, Verb


async def plan(asked: DnsList, _box: Box) -> list[str]:
    return [f"ask Cloudflare for the records of {asked.zone}; nothing is changed"]


async def run(asked: DnsList, box: Box, _by: By, tell: Tell) -> dict[str, Any]:
    async with cloudflare.opened(box, tell) as cloud:
        zone = await cloud.zone(asked.zone)
        name = record_name(asked.name, asked.zone) if asked.name else None
        found = await Dns(box, cloud).records(zone, type=asked.type, name=name)
        return {"zone": zone.name, "records": [shown(record) for record in found]}


VERB = Verb(name="dns.list", request=DnsList, approval="none", plan=plan, run=run, alone=False)
