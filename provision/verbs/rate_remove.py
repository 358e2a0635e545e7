"""rate.remove: one rate limit of ours is taken away."""

from __future__ import annotations

from typing import Any

from base.verbs import By
from base.verbs_outside import RuleName
from provision import cloudflare, cloudflare_rules
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(asked: RuleName, box: Box) -> list[str]:
    async with cloudflare.opened(box) as cloud:
        zone = await cloud.zone(asked.zone)
        found = (await cloudflare_rules.rules(cloud, zone, "rate")).ours(asked.name)
        if found is None:
            return [f"nothing: {asked.zone} has no rate limit {asked.name} of ours"]
        return [f"remove the rate limit {asked.name}: {found['action']} when {found['expression']}"]


async def run(asked: RuleName, box: Box, _by: By, tell: Tell) -> dict[str, Any]:
    async with cloudflare.opened(box, tell) as cloud:
        zone = await cloud.zone(asked.zone)
        have = await cloudflare_rules.rules(cloud, zone, "rate")
        before = have.ours(asked.name)
        changed = await cloudflare_rules.remove(cloud, zone, "rate", have, asked.name)
        return {"zone": zone.name, "name": asked.name, "changed": changed, "before": before}


VERB = Verb(name="rate.remove", request=RuleName, approval="admin", plan=plan, run=run)
