"""zone.set: the zone's TLS mode, and whether plain http is sent to https."""

from __future__ import annotations

from typing import Any

from base.verbs import By
from base.verbs_outside import ZoneSet
from provision import cloudflare
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(asked: ZoneSet, box: Box) -> list[str]:
    async with cloudflare.opened(box) as cloud:
        different = await cloud.different(await cloud.zone(asked.zone), asked)
        steps = [
            f"set {name} of {asked.zone}: {old} -> {new}" for name, (old, new) in different.items()
        ]
        return steps or [f"nothing: {asked.zone} is set so already"]


async def run(asked: ZoneSet, box: Box, _by: By, tell: Tell) -> dict[str, Any]:
    async with cloudflare.opened(box, tell) as cloud:
        zone = await cloud.zone(asked.zone)
        different = await cloud.different(zone, asked)
        for name, (old, new) in different.items():
            await tell(f"{name}: {old} -> {new}")
            await cloud.set(zone, name, new)
        before = {name: old for name, (old, _) in different.items()}
        return {"changed": bool(different), "before": before, **await cloud.settings(zone)}


VERB = Verb(name="zone.set", request=ZoneSet, approval="admin", plan=plan, run=run)
