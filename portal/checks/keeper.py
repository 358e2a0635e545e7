"""The keeper of memory."""

from __future__ import annotations

from base import streams
from portal.checks.check import Check, Finding
from portal.checks.sight import Sight


async def look(sight: Sight) -> Finding:
    await sight.ask(streams.SERVICE_MEMORY, {"verb": "stats", "user_id": None})
    return True, "answers"


CHECK = Check(
    name="memory",
    mend="ai-infra up; see {logs}/memory.log",
    look=look,
)
