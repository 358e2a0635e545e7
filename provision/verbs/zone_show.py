"""zone.show: a zone with its TLS mode and whether plain http is sent to https."""

from __future__ import annotations

from typing import Any

from base.verbs import By
from base.verbs_outside import ZoneName
from provision import cloudflare
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(asked: ZoneName, _box: Box) -> list[str]:
    return [f"ask Cloudflare how {asked.zone} is set; nothing is changed"]


async def run(asked: ZoneName, box: Box, _by: By, tell: Tell) -> dict[str, Any]:
    async with cloudflare.opened(box, tell) as cloud:
        zone = await cloud.zone(asked.zone)
        return {**cloudflare.shown(zone), **await cloud.settings(zone)}


VERB = Verb(name="zone.show", request=ZoneName, approval="none", plan=plan, run=run, alone=False)
