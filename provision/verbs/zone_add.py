"""zone.add: a new zone in the Cloudflare account."""

from __future__ import annotations

from typing import Any

from base.verbs import By
from base.verbs_outside import ZoneName
from provision import cloudflare
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(asked: ZoneName, box: Box) -> list[str]:
    async with cloudflare.opened(box) as cloud:
        cloud.managed(asked.zone)
        if zone := await cloud.find(asked.zone):
            return [f"nothing: {zone.name} is there already, {zone.status}"]
        return [f"add {asked.zone} to the account; the registrar must then name its servers"]


async def run(asked: ZoneName, box: Box, _by: By, tell: Tell) -> dict[str, Any]:
    async with cloudflare.opened(box, tell) as cloud:
        cloud.managed(asked.zone)
        zone = await cloud.find(asked.zone)
        made = zone is None
        if zone is None:
            await tell(f"adding {asked.zone}")
            zone = await cloud.add(asked.zone)
        return {"made": made, **cloudflare.shown(zone)}


VERB = Verb(name="zone.add", request=ZoneName, approval="admin", plan=plan, run=run)
