"""Messages that could not be handled."""

from __future__ import annotations

from base.plural import counted
from portal.checks.check import Check, Finding
from portal.checks.sight import Sight


async def look(sight: Sight) -> Finding:
    found = len(await (await sight.bus()).dead())
    return found == 0, counted(found, "dead letter")


CHECK = Check(
    name="dead letters",
    mend="ai-infra dlq list; then replay or purge",
    look=look,
)
