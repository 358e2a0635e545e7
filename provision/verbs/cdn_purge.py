"""cdn.purge: Cloudflare forgets its copies."""

from __future__ import annotations

from typing import Any

from base.verbs import By
from base.verbs_outside import CdnPurge
from provision import cloudflare
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(asked: CdnPurge, box: Box) -> list[str]:
    async with cloudflare.opened(box) as cloud:
        zone = await cloud.zone(asked.zone)
        return [f"purge {_what(asked)} of {zone.name}"]


async def run(asked: CdnPurge, box: Box, _by: By, tell: Tell) -> dict[str, Any]:
    async with cloudflare.opened(box, tell) as cloud:
        zone = await cloud.zone(asked.zone)
        await tell(f"purging {_what(asked)}")
        await cloud.purge(zone, asked)
        return {"zone": zone.name, "purged": _what(asked)}


def _what(asked: CdnPurge) -> str:
    return "everything" if asked.everything else f"{len(asked.files)} addresses"


VERB = Verb(name="cdn.purge", request=CdnPurge, approval="admin", plan=plan, run=run)
