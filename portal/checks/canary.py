"""The sandbox, tried from the inside: the agents' own trial in a process of its own."""

from __future__ import annotations

import sys

from portal.checks.check import PROGRAM_S, Check, Finding
from portal.checks.sight import ROOT, Sight


async def look(sight: Sight) -> Finding:
    code, out, err = await sight.run(sys.executable, "-m", "agents", "--canary", cwd=ROOT)
    said = (err if code else out).strip().splitlines()
    return code == 0, said[-1] if said else f"exit code {code}"


CHECK = Check(
    name="sandbox",
    mend="mend what stands above, then run this again",
    look=look,
    deadline_s=PROGRAM_S,
)
