"""backup.run: everything is backed up, as backup.toml says."""

from __future__ import annotations

from typing import Any

from base.backup import create, rules
from base.settings import load
from base.verbs import By, Nothing
from provision.box import Box
from provision.verb import Tell, Verb


async def plan(request: Nothing, box: Box) -> list[str]:
    """Raises SettingsError when backup.toml is wrong."""
    settings = load()
    found = rules.load(settings)
    keep = found.keep
    return [
        "have memory hold still for a moment and copy its vectors",
        "dump the database",
        f"write all of it, encrypted, to {found.place(settings)}",
        f"keep {keep.daily} daily, {keep.weekly} weekly and {keep.monthly} monthly snapshots",
    ]


async def run(request: Nothing, box: Box, by: By, tell: Tell) -> dict[str, Any]:
    """The snapshot and what is in it."""
    made = await create.create(load(), tell)
    return {
        "snapshot": made.snapshot,
        "repository": made.place,
        "took_s": made.took_s,
        "counts": made.manifest.counts,
        "vectors": made.manifest.vectors,
        "notes": list(made.manifest.notes),
    }


VERB = Verb(
    name="backup.run", request=Nothing, approval="admin", plan=plan, run=run, deadline_s=6 * 3600.0
)
