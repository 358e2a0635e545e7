"""The workers that embed."""

from __future__ import annotations

from base import streams
from base.errors import AIError
from portal.checks.check import Check, Finding
from portal.checks.sight import Sight

TOLD = ("model", "device", "dtype")


async def look(sight: Sight) -> Finding:
    try:
        found = await sight.ask(streams.SERVICE_EMBED, {"verb": "info"})
    except AIError as error:
        if not sight.settings.local_workers:
            return True, "none here (local_workers is off) and none elsewhere: words alone decide"
        return False, f"{error}; recall goes on by words alone"
    if not found.get("ready"):
        return False, "the embedding model is not ready"
    return True, ", ".join(str(found[key]) for key in TOLD if found.get(key))


CHECK = Check(
    name="workers",
    mend="ai-infra up; see {logs}/workers.log",
    look=look,
)
