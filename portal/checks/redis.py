"""Redis: the wire."""

from __future__ import annotations

from base import streams
from portal.checks.check import Check, Finding
from portal.checks.sight import Sight


async def look(sight: Sight) -> Finding:
    bus = await sight.bus()
    return True, f"answers; {await bus.depth(streams.RESULTS)} results waiting"


CHECK = Check(
    name="redis",
    mend="ai-infra up; see {logs}/redis.log",
    look=look,
)
