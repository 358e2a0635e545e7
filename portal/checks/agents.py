"""Every agent has a heartbeat."""

from __future__ import annotations

from portal.checks.check import Check, Finding
from portal.checks.sight import Sight


async def look(sight: Sight) -> Finding:
    answer = await sight.portal("/api/health/agents")
    if answer.status != 200:
        return False, f"unknown: the portal answers {answer.status}"
    rows = answer.json()["agents"]
    bad = [f"{name} {state}" for name, state in rows.items() if state != "ok"]
    return bool(rows) and not bad, ", ".join(bad) or f"{len(rows)} alive"


CHECK = Check(
    name="agents",
    mend="ai-infra agents restart NAME; see {logs}",
    look=look,
)
