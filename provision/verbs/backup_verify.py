"""backup.verify: whether the repository of the backups is sound."""

from __future__ import annotations

from typing import Any

from base.backup import create, rules
from base.settings import load
from base.verbs import BackupVerify, By
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(request: BackupVerify, box: Box) -> list[str]:
    """Raises SettingsError when backup.toml is wrong."""
    settings = load()
    what = "every byte" if request.whole else "the lists"
    return [f"read {what} of {rules.load(settings).place(settings)}, and change nothing"]


async def run(request: BackupVerify, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    """The newest snapshot, once all is known to be sound. Raises BackupError naming the damage."""
    await tell("reading every byte" if request.whole else "reading the lists")
    return {"newest": await create.verify(load(), whole=request.whole), "whole": request.whole}


#: Not alone: it may take hours and changes nothing, so nothing waits for its end.
VERB = Verb(
    name="backup.verify",
    request=BackupVerify,
    approval="admin",
    plan=plan,
    run=run,
    deadline_s=6 * 3600.0,
    alone=False,
)
