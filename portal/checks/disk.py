"""Free space where the state lies."""

from __future__ import annotations

import os
import shutil

from portal.checks.check import Check, Finding
from portal.checks.sight import Sight

FREE_BYTES = 2 * 2**30
LEFT_INODES = 0.01


async def look(sight: Sight) -> Finding:
    folder = sight.settings.home
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    inodes = os.statvfs(folder)
    if inodes.f_files and inodes.f_favail < inodes.f_files * LEFT_INODES:
        return False, f"{inodes.f_favail} inodes left of {inodes.f_files}"
    said = f"{usage.free / 2**30:.1f} GB free of {usage.total / 2**30:.0f}"
    return usage.free >= FREE_BYTES, said


CHECK = Check(
    name="disk",
    mend="free at least 2 GB on the disk of {home}",
    look=look,
)
