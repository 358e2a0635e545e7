"""User namespaces: as the hands' account, which may be refused what root is allowed."""

from __future__ import annotations

from portal.checks.check import PROGRAM_S, Check, Finding
from portal.checks.sight import Sight


async def look(sight: Sight) -> Finding:
    code, _, err = await sight.run_as_hands("unshare", "--user", "--pid", "--fork", "true")
    return code == 0, "allowed" if code == 0 else " ".join(err.strip().splitlines()[-1:])


CHECK = Check(
    name="user namespaces",
    mend="sysctl -w kernel.unprivileged_userns_clone=1",
    look=look,
    deadline_s=PROGRAM_S,
)
