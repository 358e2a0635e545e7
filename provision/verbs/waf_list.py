"""waf.list: the firewall rules of a zone, ours and others."""

from __future__ import annotations

from typing import Any

from base.verbs import By
from base.verbs_outside import ZoneName
from provision import cloudflare, cloudflare_rules
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(asked: ZoneName, _box: Box) -> list[str]:
    return [f"ask Cloudflare for the firewall rules of {asked.zone}; nothing is changed"]


async def run(asked: ZoneName, box: Box, _by: By, tell: Tell) -> dict[str, Any]:
    async with cloudflare.opened(box, tell) as cloud:
        zone = await cloud.zone(asked.zone)
        found = await cloudflare_rules.rules(cloud, zone, "waf")
        return {"zone": zone.name, "rules": cloudflare_rules.shown(found)}


VERB = Verb(name="waf.list", request=ZoneName, approval="none", plan=plan, run=run, alone=False)
