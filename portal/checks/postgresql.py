"""PostgreSQL: the record."""

from __future__ import annotations

from portal.checks.check import Check, Finding
from portal.checks.sight import Sight


async def look(sight: Sight) -> Finding:
    store = await sight.store()
    return True, f"PostgreSQL {await store.fetchval('SHOW server_version')}"


CHECK = Check(
    name="postgresql",
    mend="ai-infra up; see {logs}/postgres.log",
    look=look,
)
