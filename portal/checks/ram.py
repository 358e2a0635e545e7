"""Memory that programs can still have."""

from __future__ import annotations

import psutil

from portal.checks.check import Check, Finding
from portal.checks.sight import Sight

LEAST_BYTES = 300 * 2**20


async def look(_: Sight) -> Finding:
    found = psutil.virtual_memory()
    said = f"{found.available / 2**30:.1f} GB available of {found.total / 2**30:.1f}"
    return found.available >= LEAST_BYTES, said


CHECK = Check(
    name="free memory",
    mend="end what takes the memory (ai-infra status, top), or add some",
    look=look,
)
