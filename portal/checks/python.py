"""Python: new enough."""

from __future__ import annotations

import sys

from portal.checks.check import Check, Finding
from portal.checks.sight import Sight


async def look(_: Sight) -> Finding:
    return sys.version_info >= (3, 11), sys.version.split()[0]


CHECK = Check(
    name="python",
    mend="install Python 3.11 or newer, then ./install.sh",
    look=look,
)
