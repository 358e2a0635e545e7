"""The model that answers."""

from __future__ import annotations

import asyncio

from portal.checks.check import Check, Finding
from portal.checks.sight import Sight, get


async def look(sight: Sight) -> Finding:
    settings = sight.settings
    if not settings.rehearsal:
        where = settings.anthropic_base_url or "the provider"
        key = "with a key" if settings.api_key else "without a key"
        return True, f"{where}, {key} (not called: calls cost)"
    port = settings.rehearsal_port or settings.port + 1
    await asyncio.to_thread(get, "127.0.0.1", port, "/health")
    return True, "rehearsal: no AI answers until a key is set"


CHECK = Check(
    name="model",
    mend="ai-infra up; or check the key and ANTHROPIC_BASE_URL",
    look=look,
)
