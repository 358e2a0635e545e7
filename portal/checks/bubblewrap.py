"""bubblewrap: what the sandbox is made of."""

from __future__ import annotations

from portal.checks import program
from portal.checks.check import PROGRAM_S, Check, Finding
from portal.checks.sight import Sight

OLDEST = (0, 8)


async def look(sight: Sight) -> Finding:
    ok, said = await program.said(sight, "bwrap", "--version")
    words = said.split()
    found = tuple(int(part) for part in words[-1].split(".")[:2] if part.isdigit()) if words else ()
    if ok and found < OLDEST:
        return False, f"{said} is too old, 0.8 or newer is needed"
    return ok, said


CHECK = Check(
    name="bubblewrap",
    mend="apt-get install bubblewrap",
    look=look,
    deadline_s=PROGRAM_S,
)
