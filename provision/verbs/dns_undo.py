"""dns.undo: a change of records is taken back."""

from __future__ import annotations

from typing import Any

from base.verbs import By
from base.verbs_outside import DnsUndo
from provision import cloudflare
from provision.box import Box
from provision.dns import Dns, answer, steps
from provision.verb import Tell, Verb


async def plan(asked: DnsUndo, box: Box) -> list[str]:
    async with cloudflare.opened(box) as cloud:
        return steps(await Dns(box, cloud).undoing(asked.change))


async def run(asked: DnsUndo, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    async with cloudflare.opened(box, tell) as cloud:
        dns = Dns(box, cloud)
        intent = await dns.undoing(asked.change)
        for step in steps(intent):
            await tell(step)
        return answer(intent, await dns.make(intent, by))


VERB = Verb(name="dns.undo", request=DnsUndo, approval="admin", plan=plan, run=run)
