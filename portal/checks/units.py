"""The units of the appliance: each is active."""

from __future__ import annotations

from portal.checks.check import Check, Finding
from portal.checks.sight import Sight

UNITS = ("ai-supervisor", "ai-agents", "ai-api", "ai-memory", "ai-provision")


async def look(sight: Sight) -> Finding:
    code, out, err = await sight.run(
        "systemctl", "show", "--property=Id,ActiveState,NRestarts", *UNITS
    )
    if code:
        return False, err.strip() or f"systemctl: exit code {code}"
    found = [dict(line.split("=", 1) for line in one.splitlines()) for one in out.split("\n\n")]
    bad = [f"{one['Id']} {one['ActiveState']}" for one in found if one["ActiveState"] != "active"]
    often = [f"{one['Id']} restarted {one['NRestarts']} times" for one in found if _often(one)]
    told = [*bad, *often]
    return not bad, ", ".join(told) or f"{len(found)} active"


def _often(unit: dict[str, str]) -> bool:
    return unit.get("NRestarts", "0") not in {"", "0"}


CHECK = Check(
    name="units",
    mend="systemctl restart ai-infrastructure.target; journalctl -u UNIT -n 50",
    look=look,
    appliance=True,
)
