"""nginx: its unit is active and it answers here."""

from __future__ import annotations

import asyncio

from portal.checks.check import Check, Finding
from portal.checks.sight import Sight

PORTS = (80, 443)


async def look(sight: Sight) -> Finding:
    code, out, err = await sight.run("systemctl", "is-active", "nginx.service")
    if code:
        return False, (out or err).strip() or "not active"
    for port in PORTS:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            return False, f"nothing answers on port {port}: {error.strerror}"
        writer.close()
    return True, f"active, answers on {' and '.join(map(str, PORTS))}"


CHECK = Check(
    name="nginx",
    mend="systemctl restart nginx; journalctl -u nginx -n 50; ai-infra domains undo",
    look=look,
    appliance=True,
)
