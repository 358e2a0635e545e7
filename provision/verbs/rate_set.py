"""rate.set: one rate limit of ours."""

from __future__ import annotations

from typing import Any

from base.verbs import By
from base.verbs_outside import RateSet
from provision import cloudflare, cloudflare_rules
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(asked: RateSet, box: Box) -> list[str]:
    async with cloudflare.opened(box) as cloud:
        zone = await cloud.zone(asked.zone)
        have = await cloudflare_rules.rules(cloud, zone, "rate")
        return cloudflare_rules.steps(have, cloudflare_rules.wanted(asked))


async def run(asked: RateSet, box: Box, _by: By, tell: Tell) -> dict[str, Any]:
    async with cloudflare.opened(box, tell) as cloud:
        zone = await cloud.zone(asked.zone)
        have = await cloudflare_rules.rules(cloud, zone, "rate")
        rule = cloudflare_rules.wanted(asked)
        for step in cloudflare_rules.steps(have, rule):
            await tell(step)
        changed = bool(cloudflare_rules.changes(have, rule))
        if changed:
            await cloudflare_rules.put(cloud, zone, "rate", have, rule)
        return {"zone": zone.name, "name": asked.name, "changed": changed}


VERB = Verb(name="rate.set", request=RateSet, approval="admin", plan=plan, run=run)
