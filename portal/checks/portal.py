"""The portal."""

from __future__ import annotations

from portal.checks.check import Check, Finding
from portal.checks.sight import Sight


async def look(sight: Sight) -> Finding:
    answer = await sight.portal("/api/health/live")
    return answer.status == 200, f"http://{sight.settings.host}:{sight.settings.port}"


CHECK = Check(
    name="portal",
    mend="ai-infra up; see {logs}/portal.log",
    look=look,
)
