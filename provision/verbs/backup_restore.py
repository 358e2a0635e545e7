"""backup.restore: a snapshot in the place of what is there, which is kept aside."""

from __future__ import annotations

from typing import Any

from base.backup import restore, rules
from base.backup.restic import Restic
from base.settings import load
from base.verbs import BackupRestore, By
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(request: BackupRestore, box: Box) -> list[str]:
    """Raises NotFoundError for a snapshot that is not there."""
    settings = load()
    restic = Restic.of(settings, rules.load(settings))
    found = await restic.find(request.snapshot)
    return [
        f"fetch {found.id} of {found.at:%Y-%m-%d %H:%M}, made by {found.version}, and check it",
        "stop all programs but Redis and this broker; running tasks stop",
        f"put {', '.join(request.parts)} in place, with what is there now kept in "
        f"{settings.home / 'aside'}",
        "have nginx serve the sites of then, each tried first",
        "start them again; if they do not, put back what was there",
    ]


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
