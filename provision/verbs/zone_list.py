"""zone.list: the managed zones at Cloudflare."""

from __future__ import annotations

from typing import Any

from base.verbs import By
from base.verbs_outside import All
from provision import cloudflare
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(_asked: All, _box: Box) -> list[str]:
    return ["ask Cloudflare for the managed zones; nothing is changed"]


async def run(_asked: All, box: Box, _by: By, tell: Tell) -> dict[str, Any]:
    async with cloudflare.opened(box, tell) as cloud:
        zones = await cloud.zones()
        return {"zones": [cloudflare.shown(zone) for zone in zones]}


VERB = Verb(name="zone.list", request=All, approval="none", plan=plan, run=run, alone=False)
