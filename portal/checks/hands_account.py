"""The account that tools run as when we are root."""

from __future__ import annotations

import os

from base.settings import HANDS_USER, hands_account
from portal.checks.check import Check, Finding
from portal.checks.sight import Sight


async def look(sight: Sight) -> Finding:
    if sight.settings.hands_user is None:
        return True, f"not needed: tools run as uid {os.geteuid()}"
    there = hands_account() is not None
    return there, f"{HANDS_USER} " + ("is there" if there else "is missing")


CHECK = Check(
    name="hands account",
    mend="useradd --system --no-create-home ai-hands",
    look=look,
)
