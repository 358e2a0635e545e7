"""DNS: the names that the work needs."""

from __future__ import annotations

import asyncio
import re

from portal.checks.check import Check, Finding
from portal.checks.sight import Sight, host_of

PROVIDER = "api.anthropic.com"
LITERAL = re.compile(r"[0-9.]+|[0-9a-f:]+|localhost")


async def look(sight: Sight) -> Finding:
    settings = sight.settings
    names = [host_of(settings.public_url)]
    if not settings.rehearsal:
        names.append(host_of(settings.anthropic_base_url) or PROVIDER)
    names = [name for name in names if name and not LITERAL.fullmatch(name)]
    if not names:
        return True, "no name is needed: rehearsal, and no public address"
    found = await asyncio.gather(*(sight.run("getent", "ahosts", name) for name in names))
    bad = [name for name, (code, _, _) in zip(names, found, strict=True) if code]
    return not bad, f"cannot resolve {', '.join(bad)}" if bad else f"resolves {', '.join(names)}"


CHECK = Check(
    name="dns",
    mend="mend /etc/resolv.conf (resolvectl status), or the name's DNS record",
    look=look,
)
