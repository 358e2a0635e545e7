"""dns.history: the changes of records that were made here."""

from __future__ import annotations

from typing import Any

from base.verbs import By
from base.verbs_outside import DnsHistory
from provision.box import Box
from provision.dns import history
from provision.verb import Tell, Verb


async def plan(_asked: DnsHistory, _box: Box) -> list[str]:
    return ["read the history of this machine; nothing is changed"]


async def run(asked: DnsHistory, box: Box, _by: By, _tell: Tell) -> dict[str, Any]:
    found = history(box, asked.zone)[: asked.limit]
    return {"changes": [entry.model_dump(mode="json") for entry in found]}


VERB = Verb(
    name="dns.history", request=DnsHistory, approval="none", plan=plan, run=run, alone=False
)
