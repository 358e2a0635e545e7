"""When backups are made and checked by themselves: on the appliance by timers of systemd."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import AwareDatetime

from base.backup.command import run
from base.errors import BackupError
from base.messages import Wire

TIMERS = {"ai-backup.timer": "backup", "ai-backup-verify.timer": "check"}
ASK_S = 10.0


class Timer(Wire):
    """does: backup or check. next_at None: systemd does not say, or it does not run."""

    unit: str
    does: str
    active: bool
    next_at: AwareDatetime | None


async def timers() -> list[Timer]:
    """Those that systemd has; none where it cannot be asked."""
    line = ["systemctl", "show", *TIMERS]
    line += ["-p", "Id,LoadState,ActiveState,NextElapseUSecRealtime"]
    try:
        done = await run(line, deadline_s=ASK_S, environment={"TZ": "UTC"})
    except BackupError:
        return []
    return parsed(done.out) if done.code == 0 else []


def parsed(text: str) -> list[Timer]:
    """Of what `systemctl show` says: a block of NAME=VALUE lines each, its times in UTC."""
    found = []
    for block in text.strip().split("\n\n"):
        told = dict(line.partition("=")[::2] for line in block.splitlines())
        if told.get("Id") in TIMERS and told.get("LoadState") == "loaded":
            found.append(
                Timer(
                    unit=told["Id"],
                    does=TIMERS[told["Id"]],
                    active=told.get("ActiveState") == "active",
                    next_at=_time(told.get("NextElapseUSecRealtime", "")),
                )
            )
    return found


def _time(text: str) -> datetime | None:
    """`Mon 2026-11-30 03:17:00 UTC`; anything else is no time."""
    try:
        return datetime.strptime(text, "%a %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    except ValueError:
        return None
