"""Where the API key comes from, and every secret file that is open to others."""

from __future__ import annotations

import asyncio

from portal import cli_secrets
from portal.checks.check import Check, Finding
from portal.checks.sight import Sight


async def look(sight: Sight) -> Finding:
    return await asyncio.to_thread(cli_secrets.check, sight.settings)


CHECK = Check(
    name="secrets",
    mend="run the line that each fault names",
    look=look,
    deadline_s=10.0,
)
