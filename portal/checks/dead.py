"""Messages that could not be handled."""

from __future__ import annotations

from portal.checks.check import Check, Finding
from portal.checks.sight import Sight


async def look(sight: Sight) -> Finding:
    found = len(await (await sight.bus()).dead())
    return found == 0, f"{found} dead letters"


CHECK = Check(
    name="dead letters",
    mend="ai-infra dlq list; then replay or purge",
    look=look,
)
