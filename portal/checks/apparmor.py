"""AppArmor: Ubuntu 24.04 restricts user namespaces unless bwrap is exempt."""

from __future__ import annotations

from pathlib import Path

from portal.checks.check import PROGRAM_S, Check, Finding
from portal.checks.sight import Sight

RESTRICTS = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")


async def look(sight: Sight) -> Finding:
    if not (RESTRICTS.is_file() and RESTRICTS.read_text(encoding="ascii").strip() == "1"):
        return True, "does not restrict user namespaces"
    code, _, _ = await sight.run_as_hands("bwrap", "--unshare-user", "--ro-bind", "/", "/", "true")
    exempt = "exempt" if code == 0 else "not exempt"
    return code == 0, f"restricts user namespaces; bwrap is {exempt}"


CHECK = Check(
    name="apparmor",
    mend="sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    look=look,
    deadline_s=PROGRAM_S,
)
