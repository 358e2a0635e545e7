"""The certificates: the days that each has left, told before the last quarter of its life."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from base import broker
from base.deadline import Deadline
from base.plural import counted
from base.verbs import By, Cert, Nothing
from portal.checks.check import DEADLINE_S, Check, Finding
from portal.checks.sight import Sight

LIVE = Path("/etc/letsencrypt/ai-infra/live")
#: Renewal is due at a third of the lifetime; at a quarter it has failed for some time.
ALARM = 0.25


def read(live: Path) -> dict[str, tuple[datetime, datetime]]:
    """From when to when each certificate below `live` holds. Raises OSError, ValueError."""
    found = {}
    for path in sorted(live.glob("*/cert.pem")):
        one = x509.load_pem_x509_certificate(path.read_bytes())
        found[path.parent.name] = (one.not_valid_before_utc, one.not_valid_after_utc)
    return found


def judge(found: dict[str, tuple[datetime, datetime]], now: datetime) -> Finding:
    """Whether each has more than a quarter of its life left, and how long the next one has."""
    if not found:
        return True, "none"
    days = {name: (end - now).total_seconds() / 86_400 for name, (_, end) in found.items()}
    late = [name for name, (start, end) in found.items() if end - now < (end - start) * ALARM]
    if late:
        return False, ", ".join(f"{name} {counted(round(days[name]), 'day')} left" for name in late)
    name = min(days, key=lambda one: days[one])
    return True, f"{len(found)}; the first to end is {name} in {counted(round(days[name]), 'day')}"


async def look(sight: Sight) -> Finding:
    if os.geteuid() == 0:
        return judge(read(LIVE), datetime.now(UTC))
    said = await broker.call(
        sight.settings.broker,
        "cert.list",
        Nothing(),
        by=By(role="system"),
        deadline=Deadline.after(DEADLINE_S),
    )
    rows = next((value for value in said.result.values() if isinstance(value, list)), [])
    certs = [Cert.model_validate(row) for row in rows]
    return judge({one.domain: (one.not_before, one.not_after) for one in certs}, datetime.now(UTC))


CHECK = Check(
    name="certificates",
    mend="ai-infra domains renew; see /var/lib/ai-broker/certbot/logs",
    look=look,
    appliance=True,
)
