"""Whether the hands can pass every folder on the way to the workspaces."""

from __future__ import annotations

from portal.checks.check import PROGRAM_S, Check, Finding
from portal.checks.sight import Sight


async def look(sight: Sight) -> Finding:
    folder = sight.settings.workspaces
    while not folder.exists():
        folder = folder.parent
    code, _, _ = await sight.run_as_hands("test", "-x", str(folder))
    can = "can" if code == 0 else "cannot"
    return code == 0, f"{folder} {can} be reached by the hands"


CHECK = Check(
    name="workspaces",
    mend="chmod a+x each folder on the way, or set another AI_INFRA_HOME",
    look=look,
    deadline_s=PROGRAM_S,
)
