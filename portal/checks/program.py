"""A program that must be installed: it is there, answers, and says which it is."""

from __future__ import annotations

import shutil

from portal.checks.check import PROGRAM_S, Check, Finding
from portal.checks.sight import Sight


async def said(sight: Sight, name: str, flag: str) -> Finding:
    """The first line that the program says to `flag`."""
    path = shutil.which(name)
    if path is None:
        return False, "not installed"
    code, out, err = await sight.run(path, flag)
    lines = (out or err).strip().splitlines()
    return code == 0, lines[0] if lines else path


def check(name: str, command: str, flag: str, package: str) -> Check:
    """Whether `command` is there; `package` brings it."""

    async def look(sight: Sight) -> Finding:
        return await said(sight, command, flag)

    mend = f"apt-get install {package}"
    return Check(name=name, mend=mend, look=look, deadline_s=PROGRAM_S)
