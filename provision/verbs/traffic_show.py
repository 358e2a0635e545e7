"""traffic.show: what Cloudflare counted in the last hours."""

from __future__ import annotations

from typing import Any

from base.verbs import By
from base.verbs_outside import TrafficShow
from provision import cloudflare
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(asked: TrafficShow, _box: Box) -> list[str]:
    return [f"ask Cloudflare for the traffic of {asked.zone}; nothing is changed"]


async def run(asked: TrafficShow, box: Box, _by: By, tell: Tell) -> dict[str, Any]:
    async with cloudflare.opened(box, tell) as cloud:
        zone = await cloud.zone(asked.zone)
        hours = await cloud.traffic(zone, asked.hours)
        counted = [name for name in hours[0] if name not in {"at", "visitors"}] if hours else []
        total = {name: sum(hour[name] for hour in hours) for name in counted}
        return {"zone": zone.name, "total": total, "hours": hours}


VERB = Verb(
    name="traffic.show", request=TrafficShow, approval="none", plan=plan, run=run, alone=False
)
