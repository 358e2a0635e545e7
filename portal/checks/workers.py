"""The workers that embed."""

from __future__ import annotations

from base import streams
from base.errors import AIError
from portal.checks.check import Check, Finding
from portal.checks.sight import PORTAL_S, Sight

#: Where none are expected here, their silence is no reason to wait.
ELSEWHERE_S = 1.0
TOLD = ("model", "device", "dtype")


async def look(sight: Sight) -> Finding:
    limit_s = PORTAL_S if sight.settings.local_workers else ELSEWHERE_S
    try:
        found = await sight.ask(streams.SERVICE_EMBED, {"verb": "info"}, limit_s)
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
