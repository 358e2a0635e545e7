"""Who listens outside of this machine: on the appliance SSH and nginx, else nobody of ours."""

from __future__ import annotations

import asyncio
import ipaddress

import psutil

from base.settings import Settings
from portal.checks.check import PROGRAM_S, Check, Finding
from portal.checks.sight import Sight

#: What must never be reachable from outside.
PRIVATE = {
    5432: "PostgreSQL",
    6379: "Redis",
    6333: "Qdrant",
    6334: "Qdrant",
    2375: "Docker",
}


def outside() -> list[int]:
    """Ports that listen on more than loopback, in order. Raises psutil's AccessDenied never:
    without rights it names no process, and none is asked for.
    """
    found = {
        line.laddr.port
        for line in psutil.net_connections(kind="inet")
        if line.status == psutil.CONN_LISTEN and not ipaddress.ip_address(line.laddr.ip).is_loopback
    }
    return sorted(found)


def faults(found: list[int], settings: Settings) -> list[str]:
    """What is open that should not be: ours always, the data stores' on the appliance."""
    private = dict(PRIVATE) if settings.broker else {}
    private[settings.rehearsal_port or settings.port + 1] = "the rehearsal model"
    loopback = settings.host in {"127.0.0.1", "::1", "localhost"}
    if loopback or settings.behind_nginx:
        private[settings.port] = "the portal"
    return [f"{private[port]} ({port})" for port in found if port in private]


async def look(sight: Sight) -> Finding:
    found = await asyncio.to_thread(outside)
    bad = faults(found, sight.settings)
    if bad:
        return False, f"reachable from outside: {', '.join(bad)}"
    told = ", ".join(str(port) for port in found[:12]) or "none"
    return True, f"listening outside: {told}{' …' if len(found) > 12 else ''}"


CHECK = Check(
    name="ports",
    mend="bind it to 127.0.0.1 (its own configuration), or close the port in the firewall",
    look=look,
    deadline_s=PROGRAM_S,
)
