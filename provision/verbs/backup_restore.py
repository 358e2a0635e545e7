"""backup.restore: a snapshot in the place of what is there, which is kept aside."""

from __future__ import annotations

from typing import Any

from base.backup import plan as planning
from base.backup import restore
from base.settings import load
from base.verbs import BackupRestore, By
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(request: BackupRestore, box: Box) -> list[str]:
    """Raises NotFoundError for a snapshot that is not there, BackupError for one of a newer
    version.
    """
    return list((await planning.plan(load(), request.snapshot, request.parts)).steps)


async def run(request: BackupRestore, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    """What was restored, and where what was there before is."""
    done = await restore.restore(load(), tell, snapshot=request.snapshot, parts=request.parts)
    return {
        "snapshot": done.snapshot,
        "of": done.manifest.at.isoformat(),
        "parts": list(done.parts),
        "aside": str(done.aside),
        "database_aside": done.database_aside,
        "counts": done.manifest.counts,
        "notes": list(done.notes),
        "took_s": done.took_s,
    }


VERB = Verb(
    name="backup.restore",
    request=BackupRestore,
    approval="person",
    plan=plan,
    run=run,
    deadline_s=3 * 3600.0,
)
