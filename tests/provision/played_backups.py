"""Verbs that play the backups: snapshots are lines of a file in the broker's state. While a file
`hold` lies there, whoever works waits for it to go.

A restore writes its record as the real one does, into the home of the portal that the file
`portal` names, which the test stops and starts meanwhile.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from base.backup import record
from base.errors import BackupError, NotFoundError
from base.settings import Settings
from base.verbs import BackupRestore, BackupVerify, By, Nothing
from provision.box import Box
from provision.verb import Tell, Verb


def _snapshots(box: Box) -> list[dict[str, Any]]:
    path = box.state / "snapshots.json"
    found: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return found


def _did(box: Box, what: str) -> None:
    with (box.state / "did").open("a") as out:
        out.write(what + "\n")


def _portal(box: Box) -> Settings:
    return Settings(home=Path((box.state / "portal").read_text()))


async def _held(box: Box) -> None:
    while (box.state / "hold").exists():
        await asyncio.sleep(0.02)


async def made(request: Nothing, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    await tell("dumping the database")
    await _held(box)
    if (box.state / "full").exists():
        raise BackupError("no space is left at /mnt/kept")
    await tell("writing to /mnt/kept: 45 %")
    known = _snapshots(box)
    at = datetime.now(UTC) - timedelta(hours=2)
    one = {
        "id": f"{0x1A2B3C4D + len(known):08x}",
        "at": at.isoformat(),
        "host": "server",
        "version": "0.1.0",
        "size_bytes": 734_003_200,
        "counts": {"tasks": 120, "messages": 410, "memories": 1, "users": 2, "schema": 10},
    }
    (box.state / "snapshots.json").write_text(json.dumps([*known, one]))
    last = record.Last(at=at, snapshot=one["id"], place="/mnt/kept", took_s=41.5)  # type: ignore[arg-type]
    record.write(_portal(box), last)
    _did(box, f"backed up for {by.role}")
    return {"snapshot": one["id"]}


async def listed(request: Nothing, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    return {
        "snapshots": _snapshots(box),
        "place": "/mnt/kept",
        "key": "/etc/ai-infra/backup.key",
        "keep": {"daily": 7, "weekly": 4, "monthly": 6},
        "workspaces": True,
        "timers": [
            {
                "unit": "ai-backup.timer",
                "does": "backup",
                "active": True,
                "next_at": (datetime.now(UTC) + timedelta(hours=9)).isoformat(),
            },
            {"unit": "ai-backup-verify.timer", "does": "check", "active": False, "next_at": None},
        ],
        "busy": (box.state / "hold").exists(),
    }


async def verified(request: BackupVerify, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    await tell("reading every byte")
    await _held(box)
    proof = record.Proof(at=datetime.now(UTC), snapshot="1a2b3c4d", took_s=3, whole=request.whole)
    record.proved(_portal(box), "verified", proof)
    _did(box, f"verified, whole {request.whole}")
    return {"newest": "1a2b3c4d", "whole": request.whole}


async def plan_restore(request: BackupRestore, box: Box) -> list[str]:
    _chosen(request, box)
    return [f"fetch {request.snapshot}", f"put {', '.join(request.parts)} in place"]


async def restored(request: BackupRestore, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    one = _chosen(request, box)
    begun = record.Restore(
        begun_at=datetime.now(UTC), snapshot=one["id"], of=one["at"], parts=request.parts
    )
    with record.restoring(_portal(box), begun) as (kept, ended):
        for step in (f"fetching {one['id']}", "stopping"):
            kept(step)
            await tell(step)
        (box.state / "stopping").touch()
        await _held(box)
        if (box.state / "full").exists():
            raise BackupError("the installation did not start: planted")
        _did(box, f"restored {one['id']} {','.join(request.parts)} for {by.role}")
        ended({"aside": "/var/lib/ai-infra/aside/20261128", "database_aside": "ai_infra_before"})
    return {"snapshot": one["id"]}


def _chosen(request: BackupRestore, box: Box) -> dict[str, Any]:
    found = [one for one in _snapshots(box) if one["id"] == request.snapshot]
    if not found:
        raise NotFoundError(f"no snapshot {request.snapshot} in /mnt/kept")
    return found[0]


async def planned(request: Any, box: Box) -> list[str]:
    return ["one step"]


VERBS: tuple[Verb[Any], ...] = (
    Verb(name="backup.run", request=Nothing, approval="admin", plan=planned, run=made),
    Verb(
        name="backup.list", request=Nothing, approval="none", plan=planned, run=listed, alone=False
    ),
    Verb(
        name="backup.verify", request=BackupVerify, approval="admin", plan=planned, run=verified,
        alone=False,
    ),
    Verb(
        name="backup.restore", request=BackupRestore, approval="person", plan=plan_restore,
        run=restored,
    ),
)  # fmt: skip
