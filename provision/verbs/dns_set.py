"""dns.set: the records of one name and type."""

from __future__ import annotations

from typing import Any

from base.verbs import By
from base.verbs_outside import DnsSet
from provision import cloudflare
from provision.box import Box
from provision.dns import Dns, answer, steps
from provision.verb import Tell, Verb


async def plan(asked: DnsSet, box: Box) -> list[str]:
    async with cloudflare.opened(box) as cloud:
        return steps(await Dns(box, cloud).setting(asked))


async def run(asked: DnsSet, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    async with cloudflare.opened(box, tell) as cloud:
        dns = Dns(box, cloud)
        intent = await dns.setting(asked)
        for step in steps(intent):
            await tell(step)
        return answer(intent, await dns.make(intent, by))


VERB = Verb(name="dns.set", request=DnsSet, approval="admin", plan=plan, run=run)
